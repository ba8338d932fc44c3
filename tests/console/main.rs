//! The web console, end to end: what it answers to whom, and as Chromium shows it.
//!
//! With `WMRELAY_TEST_PICTURES=FOLDER` the browser's pictures of all pages are left there.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is this test's report; and it runs on the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod chromium;
mod stills;
mod visitor;
