#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is a test's report")]
