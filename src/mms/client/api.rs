//! What a client of this protocol is told.

use std::net::IpAddr;
use std::time::Duration;

use crate::asf::StreamSet;
use crate::mms::session::Transport;
use crate::playing::{DataPath, StartAt};
use crate::viewing::Acceleration;

/// What is to be played, and how.
#[derive(Debug, Clone, PartialEq)]
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
    /// Packets are counted and told of as [`crate::playing::ClientEvent::Counted`], without their bytes: for who plays by the thousand.
    pub count_only: bool,
    /// Where to begin.
    pub start: StartAt,
    /// Where to end, milliseconds of content; with bit 31 set, of what follows the start (each start, after a seek too). 0: at the
    /// end. Broadcasts do not look at it. Source: MS-MMSP 2.2.4.25.
    pub frame_offset: u32,
    /// A first stretch faster than real time; told to servers from version 9 on, which alone know it.
    pub acceleration: Option<Acceleration>,
    /// The streams to be sent; `None`: all.
    pub streams: Option<StreamSet>,
    /// At the end of a file stay, for a [`crate::playing::ClientInput::Seek`] to go on from, instead of leaving.
    pub stays: bool,
    /// While it plays, the longest time without media; then it leaves. `None`: for ever, as long as the server shows life.
    pub media_time: Option<Duration>,
}

impl ClientConfig {
    /// Plays all of it from the beginning, packet by packet, without falling back from UDP.
    pub fn new(host: String, name: String, transport: ClientTransport, player: String) -> Self {
        Self {
            host,
            name,
            transport,
            player,
            fall_back: false,
            count_only: false,
            start: StartAt::Beginning,
            frame_offset: 0,
            acceleration: None,
            streams: None,
            stays: false,
            media_time: None,
        }
    }
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

impl From<Transport> for DataPath {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}
