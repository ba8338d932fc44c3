//! mms
