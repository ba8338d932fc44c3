//! The threads that serve viewers: the only owner of their sockets, and the only place of `unsafe`.
//!
//! One thread at the door accepts and tells protocols apart; the shards, one thread each, run the engines and the pump.

mod asks;
pub mod broadcast;
mod certificate;
mod channels;
mod command;
mod conn;
mod counters;
mod downloads;
mod drain;
mod edge;
mod engine;
mod file_feed;
mod file_pace;
mod files;
mod framing;
mod front;
mod gate;
mod handoff;
mod image;
mod inflow;
pub mod inherited;
mod lag;
mod learning;
pub mod listen;
mod mirror;
mod news;
mod opening;
pub mod origins;
mod out_queue;
mod pace;
mod prober;
mod pump;
mod relayed;
mod resends;
mod roster;
mod routes;
mod rtp;
mod seat;
mod sniff;
mod stage;
mod state;
mod strays;
mod tickets;
mod timeline;
mod tls;
pub mod udp;
mod variants;
mod viewer;
mod visits;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub use certificate::{Certificate, CertificateError};
use command::{Accepted, Command, CommandSender};
pub use drain::{Drain, DrainOrder};
pub use gate::{Gate, UnixClock};
pub use handoff::{HandOff, Handed, Speaks};
pub use inflow::{Inflow, Item};
use listen::{MmsListener, RtpPorts, RtspListener};
pub use mirror::{Finder, Found, Refused, Wish};
pub use prober::{Heard, Prober};
pub use relayed::RelayedFile;
pub use roster::{Roster, SessionEvent, SessionFacts, SessionStory};
use routes::Routes;
pub use strays::MOST_UNDECIDED;
pub use timeline::Step;
use udp::UdpPort;

use crate::access_log::{AccessLog, WallClock};
use crate::archive::Archive;
use crate::http;
use crate::mms;
use crate::relay::{Relay, ShardPort};
use crate::rtsp;
use crate::rtsp::media::MAX_DATAGRAM;
use crate::settings::{FOREVER, Settings, Viewers};
use crate::viewing::Titles;

/// The version that we announce: 9 makes the result code of an end of stream unambiguous (MS-MMSP 3.1.5.18).
const SERVER_VERSION: &str = "9.1.1.3841";

/// Takes a shard's sign of life: its index, and when.
pub type Heartbeat = Arc<dyn Fn(usize, Instant) + Send + Sync>;

/// What all shards share.
struct Context {
    settings: Arc<Settings>,
    relay: Arc<Relay>,
    archive: Arc<Archive>,
    shards: Vec<CommandSender>,
    routes: Arc<Routes>,
    udp_ports: Vec<Arc<UdpPort>>,
    /// Where media over RTSP comes from, whatever the listener.
    rtp_ports: Vec<Arc<RtpPorts>>,
    echoes: Arc<prober::Echoes>,
    mms_with_udp: Arc<mms::session::Config>,
    mms_without_udp: Arc<mms::session::Config>,
    http: Arc<http::viewer::Config>,
    rtsp: Arc<rtsp::viewer::Config>,
    /// Where publishers may come too.
    rtsp_with_publishers: Arc<rtsp::viewer::Config>,
    sessions: AtomicU64,
    next_shard: AtomicUsize,
    beat: Heartbeat,
    overload: Overload,
    /// Bytes that all viewers were sent, framing included.
    sent_bytes: AtomicU64,
    ended: roster::Ended,
    news: roster::News,
    finder: Finder,
    access_log: AccessLog,
    wall_clock: WallClock,
    gate: Arc<Gate>,
    handoff: HandOff,
}

/// Viewers that were refused for overload and not told of yet.
#[derive(Debug, Default)]
struct Overload {
    refused: AtomicU64,
    /// The latest pass since then.
    late_ms: AtomicU64,
}

impl Context {
    fn mailbox(&self, shard: usize) -> &CommandSender {
        #[expect(clippy::indexing_slicing, reason = "shards are numbered by this very list")]
        &self.shards[shard]
    }

    /// Acts on the ICMP errors that wait in a port's queue.
    fn drain_errors(&self, port: &UdpPort, now: Instant) {
        while let Some((destination, error)) = port.next_error() {
            self.routes.path_error(now, destination, error);
        }
    }

    /// A broadcast of which nothing has come yet, with the bounds of the settings.
    fn new_broadcast(&self) -> broadcast::Broadcast {
        broadcast::Broadcast::new(&self.settings.window).with_datagrams(self.max_rtp_datagram())
    }

    /// Longest RTP packet, bytes: the same for all viewers, so that they can share them.
    fn max_rtp_datagram(&self) -> usize {
        let udp = &self.settings.udp;
        udp.max_datagram_v4.min(udp.max_datagram_v6).min(MAX_DATAGRAM)
    }

    fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives a connection to the shard that has its session, or to any.
    fn assign_to(&self, home: Option<CommandSender>, accepted: Accepted) {
        let Some(home) = home else { return self.assign(accepted) };
        if let Err(refused) = home.0.send(Command::Connection(accepted))
            && let Command::Connection(accepted) = refused.0
        {
            self.assign(accepted);
        }
    }

    /// Gives a connection to a shard. Sessions cost about the same, so turns are as good as counts.
    fn assign(&self, accepted: Accepted) {
        let mut command = Command::Connection(accepted);
        for _ in 0..self.shards.len() {
            let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = self.shards.get(turn % self.shards.len()) else { return };
            // A shard that has failed gives the connection back.
            match shard.0.send(command) {
                Ok(()) => return,
                Err(refused) => command = refused.0,
            }
        }
    }
}

fn random_u32() -> u32 {
    getrandom::u32().expect("the system has random numbers")
}

/// Mailboxes of shards that do not run yet: the relay wants to know where to deliver before they start.
pub struct Mailboxes {
    senders: Vec<CommandSender>,
    receivers: Vec<mpsc::UnboundedReceiver<Command>>,
}

impl Mailboxes {
    /// As many as there are to be shards, at least one.
    pub fn new(shards: usize) -> Self {
        let (senders, receivers) = (0..shards.max(1))
            .map(|_| mpsc::unbounded_channel())
            .map(|(sender, receiver)| (CommandSender(sender), receiver))
            .unzip();
        Self { senders, receivers }
    }

    /// Where the relay delivers.
    pub fn ports(&self) -> Vec<Arc<dyn ShardPort>> {
        self.senders.iter().map(|sender| Arc::new(sender.clone()) as Arc<dyn ShardPort>).collect()
    }
}

/// Where connections come in.
pub struct Doors {
    /// For viewers.
    pub mms: Vec<MmsListener>,
    /// For viewers, by TCP alone, and for publishers.
    pub http: Vec<TcpListener>,
    /// For viewers.
    pub rtsp: Vec<RtspListener>,
    /// For viewers inside TLS.
    pub tls: Option<TlsDoor>,
    /// Gets the publishers.
    pub handoff: HandOff,
    /// Connections that may be open before they have said what they speak; never more than the door's own bound.
    pub undecided_max: usize,
    /// Decides who may watch what not everybody may.
    pub gate: Arc<Gate>,
}

/// Where connections inside TLS come in.
pub struct TlsDoor {
    /// At least one.
    pub listeners: Vec<TcpListener>,
    /// By which the server is known.
    pub certificate: Arc<Certificate>,
}

/// What shards use of the rest of the daemon.
pub struct Surroundings {
    /// Reads files.
    pub archive: Arc<Archive>,
    /// Is called by each shard about once a second.
    pub beat: Heartbeat,
    /// Is called for each name below a mirrored folder that a viewer opens.
    pub finder: Finder,
    /// Gets a line a session.
    pub access_log: AccessLog,
    /// Tells the time of day.
    pub wall_clock: WallClock,
}

/// The running threads.
pub struct Shards {
    context: Arc<Context>,
    threads: Vec<JoinHandle<()>>,
    door: Option<JoinHandle<()>>,
    close_door: watch::Sender<bool>,
}

