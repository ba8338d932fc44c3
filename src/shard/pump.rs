//! The pass over the viewers: whoever has something due gets it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Clock, sleep_until};

use super::broadcast::{Broadcast, Link, Phase};
use super::pace::TICK;
use super::state::{Room, State};
use super::udp::UdpPort;

/// How long a pass goes on before it lets joins in.
const TURN: Duration = Duration::from_millis(1);
/// Time for a full socket buffer to drain a little.
const ROOM: Duration = Duration::from_millis(1);
/// Viewers between two looks at the clock.
const STRIDE: usize = 16;
/// A pass that ends so much later than it was due is late.
const LATE: Duration = Duration::from_millis(100);

/// Serves the viewers of a shard, for ever.
///
/// Those at the live edge of a publishing point are served once a tick, those who catch up every 10 ms.
pub(super) async fn run(state: Rc<RefCell<State>>) {
    let wake = Rc::clone(&state.borrow().pump_wake);
    let mut catch_up = Clock::now();
    loop {
        let next = state.borrow().next_pass(catch_up.into_std()).map(Clock::from_std);
        match next {
            None => {
                wake.notified().await;
                continue;
            }
            Some(next) if next > Clock::now() => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = wake.notified() => {}
                }
                continue;
            }
            Some(_) => {}
        }
        let now = Clock::now();
        let catches_up = now >= catch_up;
        if catches_up {
            catch_up = now + TICK;
        }
        let mut pass = state.borrow_mut().begin_pass(now.into_std(), catches_up);
        while state.borrow_mut().turn(&mut pass) {
            tokio::task::yield_now().await;
        }
        // One turn, not all that is due: hundreds of viewers of files are due at any time, and broadcasts must not wait for them.
        if state.borrow_mut().file_turn() {
            tokio::task::yield_now().await;
        }
        let blocked = state.borrow_mut().end_pass(&pass);
        if blocked {
            // Readiness tells nothing here: an ICMP error in the queue makes the socket look writable. A millisecond drains
            // more than enough to go on.
            sleep_until(Clock::now() + ROOM).await;
        }
    }
}

/// A pass over the viewers of those publishing points that have something for them.
///
/// Viewers of a publishing point are served from the last to the first, so that the one that takes the seat of another that
/// leaves has always been served.
pub(super) struct Pass {
    points: Vec<PassPoint>,
    /// Which of them is being served.
    position: usize,
    /// Its viewers still to be served; `None` before the first one.
    left: Option<usize>,
    /// UDP sockets that were full: their viewers wait for the next pass, all others are served.
    full: Vec<Arc<UdpPort>>,
    /// Somebody had no room.
    waits: bool,
}

struct PassPoint {
    index: usize,
    /// Those at the live edge are to be served: since when that is due.
    due: Option<Instant>,
    /// When the batches came that go out with this pass, and their packets.
    unsent: Vec<(Instant, u64)>,
}

impl State {
    /// When there is something to send; `catch_up`: when those who catch up go on.
    fn next_pass(&self, catch_up: Instant) -> Option<Instant> {
        let of = |broadcast: &Broadcast| broadcast.next_due().into_iter().chain(broadcast.catching_up.then_some(catch_up)).min();
        self.broadcasts.iter().filter_map(of).chain(self.next_file()).min()
    }

    /// Begins a pass; with `catches_up` those too are served who are not at the live edge.
    fn begin_pass(&mut self, now: Instant, catches_up: bool) -> Pass {
        let tick = self.context.settings.delivery.tick;
        let mut points = Vec::new();
        for (index, broadcast) in self.broadcasts.iter_mut() {
            let due = broadcast.begin_pass(now, tick);
            let catching_up = catches_up && std::mem::take(&mut broadcast.catching_up);
            if let Some(due) = due {
                broadcast.lag.begin(now, due);
                points.push(PassPoint { index, due: Some(due), unsent: std::mem::take(&mut broadcast.unsent) });
            } else if catching_up {
                points.push(PassPoint { index, due: None, unsent: Vec::new() });
            }
        }
        Pass { points, position: 0, left: None, full: Vec::new(), waits: false }
    }

