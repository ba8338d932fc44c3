//! What a client of this protocol is told.

use std::time::Duration;

use crate::asf::StreamSet;
use crate::playing::StartAt;
use crate::rtsp::transport::Ports;
use crate::text::Login;

/// The `User-Agent` of a server that pulls: Windows Media servers speak their dialect with it, whatever else they turn away.
/// Source: MS-RTSP 2.2.6.12.
pub const PULLING_SERVER: &str = "WMServer/9.5.0.0";

/// What is to be played, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// The URL as request lines have it: `rtsp://`, without login, without blanks and control characters.
    pub url: String,
    /// The data path to ask for.
    pub transport: ClientTransport,
    /// Ask for TCP where UDP is refused, or nothing comes over it.
    pub fall_back: bool,
    /// The `User-Agent`: [`PULLING_SERVER`], with a GUID behind it perhaps.
    pub player: String,
    /// For a server that asks for it; never told to one that does not.
    pub login: Option<Login>,
    /// Random bytes: for the proofs of the password, and for our name in requests for lost packets.
    pub salt: [u8; 8],
    /// Where to begin.
    pub start: StartAt,
    /// The streams to be sent; `None`: all.
    pub streams: Option<StreamSet>,
    /// Packets are counted and told of as [`crate::playing::ClientEvent::Counted`], without their bytes: for who plays by the thousand.
    pub count_only: bool,
    /// Streams that are no ASF are played too, and their RTP packets counted; if not, they end with
    /// [`crate::playing::ClientEnd::NotAsf`].
    pub counts_plain: bool,
    /// At the end of a stream stay, for a [`crate::playing::ClientInput::Seek`] to go on from, instead of leaving.
    pub stays: bool,
    /// While it plays, the longest time without media; then it leaves. `None`: for ever, as long as the server shows life.
    pub media_time: Option<Duration>,
}

impl ClientConfig {
    /// Plays all of it from the beginning, packet by packet, without falling back from UDP.
    pub fn new(url: String, transport: ClientTransport) -> Self {
        Self {
            url,
            transport,
            fall_back: false,
            player: PULLING_SERVER.into(),
            login: None,
            salt: [0; 8],
            start: StartAt::Beginning,
            streams: None,
            count_only: false,
            counts_plain: false,
            stays: false,
            media_time: None,
        }
    }
}

/// The data path that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTransport {
    /// Between the responses on the RTSP connection.
    Tcp,
    /// Datagrams.
    Udp {
        /// Our ports for media.
        media: Ports,
        /// Our ports for what is sent again, which have to be others; of a server without that, for its second stream.
        resends: Ports,
    },
}
