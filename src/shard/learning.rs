//! What shows whether media by UDP arrives: for the session itself, and for those of its address that come later.
//!
//! What follows from it is decided in `relay::admission`.

use std::time::{Duration, Instant};

use super::command::EndCause;
use super::conn::{Conn, Place};
use super::engine::Engine;
use super::state::State;
use crate::relay::admission::{Learned, PlayerMark, Sign};
use crate::rtsp::recovery::ReceiverReport;
use crate::viewing::{Answer, Ask};

/// Players that give up on UDP do so within five to thirty seconds; who left later than this left for another reason. That it stayed says
/// nothing: FFmpeg waits for ever.
const GIVES_UP: Duration = Duration::from_secs(60);
/// One without a GUID may be another of its kind that comes next: of such, who stayed for so long may well have played.
const GIVES_UP_UNKNOWN: Duration = Duration::from_secs(30);
/// A report of nothing says something only if there was time for something; and an ICMP error only as long as there was not.
const TIME_TO_ARRIVE: Duration = Duration::from_secs(3);
/// What rejects all does so at once; ICMP errors that make a session mute later than this are of a player that was closed.
const REJECTS_WITHIN: Duration = Duration::from_secs(5);
/// For so long a session is held that is sent nothing because ICMP says that nobody gets it: players wait that long before they take
/// TCP, some on this very connection, and give up where it is closed.
const HELD: Duration = GIVES_UP;

/// Something is sent to a session by UDP.
#[derive(Debug, Clone, Copy)]
pub(super) struct UdpTrial {
    since: Instant,
    /// There was a sign that it arrives.
    arrives: bool,
    /// ICMP has said something of it, for the first time then.
    doubted: Option<Instant>,
    /// Nothing more is sent since then: ICMP went on, and nothing has arrived.
    mute: Option<Instant>,
}

impl UdpTrial {
    const fn new(now: Instant) -> Self {
        Self { since: now, arrives: false, doubted: None, mute: None }
    }

    /// ICMP said so before anything could have arrived.
    fn is_doubted_early(&self) -> bool {
        self.doubted.is_some_and(|at| at.saturating_duration_since(self.since) < TIME_TO_ARRIVE)
    }
}

impl State {
    fn learned(&self) -> &Learned {
        self.context.relay.admission().learned()
    }

