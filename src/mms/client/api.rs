//! What a client takes in and gives out.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::mms::hresult::Hresult;
use crate::mms::session::Transport;

/// What is to be played, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Host of the URL, told to the server.
    pub host: String,
    /// Path of the URL without leading slash, percent-decoded.
    pub name: String,
    /// The data path to ask for.
    pub transport: ClientTransport,
    /// Client token, for instance `NSPlayer/7.1.0.3055; {GUID}`; versions from 9 on are turned away by old servers.
    pub player: String,
    /// Ask for TCP on the same connection where UDP is refused.
    pub fall_back: bool,
    /// Packets are counted and told of as [`ClientEvent::Counted`], without their bytes: for who plays by the thousand.
    pub count_only: bool,
}

/// The data path that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTransport {
    /// The control connection.
    Tcp,
    /// Datagrams.
    Udp {
        /// Our own address on the control connection.
        address: IpAddr,
        /// The port on which we listen.
        port: u16,
    },
}

/// What happens to a client.
#[derive(Debug)]
pub enum ClientInput<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A datagram from the server's address.
    Datagram(&'a [u8]),
    /// The instant of [`super::Client::poll_timeout`] has come.
    Timeout,
    /// Say goodbye.
    Stop,
}

/// What is to be done for a client, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// For the TCP connection, in one write: helpers in firewalls look into single segments.
    Send(Bytes),
    /// For the server's address, UDP port with the number of the URL's port.
    Datagram(Bytes),
    /// For whoever plays.
    Event(ClientEvent),
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(ClientEnd),
}

/// What a player sees of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// UDP was refused; the session goes on over TCP, or closes.
    FunnelRefused(Hresult),
    /// The ASF header: Header Object and 50 bytes of the Data Object.
    Header(Bytes),
    /// Another header: the packets from here on belong to it.
    NewHeader(Bytes),
    /// StartPlaying goes out next.
    Starting,
    /// The server will send media.
    Playing {
        /// The data path.
        transport: Transport,
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
    },
    /// One ASF packet, with [`ClientConfig::count_only`].
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
    /// The server wants credentials, which we do not have.
    #[error("the server wants a user name and a password")]
    CredentialsWanted,
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
    /// Data packets of an earlier play, or of a size that cannot be.
    pub stale: u64,
}
