//! The loop that drives all viewers, from the first connection to the last goodbye.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::counts::Counts;
use super::drops;
use super::inbox::Inbox;
use super::ledger::Ledger;
use super::ports::PortCursors;
use super::process::ProcessSample;
use super::report::{Measured, SwarmReport};
use super::viewer::{Shared, Viewer};
use super::{SwarmError, SwarmOptions};
use crate::client::connection::now;
use crate::client::play::player_guid;
use crate::mms::session::Transport;

/// Length of a turn while viewers join, and while all play.
const JOINING_TURN: Duration = Duration::from_millis(1);
const PLAYING_TURN: Duration = Duration::from_millis(5);
/// Handshakes under way at once.
const WINDOW: usize = 1000;
/// From the last join to the begin of the measured time: join bursts are over by then.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Time for all goodbyes.
const GOODBYE_TIME: Duration = Duration::from_secs(3);
/// From one look at the deadlines to the next.
const SWEEP_TIME: Duration = Duration::from_millis(50);
/// From one telling of the progress to the next.
const PROGRESS_TIME: Duration = Duration::from_millis(500);
/// What one call of epoll_wait takes at most.
const EVENTS: usize = 8192;
/// Events that are handled between two looks at the clock.
const EVENTS_PER_CLOCK: usize = 16;
/// What one read of a connection takes.
const READ_LEN: usize = 64 << 10;

/// How far a swarm is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it does: `joining`, `settling`, `measuring`, `leaving`.
    pub phase: &'static str,
    /// Viewers asked for.
    pub asked: usize,
    /// Viewers between their first packet and their end.
    pub playing: usize,
    /// Viewers that failed.
    pub failed: u64,
    /// Packets received by all that read since the last time, per second.
    pub packets_per_s: u64,
    /// How many read, where not all do.
    pub readers: Option<usize>,
    /// Time left of the present phase, where it has a limit.
    pub left: Option<Duration>,
}

struct Crowd<'a, F> {
    options: SwarmOptions,
    shared: Shared,
    viewers: Vec<Viewer>,
    /// When to look at each viewer; apart from them, because all are looked at twenty times a second.
    deadlines: Vec<Option<Instant>>,
    poll: Poll,
    events: Events,
    inbox: Inbox,
    buffer: Vec<u8>,
    next_turn: Instant,
    next_sweep: Instant,
    told: (Instant, u64),
    stop: &'a AtomicBool,
    on_progress: F,
}

/// Runs a swarm against a server.
pub(super) fn run(
    options: SwarmOptions,
    server: SocketAddr,
    stop: &AtomicBool,
    on_progress: impl FnMut(&Progress),
) -> Result<SwarmReport, SwarmError> {
    let before = options.server.map(sample).transpose()?;
    let begun = now();
    let mut crowd = Crowd::new(options, server, begun, stop, on_progress)?;
    crowd.join(begun)?;
    let measured = crowd.measure()?;
    let interrupted = stop.load(Ordering::Relaxed);
    let dropped = match crowd.options.transport {
        Transport::Udp if !crowd.options.unread => drops::dropped(crowd.viewers.iter().filter_map(Viewer::udp_address)),
        _ => None,
    };
    let whole = crowd.counts();
    let playing = crowd.shared.ledger.playing;
    crowd.say_goodbye()?;
    let mut report = SwarmReport::new(&crowd.options, crowd.shared.ledger, begun);
    report.measure(measured, before.map(|sample| sample.resident_bytes));
    report.whole_run = whole;
    report.viewers_playing = playing;
    report.dropped_here = dropped;
    report.interrupted = interrupted;
    Ok(report)
}

/// Whether packets of most viewers are not even counted.
fn is_partly_read(options: &SwarmOptions) -> bool {
    options.unread && options.transport == Transport::Udp
}

