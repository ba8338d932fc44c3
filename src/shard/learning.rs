//! What shows whether media by UDP arrives: for the session itself, and for those of its address that come later.
//!
//! What follows from it is decided in `relay::admission`.

use std::time::{Duration, Instant};

use super::conn::Conn;
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

/// Something is sent to a session by UDP.
#[derive(Debug, Clone, Copy)]
pub(super) struct UdpTrial {
    since: Instant,
    /// There was a sign that it arrives.
    arrives: bool,
    /// ICMP has said something of it.
    doubted: bool,
}

impl State {
    fn learned(&self) -> &Learned {
        self.context.relay.admission().learned()
    }

    /// A session was sent a datagram.
    pub(super) fn udp_was_sent(&mut self, key: usize, now: Instant) {
        if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.route.is_some()) {
            conn.udp_trial.get_or_insert(UdpTrial { since: now, arrives: false, doubted: false });
        }
    }

    /// Looks what it says of UDP that a player asks for this.
    pub(super) fn look_at_ask(&mut self, key: usize, now: Instant, ask: &Ask) {
        let Some(conn) = self.conns.get(key) else { return };
        match ask {
            Ask::Play { .. } | Ask::PlayFile { .. } => match (&conn.route, &conn.engine) {
                (None, _) => self.plays_by_tcp(key, now),
                // The header, without which nobody plays, came by UDP.
                (Some(_), Engine::Mms(_)) => self.udp_arrives(key, now),
                (Some(_), _) => {}
            },
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
    pub(super) fn look_at_icmp(&mut self, key: usize, now: Instant) {
        let Some(trial) = self.conns.get_mut(key).and_then(|conn| conn.udp_trial.as_mut()) else { return };
        let is_first = !std::mem::replace(&mut trial.doubted, true);
        if is_first && !trial.arrives && now.saturating_duration_since(trial.since) < TIME_TO_ARRIVE {
            let Some(conn) = self.conns.get_mut(key) else { return };
            conn.step(now, "ICMP says that what is sent to it by UDP does not arrive");
            let (address, session) = (conn.peer.ip(), conn.session);
            if self.learned().doubted(now, address, session) {
                self.tell_of_failure(key, now, Sign::Icmp);
            }
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
                self.learned().arrived(now, self.peer(key));
            }
            Some(0) if now.saturating_duration_since(trial.since) >= TIME_TO_ARRIVE => self.udp_fails(key, now, Sign::Report),
            _ if now.saturating_duration_since(trial.since) > GIVES_UP => {}
            _ if now.saturating_duration_since(trial.since) >= GIVES_UP_UNKNOWN && conn.engine.guid().is_none() => {}
            _ => {
                let mark = mark_of(conn);
                conn.step(now, "nothing showed that what was sent to it by UDP arrived");
                let address = conn.peer.ip();
                self.learned().silent(now, address, mark);
            }
        }
    }

    fn peer(&self, key: usize) -> std::net::IpAddr {
        self.conns.get(key).map_or(std::net::Ipv4Addr::LOCALHOST.into(), |conn| conn.peer.ip())
    }

    fn udp_arrives(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(trial) = conn.udp_trial.as_mut().filter(|trial| !trial.arrives) else { return };
        trial.arrives = true;
        let address = conn.peer.ip();
        if self.learned().arrived(now, address)
            && let Some(conn) = self.conns.get_mut(key)
        {
            tracing::info!(session = conn.session, peer = %conn.peer, "UDP arrives at this address again");
            conn.step(now, "what is sent to it by UDP arrives: its address is refused UDP no more");
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
        if let Some(sign) = self.learned().plays_by_tcp(now, conn.peer.ip(), &mark_of(conn)) {
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

fn mark_of(conn: &Conn) -> PlayerMark {
    let agent = conn.engine.player().map_or("", |player| player.token.split(';').next().unwrap_or_default());
    PlayerMark {
        guid: conn.engine.guid(),
        agent: agent.trim().to_owned(),
        name: conn.engine.name().unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
    }
}
