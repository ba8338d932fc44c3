//! What a session's engine asks for, and what it gets.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::broadcast::{Link, Viewer};
use super::conn::{Conn, Opened, Place, ResendPath};
use super::file_pace::Wish;
use super::rtp::flow_of;
use super::state::{State, describe};
use super::timeline::words_of_refused_port;
use super::udp::{Route, UdpPort};
use crate::asf::Selection;
use crate::metrics as names;
use crate::mms::media::HEAD_LEN;
use crate::relay::admission::{Claim, LeaseRefusal, Refusal};
use crate::relay::{Generation, Point};
use crate::settings::{Oversize, Source, Viewers};
use crate::text::signed::masked;
use crate::viewing::{Answer, Ask, Flow, OpenRefusal, Pass, UdpPorts};
use crate::wire::Hresult;

/// Why viewers are refused that come last.
const STOPS: &str = "the daemon stops";

impl State {
    /// What the relay answers; `None` where no answer is owed, or not yet.
    pub(super) fn answer(&mut self, key: usize, now: Instant, ask: Ask) -> Option<Answer> {
        if !self.may_play(key, &ask) {
            return None;
        }
        match ask {
            Ask::Admit(player) => {
                let conn = self.conns.get_mut(key)?;
                tracing::debug!(session = conn.session, peer = %conn.peer, player = %masked(&player.token.escape_debug().to_string()), "connected");
                if self.stopping.is_some() {
                    conn.refused_because(STOPS);
                    return Some(Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)));
                }
                if let Some(admitted) = self.admit_while_draining(key, now) {
                    return Some(admitted);
                }
                if self.is_overloaded(now) {
                    metrics::counter!(names::REFUSALS, "cause" => "overload").increment(1);
                    self.conns.get_mut(key)?.refused_because("media leaves late, this machine is at its limit");
                    return Some(Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)));
                }
                let conn = self.conns.get_mut(key)?;
                let permit = self.context.relay.admission().connect(now, conn.peer.ip());
                Some(Answer::Admitted(
                    permit.map(|permit| conn.permit = Some(permit)).map_err(|refusal| self.refused(key, refusal)),
                ))
            }
            Ask::AwaitsPublisher { name } => {
                // Who could not publish anyway pays no second connection, and learns nothing of names.
                let awaits = self.may_publish(self.conns.get(key)?.peer.ip()) && self.context.relay.awaits_publisher(now, &name);
                Some(Answer::AwaitsPublisher(awaits))
            }
            Ask::ClaimPort { port, announced } => Some(Answer::Funnel(self.claim(key, now, port, announced))),
            Ask::ReleasePort => {
                self.release(key);
                None
            }
            Ask::Lease(ports) => Some(Answer::Leased(self.lease(key, now, ports))),
            Ask::Open { name, pass } => self.open(key, now, &name, pass),
            Ask::OpenBytes { name, pass } => self.open_bytes(key, now, &name, pass),
            Ask::SendBytes { first, len } => {
                self.send_bytes(key, now, first, len);
                None
            }
            Ask::Play { incarnation } => {
                let conn = self.conns.get_mut(key)?;
                conn.framing = conn.engine.framing();
                self.play(key, now, incarnation);
                self.cue(key)
            }
            Ask::PlayFile { incarnation, from, until, acceleration, speed } => {
                let conn = self.conns.get_mut(key)?;
                conn.framing = conn.engine.framing();
                self.play_title(key, now, from, (incarnation, until, Wish { acceleration, speed }));
                None
            }
            Ask::Resume { incarnation, until } => {
                let conn = self.conns.get_mut(key)?;
                conn.framing = conn.engine.framing();
                if conn.opened.as_ref().is_some_and(|opened| opened.title.is_some()) {
                    self.resume_title(key, now, incarnation, until);
                    return None;
                }
                self.play(key, now, incarnation);
                self.cue(key)
            }
            Ask::Select(selection) => {
                self.select(key, selection);
                None
            }
            Ask::Incarnation { incarnation } => {
                let conn = self.conns.get(key)?;
                if let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) {
                    let (channel, index) = (opened.channel, *index);
                    let (hot, cold) = self.broadcast(channel)?.viewers.both_mut(index)?;
                    cold.track.start(&mut hot.next, incarnation);
                }
                None
            }
            Ask::Stop => {
                self.park(key);
                self.ticket_rests(key);
                None
            }
            Ask::Rest => {
                self.park(key);
                let conn = self.conns.get_mut(key)?;
                (conn.opened, conn.permit, conn.granted, conn.ticket) = (None, None, None, None);
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

    /// Whether anything that this peer could send would let it publish: the rule of the publishers' gate.
    fn may_publish(&self, peer: IpAddr) -> bool {
        self.context.relay.admission().may_publish(peer)
            && (peer.is_loopback() || self.context.relay.settings().users_file.is_some())
    }

    /// Notes a refusal for the metrics and the log, and puts it into the protocol's words.
    pub(super) fn refused(&mut self, key: usize, refusal: Refusal) -> Hresult {
        metrics::counter!(names::REFUSALS, "cause" => refusal.label()).increment(1);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.refused_because(refusal);
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
        // A header that was told with packets too big for datagrams cannot be taken back.
        let told = conn.opened.as_ref().filter(|opened| opened.generation.is_some()).map(|opened| opened.packet_size + HEAD_LEN);
        if self.context.settings.udp.oversize != Oversize::Fragment && told.is_some_and(|datagram| !udp.fits(datagram)) {
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
            return Err(Hresult::PROTOCOL_MISMATCH);
        }
        // What this session leased before must not stand in its own way.
        conn.entry.leads_to(None);
        conn.leases.clear();
        conn.route = None;
        let Some(origin) = self.origins.id(&udp, conn.local.ip().to_canonical()) else { return Err(Hresult::UDP_DISABLED) };
        let address = conn.peer.ip();
        let player = conn.engine.guid();
        conn.choose_among_held(now, &[port]);
        let (owner, ticket) = (u64::from(conn.entry.client_id()), conn.ticket_shown());
        let claim = Claim { address, port, announced, player, owner, ticket };
        // What is in the queue is about those who had ports before.
        for port in &self.context.udp_ports {
            self.context.drain_errors(port, now);
        }
        let admission = self.context.relay.admission();
        // Who holds a ticket may know better.
        if !admission.ports().is_held(address, port) && admission.learned().refuses_ports(now, address, &[port], &conn.mark()) {
            return Err(udp_refused(conn, now, port, LeaseRefusal::Learned));
        }
        match admission.ports().claim(now, claim) {
            Ok(lease) => {
                if let Some(owner) = lease.superseded() {
                    self.context.routes.superseded(owner);
                }
                let mut destination = conn.peer;
                destination.set_port(lease.port());
                conn.entry.leads_to(Some((destination, now)));
                conn.leases = vec![lease];
                conn.route = Some(Route { destination: destination.into(), origin, segmented: true, fragmented: false });
                Ok(())
            }
            Err(refusal) => Err(udp_refused(conn, now, port, refusal)),
        }
    }

    /// Gives a flow of its own ports of the player's. Media and resends come from one port of ours, whatever the listener.
    fn lease(&mut self, key: usize, now: Instant, ports: UdpPorts) -> Result<(), Hresult> {
        for port in &self.context.udp_ports {
            self.context.drain_errors(port, now);
        }
        let Some(conn) = self.conns.get_mut(key) else { return Err(Hresult::UDP_DISABLED) };
        let UdpPorts { owner, flow, first, pair, then } = ports;
        let local = conn.local.ip().to_canonical();
        let ours = self.context.rtp_ports.iter().find(|ours| ours.serves(local));
        let Some(origin) = ours.and_then(|ours| self.origins.id(&ours.media, local)) else {
            return Err(udp_refused(conn, now, first, LeaseRefusal::Disabled));
        };
        let wanted = [Some(first), pair.then(|| first.checked_add(1)).flatten(), then];
        if pair && first == u16::MAX {
            return Err(udp_refused(conn, now, first, LeaseRefusal::OutsidePool));
        }
        let (address, owner) = (conn.peer.ip(), u64::from(owner));
        let wanted: Vec<u16> = wanted.into_iter().flatten().collect();
        // One flow of a session is not refused where the other was granted: FFmpeg would give up.
        if conn.route.is_none() && conn.resend_path.is_none() {
            conn.choose_among_held(now, &wanted);
            let admission = self.context.relay.admission();
            let is_held = wanted.iter().any(|port| admission.ports().is_held(address, *port));
            if !is_held && admission.learned().refuses_ports(now, address, &wanted, &conn.mark()) {
                return Err(udp_refused(conn, now, first, LeaseRefusal::Learned));
            }
        }
        let mut leases = Vec::new();
        for port in wanted {
            // A player that comes again is the same one, where it says who it is.
            let claim =
                Claim { address, port, announced: Some(address), player: conn.engine.guid(), owner, ticket: conn.ticket_shown() };
            match self.context.relay.admission().ports().claim(now, claim) {
                Ok(lease) => {
                    if let Some(owner) = lease.superseded() {
                        self.context.routes.superseded(owner);
                    }
                    leases.push(lease);
                }
                Err(refusal) => return Err(udp_refused(conn, now, port, refusal)),
            }
        }
        let mut destination = conn.peer;
        destination.set_port(first);
        let route = Route { destination: destination.into(), origin, segmented: true, fragmented: false };
        match flow {
            Flow::Media => {
                conn.entry.leads_to(Some((destination, now)));
                (conn.leases, conn.route) = (leases, Some(route));
            }
            Flow::Resends => conn.resend_path = Some(Box::new(ResendPath { route, leases })),
        }
        Ok(())
    }

    /// Gives back the ports of a session.
    fn release(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.entry.leads_to(None);
        conn.leases.clear();
        (conn.route, conn.resend_path) = (None, None);
    }

    /// Whether UDP is of no use to anybody. Of files, of another server's folder and of a template's names nobody knows before one
    /// is opened: those that do not fit are refused then.
    fn every_source_is_oversize(&self, udp: &UdpPort) -> bool {
        if self.context.relay.settings().publishing_points.iter().any(|point| point.source.is_folder() || point.is_lender()) {
            return false;
        }
        let mut sizes =
            self.broadcasts.iter().filter_map(|broadcast| Some(broadcast.generation.as_ref()?.packet_size)).peekable();
        sizes.peek().is_some() && sizes.all(|size| !udp.fits(size + HEAD_LEN))
    }

    fn open(&mut self, key: usize, now: Instant, name: &str, pass: Pass) -> Option<Answer> {
        let refuse = |hr| Some(Answer::Opened(Err(OpenRefusal::Status(hr))));
        if self.stopping.is_some() {
            self.conns.get_mut(key)?.refused_because(STOPS);
            return refuse(Hresult::NO_STREAM);
        }
        if let Some(refusal) = self.sent_elsewhere(key, name, &pass) {
            return Some(Answer::Opened(Err(refusal)));
        }
        let (point, below) = match self.turn_to(key, now, name, pass) {
            Ok(found) => found,
            Err(refusal) => return Some(Answer::Opened(Err(refusal))),
        };
        if let Some(Conn { place: Place::Parked(viewer), .. }) = self.conns.get_mut(key) {
            // Numbers run on, but what they stood for lies in another window.
            viewer.cold.track.forget(&viewer.hot.next);
        }
        match &point.settings().source {
            Source::Ffmpeg { .. } => self.open_profile(key, now, point, &below, name),
            _ if point.settings().is_lender() => self.open_mirrored(key, point, &below, None),
            Source::Files { .. } => self.open_file(key, point, &below, name),
            _ => self.open_live(key, now, Opened::new(point, name)),
        }
    }

    /// Ends what a session had open, whatever becomes of the name that it asks for now: the source before need not run for this
    /// viewer. The publishing point of the name, and what is below that.
    ///
    /// # Errors
    /// There is none, or what the viewer shows does not open it.
    pub(super) fn turn_to<'a>(
        &mut self,
        key: usize,
        now: Instant,
        name: &'a str,
        pass: Pass,
    ) -> Result<(Arc<Point>, Cow<'a, str>), OpenRefusal> {
        self.park(key);
        let gone = OpenRefusal::Status(Hresult::NO_STREAM);
        let conn = self.conns.get_mut(key).ok_or(gone)?;
        (conn.opened, conn.ticket) = (None, None);
        let Some((point, below)) = self.context.relay.resolve(name) else {
            if !conn.engine.tries_bare_name() {
                metrics::counter!(names::REFUSALS, "cause" => "unknown_name").increment(1);
                let name = masked(&name.escape_debug().to_string());
                tracing::info!(session = conn.session, peer = %conn.peer, %name, "no such publishing point");
            }
            conn.refused_because("there is no publishing point of this name");
            return Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND));
        };
        // A proof of Digest is good once.
        let proven = pass.login.is_some() && pass.login.as_ref() == conn.granted.as_deref();
        let ticket = self.show_ticket(key, now, &point, &below, &pass)?;
        let conn = self.conns.get_mut(key).ok_or(OpenRefusal::Status(Hresult::NO_STREAM))?;
        if ticket.is_none() {
            self.context.gate.admit(now, conn.peer, &point, &below, &pass, proven)?;
        }
        (conn.key, conn.profile) = (pass.key, pass.profile);
        conn.granted = pass.login.filter(|_| point.settings().access.viewers == Viewers::Users).map(Box::new);
        self.let_in_by(key, now, ticket);
        Ok((point, below))
    }

    /// The answer to an open, now that there is a header.
    pub(super) fn opened(&mut self, key: usize, generation: &Generation) -> Answer {
        let refused = |hr| Answer::Opened(Err(OpenRefusal::Status(hr)));
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let Some(opened) = &mut conn.opened else { return refused(Hresult::NO_STREAM) };
        let oversize = conn.udp.as_ref().is_some_and(|udp| !udp.fits(generation.packet_size + HEAD_LEN));
        if conn.route.is_some() && oversize && self.context.settings.udp.oversize == Oversize::Refuse {
            // The funnel was granted because some other source fits. The only words left are "come again over TCP".
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
            let name = std::mem::take(&mut opened.name);
            conn.opened = None;
            let location = conn.over_tcp(&name);
            return Answer::Opened(Err(OpenRefusal::Redirect(location)));
        }
        let Some(permit) = &mut conn.permit else { return refused(Hresult::INVALID_REQUEST) };
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.account(), generation.bit_rate) {
            conn.opened = None;
            return refused(self.refused(key, refusal));
        }
        opened.generation = Some(generation.number);
        opened.flow = flow_of(generation);
        opened.header_bytes = generation.header.len();
        opened.packet_size = generation.packet_size;
        conn.selection = Selection::all(generation.streams);
        Answer::Opened(Ok(describe(generation)))
    }

    /// Seats a viewer at the join point and sends it what is there.
    pub(super) fn play(&mut self, key: usize, now: Instant, incarnation: u8) {
        self.park(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let selection = conn.selection;
        let Some(Opened { point, generation: Some(generation), packet_size, .. }) = &conn.opened else { return };
        let (point, generation, packet_size) = (point.id(), *generation, *packet_size);
        let channel = self.channel_for(point, selection);
        let tag = self.tag(channel);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(broadcast) = self.broadcasts.get_mut(channel) else { return };
        let mut viewer = conn.take_viewer(key);
        viewer.start(incarnation, generation, packet_size);
        viewer.cold.slowness.begin();
        let next = viewer.hot.next.packet;
        viewer.cold.track.switch(&mut viewer.hot.next, tag, next);
        if let Some(opened) = &mut conn.opened {
            opened.channel = channel;
        }
        broadcast.place(&mut viewer, now);
        self.counters.viewers(&viewer.hot).increment(1.0);
        conn.place = Place::Seat(broadcast.viewers.push(viewer));
        if let Some(newest) = broadcast.generation.clone().filter(|newest| newest.number != generation) {
            self.announce_generation(key, &newest, now);
        }
        // The media follows the report that is still in the queue: the flush after this answer sends both.
    }

    /// Takes a viewer from its seat; its numbers and what it was sent stay with the connection.
    pub(super) fn park(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.request += 1;
        conn.wanted = None;
        let viewer = match (std::mem::replace(&mut conn.place, Place::Nowhere), &conn.opened) {
            (Place::OnDemand(seat), _) => {
                if let Some(due) = seat.due {
                    self.file_timers.remove(&(due, key));
                }
                Some(seat.leave())
            }
            (Place::Seat(index), Some(opened)) => {
                let channel = opened.channel;
                self.unseat(channel, index)
            }
            (Place::Download(download), _) => {
                if let Some(due) = download.due {
                    self.file_timers.remove(&(due, key));
                }
                return;
            }
            (other, _) => {
                conn.place = other;
                return;
            }
        };
        let (Some(mut viewer), Some(conn)) = (viewer, self.conns.get_mut(key)) else { return };
        self.counters.viewers(&viewer.hot).decrement(1.0);
        if let (Link::Udp(route), Some(own)) = (&viewer.hot.link, &mut conn.route) {
            // What was learnt of the path holds for the next play.
            *own = *route;
        }
        viewer.cold.wanted = None;
        conn.place = Place::Parked(Box::new(viewer));
    }

    /// Frees a seat of a broadcast; the last viewer takes it.
    fn unseat(&mut self, channel: usize, index: usize) -> Option<Viewer> {
        let broadcast = self.broadcasts.get_mut(channel)?;
        let viewer = broadcast.viewers.swap_remove(index)?;
        if let Some(moved) = broadcast.viewers.cold(index).map(|viewer| viewer.conn)
            && let Some(conn) = self.conns.get_mut(moved)
        {
            conn.place = Place::Seat(index);
        }
        Some(viewer)
    }
}

