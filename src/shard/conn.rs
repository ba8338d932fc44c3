//! One connection of a viewer: its socket, its engine, what it holds of the daemon's resources.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::broadcast::{Framing, Viewer};
use super::downloads::Download;
use super::engine::Engine;
use super::files::Wanted;
use super::learning::UdpTrial;
use super::out_queue::OutQueue;
use super::routes::Entry;
use super::seat::{OnDemandSeat, Title};
use super::timeline::Timeline;
use super::udp::{Route, UdpPort};
use super::visits::Underway;
use crate::archive::AsfFile;
use crate::asf::Selection;
use crate::relay::admission::{Lease, SessionPermit, TicketUse};
use crate::relay::{Point, PointId, Watch};
use crate::rtsp::media::Flow;
use crate::text::{percent_encode, query_of};
use crate::viewing::{Login, Position};

/// One connection of this shard.
pub(super) struct Conn {
    /// Number of the session in the log.
    pub(super) session: u64,
    pub(super) stream: Rc<TcpStream>,
    /// The viewer; a mapped IPv4 address is an IPv4 address.
    pub(super) peer: SocketAddr,
    /// The address that it connected to.
    pub(super) local: SocketAddr,
    pub(super) accepted: Instant,
    pub(super) engine: Engine,
    pub(super) out: OutQueue,
    /// Wakes the connection's task: something was queued, or it is to end.
    pub(super) wake: Rc<Notify>,
    /// The UDP port of the listener; `None` while UDP is off.
    pub(super) udp: Option<Arc<UdpPort>>,
    /// It is inside TLS.
    pub(super) tls: bool,
    /// Its socket is somebody else's by now, who publishes.
    pub(super) handed_over: bool,
    pub(super) entry: Entry,
    pub(super) permit: Option<SessionPermit>,
    /// Of the ports that media goes to: one, or two where a player asks for a pair.
    pub(super) leases: Vec<Lease>,
    pub(super) route: Option<Route>,
    /// What is known of whether datagrams arrive there.
    pub(super) udp_trial: Option<UdpTrial>,
    /// The RTP sequence number that its player was told over TCP, with the last play.
    pub(super) cued: Option<u16>,
    /// Where packets go that are sent again, if not there.
    pub(super) resend_path: Option<Box<ResendPath>>,
    /// The key of the URL that was opened last.
    pub(super) key: Option<String>,
    /// The ticket in it.
    pub(super) ticket: Option<TicketUse>,
    /// It came with another one, or none, to a port that was held for a ticket, and took it.
    pub(super) took_held: bool,
    /// The profile in it.
    pub(super) profile: Option<String>,
    /// The credentials that were found right for the request in hand, which may ask for more than one thing.
    pub(super) granted: Option<Box<Login>>,
    pub(super) opened: Option<Opened>,
    /// How packets of the last play that was asked for are framed.
    pub(super) framing: Framing,
    pub(super) place: Place,
    /// What the player wants of the streams.
    pub(super) selection: Selection,
    /// Counts what was asked of readers of files: an answer to an earlier question comes too late.
    pub(super) request: u64,
    /// Readers that look for the place where a play begins; when one has found it, it looks for the next, if that is still wanted.
    pub(super) searches: u8,
    /// When this is dropped, the last one ends early.
    pub(super) wanted: Option<Arc<()>>,
    pub(super) next_search: Option<(u64, Position, Wanted)>,
    /// Bytes of files that it was sent.
    pub(super) downloaded: u64,
    /// What happened so far.
    pub(super) timeline: Timeline,
    /// What it does that the access log tells of.
    pub(super) underway: Option<Underway>,
    /// What went wrong with what it plays, for the log.
    pub(super) trouble: Option<String>,
    /// Why it did not get what it asked for last, for a person.
    pub(super) refusal: Option<String>,
    /// Why it ends, once it does.
    pub(super) closing: Option<Ending>,
    /// Bytes and packets written when progress was last looked at, and when that was.
    pub(super) progress: (u64, Instant),
}

/// A flow of its own for packets that are sent again.
#[derive(Debug)]
pub(super) struct ResendPath {
    pub(super) route: Route,
    /// Its ports, and the one that the player is expected to ask for next.
    pub(super) leases: Vec<Lease>,
}

/// Why a session ends.
#[derive(Debug)]
pub(super) struct Ending {
    /// For the metrics: one of few.
    pub(super) label: &'static str,
    /// For the log.
    pub(super) text: String,
}

