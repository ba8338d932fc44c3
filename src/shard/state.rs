//! All that one shard knows, and how a session's engine is driven.

use std::cell::RefCell;
use std::collections::btree_map::Entry as Told;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as TcpSocket};
use std::os::fd::AsFd as _;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::broadcast::{Broadcast, Framing, Phase, Served, Tally};
use super::channels::Channels;
use super::conn::{Conn, Place, channel_of};
use super::counters::Counters;
use super::drain::Draining;
use super::engine::{Engine, Event, Output};
use super::handoff::{Handed, Speaks};
use super::opening::Opening;
use super::origins::Origins;
use super::out_queue::Flushed;
use super::routes::Entry;
use super::rtp::flow_of;
use super::sniff::Protocol;
use super::stage::Stage;
use super::timeline::FIRST_PACKET;
use super::udp::UdpPort;
use super::visits::Waiting;
use super::{Context, Overload};
use crate::asf::Selection;
use crate::http::viewer::{self as http, Sessions};
use crate::metrics as names;
use crate::mms::media::HEAD_LEN;
use crate::mms::session::Session;
use crate::relay::{Generation, PointId};
use crate::rtsp::viewer as rtsp;
use crate::settings::Oversize;
use crate::viewing::{Answer, Content, Description};

/// Control messages that may wait for a reader before it is given up, beside two headers.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// A connection that comes to a shard.
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    /// The address that it connected to.
    pub(super) local: SocketAddr,
    /// When it was accepted.
    pub(super) at: Instant,
    /// The UDP port with the number that it connected to.
    pub(super) udp: Option<Arc<UdpPort>>,
    pub(super) protocol: Protocol,
    /// It is inside TLS.
    pub(super) tls: bool,
    /// A publisher may come here.
    pub(super) takes_publishers: bool,
}

/// Whether a viewer could be sent what was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Yes, or it is looked after elsewhere.
    Enough,
    /// The queue of the device towards this viewer is full.
    NoneOnPath,
    /// The UDP socket that many share is full.
    NoneInSocket,
}

/// All that one shard knows.
pub(super) struct State {
    pub(super) context: Arc<Context>,
    pub(super) index: usize,
    pub(super) conns: Slab<Conn>,
    pub(super) broadcasts: Channels,
    pub(super) origins: Origins,
    pub(super) tally: Tally,
    pub(super) counters: Counters,
    /// When viewers of files are served next, and their keys.
    pub(super) file_timers: BTreeSet<(Instant, usize)>,
    /// Sessions over HTTP, which outlive their connections; and how connections of theirs find here after that.
    pub(super) http_sessions: Rc<RefCell<Sessions>>,
    pub(super) http_homes: HashMap<u32, Entry>,
    /// The same over RTSP.
    pub(super) rtsp_sessions: Rc<RefCell<rtsp::Sessions>>,
    pub(super) rtsp_homes: HashMap<u32, Entry>,
    /// Lines of the access log that wait for what their players say.
    pub(super) waiting_visits: Waiting,
    /// The last variant's tag.
    pub(super) variant_tags: u16,
    /// A UDP socket was full for viewers of files, who all wait until then.
    pub(super) files_rest: Option<Instant>,
    /// What viewers of files have opened, so that those of one file share it.
    pub(super) openings: Vec<(Option<usize>, Weak<Opening>)>,
    /// Where the packets of files are framed.
    pub(super) stage: Stage,
    /// For each publishing point, by its channel, what was told of it last; empty in all shards but one.
    window_bytes: BTreeMap<usize, (metrics::Gauge, f64)>,
    /// The pump has something to do.
    pub(super) pump_wake: Rc<Notify>,
    /// No new viewers are taken, those who are here finish.
    pub(super) draining: Option<Draining>,
    /// The daemon goes down since then: no new sessions, viewers get the end of the stream.
    pub(super) stopping: Option<Instant>,
}