/// Notes for the metrics, the log and the time line why UDP ports are refused; the protocols' word for it.
fn udp_refused(conn: &mut Conn, now: Instant, port: u16, refusal: LeaseRefusal) -> Hresult {
    conn.step(now, words_of_refused_port(port, refusal));
    metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => refusal.label()).increment(1);
    tracing::info!(session = conn.session, peer = %conn.peer, port, cause = refusal.label(), "UDP refused, the player may take TCP");
    match refusal {
        LeaseRefusal::Disabled | LeaseRefusal::Learned => Hresult::UDP_DISABLED,
        LeaseRefusal::Taken => Hresult::DUPLICATE_ADDRESS,
        LeaseRefusal::Exhausted => Hresult::NETWORK_RESOURCE_FAILURE,
        LeaseRefusal::OutsidePool | LeaseRefusal::Privileged | LeaseRefusal::NatMismatch => Hresult::INVALID_PORT,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::asf::StreamSet;
    use crate::relay::{Generation, Relay};
    use crate::settings::{Access, PublishingPoint, Settings, Start};
    use crate::shard::Context;
    use crate::wire::Guid;

    /// What the only broadcast has for packets, and what the other publishing point is.
    fn is_refused(packet_size: usize, other: Source) -> bool {
        let point = |name: &str, source| PublishingPoint::new(name, source);
        let settings =
            Settings { publishing_points: vec![point("cam", Source::Push), point("other", other)], ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let mut state = State::new(Arc::new(Context::for_tests(settings, relay, sender)), 0);
        state.broadcasts[0].generation = Some(Arc::new(Generation {
            number: 0,
            header: bytes::Bytes::new(),
            packet_size,
            preroll_ms: 0,
            bit_rate: 0,
            streams: StreamSet::EMPTY,
            video: StreamSet::EMPTY,
            ssrc: 0,
            sequence: 0,
        }));
        state.every_source_is_oversize(&UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap())
    }

    #[tokio::test]
    async fn a_publisher_is_awaited_of_those_who_may_publish() {
        let may_publish = |users: bool, peer: &str| {
            let settings = Settings {
                publishing_points: vec![PublishingPoint::new("cam", Source::Push)],
                access: Access { publishers_deny: vec!["198.51.100.0/24".parse().unwrap()], ..Access::default() },
                users_file: users.then(|| PathBuf::from("users")),
                ..Settings::default()
            };
            let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
            let (sender, _) = tokio::sync::mpsc::unbounded_channel();
            let state = State::new(Arc::new(Context::for_tests(settings, relay, sender)), 0);
            state.may_publish(peer.parse().unwrap())
        };
        for (users, peer, may) in [
            (true, "192.0.2.7", true),
            (false, "192.0.2.7", false),
            (false, "127.8.8.8", true),
            (false, "::1", true),
            (true, "198.51.100.3", false),
        ] {
            assert_eq!(may_publish(users, peer), may, "{users} {peer}");
        }
    }

    #[tokio::test]
    async fn udp_is_of_use_where_files_may_fit() {
        let pull = |url: &str| Source::Pull { url: url.into(), start: Start::Watched, linger: Duration::ZERO };
        assert!(is_refused(3200, Source::Push) && is_refused(3200, pull("mms://upstream/one")));
        assert!(!is_refused(1400, Source::Push));
        assert!(!is_refused(3200, Source::Files { root: PathBuf::from("/srv") }) && !is_refused(3200, pull("mms://upstream/")));
    }
}