fn sample(pid: u32) -> Result<ProcessSample, SwarmError> {
    ProcessSample::of(pid).map_err(|error| {
        let error = if error.kind() == io::ErrorKind::NotFound {
            io::Error::new(error.kind(), "there is no such process")
        } else {
            error
        };
        SwarmError::Process { pid, error }
    })
}

impl<'a, F: FnMut(&Progress)> Crowd<'a, F> {
    fn new(
        options: SwarmOptions,
        server: SocketAddr,
        begun: Instant,
        stop: &'a AtomicBool,
        on_progress: F,
    ) -> Result<Self, SwarmError> {
        let poll = Poll::new()?;
        let shared = Shared {
            registry: poll.registry().try_clone()?,
            server,
            url: options.url.clone(),
            identity: player_guid().map_err(io::Error::other)?,
            transport: options.transport,
            cursors: PortCursors::new(&options.ports),
            gro: options.gro,
            unread: options.unread,
            start: options.start,
            ledger: Ledger::new(begun),
        };
        Ok(Self {
            inbox: Inbox::new(options.gro),
            viewers: Vec::with_capacity(options.viewers),
            deadlines: Vec::with_capacity(options.viewers),
            options,
            shared,
            poll,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; READ_LEN],
            next_turn: begun,
            next_sweep: begun,
            told: (begun, 0),
            stop,
            on_progress,
        })
    }

    /// Until every viewer has joined or failed.
    fn join(&mut self, begun: Instant) -> io::Result<()> {
        let ramp = f64::from(self.options.ramp_per_s);
        let mut now = begun;
        while !self.stopped() {
            // The first at once, one more with each step of the ramp.
            let allowed = 1.0 + (now - begun).as_secs_f64() * ramp;
            while self.viewers.len() < self.options.viewers
                && (self.viewers.len() as f64) < allowed.floor()
                && self.shared.ledger.joining < WINDOW
            {
                let index = self.viewers.len();
                let addresses = &self.options.addresses.0;
                let from = addresses.get(index % addresses.len().max(1)).copied();
                let viewer = Viewer::connect(index, now, from, &mut self.shared);
                self.deadlines.push(viewer.deadline());
                self.viewers.push(viewer);
            }
            if self.viewers.len() == self.options.viewers && self.shared.ledger.joining == 0 {
                break;
            }
            now = self.turn(JOINING_TURN, "joining", None)?;
        }
        Ok(())
    }

    /// Settles, then counts for the time that was asked for; `None` where there was nothing to measure.
    fn measure(&mut self) -> io::Result<Option<Measured>> {
        if self.options.measured.is_zero() || !self.play_for(SETTLE_TIME, "settling")? {
            return Ok(None);
        }
        let begun = now();
        let (counts, readers) = (self.counts(), self.reader_counts());
        let own = ProcessSample::of(std::process::id());
        // A server that died is in the failures; what it used is not known.
        let server = self.options.server.and_then(|pid| ProcessSample::of(pid).ok());
        self.shared.ledger.measuring = true;
        self.play_for(self.options.measured, "measuring")?;
        self.shared.ledger.measuring = false;
        let server_use = match (server, self.options.server) {
            (Some(earlier), Some(pid)) => ProcessSample::of(pid).ok().map(|later| (later.since(earlier), later.resident_bytes)),
            _ => None,
        };
        let own_use = own.and_then(|earlier| Ok(ProcessSample::of(std::process::id())?.since(earlier))).ok();
        let (counts, estimated) = if is_partly_read(&self.options) {
            // Those that ended on the way have no whole time to tell of.
            let mut sum = Counts::default();
            let mut still = 0;
            for (index, viewer) in self.readers() {
                if let Some((_, earlier)) = readers.iter().find(|(reader, _)| *reader == index) {
                    sum += viewer.counts() - *earlier;
                    still += 1;
                }
            }
            (sum.spread(still, self.shared.ledger.playing), true)
        } else {
            (self.counts() - counts, false)
        };
        Ok(Some(Measured { time: now() - begun, counts, estimated, server: server_use, own: own_use }))
    }

    /// Takes turns for a time; says whether anybody still plays at its end, and it was not stopped.
    fn play_for(&mut self, time: Duration, phase: &'static str) -> io::Result<bool> {
        let end = now() + time;
        while !self.stopped() && self.shared.ledger.playing > 0 {
            if self.turn(PLAYING_TURN, phase, Some(end))? >= end {
                return Ok(self.shared.ledger.playing > 0);
            }
        }
        Ok(false)
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        self.shared.ledger.closing = true;
        let now = now();
        for (deadline, viewer) in self.deadlines.iter_mut().zip(&mut self.viewers) {
            viewer.stop(now, &mut self.shared);
            *deadline = viewer.deadline();
        }
        let end = now + GOODBYE_TIME;
        while !self.viewers.iter().all(Viewer::is_over) {
            if self.turn(PLAYING_TURN, "leaving", Some(end))? >= end {
                break;
            }
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for the begin of the next turn, then handles all that is there.
    fn turn(&mut self, length: Duration, phase: &'static str, end: Option<Instant>) -> io::Result<Instant> {
        let mut at = now();
        if let Some(wait) = self.next_turn.checked_duration_since(at) {
            std::thread::sleep(wait);
            at = now();
        }
        self.next_turn = at + length;
        if let Err(error) = self.poll.poll(&mut self.events, Some(Duration::ZERO))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut handled = 0;
        for event in &self.events {
            handled += 1;
            if handled % EVENTS_PER_CLOCK == 0 {
                at = now();
            }
            let (index, is_udp) = Viewer::of_token(event.token());
            let (Some(viewer), Some(deadline)) = (self.viewers.get_mut(index), self.deadlines.get_mut(index)) else { continue };
            if is_udp {
                viewer.on_datagrams(at, &mut self.inbox, &mut self.shared);
            } else {
                viewer.on_stream(at, event, &mut self.buffer, &mut self.shared);
            }
            // Any control message may have set a time limit, also of a viewer that plays; a datagram only those of gaps.
            if !is_udp || viewer.is_restless() {
                *deadline = viewer.deadline();
            }
        }
        if handled == EVENTS {
            self.next_turn = at;
        }
        if at >= self.next_sweep {
            self.next_sweep = at + SWEEP_TIME;
            for (deadline, viewer) in self.deadlines.iter_mut().zip(&mut self.viewers) {
                if deadline.is_some_and(|deadline| deadline <= at) {
                    viewer.on_deadline(at, &mut self.shared);
                    *deadline = viewer.deadline();
                }
            }
        }
        if at >= self.told.0 + PROGRESS_TIME {
            self.tell(at, phase, end);
        }
        Ok(at)
    }

    fn tell(&mut self, at: Instant, phase: &'static str, end: Option<Instant>) {
        let packets = self.counts().packets;
        let (told_at, told) = std::mem::replace(&mut self.told, (at, packets));
        let millis = u64::try_from((at - told_at).as_millis()).unwrap_or(u64::MAX).max(1);
        let progress = Progress {
            phase,
            asked: self.options.viewers,
            playing: self.shared.ledger.playing,
            failed: self.shared.ledger.failed(),
            packets_per_s: packets.saturating_sub(told).saturating_mul(1000) / millis,
            readers: is_partly_read(&self.options).then_some(self.shared.ledger.readers.len()),
            left: end.map(|end| end.saturating_duration_since(at)),
        };
        (self.on_progress)(&progress);
    }

    /// What all viewers counted up to now.
    fn counts(&self) -> Counts {
        let mut counts = self.shared.ledger.gone;
        self.viewers.iter().for_each(|viewer| counts += viewer.counts());
        counts
    }

    /// The viewers that read where the others do not, and still play.
    fn readers(&self) -> impl Iterator<Item = (usize, &Viewer)> {
        self.shared.ledger.readers.iter().filter_map(|index| Some((*index, self.viewers.get(*index)?)))
    }

    fn reader_counts(&self) -> Vec<(usize, Counts)> {
        self.readers().map(|(index, viewer)| (index, viewer.counts())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::client::swarm::SwarmAddresses;
    use crate::mms::block::ReportReadBlock;
    use crate::mms::connect::{NO_PACKET_PAIR, ReportConnectedEx};
    use crate::mms::data::{DataHead, LAST_FRAGMENT};
    use crate::mms::end::ReportStreamChange;
    use crate::mms::frame::encode;
    use crate::mms::funnel::{ReportConnectedFunnel, ReportFunnelInfo};
    use crate::mms::open::{BROADCAST, ReportOpenFile};
    use crate::mms::play::ReportStartedPlaying;
    use crate::mms::select::ReportStreamSwitch;
    use crate::mms::testing::asf_header;
    use crate::settings::PortRanges;
    use crate::wire::Hresult;

    /// What a server says to each of a viewer's messages until it plays.
    fn answers() -> [Vec<u8>; 7] {
        let data =
            |incarnation, flags, bytes: &[u8]| [&DataHead::new(0, incarnation, flags, bytes.len()).bytes(), bytes].concat();
        let hr = Hresult::OK;
        let connected = ReportConnectedEx {
            hr,
            incarnation: NO_PACKET_PAIR,
            server_version: "9.1.1.3841".into(),
            authentication: String::new(),
        };
        let opened = ReportOpenFile { attributes: BROADCAST, packet_size: 800, header_size: 900, ..ReportOpenFile::default() };
        let block = encode(0, &ReportReadBlock { hr, incarnation: 1 });
        let started = encode(0, &ReportStartedPlaying { hr, incarnation: 10 });
        [
            encode(0, &connected).to_vec(),
            encode(0, &ReportFunnelInfo { hr, client_id: 7 }).to_vec(),
            encode(0, &ReportConnectedFunnel).to_vec(),
            encode(0, &opened).to_vec(),
            [&block[..], &data(1, LAST_FRAGMENT, &asf_header(800, &[1], 900))].concat(),
            encode(0, &ReportStreamSwitch { hr }).to_vec(),
            [&started[..], &data(10, 0, &[0; 800])].concat(),
        ]
    }

    /// To join over TCP, as fast as may be.
    fn options(url: &str, viewers: usize) -> SwarmOptions {
        SwarmOptions {
            url: url.parse().unwrap(),
            viewers,
            transport: Transport::Tcp,
            ramp_per_s: 1000,
            start: None,
            measured: Duration::ZERO,
            addresses: SwarmAddresses::default(),
            ports: PortRanges(vec![1024..=1033]),
            unread: false,
            gro: false,
            server: None,
        }
    }

    #[test]
    fn a_time_limit_that_begins_while_a_viewer_plays_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let (change, is_to_change) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers() {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(&answer).unwrap();
            }
            // The header that belongs to it never comes.
            is_to_change.recv().unwrap();
            stream.write_all(&encode(0, &ReportStreamChange { packet_size: 800, header_size: 900, bit_rate: 64_000 })).unwrap();
            let _ = is_to_change.recv();
        });
        let options = options(&format!("mmst://{server}/a"), 1);
        let (begun, stop) = (now(), AtomicBool::new(false));
        let mut crowd = Crowd::new(options, server, begun, &stop, |_| {}).unwrap();
        crowd.join(begun).unwrap();
        assert_eq!((crowd.shared.ledger.playing, &crowd.shared.ledger.failures), (1, &std::collections::BTreeMap::new()));
        let silence = crowd.viewers[0].deadline().unwrap();
        assert_eq!(crowd.deadlines[0], Some(silence));
        change.send(()).unwrap();
        let limit = now() + Duration::from_secs(60);
        while crowd.viewers[0].deadline() == Some(silence) && now() < limit {
            crowd.turn(PLAYING_TURN, "measuring", None).unwrap();
        }
        assert!(crowd.viewers[0].deadline().unwrap() < silence, "the header is awaited");
        assert_eq!(crowd.deadlines[0], crowd.viewers[0].deadline());
        drop(change);
        thread.join().unwrap();
    }

    /// A frame of HTTP with a packet of 800 bytes.
    fn frame(location: u32) -> Vec<u8> {
        [&b"$D\x28\x03"[..], &location.to_le_bytes(), &[0, 0, 0x28, 0x03], &[0; 800]].concat()
    }

    /// Takes the request of one connection, and says whether it is to play.
    fn is_play(stream: &mut std::net::TcpStream) -> bool {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&bytes[..count]);
        }
        String::from_utf8(request).unwrap().contains("xPlayStrm=1")
    }

    const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nServer: Cougar/9.5\r\nPragma: client-id=7, features=\"broadcast\"\r\n\r\n";

    #[test]
    fn streams_change_over_http_for_viewers_that_leave_them_unread() {
        const VIEWERS: usize = 6;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let (change, is_to_change) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let header = |size| crate::http::wrap::header_frames(&asf_header(size, &[1], 900));
            let mut playing = Vec::new();
            while playing.len() < VIEWERS {
                let (mut stream, _) = listener.accept().unwrap();
                let plays = is_play(&mut stream);
                stream.write_all(&[ANSWER, &header(800)].concat()).unwrap();
                if plays {
                    stream.write_all(&frame(1)).unwrap();
                    playing.push(stream);
                }
            }
            is_to_change.recv().unwrap();
            // Such a server waits to be asked for the stream that follows, unless its packets come.
            let entry = [&b"$E\x04\0\x01\0\0\0"[..], &header(801)].concat();
            let rest = [frame(2), frame(3), entry, frame(4), frame(5), frame(6)].concat();
            for stream in &mut playing {
                for piece in rest.chunks(1111) {
                    stream.write_all(piece).unwrap();
                }
            }
            let _ = is_to_change.recv();
        });
        let options = SwarmOptions { unread: true, ..options(&format!("mmsh://{server}/a"), VIEWERS) };
        let (begun, stop) = (now(), AtomicBool::new(false));
        let mut crowd = Crowd::new(options, server, begun, &stop, |_| {}).unwrap();
        crowd.join(begun).unwrap();
        assert_eq!((crowd.shared.ledger.playing, &crowd.shared.ledger.failures), (VIEWERS, &std::collections::BTreeMap::new()));
        change.send(()).unwrap();
        let limit = now() + Duration::from_secs(60);
        while crowd.counts().packets < 6 * VIEWERS as u64 && now() < limit {
            crowd.turn(PLAYING_TURN, "measuring", None).unwrap();
        }
        assert_eq!(crowd.counts(), Counts { packets: 36, bytes: 36 * 800, ..Counts::default() });
        // Four read; the others await nothing.
        let waiting: Vec<bool> = crowd.viewers.iter().map(|viewer| viewer.deadline().is_some()).collect();
        assert_eq!(waiting.iter().filter(|waits| **waits).count(), 4, "{waiting:?}");
        drop(change);
        thread.join().unwrap();
    }

    #[test]
    fn a_second_connection_that_is_refused_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(!is_play(&mut stream));
            drop(listener);
            let header = crate::http::wrap::header_frames(&asf_header(800, &[1], 900));
            stream.write_all(&[ANSWER, &header].concat()).unwrap();
        });
        let report = run(options(&format!("http://{server}/a"), 1), server, &AtomicBool::new(false), |_| {}).unwrap();
        thread.join().unwrap();
        let cause = report.failures.keys().next().unwrap();
        assert!(cause.starts_with("connecting: Connection refused"), "{cause}");
        assert_eq!((report.viewers_failed, report.viewers_joined, report.transport), (1, 0, "http"));
    }
}
