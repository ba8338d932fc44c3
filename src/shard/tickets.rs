//! Sessions that come with the ticket of a viewing session, and the UDP ports that are held for tickets.
//!
//! Who plays by a ticket, and what becomes of its port, is decided in `relay::admission`.

use std::time::Instant;

use super::command::EndCause;
use super::conn::Conn;
use super::gate::Gate;
use super::state::State;
use crate::relay::Point;
use crate::relay::admission::{Lease, TicketRefusal, TicketShown, TicketUse, Tickets, Who};
use crate::settings::Viewers;
use crate::viewing::{Ask, Denial, OpenRefusal, Pass};

impl State {
    /// The ticket that a viewer shows for what lies `below` a publishing point; `None` where it shows none. One that is known and not
    /// good is refused even where everybody may watch: who was given it is to hear that it is over, not to wonder why UDP is. One that
    /// nobody knows counts as none there: it may be of before a restart.
    ///
    /// # Errors
    /// It is not good, or the rules do not let its address watch.
    pub(super) fn show_ticket(
        &self,
        key: usize,
        now: Instant,
        point: &Point,
        below: &str,
        pass: &Pass,
    ) -> Result<Option<TicketUse>, OpenRefusal> {
        let (Some(conn), Some(ticket)) = (self.conns.get(key), pass.key.as_deref().filter(|key| Tickets::is_ticket(key))) else {
            return Ok(None);
        };
        Gate::admit_address(conn.peer, point)?;
        let who = Who { session: conn.session, player: conn.engine.displaces_as() };
        let tickets = self.context.relay.admission().tickets();
        match tickets.show(now, ticket, conn.peer.ip(), &point.full_name(below), who) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(TicketRefusal::Expired) => Err(Gate::deny(conn.peer, point, Denial::ExpiredTicket)),
            Err(TicketRefusal::InUse) => Err(Gate::deny(conn.peer, point, Denial::TicketInUse)),
            Err(TicketRefusal::Unknown) if point.settings().access.viewers == Viewers::All => Ok(None),
            // Nobody guesses 128 random bits: this is no line for programs that ban addresses.
            Err(TicketRefusal::Unknown | TicketRefusal::OtherAddress | TicketRefusal::OtherName) => {
                Err(Gate::deny(conn.peer, point, Denial::WrongTicket))
            }
        }
    }

    /// A session is let in, by a ticket or without one.
    pub(super) fn let_in_by(&mut self, key: usize, now: Instant, ticket: Option<TicketUse>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.ticket = ticket;
        let serial = conn.ticket.as_ref().map(TicketUse::serial);
        if let Some(ticket) = &conn.ticket {
            let text = format!("it comes with a ticket of {}", ticket.user().escape_debug());
            conn.step(now, text);
        }
        let lost: Vec<u16> = conn.leases.iter().filter(|lease| lease.settle(serial).is_some()).map(Lease::port).collect();
        conn.took_held |= !lost.is_empty();
        for port in lost {
            tracing::info!(session = conn.session, peer = %conn.peer, port, "a port that was held for a ticket went to a session without it");
            conn.step(
                now,
                format!(
                    "UDP port {port} was held for a ticket that it does not have: it keeps the port, and that ticket has none"
                ),
            );
        }
        let ports: Vec<u16> = conn.leases.iter().map(Lease::port).collect();
        conn.choose_among_held(now, &ports);
    }

    /// Whether a session may do what it asks for: not play by a ticket by which another one plays. If not it is over.
    pub(super) fn may_play(&mut self, key: usize, ask: &Ask) -> bool {
        let plays = matches!(ask, Ask::Play { .. } | Ask::PlayFile { .. } | Ask::Resume { .. } | Ask::SendBytes { .. });
        let ticket = self.conns.get(key).and_then(|conn| conn.ticket.as_ref()).filter(|_| plays);
        if ticket.is_none_or(TicketUse::plays) {
            return true;
        }
        self.close(key, EndCause::TicketInUse.label(), EndCause::TicketInUse.to_string());
        false
    }

    /// A session plays no more, and may play again.
    pub(super) fn ticket_rests(&self, key: usize) {
        if let Some(ticket) = self.conns.get(key).and_then(|conn| conn.ticket.as_ref()) {
            ticket.stops();
        }
    }

    /// A session was sent media.
    pub(super) fn ticket_has_media(&self, key: usize, now: Instant) {
        if let Some(ticket) = self.conns.get(key).and_then(|conn| conn.ticket.as_ref()) {
            ticket.media(now);
        }
    }
}

