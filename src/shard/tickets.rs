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
