//! run
pub mod serve;
