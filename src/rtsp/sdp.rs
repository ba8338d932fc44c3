//! The description of a Windows Media stream.
