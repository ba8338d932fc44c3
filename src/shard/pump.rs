//! The pass over the viewers: whoever has something due gets it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Clock, sleep_until};

use super::broadcast::{Broadcast, Transport};
use super::pace::TICK;
use super::state::State;
use super::udp::UdpPort;
use crate::relay::PointId;

/// How long a pass goes on before it lets joins in.
const TURN: Duration = Duration::from_millis(1);
/// Time for a full socket buffer to drain a little.
const ROOM: Duration = Duration::from_millis(1);
/// Viewers between two looks at the clock.
const STRIDE: usize = 16;
/// Later than this after it was due is late.
const LATE: Duration = Duration::from_millis(100);

/// Where a pass stands: viewers of a publishing point are served from the last to the first, so that the one that takes the seat
/// of another that leaves has always been served.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    point: usize,
    /// Viewers still to be served; `None` before the first one.
    left: Option<usize>,
}

/// Serves the viewers of a shard, for ever.
pub(super) async fn run(state: Rc<RefCell<State>>) {
    let wake = Rc::clone(&state.borrow().pump_wake);
    let mut next_tick = Clock::now();
    loop {
        let (fresh, catching_up) = state.borrow().work();
        match (fresh, catching_up) {
            (false, false) => {
                wake.notified().await;
                continue;
            }
            (false, true) => {
                tokio::select! {
                    () = sleep_until(next_tick) => {}
                    () = wake.notified() => continue,
                }
            }
            (true, _) => {}
        }
        next_tick = Clock::now() + TICK;
        let mut pass = state.borrow_mut().begin_pass();
        let mut position = Position::default();
        while state.borrow_mut().turn(&mut position, &mut pass) {
            tokio::task::yield_now().await;
        }
        let blocked = state.borrow_mut().end_pass(pass);
        if blocked {
            // Readiness tells nothing here: an ICMP error in the queue makes the socket look writable. A millisecond drains
            // more than enough to go on.
            sleep_until(Clock::now() + ROOM).await;
        }
    }
}

/// What a pass set out to do.
pub(super) struct Pass {
    points: Vec<PassPoint>,
    /// UDP sockets that were full: their viewers wait for the next pass, all others are served.
    full: Vec<Arc<UdpPort>>,
}

struct PassPoint {
    /// Live viewers have something to get.
    fresh: bool,
    /// Somebody catches up.
    catching_up: bool,
    /// When the batches were due that go out with this pass, and their packets.
    due: Vec<(Instant, u64)>,
}

impl State {
    /// Whether live viewers have something to get, and whether somebody catches up.
    fn work(&self) -> (bool, bool) {
        let any = |of: fn(&Broadcast) -> bool| self.broadcasts.iter().any(of);
        (any(|broadcast| broadcast.fresh), any(|broadcast| broadcast.catching_up))
    }

    fn begin_pass(&mut self) -> Pass {
        let point = |broadcast: &mut Broadcast| PassPoint {
            fresh: std::mem::take(&mut broadcast.fresh),
            catching_up: std::mem::take(&mut broadcast.catching_up),
            due: std::mem::take(&mut broadcast.unsent),
        };
        Pass { points: self.broadcasts.iter_mut().map(point).collect(), full: Vec::new() }
    }

    /// Serves viewers from `position` on for about a millisecond; true when more are left.
    fn turn(&mut self, position: &mut Position, pass: &mut Pass) -> bool {
        let mut now = Clock::now().into_std();
        let until = now + TURN;
        let mut count = 0;
        while let (Some(broadcast), Some(point)) = (self.broadcasts.get_mut(position.point), pass.points.get(position.point)) {
            // Viewers may have left since the last turn.
            let left = position.left.map_or(broadcast.viewers.len(), |left| left.min(broadcast.viewers.len()));
            if left == 0 || !(point.fresh || point.catching_up) {
                *position = Position { point: position.point + 1, left: None };
                continue;
            }
            let index = left - 1;
            position.left = Some(index);
            let Some(viewer) = broadcast.viewers.get(index) else { continue };
            if viewer.blocked || !(point.fresh || viewer.pace.is_some()) {
                continue;
            }
            let port = match &viewer.transport {
                Transport::Udp(_, port) => Some(Arc::clone(port)),
                Transport::Tcp => None,
            };
            if port.as_ref().is_some_and(|port| pass.full.iter().any(|full| Arc::ptr_eq(full, port))) {
                // The next pass finds this viewer again.
                broadcast.catching_up |= viewer.pace.is_some();
                broadcast.fresh |= point.fresh;
                continue;
            }
            let id = PointId(u32::try_from(position.point).unwrap_or(u32::MAX));
            if self.serve(id, index, now) {
                pass.full.extend(port);
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

    /// Measures a pass; true when a UDP socket was full and viewers wait for it.
    fn end_pass(&mut self, pass: Pass) -> bool {
        let now: Instant = Clock::now().into_std();
        for (broadcast, point) in self.broadcasts.iter_mut().zip(pass.points) {
            if broadcast.fresh && !pass.full.is_empty() {
                // Not all have it yet: what is still to be sent is measured with the pass that sends it.
                broadcast.unsent.splice(0..0, point.due);
                continue;
            }
            for (due, packets) in point.due.iter().filter(|_| !broadcast.viewers.is_empty()) {
                let delay = now.saturating_duration_since(*due);
                self.counters.send_delay_seconds.record(delay.as_secs_f64());
                if delay > LATE {
                    self.counters.late_sends.increment(packets * broadcast.viewers.len() as u64);
                }
            }
        }
        self.settle();
        !pass.full.is_empty()
    }

    /// Hands the tally to the metrics and ends sessions whose port does not exist.
    pub(super) fn settle(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        self.counters.add(&tally);
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
mod tests;