impl State {
    /// A shard without connections.
    pub(super) fn new(context: Arc<Context>, index: usize) -> Self {
        let points = context.relay.points();
        let mut broadcasts = Channels::default();
        for point in &points {
            broadcasts.reach(channel_of(point.id()), || context.new_broadcast());
        }
        // From the beginning; those of others when they send something.
        let told = points.iter().filter(|_| index == 0).map(|point| (channel_of(point.id()), (window_gauge(point.name()), 0.0)));
        let window_bytes = told.collect();
        let stage = Stage::new(context.max_rtp_datagram());
        Self {
            context,
            index,
            conns: Slab::new(),
            broadcasts,
            origins: Origins::default(),
            tally: Tally::default(),
            counters: Counters::new(),
            window_bytes,
            file_timers: BTreeSet::new(),
            files_rest: None,
            openings: Vec::new(),
            stage,
            http_sessions: Rc::default(),
            http_homes: HashMap::new(),
            rtsp_sessions: Rc::default(),
            rtsp_homes: HashMap::new(),
            waiting_visits: Waiting::default(),
            variant_tags: 0,
            pump_wake: Rc::new(Notify::new()),
            draining: None,
            stopping: None,
        }
    }

    /// Takes a connection over; its key.
    pub(super) fn admit(&mut self, now: Instant, arrival: Arrival, stream: Rc<TcpStream>) -> usize {
        let slot = self.conns.vacant_entry();
        let key = slot.key();
        let peer = canonical(arrival.peer);
        let sender = self.context.mailbox(self.index);
        let entry = self.context.routes.enter(sender, key, peer.ip(), super::random_u32);
        let protocol = arrival.protocol;
        let engine = match protocol {
            Protocol::Mms => {
                let config = if arrival.udp.is_some() { &self.context.mms_with_udp } else { &self.context.mms_without_udp };
                Engine::Mms(Box::new(Session::new(now, Arc::clone(config), entry.client_id())))
            }
            Protocol::Http => Engine::Http(Box::new(http::Connection::new(
                now,
                Arc::clone(&self.context.http),
                Rc::clone(&self.http_sessions),
                key,
                peer.ip(),
                arrival.local,
                entry.client_id(),
            ))),
            Protocol::Rtsp => {
                let local = arrival.local.ip().to_canonical();
                let config = if arrival.takes_publishers { &self.context.rtsp_with_publishers } else { &self.context.rtsp };
                // Media in clear beside it would undo what TLS is for.
                let ports = self.context.rtp_ports.iter().find(|ports| !arrival.tls && ports.serves(local));
                Engine::Rtsp(Box::new(rtsp::Connection::new(
                    now,
                    Arc::clone(config),
                    Rc::clone(&self.rtsp_sessions),
                    peer.ip(),
                    arrival.local,
                    ports.map(|ports| ports.media.local().port()),
                    u64::from(super::random_u32()) << 32 | u64::from(entry.client_id()),
                )))
            }
        };
        slot.insert(Conn {
            session: self.context.next_session(),
            stream,
            peer,
            local: arrival.local,
            accepted: arrival.at,
            engine,
            out: Default::default(),
            wake: Rc::new(Notify::new()),
            udp: arrival.udp,
            tls: arrival.tls,
            handed_over: false,
            entry,
            permit: None,
            leases: Vec::new(),
            route: None,
            udp_trial: None,
            cued: None,
            resend_path: None,
            key: None,
            ticket: None,
            took_held: false,
            profile: None,
            granted: None,
            opened: None,
            framing: Framing::default(),
            place: Place::Nowhere,
            selection: Selection::default(),
            request: 0,
            searches: 0,
            wanted: None,
            next_search: None,
            downloaded: 0,
            timeline: Default::default(),
            underway: None,
            trouble: None,
            refusal: None,
            closing: None,
            progress: (0, now),
        });
        self.counters.connections.increment(1.0);
        self.counters.sessions(protocol).increment(1);
        key
    }

