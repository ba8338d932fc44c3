//! What a client of any protocol takes in and gives out.
//!
//! The engines of all protocols speak these words to whoever holds their sockets and wants what they play; what stands for them on
//! the wire is their own.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::asf::{self, StreamSet};
use crate::wire::Hresult;

/// Where to begin to play.
///
/// Servers begin at the key frame before it, and do not look at it where the content is live. Source: MS-MMSP 2.2.4.25, MS-WMSP 3.2.5.6.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum StartAt {
    /// Live content: where the server likes; a file: its first packet.
    #[default]
    Beginning,
    /// A time of the content.
    Time {
        /// Seconds; 0 is the first thing shown, so the preroll does not count.
        s: f64,
    },
    /// A packet, by its number in the file.
    Packet(u32),
    /// A byte of the file, counted from the beginning of its header.
    Offset(u32),
}

/// What somebody wants of a client while it plays; the latest counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Course {
    /// Counts the starts: another number is another start, from the same place too. 0 before the first.
    pub play: u32,
    /// Where the latest start is to begin; `None`: to rest.
    pub from: Option<StartAt>,
    /// The streams to be sent; `None`: all.
    pub streams: Option<StreamSet>,
}

/// How media comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPath {
    /// Datagrams of MMS or RTSP.
    Udp,
    /// The control connection of MMS or RTSP.
    Tcp,
    /// The response to a request of HTTP.
    Http,
}

impl DataPath {
    /// `udp`, `tcp` or `http`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// What happens to a client.
#[derive(Debug)]
pub enum ClientInput<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A datagram from the server's address.
    Datagram(&'a [u8]),
    /// The connection of [`ClientOutput::Connect`] has come about.
    Connected,
    /// The server has closed the connection, or it broke, or did not come about. Engines that have one connection only are not told.
    Closed,
    /// The instant of the engine's `poll_timeout` has come.
    Timeout,
    /// Go on elsewhere; while it is paused, once it is resumed. Packets of before do not come any more.
    Seek(StartAt),
    /// Rest, with the connection kept.
    Pause,
    /// Go on behind the last packet that came before the pause, or where a [`ClientInput::Seek`] has led since.
    Resume,
    /// Whether there is room for media, as there is at first. While there is not, none is missed: it may lie unread.
    Room(bool),
    /// Send these streams from now on. The server begins a stream at its next key frame.
    Select(StreamSet),
    /// Say goodbye.
    Stop,
}

/// What is to be done for a client, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientOutput {
    /// For the TCP connection, in one write: helpers in firewalls look into single segments.
    Send(Bytes),
    /// For the server's address, UDP port with the number of the URL's port.
    Datagram(Bytes),
    /// For a UDP port of the server's address.
    DatagramTo {
        /// From which of our ports.
        from: u16,
        /// To which of the server's.
        to: u16,
        /// What.
        bytes: Bytes,
    },
    /// Close the connection, if one is open, and make another one to the same address and port: [`ClientInput::Connected`].
    Connect,
    /// Close the connection; there may be another one later.
    Disconnect,
    /// For whoever plays.
    Event(ClientEvent),
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(ClientEnd),
}

/// What a player sees of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// UDP was refused; the session goes on over TCP, or closes.
    FunnelRefused(Hresult),
    /// UDP does not work; it goes on over TCP.
    UdpRefused {
        /// Why, in our words.
        reason: &'static str,
    },
    /// What was opened, in the server's words or its header's; what it does not know, or a broadcast has not, is 0.
    Opened {
        /// Whether it is a broadcast; a file if not.
        live: bool,
        /// Seconds, never negative.
        duration_s: f64,
        /// ASF packets.
        packet_count: u64,
        /// Bytes of each.
        packet_size: u32,
        /// Bits per second.
        bit_rate: u32,
    },
    /// The ASF header: Header Object and 50 bytes of the Data Object.
    Header(Bytes),
    /// Another header: the packets from here on belong to it.
    NewHeader(Bytes),
    /// The request to play goes out next (StartPlaying, or Play): for the first time, after a change of the header, a seek or a pause. What was missing is given up.
    Starting,
    /// The server will send media.
    Playing {
        /// The data path.
        path: DataPath,
    },
    /// One ASF packet.
    Packet {
        /// The server's packet number.
        location: u32,
        /// Its sequence number as we count it.
        sequence: u32,
        /// The packet, of the fixed size where its padding could be restored.
        bytes: Bytes,
        /// It came because we asked for it again.
        resent: bool,
        /// All packets of lower sequence numbers have come, or will not come any more.
        settled: u32,
    },
    /// Packets are given up, though not all of those that are missing.
    GivenUp {
        /// As in [`ClientEvent::Packet`].
        settled: u32,
    },
    /// One ASF packet, with `count_only` of the engine; one RTP packet of what is no ASF.
    Counted {
        /// The server's packet number.
        location: u32,
        /// When it was to be sent, on the source's clock; `None` where it is no ASF packet.
        send_time_ms: Option<u32>,
    },
    /// The stream is over.
    End {
        /// How, in the server's words.
        hr: Hresult,
    },
}

