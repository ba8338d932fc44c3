//! How media is to travel, and which of it, as players and servers say it in headers and small bodies.

mod range;
mod rtp_info;
mod spec;
mod switch;

pub use range::{BadRange, Range, RangeStart};
pub use rtp_info::{BadRtpInfo, RtpInfo};
pub use spec::{BadTransport, Channels, Lower, Mode, Ports, Spec};
pub use switch::{BadSwitch, Switch, Thinning};

/// The parts of a list, trimmed; a separator between quotation marks is none.
fn split_list(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        !quoted && c == separator
    })
    .map(str::trim)
}

/// A value without the quotation marks around it.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner))
}

/// A parameter: its name, and its value without quotation marks; blanks around the `=` are gone.
fn parameter(text: &str) -> (&str, &str) {
    text.split_once('=').map_or((text, ""), |(name, value)| (name.trim(), unquoted(value.trim())))
}
