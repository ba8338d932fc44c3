//! The `wmrelay` binary.
fn main() {}
