//! All that one shard knows, and how a session's questions are answered.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::Context;
use super::broadcast::{Broadcast, Served, Tally, Viewer};
use super::command::{Accepted, Command};
use super::conn::{Conn, Opened, Place};
use super::out_queue::Flushed;
use super::udp::Route;
use crate::mms::hresult::Hresult;
use crate::mms::media::HEAD_LEN;
use crate::mms::session::{Answer, Ask, CloseReason, Description, Input, OpenRefusal, Output, Session};
use crate::relay::admission::{Claim, LeaseRefusal, Refusal};
use crate::relay::{Delivery, Generation, PointId};
use crate::{metrics as names, settings::Oversize};

/// Control messages that may wait for a reader before it is given up: a header of the largest size fits.
const MAX_CONTROL_BYTES: usize = 2 << 20;
/// A TCP viewer that takes no byte for this long is gone.
const STALLED: Duration = Duration::from_secs(60);

/// All that one shard knows.
pub(super) struct State {
    pub(super) context: Arc<Context>,
    pub(super) index: usize,
    pub(super) conns: Slab<Conn>,
    pub(super) broadcasts: Vec<Broadcast>,
    pub(super) tally: Tally,
    pub(super) counters: super::counters::Counters,
    window_bytes: Vec<metrics::Gauge>,
    /// The pump has something to do.
    pub(super) pump_wake: Rc<Notify>,
    /// Some viewer catches up: the next tick has work.
    pub(super) catching_up: bool,
    /// The daemon goes down: no new sessions, viewers get the end of the stream.
    pub(super) stopping: bool,
}

impl State {
    /// A shard without connections.
    pub(super) fn new(context: Arc<Context>, index: usize) -> Self {
        let points = context.relay.points();
        let broadcasts = points.iter().map(|_| Broadcast::new(&context.settings.window)).collect();
        let window_bytes = match index {
            0 => points
                .iter()
                .map(|point| metrics::gauge!(names::WINDOW_BYTES, "point" => names::point_label(point.name())))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            context,
            index,
            conns: Slab::new(),
            broadcasts,
            tally: Tally::default(),
            counters: super::counters::Counters::new(),
            window_bytes,
            pump_wake: Rc::new(Notify::new()),
            catching_up: false,
            stopping: false,
        }
    }

    /// Takes a connection over; its key.
    pub(super) fn admit(&mut self, now: Instant, accepted: Accepted, stream: Rc<TcpStream>) -> usize {
        let slot = self.conns.vacant_entry();
        let key = slot.key();
        let peer = SocketAddr::new(accepted.peer.ip().to_canonical(), accepted.peer.port());
        let sender = self.context.mailbox(self.index);
        let entry = self.context.routes.enter(sender, key, peer.ip(), super::random_u32);
        let config = if accepted.udp.is_some() { &self.context.mms_with_udp } else { &self.context.mms_without_udp };
        let engine = Box::new(Session::new(now, Arc::clone(config), entry.client_id()));
        slot.insert(Conn {
            session: self.context.next_session(),
            stream,
            peer,
            local: accepted.local,
            accepted: accepted.at,
            engine,
            out: Default::default(),
            wake: Rc::new(Notify::new()),
            udp: accepted.udp,
            entry,
            permit: None,
            lease: None,
            route: None,
            opened: None,
            place: Place::Nowhere,
            closing: None,
            joined: false,
            progress: (0, now),
        });
        self.counters.connections.increment(1.0);
        self.counters.sessions.increment(1);
        key
    }

