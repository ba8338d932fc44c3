//! What a publisher's connection takes in and gives out.

use bytes::{Bytes, BytesMut};

use crate::asf::Header;
use crate::rtsp::tracks::{Frame, TracksError};

/// What happens to a connection.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A datagram from the publisher's address to a pair of ports.
    Datagram {
        /// Which pair, see [`Ask::Ports`].
        pair: usize,
        /// To the second port.
        is_rtcp: bool,
        /// What came.
        bytes: &'a [u8],
    },
    /// To the [`Ask`] that is outstanding.
    Answer(Answer),
    /// The instant of `Connection::poll_timeout` has come.
    Timeout,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// For the TCP connection.
    Send(Bytes),
    /// Decide, and hand in an [`Answer`].
    Ask(Ask),
    /// ASF packets of the last header that was accepted, each of its packet size.
    Packets(BytesMut),
    /// A frame of one of the tracks.
    Frame(Frame),
    /// To be sent from the second port of a pair to this one of the publisher's.
    Report {
        /// Which pair.
        pair: usize,
        /// Where to.
        port: u16,
        /// RTCP.
        bytes: Bytes,
    },
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(CloseReason),
}

/// What somebody else decides.
#[derive(Debug)]
pub enum Ask {
    /// Whether the sender may publish this. Accepted, its description is read, and [`Ask::Publish`] follows.
    Authorise(Box<Publication>),
    /// Whether this is taken, of who was authorised last: what is to come, or why that is of no use. Accepted, the stream is what
    /// was announced.
    Publish(Box<Result<Announcement, NotAsf>>),
    /// For a pair of UDP ports, unless there is one of that number, which counts from 0: [`Answer::Port`].
    Ports {
        /// Its number.
        pair: usize,
    },
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Accept,
    /// The first of the two ports, for RTP; `None` where there is no UDP.
    Port(Option<u16>),
    /// Say so.
    Refuse(Refusal),
}

/// Why somebody may not publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Of RTSP.
    pub status: u16,
    /// For a person: the body.
    pub text: String,
    /// Values of `WWW-Authenticate`.
    pub challenges: Vec<String>,
    /// When to ask again.
    pub retry_after_s: Option<u64>,
    /// The connection closes behind it.
    pub last: bool,
}

/// What somebody wants to publish.
#[derive(Debug)]
pub struct Publication {
    /// `ANNOUNCE`.
    pub method: String,
    /// The target, byte for byte as in the request line; Digest signs it.
    pub target: String,
    /// The publishing point, decoded once.
    pub name: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// It came by way of a proxy, which may send for somebody else.
    pub via_proxy: bool,
    /// What the sender calls itself, at most 256 bytes.
    pub user_agent: Option<String>,
}

/// What a publisher is about to send.
#[derive(Debug, Clone)]
pub enum Announcement {
    /// ASF packets, and their header.
    Asf(Header),
    /// Frames of elementary streams: what they are shows with them.
    Tracks {
        /// What is said of them, as it was sent: the lines of their formats and parameters.
        parameters: String,
        /// What is announced beside them and left out, for a person; empty where there is nothing.
        left_out: String,
    },
}

/// Why what was announced is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAsf {
    /// The description is not sound: 400, with these words.
    Unsound(String),
    /// It is of something else: the names of its encodings.
    Other(String),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The publisher said goodbye.
    Left,
    /// Too often refused.
    Refused,
    /// Nothing was heard in time.
    Idle,
    /// Not RTSP, or broken RTSP.
    Protocol,
    /// Its frames are of no use.
    Frames(TracksError),
}