    /// Lets a connection's engine work on an event and does what it asks for.
    pub(super) fn drive(&mut self, key: usize, now: Instant, event: Event<'_>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.closing.is_some() {
            return;
        }
        let deadline = conn.engine.poll_timeout();
        let [asked, granted, refused] = conn.engine.counts();
        if let Event::Answer(answer) = &event {
            self.note_answer(key, now, answer);
            self.step_of_answer(key, now, answer);
            self.look_at_answer(key, answer);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Err((label, text)) = conn.engine.handle(now, event) {
            conn.close(label, text);
        }
        let counts = conn.engine.counts();
        self.counters.resent("limited", (counts[0] - asked).saturating_sub(counts[1] - granted));
        // The engine refuses by itself where no UDP port is bound, or the funnel's text makes no sense.
        if counts[2] > refused {
            let cause = if conn.udp.is_none() { "disabled" } else { "malformed" };
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => cause).increment(1);
        }
        let mut tells = Vec::new();
        while self.conns.get(key).is_some_and(|conn| conn.closing.is_none())
            && let Some(output) = self.conns.get_mut(key).and_then(|conn| conn.engine.poll_output())
        {
            match output {
                Output::Send(message) => self.queue(key, message),
                Output::Datagram(packet) => {
                    // VLC gives up when the header arrives before the answer that announces it.
                    self.flush(key, now);
                    self.send_datagram(key, &packet);
                    self.udp_was_sent(key, now);
                }
                Output::Ask(ask) => {
                    self.note_ask(key, now, &ask);
                    self.step_of_ask(key, now, &ask);
                    self.look_at_ask(key, now, &ask);
                    let answer = self.answer(key, now, ask);
                    if let Some(answer) = &answer {
                        self.note_answer(key, now, answer);
                        self.step_of_answer(key, now, answer);
                        self.look_at_answer(key, answer);
                    }
                    if let Some(answer) = answer
                        && let Some(conn) = self.conns.get_mut(key)
                        && let Err((label, text)) = conn.engine.handle(now, Event::Answer(answer))
                    {
                        conn.close(label, text);
                    }
                }
                Output::Tell { connection, told } => tells.push((connection, told)),
                Output::HandOver(head) => self.hand_over(key, now, head),
                Output::Close { label, text } => {
                    if let Some(conn) = self.conns.get_mut(key) {
                        let text = conn.trouble.take().unwrap_or_else(|| text.to_owned());
                        conn.close(label, text);
                    }
                }
            }
        }
        self.flush(key, now);
        if self.conns.get(key).is_some_and(|conn| conn.closing.is_some()) {
            self.park(key);
            if let Some(conn) = self.conns.get_mut(key).filter(|conn| matches!(conn.engine, Engine::Http(_))) {
                // The player may be back on another connection before this one is gone.
                conn.permit = None;
            }
        }
        // The connection's task waits for what was true before: others than itself drive its engine too.
        if let Some(conn) = self.conns.get(key)
            && (conn.engine.poll_timeout() != deadline || !conn.out.is_empty())
        {
            conn.wake.notify_one();
        }
        for (connection, told) in tells {
            self.drive(connection, now, Event::Told(told));
        }
    }

    /// Gives a connection to those who take publishers; it ends here.
    fn hand_over(&mut self, key: usize, now: Instant, head: Vec<u8>) {
        self.flush(key, now);
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.out.is_empty() {
            return conn.close("stalled", "asks without reading the answers");
        }
        match conn.stream.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                conn.handed_over = true;
                let (peer, local, speaks) = (conn.peer, conn.local, Speaks::Rtsp { tls: conn.tls });
                (self.context.handoff)(Handed { stream: TcpSocket::from(socket), peer, local, head, speaks });
                conn.close("publisher", "it publishes");
            }
            Err(error) => conn.close("connection_lost", format!("connection lost: {error}")),
        }
    }

    /// Queues a control message; who never takes any is given up.
    fn queue(&mut self, key: usize, message: Bytes) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let header = message.len();
        conn.out.push(message);
        if conn.out.control_bytes() > MAX_CONTROL_BYTES + conn.opened.as_ref().map_or(header, |opened| 2 * opened.header_bytes) {
            conn.close("stalled", "asks without reading the answers");
        }
    }

    /// Ends a session; the first reason counts. It leaves its seat.
    pub(super) fn close(&mut self, key: usize, label: &'static str, text: impl Into<String>) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.close(label, text);
            self.park(key);
        }
    }

    /// Writes what waits, then serves the viewer, unless that is at the live edge and was not held up.
    pub(super) fn flush(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let flushed = match conn.out.flush(&conn.stream) {
            Ok(flushed) => flushed,
            Err(error) => return self.close(key, "connection_lost", format!("connection lost: {error}")),
        };
        let over_tcp = conn.route.is_none();
        if let (Place::Download(_), Flushed::All) = (&conn.place, flushed) {
            return self.serve_download(key, now);
        }
        let seat = match (&conn.opened, &mut conn.place) {
            (Some(opened), Place::Seat(index)) => Some((opened.channel, *index)),
            (_, Place::OnDemand(seat)) => {
                let waits = over_tcp && flushed == Flushed::Blocked;
                if waits {
                    seat.viewer.hot.blocked = true;
                } else if seat.viewer.hot.blocked {
                    seat.is_free(now);
                }
                // Without a time it has just begun, or was held up, or waits for a block, which it may ask for again.
                if !waits && seat.due.is_none() {
                    self.serve_title(key, now);
                }
                None
            }
            _ => None,
        };
        let Some((channel, index)) = seat else { return };
        let Some(viewer) = self.broadcast(channel).and_then(|broadcast| broadcast.viewers.hot_mut(index)) else { return };
        // Media over this connection must not overtake what waits for it.
        let was_blocked = std::mem::replace(&mut viewer.blocked, over_tcp && flushed == Flushed::Blocked);
        // Who is at the live edge waits for the tick, unless it has been left behind.
        if was_blocked || viewer.phase != Phase::Live {
            self.serve(channel, index, now);
        }
    }

    /// Whether media waits for room on this connection.
    pub(super) fn is_blocked(&self, conn: &Conn) -> bool {
        if let Place::OnDemand(seat) = &conn.place {
            return seat.viewer.hot.blocked;
        }
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return false };
        let broadcast = self.broadcasts.get(opened.channel);
        broadcast.and_then(|broadcast| broadcast.viewers.hot(*index)).is_some_and(|viewer| viewer.blocked)
    }

    /// Packets that a playing viewer was sent.
    pub(super) fn packets_sent(&self, conn: &Conn) -> u64 {
        if let Place::OnDemand(seat) = &conn.place {
            return seat.viewer.hot.packets;
        }
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return 0 };
        let broadcast = self.broadcasts.get(opened.channel);
        broadcast.and_then(|broadcast| broadcast.viewers.hot(*index)).map_or(0, |viewer| viewer.packets)
    }

    /// The broadcast of a channel; that of a publishing point which is new is made.
    pub(super) fn broadcast(&mut self, channel: usize) -> Option<&mut Broadcast> {
        let context = &self.context;
        self.broadcasts.reach(channel, || context.new_broadcast());
        self.broadcasts.get_mut(channel)
    }

    /// Sends one viewer what is due, and lets its engine know what follows from it.
    ///
    /// Tells whether there was room for it.
    pub(super) fn serve(&mut self, channel: usize, index: usize, now: Instant) -> Room {
        let Some(broadcast) = self.broadcasts.get_mut(channel) else { return Room::Enough };
        let Some(viewer) = broadcast.viewers.hot(index) else { return Room::Enough };
        if viewer.blocked {
            return Room::Enough;
        }
        let goes_on = viewer.phase == Phase::Live && viewer.packets > 0;
        let served = broadcast.serve(index, now, &self.origins, &mut self.tally);
        if goes_on && matches!(served, Ok(Served::Live)) {
            return Room::Enough;
        }
        self.follow(channel, index, now, served)
    }

    /// With which packet a viewer over RTP begins; nothing while it waits for one. What its player is told now goes before the packet.
    pub(super) fn cue(&self, key: usize) -> Option<Answer> {
        let conn = self.conns.get(key).filter(|conn| matches!(conn.framing, Framing::Rtp(_)))?;
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return None };
        let broadcast = self.broadcasts.get(opened.channel)?;
        let mut cue = broadcast.cue(*index)?;
        if let Some(limit_ms) = conn.engine.head_start_ms() {
            cue.head_start = broadcast.head_start(*index, conn.selection.streams, limit_ms).map(Box::new);
        }
        Some(Answer::Cued(cue))
    }

    /// Serves a viewer that has found another place.
    fn serve_again(&mut self, key: usize, now: Instant) {
        if let Some(Conn { opened: Some(opened), place: Place::Seat(index), .. }) = self.conns.get(key) {
            let (channel, index) = (opened.channel, *index);
            self.serve(channel, index, now);
        }
    }

    /// What follows from serving a viewer that is not just live.
    pub(super) fn follow(&mut self, channel: usize, index: usize, now: Instant, served: io::Result<Served>) -> Room {
        let Some(broadcast) = self.broadcasts.get_mut(channel) else { return Room::Enough };
        let Some((hot, cold)) = broadcast.viewers.both_mut(index) else { return Room::Enough };
        let key = cold.conn;
        let Some(conn) = self.conns.get_mut(key) else { return Room::Enough };
        if !cold.joined && hot.packets > 0 {
            cold.joined = true;
            self.counters.joined(hot, conn.opened.as_ref().map_or("", |opened| opened.point.name()));
            self.counters.join_seconds.record(now.saturating_duration_since(conn.accepted).as_secs_f64());
            conn.step(now, FIRST_PACKET);
            self.tell_first_packet(key, now);
        }
        let Some(broadcast) = self.broadcasts.get_mut(channel) else { return Room::Enough };
        let (Some(hot), Some(conn)) = (broadcast.viewers.hot(index), self.conns.get_mut(key)) else { return Room::Enough };
        match served {
            Err(error) => self.close(key, "connection_lost", format!("connection lost: {error}")),
            Ok(Served::Live) => {}
            Ok(Served::CatchingUp) => {
                broadcast.catching_up = true;
                self.pump_wake.notify_one();
            }
            Ok(Served::TcpBlocked(partial)) => {
                conn.out.keep(partial);
                conn.wake.notify_one();
            }
            Ok(blocked @ (Served::UdpBlocked | Served::PathBlocked)) => {
                // Whoever is not at the live edge is found by the next catch-up tick.
                if hot.phase == Phase::CatchingUp {
                    broadcast.catching_up = true;
                } else {
                    broadcast.unfinished.get_or_insert(now);
                }
                self.pump_wake.notify_one();
                return if blocked == Served::UdpBlocked { Room::NoneInSocket } else { Room::NoneOnPath };
            }
            Ok(Served::Cued) => {
                if let Some(cue) = self.cue(key) {
                    self.drive(key, now, Event::Answer(cue));
                }
                self.serve_again(key, now);
            }
            Ok(Served::TooSlow) => {
                self.thin(key);
                self.serve_again(key, now);
            }
            Ok(Served::NewGeneration) => self.cross_boundary(key, channel, index, now),
            Ok(Served::Finished) => {
                self.tell_next_sequence(key, now);
                self.drive(key, now, Event::Answer(Answer::Ended));
                // It has asked for this by itself; whatever it said, a viewer that has everything leaves its seat.
                self.park(key);
            }
        }
        Room::Enough
    }

    /// Tells an engine of the header that its next packets need.
    fn cross_boundary(&mut self, key: usize, channel: usize, index: usize, now: Instant) {
        let Some(broadcast) = self.broadcasts.get(channel) else { return };
        let next = broadcast.viewers.hot(index).and_then(|viewer| broadcast.window.packet(viewer.next.packet));
        if let Some(generation) = next.map(|(batch, _)| Arc::clone(&batch.generation)) {
            self.announce_generation(key, &generation, now);
        }
    }

    /// Tells an engine of a header that differs from the one it has.
    pub(super) fn announce_generation(&mut self, key: usize, generation: &Generation, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(opened) = &mut conn.opened else { return };
        if opened.generation == Some(generation.number) {
            return;
        }
        let oversize = conn.udp.as_ref().is_some_and(|udp| !udp.fits(generation.packet_size + HEAD_LEN));
        if conn.route.is_some() && oversize && self.context.settings.udp.oversize == Oversize::Refuse {
            // No message moves a playing session to TCP; a player that connects again is told to.
            return self.close(key, "oversize", "packets of the new header do not fit a datagram");
        }
        opened.generation = Some(generation.number);
        opened.flow = flow_of(generation);
        opened.header_bytes = generation.header.len();
        opened.packet_size = generation.packet_size;
        conn.selection = Selection::all(generation.streams);
        if let Some(permit) = &mut conn.permit {
            permit.rebook(generation.bit_rate);
        }
        self.drive(key, now, Event::Answer(Answer::NewGeneration(describe(generation))));
    }

    /// Whether sends of some publishing point have lagged for so long that nobody else is taken on; notes it where they have.
    pub(super) fn is_overloaded(&self, now: Instant) -> bool {
        let Some(limit) = self.context.settings.limits.max_send_delay else { return false };
        let overloaded = self.broadcasts.iter().any(|broadcast| broadcast.lag.is_sustained(now, limit));
        if overloaded {
            self.context.overload.refused.fetch_add(1, Ordering::Relaxed);
        }
        overloaded
    }

    /// One line a second, however many are refused by however many shards.
    pub(super) fn tell_of_overload(&self) {
        let Overload { refused, late_ms } = &self.context.overload;
        if self.index != 0 {
            return;
        }
        let (viewers, late_ms) = (refused.swap(0, Ordering::Relaxed), late_ms.swap(0, Ordering::Relaxed));
        if viewers > 0 {
            tracing::warn!(
                viewers,
                late_ms,
                "new viewers were refused: media leaves later than `limits.max_send_delay_ms`; this machine is at its limit"
            );
        }
    }

    /// The publishing point of a channel is gone: its window holds nothing.
    pub(super) fn forget_window(&mut self, channel: usize) {
        if let Some((gauge, told)) = self.window_bytes.remove(&channel) {
            gauge.decrement(told);
        }
    }

    /// Tells the size of the windows; all shards hold the same batches, so one of them tells for all.
    pub(super) fn measure(&mut self) {
        if self.index != 0 {
            return;
        }
        for (id, broadcast) in self.broadcasts.of_points() {
            let id = PointId(id);
            let variants = broadcast.variants.iter().filter_map(|channel| self.broadcasts.get(*channel));
            let bytes = variants.chain([broadcast]).map(|broadcast| broadcast.window.bytes()).sum::<usize>();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let bytes = bytes as f64;
            let told = self.window_bytes.entry(channel_of(id));
            let (gauge, told) = match told {
                Told::Occupied(told) => told.into_mut(),
                Told::Vacant(_) if bytes == 0.0 => continue,
                Told::Vacant(place) => {
                    let Some(point) = self.context.relay.by_id(id) else { continue };
                    place.insert((window_gauge(point.name()), 0.0))
                }
            };
            // Publishing points beyond the first hundred share a label: each adds its own change.
            gauge.increment(bytes - *told);
            *told = bytes;
        }
    }
}

fn window_gauge(point: &str) -> metrics::Gauge {
    metrics::gauge!(names::WINDOW_BYTES, "point" => names::point_label(point))
}

/// IPv4 in IPv6 clothes is IPv4; everything else, the scope of a link-local address too, stays.
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        address @ IpAddr::V4(_) => SocketAddr::new(address, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

pub(super) fn describe(generation: &Generation) -> Description {
    Description {
        header: generation.header.clone(),
        packet_size: u32::try_from(generation.packet_size).unwrap_or(u32::MAX),
        bit_rate: generation.bit_rate,
        streams: generation.streams,
        content: Content::Live,
        ssrc: generation.ssrc,
    }
}