    /// Lets the session's engine work on an input and does what it asks for.
    pub(super) fn drive(&mut self, key: usize, now: Instant, input: Input<'_>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.closing.is_some() {
            return;
        }
        if let Err(error) = conn.engine.handle(now, input) {
            conn.close(error.reason().label(), error.to_string());
        }
        while let Some(output) = self.conns.get_mut(key).and_then(|conn| conn.engine.poll_output()) {
            match output {
                Output::Send(message) => self.queue(key, message),
                Output::Datagram(packet) => {
                    // VLC gives up when the header arrives before the answer that announces it.
                    self.flush(key, now);
                    self.send_header_packet(key, &packet);
                }
                Output::Ask(ask) => {
                    if let Some(answer) = self.answer(key, now, ask)
                        && let Some(conn) = self.conns.get_mut(key)
                        && let Err(error) = conn.engine.handle(now, Input::Answer(answer))
                    {
                        conn.close(error.reason().label(), error.to_string());
                    }
                }
                Output::Close(reason) => {
                    if let Some(conn) = self.conns.get_mut(key) {
                        conn.close(reason.label(), words(reason));
                    }
                }
            }
        }
        self.flush(key, now);
    }

    fn queue(&mut self, key: usize, message: Bytes) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.out.push(message);
        if conn.out.control_bytes() > MAX_CONTROL_BYTES {
            conn.close("stalled", "asks without reading the answers");
        }
    }

    /// Writes what waits, then serves the viewer if media goes over this connection.
    pub(super) fn flush(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        match conn.out.flush(&conn.stream) {
            Err(error) => conn.close("connection_lost", format!("connection lost: {error}")),
            Ok(Flushed::Blocked) => {}
            Ok(Flushed::All) => {
                let seat = match (&conn.opened, &conn.place) {
                    (Some(opened), Place::Seat(index)) => Some((opened.point.id(), *index)),
                    _ => None,
                };
                if let Some((point, index)) = seat {
                    if let Some(viewer) = self.viewer_mut(point, index) {
                        viewer.blocked = false;
                    }
                    self.serve(point, index, now);
                }
            }
        }
    }

    /// Whether media waits for room on this connection.
    pub(super) fn is_blocked(&self, conn: &Conn) -> bool {
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return false };
        let broadcast = self.broadcasts.get(opened.point.id().0 as usize);
        broadcast.and_then(|broadcast| broadcast.viewers.get(*index)).is_some_and(|viewer| viewer.blocked)
    }

    fn broadcast(&mut self, point: PointId) -> Option<&mut Broadcast> {
        self.broadcasts.get_mut(point.0 as usize)
    }

    fn viewer_mut(&mut self, point: PointId, index: usize) -> Option<&mut Viewer> {
        self.broadcast(point)?.viewers.get_mut(index)
    }

    /// Sends one viewer what is due, and lets its engine know what follows from it.
    ///
    /// True where the UDP socket is full and the pass must wait.
    pub(super) fn serve(&mut self, point: PointId, index: usize, now: Instant) -> bool {
        let Some(broadcast) = self.broadcasts.get_mut(point.0 as usize) else { return false };
        let Some(key) = broadcast.viewers.get(index).map(|viewer| viewer.conn) else { return false };
        let Some(conn) = self.conns.get_mut(key) else { return false };
        if conn.closing.is_some() || !conn.out.is_empty() && conn.route.is_none() {
            return false;
        }
        let before = broadcast.viewers.get(index).map_or(0, |viewer| viewer.packets);
        let served = broadcast.serve(index, now, Some((&conn.stream, &mut conn.out)), &mut self.tally);
        if !conn.joined && broadcast.viewers.get(index).is_some_and(|viewer| viewer.packets > before) {
            conn.joined = true;
            self.counters.joined(conn.transport().label(), conn.opened.as_ref().map_or("", |opened| opened.point.name()));
            self.counters.join_seconds.record(now.saturating_duration_since(conn.accepted).as_secs_f64());
        }
        match served {
            Err(error) => conn.close("connection_lost", format!("connection lost: {error}")),
            Ok(Served::Live) => {}
            Ok(Served::CatchingUp) => {
                self.catching_up = true;
                self.pump_wake.notify_one();
            }
            Ok(Served::TcpBlocked) => conn.wake.notify_one(),
            Ok(Served::UdpBlocked) => return true,
            Ok(Served::NewGeneration) => self.announce_generation(key, now),
            Ok(Served::Finished) => self.drive(key, now, Input::Answer(Answer::Ended)),
        }
        false
    }

    /// Tells an engine of the header that its next packets need.
    fn announce_generation(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(opened) = &mut conn.opened else { return };
        let Some(generation) =
            self.broadcasts.get(opened.point.id().0 as usize).and_then(|broadcast| broadcast.generation.clone())
        else {
            return;
        };
        if opened.generation == Some(generation.number) {
            return;
        }
        opened.generation = Some(generation.number);
        if let Some(permit) = &mut conn.permit {
            permit.rebook(generation.bit_rate);
        }
        self.drive(key, now, Input::Answer(Answer::NewGeneration(describe(&generation))));
    }

    /// What the relay answers; `None` where no answer is owed, or not yet.
    fn answer(&mut self, key: usize, now: Instant, ask: Ask) -> Option<Answer> {
        match ask {
            Ask::Admit(player) => {
                let conn = self.conns.get_mut(key)?;
                tracing::debug!(session = conn.session, peer = %conn.peer, player = %player.token.escape_debug(), "connected");
                if self.stopping {
                    return Some(Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)));
                }
                let permit = self.context.relay.admission().connect(now, conn.peer.ip());
                Some(Answer::Admitted(
                    permit.map(|permit| conn.permit = Some(permit)).map_err(|refusal| self.refused(key, refusal)),
                ))
            }
            Ask::ClaimPort { port, announced } => Some(Answer::Funnel(self.claim(key, now, port, announced))),
            Ask::ReleasePort => {
                let conn = self.conns.get_mut(key)?;
                conn.entry.leads_to(None);
                conn.lease = None;
                conn.route = None;
                None
            }
            Ask::Open { name } => self.open(key, now, &name),
            Ask::Play { incarnation } => {
                self.play(key, now, incarnation);
                None
            }
            Ask::Incarnation { incarnation } => {
                let conn = self.conns.get(key)?;
                if let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) {
                    let (point, index) = (opened.point.id(), *index);
                    self.viewer_mut(point, index)?.track.start(incarnation);
                }
                None
            }
            Ask::Stop => {
                self.park(key);
                None
            }
            Ask::Resend { sequences } => {
                for sequence in sequences {
                    self.resend(key, sequence);
                }
                None
            }
        }
    }

    /// Notes a refusal for the metrics and the log, and puts it into the protocol's words.
    fn refused(&self, key: usize, refusal: Refusal) -> Hresult {
        metrics::counter!(names::REFUSALS, "cause" => refusal.label()).increment(1);
        if let Some(conn) = self.conns.get(key) {
            tracing::info!(session = conn.session, peer = %conn.peer, cause = refusal.label(), "viewer refused");
        }
        match refusal {
            Refusal::Access => Hresult::ACCESS_DENIED,
            Refusal::Bandwidth => Hresult::INSUFFICIENT_BANDWIDTH,
            _ => Hresult::TOO_MANY_SESSIONS,
        }
    }

    fn claim(&mut self, key: usize, now: Instant, port: u16, announced: Option<IpAddr>) -> Result<(), Hresult> {
        let Some(conn) = self.conns.get_mut(key) else { return Err(Hresult::UDP_DISABLED) };
        let Some(udp) = conn.udp.clone() else { return Err(Hresult::UDP_DISABLED) };
        if self.context.settings.udp.oversize == Oversize::Refuse && self.every_source_is_oversize(&udp) {
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
            return Err(Hresult::PROTOCOL_MISMATCH);
        }
        let Some(conn) = self.conns.get_mut(key) else { return Err(Hresult::UDP_DISABLED) };
        // What this session leased before must not stand in its own way.
        conn.entry.leads_to(None);
        conn.lease = None;
        conn.route = None;
        let address = conn.peer.ip();
        let player = conn.engine.report().player.as_ref().and_then(|player| player.guid.clone());
        let claim = Claim { address, port, announced, player, owner: u64::from(conn.entry.client_id()) };
        match self.context.relay.admission().ports().claim(now, claim) {
            Ok(lease) => {
                if let Some(owner) = lease.superseded() {
                    self.context.routes.superseded(owner);
                }
                let destination = SocketAddr::new(address, lease.port());
                conn.entry.leads_to(Some(destination));
                conn.lease = Some(lease);
                conn.route = Some(Route { destination, source: conn.local.ip().to_canonical(), segmented: true });
                Ok(())
            }
            Err(refusal) => {
                metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => refusal.label()).increment(1);
                tracing::info!(session = conn.session, peer = %conn.peer, port, cause = refusal.label(), "UDP refused, the player may take TCP");
                Err(match refusal {
                    LeaseRefusal::Disabled => Hresult::UDP_DISABLED,
                    LeaseRefusal::Taken => Hresult::DUPLICATE_ADDRESS,
                    LeaseRefusal::Exhausted => Hresult::NETWORK_RESOURCE_FAILURE,
                    LeaseRefusal::OutsidePool | LeaseRefusal::Privileged | LeaseRefusal::NatMismatch => Hresult::INVALID_PORT,
                })
            }
        }
    }

    fn every_source_is_oversize(&self, udp: &super::udp::UdpPort) -> bool {
        let mut sizes =
            self.broadcasts.iter().filter_map(|broadcast| Some(broadcast.generation.as_ref()?.packet_size)).peekable();
        sizes.peek().is_some() && sizes.all(|size| !udp.fits(size + HEAD_LEN))
    }

    fn open(&mut self, key: usize, now: Instant, name: &str) -> Option<Answer> {
        let refuse = |hr| Some(Answer::Opened(Err(OpenRefusal::Status(hr))));
        let Some(point) = self.context.relay.point(name) else {
            metrics::counter!(names::REFUSALS, "cause" => "unknown_name").increment(1);
            let conn = self.conns.get(key)?;
            tracing::info!(session = conn.session, peer = %conn.peer, name = %name.escape_debug(), "no such publishing point");
            return refuse(Hresult::FILE_NOT_FOUND);
        };
        self.park(key);
        let id = point.id();
        let generation = self.broadcast(id)?.generation.clone();
        let wait = point.source_expected();
        let conn = self.conns.get_mut(key)?;
        conn.opened = Some(Opened { generation: None, _watch: point.watch(), point });
        match generation {
            Some(generation) => Some(self.opened(key, now, &generation)),
            None if wait => {
                self.broadcast(id)?.waiting.push(key);
                None
            }
            None => {
                self.conns.get_mut(key)?.opened = None;
                metrics::counter!(names::REFUSALS, "cause" => "no_source").increment(1);
                refuse(Hresult::NO_STREAM)
            }
        }
    }

    /// The answer to an open, now that there is a header.
    fn opened(&mut self, key: usize, _now: Instant, generation: &Generation) -> Answer {
        let refused = |hr| Answer::Opened(Err(OpenRefusal::Status(hr)));
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let Some(opened) = &mut conn.opened else { return refused(Hresult::NO_STREAM) };
        let oversize = conn.udp.as_ref().is_some_and(|udp| !udp.fits(generation.packet_size + HEAD_LEN));
        if conn.route.is_some() && oversize && self.context.settings.udp.oversize == Oversize::Refuse {
            metrics::counter!(names::REFUSALS, "cause" => "oversize").increment(1);
            return refused(Hresult::PROTOCOL_MISMATCH);
        }
        let Some(permit) = &mut conn.permit else { return refused(Hresult::INVALID_REQUEST) };
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.id(), generation.bit_rate) {
            conn.opened = None;
            return refused(self.refused(key, refusal));
        }
        opened.generation = Some(generation.number);
        Answer::Opened(Ok(describe(generation)))
    }

    /// Seats a viewer at the join point and sends it what is there.
    fn play(&mut self, key: usize, now: Instant, incarnation: u8) {
        self.park(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some((point, generation)) = conn.opened.as_ref().and_then(|opened| Some((opened.point.id(), opened.generation?)))
        else {
            return;
        };
        let transport = conn.transport();
        let Some(broadcast) = self.broadcasts.get_mut(point.0 as usize) else { return };
        let mut viewer = match std::mem::replace(&mut conn.place, Place::Nowhere) {
            Place::Parked(viewer) => *viewer,
            _ => Viewer::new(key, transport.clone(), generation),
        };
        viewer.transport = transport;
        viewer.generation = generation;
        viewer.track.start(incarnation);
        broadcast.place(&mut viewer, now);
        let index = broadcast.viewers.len();
        self.counters.viewers(viewer.transport.label()).increment(1.0);
        broadcast.viewers.push(viewer);
        conn.place = Place::Seat(index);
        if broadcast.generation.as_ref().is_some_and(|newest| newest.number != generation) {
            self.announce_generation(key, now);
        }
        // The media follows the report that is still in the queue: the flush after this answer sends both.
    }

    /// Takes a viewer from its seat; its numbers and what it was sent stay with the connection.
    fn park(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (Place::Seat(index), Some(opened)) = (&conn.place, &conn.opened) else { return };
        let (index, point) = (*index, opened.point.id());
        let Some(broadcast) = self.broadcasts.get_mut(point.0 as usize) else { return };
        if index >= broadcast.viewers.len() {
            return;
        }
        let viewer = broadcast.viewers.swap_remove(index);
        self.counters.viewers(viewer.transport.label()).decrement(1.0);
        conn.place = Place::Parked(Box::new(viewer));
        if let Some(moved) = broadcast.viewers.get(index).map(|viewer| viewer.conn)
            && let Some(conn) = self.conns.get_mut(moved)
        {
            conn.place = Place::Seat(index);
        }
    }

    /// Sends a packet again, byte for byte as the first time, to the leased port.
    fn resend(&mut self, key: usize, sequence: u32) {
        let result = self.try_resend(key, sequence).unwrap_or("unknown");
        self.counters.resent(result);
    }

    fn try_resend(&mut self, key: usize, sequence: u32) -> Option<&'static str> {
        let conn = self.conns.get(key)?;
        let (route, udp, opened) = (conn.route?, conn.udp.as_ref()?, conn.opened.as_ref()?);
        let broadcast = self.broadcasts.get(opened.point.id().0 as usize)?;
        let viewer = match &conn.place {
            Place::Seat(index) => broadcast.viewers.get(*index)?,
            Place::Parked(viewer) => viewer,
            Place::Nowhere => return None,
        };
        let sent = viewer.track.lookup(sequence)?;
        let Some((batch, index)) = broadcast.window.packet(sent.packet) else { return Some("expired") };
        let packet = batch.packet(index)?;
        let head = sent.head(packet.len()).bytes();
        let mut datagram = Vec::with_capacity(head.len() + packet.len());
        datagram.extend_from_slice(&head);
        datagram.extend_from_slice(packet);
        let stride = datagram.len();
        let outcome = udp.send(&route, &[std::io::IoSlice::new(&datagram)], stride);
        self.tally.udp_calls += u64::from(outcome.calls);
        self.tally.icmp_pending |= outcome.errors_pending;
        Some(if outcome.bytes == stride && outcome.failed == 0 { "sent" } else { "failed" })
    }

    /// One fragment of the header over the UDP funnel; a lost one is asked for again by the client.
    fn send_header_packet(&mut self, key: usize, packet: &[u8]) {
        let Some(conn) = self.conns.get(key) else { return };
        let (Some(route), Some(udp)) = (&conn.route, &conn.udp) else { return };
        let sent = udp.send(route, &[std::io::IoSlice::new(packet)], packet.len());
        self.tally.udp_calls += u64::from(sent.calls);
        self.tally.icmp_pending |= sent.errors_pending;
    }

    /// Takes in what a publishing point tells.
    pub(super) fn deliver(&mut self, now: Instant, delivery: Delivery) {
        match delivery {
            Delivery::Batch { point, batch } => {
                let Some(broadcast) = self.broadcast(point) else { return };
                broadcast.ended = false;
                broadcast.unsent.push((batch.due, batch.packets.len() as u64));
                broadcast.window.push(batch);
                broadcast.fresh = true;
                self.pump_wake.notify_one();
            }
            Delivery::Generation { point, generation } => {
                self.warn_of_oversize(point, &generation);
                let Some(broadcast) = self.broadcast(point) else { return };
                broadcast.ended = false;
                broadcast.generation = Some(Arc::clone(&generation));
                for key in std::mem::take(&mut broadcast.waiting) {
                    let waits = self.conns.get(key).and_then(|conn| conn.opened.as_ref());
                    if waits.is_some_and(|opened| opened.point.id() == point && opened.generation.is_none()) {
                        let answer = self.opened(key, now, &generation);
                        self.drive(key, now, Input::Answer(answer));
                    }
                }
            }
            Delivery::SourceLost { .. } => {}
            Delivery::Ended { point } => {
                let Some(broadcast) = self.broadcast(point) else { return };
                broadcast.generation = None;
                broadcast.ended = true;
                broadcast.fresh = true;
                for key in std::mem::take(&mut broadcast.waiting) {
                    self.drive(key, now, Input::Answer(Answer::Opened(Err(OpenRefusal::Status(Hresult::NO_STREAM)))));
                }
                self.pump_wake.notify_one();
            }
        }
    }

    /// One shard says it for all: packets of this source need IP fragments.
    fn warn_of_oversize(&self, point: PointId, generation: &Generation) {
        let udp = &self.context.settings.udp;
        let datagram = generation.packet_size + HEAD_LEN;
        if self.index != 0 || !udp.enabled || datagram <= udp.max_datagram_v4 {
            return;
        }
        let points = self.context.relay.points();
        let name = points.get(point.0 as usize).map_or("?", |point| point.name());
        let room = udp.max_datagram_v4.saturating_sub(HEAD_LEN);
        let what = match udp.oversize {
            Oversize::Fragment => "they go to UDP viewers as IP fragments, which some firewalls drop",
            Oversize::Refuse => "its viewers get TCP only",
        };
        tracing::warn!(
            point = name,
            packet_size = generation.packet_size,
            "packets of this source do not fit a datagram: {what}; encode with -packet_size {} or less",
            room.min(1400)
        );
    }

    /// Carries out a command from outside of the shard.
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Delivery(delivery) => self.deliver(now, delivery),
            Command::Datagram { conn, client_id, bytes } => {
                if self.is(conn, client_id) {
                    self.drive(conn, now, Input::Datagram(&bytes));
                }
            }
            Command::End { conn, client_id, why } => {
                if self.is(conn, client_id)
                    && let Some(conn) = self.conns.get_mut(conn)
                {
                    conn.close(why.label(), why.to_string());
                }
            }
            Command::Stop => {
                self.stopping = true;
                let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.drive(key, now, Input::Answer(Answer::Ended));
                }
            }
            Command::Connection(_) => {}
        }
    }

    /// Keys are used again: a command that comes late must not meet another session.
    fn is(&self, key: usize, client_id: u32) -> bool {
        self.conns.get(key).is_some_and(|conn| conn.entry.client_id() == client_id)
    }

    /// Tells the size of the windows; all shards hold the same batches, so one of them tells for all.
    pub(super) fn measure(&self) {
        for (broadcast, gauge) in self.broadcasts.iter().zip(&self.window_bytes) {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            gauge.set(broadcast.window.bytes() as f64);
        }
    }

    /// Ends viewers that take nothing any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        for (_, conn) in &mut self.conns {
            let written = conn.out.written_bytes();
            let waits = !conn.out.is_empty();
            if written != conn.progress.0 || !waits {
                conn.progress = (written, now);
            } else if now.saturating_duration_since(conn.progress.1) > STALLED {
                conn.close("stalled", "stopped reading");
            }
        }
    }

    /// Takes a connection out and writes the session's one line.
    pub(super) fn remove(&mut self, key: usize, now: Instant) {
        self.park(key);
        let Some(conn) = self.conns.try_remove(key) else { return };
        if let Some(opened) = &conn.opened
            && let Some(broadcast) = self.broadcasts.get_mut(opened.point.id().0 as usize)
        {
            broadcast.waiting.retain(|waiting| *waiting != key);
        }
        self.counters.connections.decrement(1.0);
        let reason = conn.closing.as_ref().map_or("closed by the player", |ending| ending.text.as_str());
        self.counters.ended(conn.closing.as_ref().map_or("closed_by_player", |ending| ending.label));
        let (packets, bytes, skipped) = match &conn.place {
            Place::Parked(viewer) => (viewer.packets, viewer.bytes, viewer.skipped),
            _ => (0, 0, 0),
        };
        let report = conn.engine.report();
        tracing::info!(
            session = conn.session,
            peer = %conn.peer,
            protocol = "mms",
            transport = conn.transport().label(),
            point = conn.opened.as_ref().map_or("", |opened| opened.point.name()),
            player = report.player_text(),
            seconds = now.saturating_duration_since(conn.accepted).as_secs(),
            packets,
            bytes,
            skipped,
            resends_asked = report.resends_asked,
            resends_granted = report.resends_granted,
            client_report = report.log_text().unwrap_or_default(),
            reason,
            "session ended"
        );
    }
}

/// Why a session ended, for a person.
const fn words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Left => "the player left",
        CloseReason::Ended => "the broadcast ended",
        CloseReason::Refused => "not admitted",
        CloseReason::Redirected => "sent elsewhere",
        CloseReason::Handshake => "the next step of the handshake did not come in time",
        CloseReason::Idle => "nothing heard of a session that does not play",
        CloseReason::Unanswered => "three pings without an answer",
        CloseReason::WrongState => "three messages that did not fit the state",
        CloseReason::Flood => "more messages than a player sends",
        CloseReason::Protocol => "not MMS, or broken MMS",
    }
}

fn describe(generation: &Generation) -> Description {
    Description {
        header: generation.header.clone(),
        packet_size: u32::try_from(generation.packet_size).unwrap_or(u32::MAX),
        bit_rate: generation.bit_rate,
        streams: generation.streams,
    }
}