    /// Serves viewers for about a millisecond; true when more are left.
    fn turn(&mut self, pass: &mut Pass) -> bool {
        let mut now = Clock::now().into_std();
        let until = now + TURN;
        let mut count = 0;
        while let Some(point) = pass.points.get_mut(pass.position) {
            let Some(broadcast) = self.broadcasts.get_mut(point.index) else { return false };
            // Viewers may have left since the last turn.
            let left = pass.left.map_or(broadcast.viewers.len(), |left| left.min(broadcast.viewers.len()));
            if left == 0 {
                let (index, due, unsent) = (point.index, point.due, std::mem::take(&mut point.unsent));
                (pass.position, pass.left) = (pass.position + 1, None);
                if let Some(due) = due {
                    self.end_point(index, due, unsent);
                }
                continue;
            }
            let index = left - 1;
            pass.left = Some(index);
            let Some(viewer) = broadcast.viewers.hot(index) else { continue };
            let catches_up = viewer.phase == Phase::CatchingUp;
            if viewer.blocked || !(point.due.is_some() || catches_up) {
                continue;
            }
            if !pass.full.is_empty()
                && let Link::Udp(route) = &viewer.link
                && let Some(port) = self.origins.port(route.origin)
                && pass.full.iter().any(|full| Arc::ptr_eq(full, port))
            {
                // The next pass finds this viewer again.
                if catches_up {
                    broadcast.catching_up = true;
                } else {
                    broadcast.unfinished = point.due;
                }
                continue;
            }
            let point = point.index;
            let room = self.serve(point, index, now);
            if room != Room::Enough {
                pass.waits = true;
                if room == Room::NoneInSocket {
                    pass.full.extend(self.port_of(point, index));
                }
            }
            count += 1;
            if count % STRIDE == 0 {
                now = Clock::now().into_std();
                if now >= until {
                    return true;
                }
            }
        }
        false
    }

    fn port_of(&self, point: usize, index: usize) -> Option<Arc<UdpPort>> {
        match &self.broadcasts.get(point)?.viewers.hot(index)?.link {
            Link::Udp(route) => self.origins.port(route.origin).cloned(),
            Link::Tcp(_) => None,
        }
    }

    /// Measures a pass over a publishing point that was due then, if all were served.
    fn end_point(&mut self, index: usize, due: Instant, mut unsent: Vec<(Instant, u64)>) {
        let now = Clock::now().into_std();
        let Some(broadcast) = self.broadcasts.get_mut(index) else { return };
        if broadcast.unfinished.is_some() {
            // Not all have it yet: what is still to be sent is measured when they have.
            broadcast.unfinished = Some(due);
            unsent.append(&mut broadcast.unsent);
            broadcast.unsent = unsent;
            return;
        }
        if let Some(limit) = self.context.settings.limits.max_send_delay
            && let Some(late) = broadcast.lag.end(now, limit)
        {
            let late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
            self.context.overload.late_ms.fetch_max(late_ms, Ordering::Relaxed);
        }
        let late = now.saturating_duration_since(due) > LATE;
        for (came, packets) in unsent.iter().filter(|_| !broadcast.viewers.is_empty()) {
            self.counters.send_delay_seconds.record(now.saturating_duration_since(*came).as_secs_f64());
            if late {
                self.counters.late_sends.increment(packets * broadcast.viewers.len() as u64);
            }
        }
    }

    /// True when a UDP socket or a path was full and viewers wait for it.
    fn end_pass(&mut self, pass: &Pass) -> bool {
        self.settle();
        pass.waits
    }

    /// Hands the tally to the metrics; acts on ICMP errors that were seen.
    pub(super) fn settle(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        self.counters.add(&tally);
        self.context.sent_bytes.fetch_add(tally.tcp_bytes + tally.udp_bytes, Ordering::Relaxed);
        if tally.icmp_pending {
            self.drain_errors();
        }
    }

    /// Acts on the ICMP errors of all ports.
    pub(super) fn drain_errors(&self) {
        let now = Clock::now().into_std();
        for port in &self.context.udp_ports {
            self.context.drain_errors(port, now);
        }
    }
}

#[cfg(test)]
impl State {
    /// A whole pass, for tests elsewhere.
    pub(super) fn pass_for_tests(&mut self, now: Instant) {
        let mut pass = self.begin_pass(now, true);
        while self.turn(&mut pass) {}
        self.end_pass(&pass);
    }
}

#[cfg(test)]
mod tests;
