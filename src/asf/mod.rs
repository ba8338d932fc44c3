//! asf