impl Shards {
    /// Starts the shards and opens the doors.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        settings: Arc<Settings>,
        relay: Arc<Relay>,
        mailboxes: Mailboxes,
        mut doors: Doors,
        surroundings: Surroundings,
    ) -> std::io::Result<Self> {
        let Surroundings { archive, beat, finder, access_log, wall_clock } = surroundings;
        let asks = settings.publishing_points_or_demo().iter().any(|point| point.access.viewers == Viewers::Users)
            || settings.publish.create && settings.access.viewers == Viewers::Users;
        let authentication = if asks { "BASIC" } else { "" };
        // Publishing points that publishers make have the time of all.
        let timeouts = settings.publishing_points.iter().map(|point| point.source_timeout).chain([settings.source_timeout]);
        let longest = timeouts.map(|timeout| timeout.unwrap_or(FOREVER)).max().unwrap_or_default();
        let config = |udp| {
            Arc::new(mms::session::Config {
                // Each publishing point's own time is kept by the shard, which looks once a second.
                source_wait: longest + Duration::from_secs(5),
                server_version: SERVER_VERSION.into(),
                authentication: authentication.into(),
                handshake: settings.limits.handshake,
                idle: settings.limits.idle,
                udp,
                ..Default::default()
            })
        };
        let titled = Arc::clone(&relay);
        let titles = Titles::new(move |name| titled.title(name));
        let rtsp_config = |publishers| {
            Arc::new(rtsp::viewer::Config {
                head: settings.limits.handshake,
                burst: settings.delivery.burst,
                burst_rate: settings.delivery.burst_rate,
                titles: titles.clone(),
                publishers,
                ..Default::default()
            })
        };
        let rtp_ports: Vec<_> = doors.rtsp.iter().filter_map(|listener| listener.udp.clone()).collect();
        let context = Arc::new(Context {
            relay,
            archive,
            routes: Arc::new(Routes::default()),
            udp_ports: (doors.mms.iter().filter_map(|listener| listener.udp.clone()))
                .chain(rtp_ports.iter().map(|ports| Arc::clone(&ports.media)))
                .collect(),
            rtp_ports,
            echoes: Arc::default(),
            mms_with_udp: config(true),
            mms_without_udp: config(false),
            http: Arc::new(http::viewer::Config {
                head: settings.limits.handshake,
                burst: settings.delivery.burst,
                burst_rate: settings.delivery.burst_rate,
                titles: titles.clone(),
                mms: (doors.mms.iter().filter(|_| settings.mms_protocols.mms))
                    .filter_map(|listener| listener.tcp.local_addr().ok())
                    .collect(),
                rtsp_port: doors.rtsp.first().and_then(|listener| listener.tcp.local_addr().ok()).map(|local| local.port()),
                ..Default::default()
            }),
            rtsp: rtsp_config(false),
            rtsp_with_publishers: rtsp_config(true),
            sessions: AtomicU64::new(0),
            next_shard: AtomicUsize::new(0),
            beat,
            overload: Overload::default(),
            sent_bytes: AtomicU64::new(0),
            ended: roster::Ended::default(),
            news: roster::News::default(),
            finder,
            access_log,
            wall_clock,
            gate: Arc::clone(&doors.gate),
            handoff: Arc::clone(&doors.handoff),
            shards: mailboxes.senders,
            settings,
        });
        let mut threads = Vec::new();
        for (index, mailbox) in mailboxes.receivers.into_iter().enumerate() {
            let context = Arc::clone(&context);
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            threads.push(thread.spawn(move || worker::run(context, index, mailbox))?);
        }
        let (close_door, stop) = watch::channel(false);
        if let Some(door) = doors.tls.take() {
            let (context, handoff, stop) = (Arc::clone(&context), Arc::clone(&doors.handoff), stop.clone());
            let undecided_max = doors.undecided_max;
            let thread = std::thread::Builder::new().name("tls".into());
            threads.push(thread.spawn(move || tls::run(context, door, handoff, undecided_max, stop))?);
        }
        let at_door = Arc::clone(&context);
        let door = std::thread::Builder::new().name("door".into()).spawn(move || front::run(at_door, doors, stop))?;
        Ok(Self { context, threads, door: Some(door), close_door })
    }

    /// Who watches.
    pub fn roster(&self) -> Roster {
        Roster(Arc::clone(&self.context))
    }

    /// What takes no new viewers.
    pub fn drain(&self) -> Drain {
        Drain::new(&self.context)
    }

    /// Closes the doors and gives every viewer the end of the stream; the sessions then end by themselves.
    pub fn stop(&mut self) {
        let _ = self.close_door.send(true);
        for shard in &self.context.shards {
            shard.send(Command::Stop);
        }
    }

    /// Waits for the threads, at most until `patience` is over; true when all ended.
    pub async fn join(&mut self, patience: Duration) -> bool {
        let until = tokio::time::Instant::now() + patience;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
        true
    }
}

#[cfg(test)]
impl Context {
    /// What a shard without threads, listeners and mirrors shares with nobody.
    fn for_tests(settings: Settings, relay: Arc<Relay>, mailbox: mpsc::UnboundedSender<Command>) -> Self {
        let bounds = crate::archive::ArchiveBounds { cache_bytes: 1 << 20, readers: 2 };
        Self {
            settings: Arc::new(settings),
            relay,
            archive: Archive::start(bounds).expect("threads start"),
            shards: vec![CommandSender(mailbox)],
            routes: Arc::default(),
            udp_ports: Vec::new(),
            rtp_ports: Vec::new(),
            echoes: Arc::default(),
            mms_with_udp: Arc::default(),
            mms_without_udp: Arc::new(mms::session::Config { udp: false, ..Default::default() }),
            http: Arc::default(),
            rtsp: Arc::default(),
            rtsp_with_publishers: Arc::default(),
            sessions: AtomicU64::new(0),
            next_shard: AtomicUsize::new(0),
            beat: Arc::new(|_, _| {}),
            finder: Arc::new(|_| {}),
            overload: Overload::default(),
            sent_bytes: AtomicU64::new(0),
            ended: roster::Ended::default(),
            news: roster::News::default(),
            access_log: AccessLog::default(),
            wall_clock: Arc::new(|| std::time::SystemTime::UNIX_EPOCH),
            gate: Arc::new(Gate::new(None, None, Arc::new(|| 0))),
            handoff: Arc::new(drop),
        }
    }
}
