//! The engine that a URL's scheme asks for.

use std::time::Instant;

use crate::playing::{ClientInput, ClientOutput, ClientStats};
use crate::{http, mms, rtsp};

/// An engine of one of the protocols.
pub(super) enum Engine {
    Mms(Box<mms::client::Client>),
    Http(Box<http::client::Client>),
    Rtsp(Box<rtsp::client::Client>),
}

impl Engine {
    /// Whether the connection is the session: it ends with it.
    pub(super) const fn is_one_connection(&self) -> bool {
        matches!(self, Self::Mms(_))
    }

    pub(super) fn handle(&mut self, now: Instant, input: ClientInput<'_>) {
        match self {
            Self::Mms(client) => client.handle(now, input),
            Self::Http(client) => client.handle(now, input),
            Self::Rtsp(client) => client.handle(now, input),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<ClientOutput> {
        match self {
            Self::Mms(client) => client.poll_output(),
            Self::Http(client) => client.poll_output(),
            Self::Rtsp(client) => client.poll_output(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Mms(client) => client.poll_timeout(),
            Self::Http(client) => client.poll_timeout(),
            Self::Rtsp(client) => client.poll_timeout(),
        }
    }

    pub(super) fn stats(&self) -> ClientStats {
        match self {
            Self::Mms(client) => client.stats(),
            Self::Http(client) => client.stats(),
            Self::Rtsp(client) => client.stats(),
        }
    }
}
