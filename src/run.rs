//! run
// pub mod serve;