    /// A session was sent a datagram.
    pub(super) fn udp_was_sent(&mut self, key: usize, now: Instant) {
        if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.route.is_some()) {
            conn.udp_trial.get_or_insert(UdpTrial::new(now));
        }
    }

    /// Media is about to go to a session, for the first time or again: one that was held is tried anew.
    fn udp_begins(&mut self, key: usize, now: Instant) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.udp_trial.take_if(|trial| trial.mute.is_some());
        }
        self.udp_was_sent(key, now);
    }

    /// Looks what it says of UDP that a player asks for this.
    pub(super) fn look_at_ask(&mut self, key: usize, now: Instant, ask: &Ask) {
        let Some(conn) = self.conns.get(key) else { return };
        match ask {
            Ask::Play { .. } | Ask::PlayFile { .. } => match (&conn.route, &conn.engine) {
                (None, _) => self.plays_by_tcp(key, now),
                // The header, without which nobody plays, came by UDP.
                (Some(_), Engine::Mms(_)) => self.udp_arrives(key, now),
                (Some(_), _) => self.udp_begins(key, now),
            },
            Ask::Resume { .. } => self.udp_begins(key, now),
            Ask::Resend { .. } => self.udp_arrives(key, now),
            Ask::ClaimPort { .. } | Ask::ReleasePort | Ask::Rest => self.end_udp_trial(key, now),
            _ => {}
        }
    }

    /// Remembers of what a player is told what it could report without having received anything.
    pub(super) fn look_at_answer(&mut self, key: usize, answer: &Answer) {
        if let (Some(conn), Answer::Cued(cue)) = (self.conns.get_mut(key), answer) {
            conn.cued = Some(cue.sequence);
        }
    }

    /// A player says what it has received. That it names our flow and a packet that it was sent lately shows that media arrives. The
    /// packet that the play began with does not count: players that only heard of it over TCP may begin to count there.
    pub(super) fn look_at_report(&mut self, key: usize, now: Instant, report: &ReceiverReport) {
        let Some(conn) = self.conns.get(key).filter(|conn| conn.udp_trial.is_some_and(|trial| !trial.arrives)) else { return };
        let Some(opened) = &conn.opened else { return };
        let has_arrived = report.blocks.iter().any(|block| {
            let is_news = block.ssrc == opened.flow.ssrc && conn.cued != Some(block.highest);
            is_news && self.has_sent_in_rtp(conn, opened, block.highest)
        });
        if has_arrived {
            self.udp_arrives(key, now);
        }
    }

    /// ICMP says that a datagram did not get there. A port that is closed from the first datagram on is a firewall's doing; later it is a
    /// player's that was closed. Anybody may say so: a session by TCP, or the same of another one, has to confirm it.
    ///
    /// Where something had arrived the player is gone, and its session ends. Where nothing had, a firewall may reject what is sent, and
    /// its player still waits: from the second time on it is sent nothing more, and held.
    pub(super) fn look_at_icmp(&mut self, key: usize, now: Instant, is_settled: bool) {
        // What was on its way when the session went over to TCP is nothing of it.
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.closing.is_none() && conn.route.is_some()) else { return };
        let Some(trial) = conn.udp_trial.as_mut() else { return };
        let is_first = trial.doubted.is_none();
        trial.doubted.get_or_insert(now);
        let (arrives, is_early) = (trial.arrives, trial.is_doubted_early());
        if arrives {
            if is_settled {
                self.close(key, EndCause::Unreachable.label(), EndCause::Unreachable.to_string());
            }
            return;
        }
        if is_first && is_early {
            conn.step(now, "ICMP says that what is sent to it by UDP does not arrive");
            let (address, session) = (conn.peer.ip(), conn.session);
            if self.learned().doubted(now, address, session) {
                self.tell_of_failure(key, now, Sign::Icmp);
            }
        }
        if is_settled && !is_first {
            self.mute(key, now);
        }
    }

    /// Sends a session nothing more by UDP. Its connection stays, so that the player can take TCP in its own time, and its ports do.
    fn mute(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(trial) = &mut conn.udp_trial else { return };
        let is_new = trial.mute.is_none();
        trial.mute.get_or_insert(now);
        let is_rejected = trial.is_doubted_early() && now.saturating_duration_since(trial.since) <= REJECTS_WITHIN;
        if is_new {
            let port = conn.udp_port();
            tracing::info!(session = conn.session, peer = %conn.peer, port, "ICMP says that nobody gets what is sent by UDP: nothing more is");
            let seconds = HELD.as_secs();
            conn.step(
                now,
                format!(
                    "nothing more is sent to it by UDP, as ICMP says so again (a firewall rejects it, or the port is closed): it may take \
                     TCP for {seconds} s"
                ),
            );
            if is_rejected {
                self.learn_port(key, now, port);
            }
        }
        // Searches of one that does not play go on: their answers come by TCP.
        if self.conns.get(key).is_some_and(|conn| matches!(conn.place, Place::Seat(_) | Place::OnDemand(_))) {
            self.park(key);
        }
    }

    fn learn_port(&mut self, key: usize, now: Instant, port: u16) {
        let Some(conn) = self.conns.get(key) else { return };
        self.learned().rejected(now, conn.peer.ip(), port, conn.mark());
    }

    /// Ends sessions that were held for long.
    pub(super) fn sweep_mute(&mut self, now: Instant) {
        let is_over = |trial: &UdpTrial| trial.mute.is_some_and(|since| now.saturating_duration_since(since) >= HELD);
        let over = self.conns.iter().filter(|(_, conn)| conn.udp_trial.as_ref().is_some_and(is_over));
        let keys: Vec<usize> = over.map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, EndCause::Unreachable.label(), EndCause::Unreachable.to_string());
        }
    }

    /// Nothing more is sent to a session by UDP: what was is judged.
    pub(super) fn end_udp_trial(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(trial) = conn.udp_trial.take_if(|trial| !trial.arrives) else { return };
        let report = conn.engine.client_report();
        let received = report.and_then(|report| report.get("c-pkts-received")?.parse::<u64>().ok());
        match received {
            Some(1..) => {
                let (address, port) = (conn.peer.ip(), conn.udp_port());
                self.learned().arrived(now, address, port);
            }
            Some(0) if now.saturating_duration_since(trial.since) >= TIME_TO_ARRIVE => self.udp_fails(key, now, Sign::Report),
            _ if now.saturating_duration_since(trial.since) > GIVES_UP => {}
            _ if now.saturating_duration_since(trial.since) >= GIVES_UP_UNKNOWN && conn.engine.guid().is_none() => {}
            _ => {
                let mark = conn.mark();
                conn.step(now, "nothing showed that what was sent to it by UDP arrived");
                let address = conn.peer.ip();
                self.learned().silent(now, address, mark);
            }
        }
    }

    fn udp_arrives(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(trial) = conn.udp_trial.as_mut().filter(|trial| !trial.arrives) else { return };
        trial.arrives = true;
        let was_mute = trial.mute.take().is_some();
        let (address, port) = (conn.peer.ip(), conn.udp_port());
        if self.learned().arrived(now, address, port)
            && let Some(conn) = self.conns.get_mut(key)
        {
            tracing::info!(session = conn.session, peer = %conn.peer, "UDP arrives at this address again");
            conn.step(now, "what is sent to it by UDP arrives: its address is refused UDP no more");
        }
        // It arrived until the port was closed; a player that is still there comes again.
        if was_mute && self.conns.get(key).is_some_and(|conn| matches!(conn.place, Place::Parked(_))) {
            self.close(key, EndCause::Unreachable.label(), EndCause::Unreachable.to_string());
        }
    }

    fn udp_fails(&mut self, key: usize, now: Instant, sign: Sign) {
        let Some(conn) = self.conns.get(key) else { return };
        if self.learned().failed(now, conn.peer.ip(), sign) {
            self.tell_of_failure(key, now, sign);
        }
    }

    fn plays_by_tcp(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get(key) else { return };
        if let Some(sign) = self.learned().plays_by_tcp(now, conn.peer.ip(), &conn.mark()) {
            self.tell_of_failure(key, now, sign);
        }
    }

    fn tell_of_failure(&mut self, key: usize, now: Instant, sign: Sign) {
        let seconds = self.context.settings.udp.remember.as_secs();
        let Some(conn) = self.conns.get_mut(key) else { return };
        let why = match sign {
            Sign::Icmp => "ICMP errors say so, and it was tried again",
            Sign::Report => "the player says so",
            Sign::SecondAttempt => "the same player had UDP a moment ago, gave no sign of life and plays by TCP now",
        };
        tracing::info!(session = conn.session, peer = %conn.peer, sign = sign.label(), "UDP does not arrive at this address: it is refused from now on");
        conn.step(now, format!("UDP does not arrive at its address ({why}): it is refused there for {seconds} s"));
    }
}

impl Conn {
    /// By what its player is known again.
    pub(super) fn mark(&self) -> PlayerMark {
        let agent = self.engine.player().map_or("", |player| player.token.split(';').next().unwrap_or_default());
        PlayerMark {
            guid: self.engine.guid(),
            agent: agent.trim().to_owned(),
            name: self.engine.name().unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
        }
    }

    /// It is sent nothing by UDP, as nobody would get it.
    pub(super) fn is_mute(&self) -> bool {
        self.udp_trial.is_some_and(|trial| trial.mute.is_some())
    }

    /// Where its media goes by UDP; 0: nowhere.
    fn udp_port(&self) -> u16 {
        self.route.map_or(0, |route| std::net::SocketAddr::from(route.destination).port())
    }
}