impl Conn {
    /// What is known of its ticket when it claims a port.
    pub(super) fn ticket_shown(&self) -> TicketShown {
        match (&self.ticket, &self.opened) {
            (Some(ticket), _) => TicketShown::Serial(ticket.serial()),
            (None, Some(_)) => TicketShown::None,
            // What it opened may be gone again: without this, one session could take the held ports of its address one by one.
            (None, None) if self.took_held => TicketShown::None,
            (None, None) => TicketShown::NotYet,
        }
    }

    /// It wants, or has, these UDP ports: if there are some, and the one that is held for its ticket is not among them, that is free.
    pub(super) fn choose_among_held(&mut self, now: Instant, ports: &[u16]) {
        let Some(ticket) = self.ticket.as_ref().filter(|_| !ports.is_empty()) else { return };
        let text = match ticket.port() {
            Some(held) if ports.contains(&held) => format!("UDP port {held} is the one that was held for its ticket"),
            Some(_) => match ticket.let_port_go() {
                Some(held) => format!("UDP port {held}, which was held for its ticket, is free: it wants another one"),
                None => return,
            },
            None => return,
        };
        self.step(now, text);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::relay::Relay;
    use crate::relay::admission::{Order, PortWish, TICKET_LEN};
    use crate::settings::Settings;
    use crate::shard::Context;
    use crate::shard::sniff::Protocol;
    use crate::shard::state::Arrival;
    use crate::shard::udp::UdpPort;
    use crate::viewing::Answer;
    use crate::wire::Guid;

    #[tokio::test]
    async fn a_session_without_a_ticket_takes_one_held_port_at_most() {
        #[expect(clippy::disallowed_methods, reason = "the base of a virtual clock")]
        let now = Instant::now();
        let viewer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let mut settings = Settings::default();
        settings.publishing_points = settings.publishing_points_or_demo();
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let mut shard = State::new(Arc::new(Context::for_tests(settings, Arc::clone(&relay), sender)), 0);
        let udp = Arc::new(UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut players = Vec::new();
        let mut sessions = Vec::new();
        for port in [40_000, 40_001] {
            players.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (stream, local) = listener.accept().await.unwrap();
            let arrival = Arrival {
                peer: (viewer, port).into(),
                local,
                at: now,
                udp: Some(Arc::clone(&udp)),
                protocol: Protocol::Mms,
                tls: false,
                takes_publishers: false,
            };
            sessions.push(shard.admit(now, arrival, Rc::new(stream)));
        }
        let admission = relay.admission();
        let held: Vec<u16> = (0..3)
            .map(|number| {
                let order = Order { address: viewer, name: "demo".into(), user: "anna".into(), port: PortWish::Needed };
                let issued = admission.tickets().issue(now, admission.ports(), order, [number; TICKET_LEN]);
                issued.unwrap().1.client_port.unwrap()
            })
            .collect();
        let claim = |shard: &mut State, session: usize, port: u16| {
            let answer = shard.answer(sessions[session], now, Ask::ClaimPort { port, announced: None });
            matches!(answer, Some(Answer::Funnel(Ok(()))))
        };
        // Until it opens something it may be the player of any ticket.
        assert!(claim(&mut shard, 0, held[0]) && claim(&mut shard, 0, held[1]));
        let is_held = |port: u16| admission.ports().is_held(viewer, port);
        assert!(held.iter().all(|port| is_held(*port)));
        shard.let_in_by(sessions[0], now, None);
        assert_eq!(held.iter().map(|port| is_held(*port)).collect::<Vec<_>>(), [true, false, true]);
        // What it opened was not there.
        assert!(shard.conns[sessions[0]].opened.is_none());
        assert!(!claim(&mut shard, 0, held[0]) && !claim(&mut shard, 0, held[2]));
        assert!(claim(&mut shard, 0, held[2] + 1), "others are as free to it as before");
        shard.let_in_by(sessions[0], now + Duration::from_secs(1), None);
        assert!(is_held(held[0]) && is_held(held[2]));
        assert!(claim(&mut shard, 1, held[0]), "another session");
    }
}
