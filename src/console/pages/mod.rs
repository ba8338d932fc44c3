//! The pages, each with what its forms do.

pub(super) mod firewall;
pub(super) mod load;
pub(super) mod ports;
pub(super) mod probe;
pub(super) mod sign_in;
pub(super) mod sources;
pub(super) mod streams;
pub(super) mod users;
pub(super) mod viewers;

use std::time::SystemTime;

use axum::http::Uri;

use super::form::Form;

/// By the calendar: what stays true on a page that is kept.
#[expect(clippy::disallowed_methods, reason = "people are told when it was")]
fn date() -> SystemTime {
    SystemTime::now()
}

/// What a page's address says behind its question mark.
fn query(uri: &Uri) -> Form {
    uri.query().map(Form::parse).unwrap_or_default()
}