/// Why a client is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientEnd {
    /// The stream is over.
    #[error("the stream ended")]
    Ended,
    /// [`ClientInput::Stop`].
    #[error("stopped")]
    Stopped,
    /// The server refused.
    #[error("{what} refused: {hr}")]
    Refused {
        /// What we had asked for.
        what: &'static str,
        /// Its reason.
        hr: Hresult,
    },
    /// The stream is elsewhere: its URL.
    #[error("redirected to {0}")]
    Redirected(String),
    /// No answer came in time.
    #[error("no answer to {what} within {} s", limit.as_secs())]
    NoAnswer {
        /// To what.
        what: &'static str,
        /// How long we waited.
        limit: Duration,
    },
    /// The header did not arrive over UDP, however often we asked.
    #[error("the ASF header did not arrive over UDP; a firewall may drop the datagrams: try TCP")]
    HeaderLost,
    /// Nothing at all came for long.
    #[error("nothing heard of the server for {} s", .0.as_secs())]
    Silent(Duration),
    /// The server lives and plays, but no media came for the time that was set.
    #[error("no media for {} s, though the server still holds the connection", .0.as_secs_f32())]
    NoMedia(Duration),
    /// None of the streams that were wished for is there.
    #[error("the stream has no stream {}; it has {}", numbers(*.wished), numbers(*.existing))]
    NoSuchStream {
        /// Those that were wished for.
        wished: StreamSet,
        /// Those of the header.
        existing: StreamSet,
    },
    /// Its streams are no ASF, and nobody wants to count anything else.
    #[error("what the server has there is no Windows Media stream (its description has no ASF header)")]
    NotAsf,
    /// The server wants credentials, which we do not have.
    #[error("the server wants a user name and a password")]
    CredentialsWanted,
    /// The server does not take the credentials that we have, or wants them in a way that we do not know.
    #[error("the server does not accept the user name and the password")]
    CredentialsRefused,
    /// A server of HTTP or RTSP answered with a status that is no success.
    #[error("{what} refused: {code} {reason}")]
    Status {
        /// What we had asked for.
        what: &'static str,
        /// The status code.
        code: u16,
        /// Its words, without control characters.
        reason: String,
    },
    /// The server closed the connection without a word, or it broke.
    #[error("the server closed the connection")]
    Closed,
    /// What the server sent makes no sense.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// What a client counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Media packets handed on, those that were resent included.
    pub packets: u64,
    /// Bytes of them, as they came.
    pub bytes: u64,
    /// Sequence numbers that were missing when later ones came.
    pub gaps: u64,
    /// Requests sent for them.
    pub resend_requests: u64,
    /// Gaps that were filled after all; `gaps = recovered + lost` when all is settled.
    pub recovered: u64,
    /// Those of them that came by themselves, only late.
    pub reordered: u64,
    /// Gaps given up.
    pub lost: u64,
    /// Packets that had come before, or had been given up.
    pub duplicates: u64,
    /// Data packets of an earlier play (of before a seek, too), or of a size that cannot be.
    pub stale: u64,
}

/// A packet of the fixed size: servers may send it without its padding. One that is broken stays as it came, for the player to judge.
///
/// Source: MS-MMSP 2.2.2, MS-WMSP 2.2.3.3.
pub(crate) fn restored(packet: Bytes, packet_size: usize) -> Bytes {
    if packet.len() == packet_size {
        return packet;
    }
    let mut out = BytesMut::with_capacity(packet_size);
    match asf::restore(&packet, packet_size, &mut out) {
        Ok(()) => out.freeze(),
        Err(_) => packet,
    }
}

/// `1, 2, 7`.
fn numbers(streams: StreamSet) -> String {
    streams.iter().map(|stream| stream.to_string()).collect::<Vec<_>>().join(", ")
}
