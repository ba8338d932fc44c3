//! Requests, responses and interleaved frames on one TCP connection, read and written.
//!
//! Both ends of the protocol use this: servers send requests too, and players answer them.

mod agent;
mod headers;
mod method;
mod reader;
mod target;
#[cfg(test)]
mod tests;
mod write;

pub use agent::{Agent, player_of};
pub use headers::Headers;
pub(super) use headers::decimal;
pub use method::Method;
pub use reader::{Bounds, Frames, Reader, Skipped};
pub use target::{BadTarget, StreamToken, Target};
pub use write::{RequestWriter, ResponseWriter, interleaved, reason};

use bytes::Bytes;

/// What stands on the connection, each in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// Asks for something.
    Request(Request),
    /// Answers the oldest request that has none yet.
    Response(Response),
    /// `$`, channel, length, payload: media among the messages. Source: RFC 2326 10.12.
    Frame {
        /// Which stream, by what SETUP agreed on.
        channel: u8,
        /// An RTP or RTCP packet, at most 65 535 bytes.
        payload: Bytes,
    },
}

/// A request. Source: RFC 2326 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// To what, byte for byte as sent, without control characters; [`Target::parse`] reads it.
    pub target: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body; empty without `Content-Length`.
    pub body: Bytes,
}

impl Request {
    /// The request as bytes again, in its usual form: for another reader.
    pub fn to_bytes(&self) -> Bytes {
        let mut writer = RequestWriter::new(&self.method, &self.target);
        for (name, value) in self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Content-Length")) {
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            writer.header(name, value);
        }
        if self.body.is_empty() { writer.finish() } else { writer.body(&self.body) }
    }
}

/// A response. Source: RFC 2326 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// The words beside it; may be empty.
    pub reason: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body; empty without `Content-Length`.
    pub body: Bytes,
}

/// Why bytes are no message that is taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct MessageError {
    /// What to answer: 400, 413, 414 or 505. Nothing, where a response was being read.
    pub status: u16,
    /// The `CSeq` to answer with, where it was read before the fault.
    pub cseq: Option<u64>,
    /// What was wrong, for a person.
    pub text: &'static str,
    /// The message is passed over and the next can be read. Otherwise it is unknown where that begins: the connection closes.
    pub goes_on: bool,
}