/// The publishing point that a session opened.
pub(super) struct Opened {
    pub(super) point: Arc<Point>,
    /// The name that the player gave.
    pub(super) name: Box<str>,
    /// What it is, where it is on demand and has been opened.
    pub(super) title: Option<Title>,
    /// The file, where its bytes were asked for.
    pub(super) download: Option<Arc<AsfFile>>,
    /// Which of the shard's broadcasts it watches, or would: the publishing point's own, or a variant of that.
    pub(super) channel: usize,
    /// The header that the engine was given last; `None` while there is none yet.
    pub(super) generation: Option<u32>,
    /// Bytes of that header.
    pub(super) header_bytes: usize,
    /// Bytes of each of its packets.
    pub(super) packet_size: usize,
    /// The flow of its packets in RTP: that of all viewers of a header, its own for what is on demand.
    pub(super) flow: Flow,
    /// Counts the viewer for sources that run while they are watched.
    pub(super) _watch: Watch,
}

/// The shard's broadcast of all streams of a publishing point.
pub(super) const fn channel_of(point: PointId) -> usize {
    point.0 as usize
}

impl Opened {
    /// Counts as a viewer from now on; there is no header yet.
    pub(super) fn new(point: Arc<Point>, name: &str) -> Self {
        Self::watching(point.watch(), name)
    }

    /// Counts as the viewer that it was counted as before.
    pub(super) fn watching(watch: Watch, name: &str) -> Self {
        let point = Arc::clone(watch.point());
        let channel = channel_of(point.id());
        Self {
            name: name.into(),
            title: None,
            download: None,
            channel,
            generation: None,
            header_bytes: 0,
            packet_size: 0,
            flow: random_flow(),
            _watch: watch,
            point,
        }
    }
}

/// A flow that nobody else has.
fn random_flow() -> Flow {
    let [_, _, n1, n0] = super::random_u32().to_be_bytes();
    Flow { ssrc: super::random_u32(), sequence: u16::from_be_bytes([n1, n0]) }
}

/// Where a session's sequence numbers and cursor are.
pub(super) enum Place {
    /// It has not played yet.
    Nowhere,
    /// It plays: its index among the viewers of the broadcast.
    Seat(usize),
    /// It plays what is on demand.
    OnDemand(Box<OnDemandSeat>),
    /// It is sent bytes of a file.
    Download(Box<Download>),
    /// It has stopped; numbers run on, and resends are still served.
    Parked(Box<Viewer>),
}

impl Conn {
    /// The viewer of a play that begins: it goes on with the numbers of the last one, on the path that the connection has now.
    pub(super) fn take_viewer(&mut self, key: usize) -> Viewer {
        let mut new = match self.route {
            Some(route) => Viewer::over_udp(key, route),
            None => Viewer::over_tcp(key, Rc::clone(&self.stream)),
        };
        new.hot.framing = self.framing;
        new.cold.flow = self.opened.as_ref().map(|opened| opened.flow).unwrap_or_default();
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Parked(mut viewer) => {
                viewer.goes_like(new);
                *viewer
            }
            _ => new,
        }
    }

    /// Where the same name is had over TCP, with the key and the profile that it was opened by.
    pub(super) fn over_tcp(&self, name: &str) -> String {
        let query = query_of(self.key.as_deref(), self.profile.as_deref());
        format!("mmst://{}/{}{query}", self.local, percent_encode(name))
    }

    /// The name of the transport in logs.
    pub(super) const fn transport(&self) -> &'static str {
        match (&self.route, self.tls) {
            (Some(_), _) => "udp",
            (None, true) => "tls",
            (None, false) => "tcp",
        }
    }

    /// Notes why it is refused, in other words than those that the protocol has for it.
    pub(super) fn refused_because(&mut self, why: impl fmt::Display) {
        self.refusal = Some(format!("refused: {why}"));
    }

    /// Why it ended: where it was refused and then left, as players do, or was left to go, that it was refused.
    pub(super) fn end_reason(&self) -> String {
        const GIVES_UP: [&str; 8] =
            ["left", "refused", "redirected", "answered", "handshake", "idle", "unanswered", "connection_lost"];
        let gives_up = self.closing.as_ref().is_none_or(|ending| GIVES_UP.contains(&ending.label));
        let refusal = || self.refusal.clone().or_else(|| Some(format!("refused: {}", self.engine.open_failure()?)));
        let refusal = if gives_up { refusal() } else { None };
        refusal.unwrap_or_else(|| self.closing.as_ref().map_or("closed by the player", |ending| ending.text.as_str()).to_owned())
    }

    /// Ends the session; the first reason counts. Its seat must be freed too: [`super::state::State::close`].
    pub(super) fn close(&mut self, label: &'static str, text: impl Into<String>) {
        if self.closing.is_none() {
            self.closing = Some(Ending { label, text: text.into() });
            // The player may be back before this connection is gone.
            self.ticket = None;
        }
        self.wake.notify_one();
    }
}
