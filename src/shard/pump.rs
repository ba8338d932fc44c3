//! The pass over the viewers: whoever has something due gets it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::{Instant as Clock, sleep_until, timeout};

use super::broadcast::Transport;
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

/// Where a pass stands.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    point: usize,
    viewer: usize,
}

/// How a turn ended.
enum Turn {
    Done,
    Yield,
    /// The buffer of this UDP socket is full.
    Blocked(Arc<UdpPort>),
}

/// Serves the viewers of a shard, for ever.
pub(super) async fn run(state: Rc<RefCell<State>>) {
    let wake = Rc::clone(&state.borrow().pump_wake);
    let mut waits: Vec<(Arc<UdpPort>, UdpSocket)> = Vec::new();
    let mut next_tick = Clock::now();
    loop {
        let (fresh, catching_up) = {
            let state = state.borrow();
            (state.broadcasts.iter().any(|broadcast| broadcast.fresh), state.catching_up)
        };
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
        let started = state.borrow_mut().begin_pass();
        let mut position = Position::default();
        loop {
            let turn = state.borrow_mut().turn(&mut position, &started);
            match turn {
                Turn::Done => break,
                Turn::Yield => tokio::task::yield_now().await,
                Turn::Blocked(port) => wait_for_room(&mut waits, &port).await,
            }
        }
        state.borrow_mut().end_pass(&started);
    }
}

/// Waits until a UDP socket takes datagrams again.
async fn wait_for_room(waits: &mut Vec<(Arc<UdpPort>, UdpSocket)>, port: &Arc<UdpPort>) {
    if !waits.iter().any(|(known, _)| Arc::ptr_eq(known, port)) {
        match port.another_handle().and_then(UdpSocket::from_std) {
            Ok(socket) => waits.push((Arc::clone(port), socket)),
            // Without a descriptor to wait on, the next tick tries again.
            Err(_) => return sleep_until(Clock::now() + TICK).await,
        }
    }
    if let Some((_, socket)) = waits.iter().find(|(known, _)| Arc::ptr_eq(known, port)) {
        let _ = timeout(TICK, socket.writable()).await;
        // The readiness may be stale, or it was the socket for fragments that was full: never spin.
        sleep_until(Clock::now() + ROOM).await;
    }
}

/// What a pass set out to do.
pub(super) struct Pass {
    /// Publishing points whose live viewers have something to get.
    fresh: Vec<bool>,
}

impl State {
    fn begin_pass(&mut self) -> Pass {
        self.catching_up = false;
        Pass { fresh: self.broadcasts.iter_mut().map(|broadcast| std::mem::take(&mut broadcast.fresh)).collect() }
    }

    /// Serves viewers from `position` on for about a millisecond.
    fn turn(&mut self, position: &mut Position, pass: &Pass) -> Turn {
        let mut now = Clock::now().into_std();
        let until = now + TURN;
        let mut count = 0;
        while let Some(broadcast) = self.broadcasts.get(position.point) {
            let Some(viewer) = broadcast.viewers.get(position.viewer) else {
                *position = Position { point: position.point + 1, viewer: 0 };
                continue;
            };
            let all = pass.fresh.get(position.point).copied().unwrap_or(false);
            if (all || viewer.pace.is_some()) && !viewer.blocked {
                let conn = viewer.conn;
                let udp = match &viewer.transport {
                    Transport::Udp(_, port) => Some(Arc::clone(port)),
                    Transport::Tcp => None,
                };
                let point = PointId(u32::try_from(position.point).unwrap_or(u32::MAX));
                if self.serve(point, position.viewer, now)
                    && let Some(port) = udp
                {
                    return Turn::Blocked(port);
                }
                // Serving may have ended this viewer; the last one then sits in its seat.
                let there = self.broadcasts.get(position.point).and_then(|broadcast| broadcast.viewers.get(position.viewer));
                if there.is_some_and(|viewer| viewer.conn != conn) {
                    continue;
                }
                count += 1;
                if count % STRIDE == 0 {
                    now = Clock::now().into_std();
                    if now >= until {
                        position.viewer += 1;
                        return Turn::Yield;
                    }
                }
            }
            position.viewer += 1;
        }
        Turn::Done
    }

    fn end_pass(&mut self, pass: &Pass) {
        let now: Instant = Clock::now().into_std();
        for (broadcast, _) in self.broadcasts.iter_mut().zip(&pass.fresh).filter(|(_, fresh)| **fresh) {
            for (due, packets) in std::mem::take(&mut broadcast.unsent) {
                if broadcast.viewers.is_empty() {
                    continue;
                }
                let delay = now.saturating_duration_since(due);
                self.counters.send_delay_seconds.record(delay.as_secs_f64());
                if delay > LATE {
                    self.counters.late_sends.increment(packets * broadcast.viewers.len() as u64);
                }
            }
        }
        self.settle();
    }

    /// Hands the tally to the metrics and ends sessions whose port does not exist.
    pub(super) fn settle(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        self.counters.add(&tally);
        if tally.icmp_pending {
            for port in &self.context.udp_ports {
                while let Some(destination) = port.next_unreachable() {
                    self.context.routes.unreachable(destination);
                }
            }
        }
    }
}
