//! What reaches a shard from outside.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::drain::DrainOrder;
use super::files::Seek;
use super::mirror::Found;
use super::roster::{Page, SessionStory};
use super::sniff::Protocol;
use super::udp::UdpPort;
use crate::archive::{AsfFile, Block, OpenError, ReadError};
use crate::relay::{Delivery, ShardPort};
use crate::rtsp::recovery::ReceiverReport;

/// A viewer's connection on its way to a shard.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// When it was accepted.
    pub(super) at: Instant,
    pub(super) protocol: Protocol,
    /// Bytes read to tell the protocol.
    pub(super) head: Vec<u8>,
    /// The UDP port with the number that it connected to.
    pub(super) udp: Option<Arc<UdpPort>>,
    /// Its bytes come out of TLS and go into it: the stream is no TCP connection, and nothing may go beside it.
    pub(super) tls: bool,
    /// A publisher by RTSP may come here.
    pub(super) takes_publishers: bool,
}

/// Why somebody outside ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndCause {
    /// ICMP errors: nobody gets what is sent to the leased port.
    Unreachable,
    /// The same player connected again and took the lease.
    TakenOver,
    /// An operator ended it.
    Kicked,
    /// Another session plays by its ticket.
    TicketInUse,
}

impl EndCause {
    /// The label in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "port_unreachable",
            Self::TakenOver => "taken_over",
            Self::Kicked => "kicked",
            Self::TicketInUse => "ticket_in_use",
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "nobody gets what is sent to the client's UDP port (ICMP port unreachable)",
            Self::TakenOver => "the same player connected again and took its UDP port over",
            Self::Kicked => "an operator ended it",
            Self::TicketInUse => "another session plays by its ticket",
        })
    }
}

/// What reaches a shard from outside.
#[derive(Debug)]
pub(super) enum Command {
    /// A new viewer.
    Connection(Accepted),
    /// News of a publishing point.
    Delivery(Delivery),
    /// A resend request of a session's own address. `pending` counts those on their way.
    Datagram { conn: usize, client_id: u32, bytes: Box<[u8]>, pending: Arc<AtomicUsize> },
    /// What a session's player says of packets that it received. `pending` counts as that of datagrams does.
    Report { conn: usize, client_id: u32, report: ReceiverReport, pending: Arc<AtomicUsize> },
    /// ICMP says that a datagram did not get to a session; while its lease is not settled, maybe to whoever had its port a moment ago.
    Unreached { conn: usize, client_id: u32, is_settled: bool },
    /// The path to a session needs IP fragments.
    Fragment { conn: usize, client_id: u32 },
    /// End a session.
    End { conn: usize, client_id: u32, why: EndCause },
    /// A file was opened, or was not.
    FileOpened { conn: usize, client_id: u32, request: u64, result: Result<Arc<AsfFile>, OpenError> },
    /// The place in a file where a play begins was found.
    Located { conn: usize, client_id: u32, request: u64, seek: Seek, result: Result<u64, ReadError> },
    /// A block of a file that a viewer waits for has been read, or cannot be.
    BlockRead { conn: usize, client_id: u32, request: u64, result: Result<Arc<Block>, ReadError> },
    /// A file was opened for its bytes, or was not.
    BytesOpened { conn: usize, client_id: u32, request: u64, result: Result<Arc<AsfFile>, OpenError> },
    /// Bytes of a file have been read, or cannot be.
    BytesRead { conn: usize, client_id: u32, request: u64, result: Result<Bytes, ReadError> },
    /// Something of a file has come from an upstream.
    Came { conn: usize, client_id: u32 },
    /// It is known what a name below a mirrored folder is.
    Found { conn: usize, client_id: u32, request: u64, found: Found },
    /// Tell of the sessions from this key on.
    Survey { first: usize, reply: oneshot::Sender<Page> },
    /// Tell what happened to a session.
    Tell { session: u64, reply: oneshot::Sender<Option<SessionStory>> },
    /// End a session; the answer is whether there was one.
    Kick { session: u64, reply: oneshot::Sender<bool> },
    /// Take no new viewers from now on, or take them again.
    Drain(Option<Arc<DrainOrder>>),
    /// End all sessions with the end of the stream.
    Stop,
}

/// A shard's mailbox.
#[derive(Debug, Clone)]
pub(super) struct CommandSender(pub(super) UnboundedSender<Command>);

impl CommandSender {
    /// Puts a command in; false when the shard is gone.
    // Unbounded, because nobody here may wait for a shard. What can queue up is bounded at its sources: batches come no faster than
    // real time and are references, connections are those that the door admits, datagrams pass the door's token bucket.
    pub(super) fn send(&self, command: Command) -> bool {
        self.0.send(command).is_ok()
    }
}

impl ShardPort for CommandSender {
    fn deliver(&self, delivery: Delivery) {
        self.send(Command::Delivery(delivery));
    }
}
