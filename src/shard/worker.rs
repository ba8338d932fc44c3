//! The thread of a shard: its mailbox, and a task for each connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;
use tokio::time::{Instant as Clock, sleep_until, timeout};

use super::Context;
use super::command::{Accepted, Command};
use super::engine::Event;
use super::pump;
use super::state::{Arrival, State};

/// How often a shard shows that it lives, and looks for viewers that do not.
const BEAT: Duration = Duration::from_secs(1);
/// Bytes of one read of a control connection.
const READ_BYTES: usize = 16 << 10;
/// Time for the last answer to leave, and for the peer to take it in.
const LINGER: Duration = Duration::from_secs(1);

/// Runs a shard until its mailbox closes, or it was told to stop and has no connection left.
pub(super) fn run(context: Arc<Context>, index: usize, mailbox: UnboundedReceiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(shard = index, %error, "a shard has no runtime; its viewers are lost"),
    };
    let local = LocalSet::new();
    local.block_on(&runtime, serve(context, index, mailbox));
}

async fn serve(context: Arc<Context>, index: usize, mut mailbox: UnboundedReceiver<Command>) {
    let state = Rc::new(RefCell::new(State::new(context, index)));
    let mut pump = tokio::task::spawn_local(pump::run(Rc::clone(&state)));
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = mailbox.recv() => match command {
                Some(Command::Connection(accepted)) => take(&state, accepted),
                Some(command) => {
                    let mut state = state.borrow_mut();
                    let now = Clock::now().into_std();
                    state.command(now, command);
                    if state.stopping.is_some() && state.conns.is_empty() {
                        state.tell_of_visits(now, true);
                        return;
                    }
                }
                None => return,
            },
            // It never ends by itself. A shard that sends nothing must not look alive: without its beat the watchdog acts.
            ended = &mut pump => {
                tracing::error!(shard = index, ?ended, "the pump of a shard has failed; its viewers are lost");
                return;
            }
            _ = beat.tick() => {
                let (mut state, now) = (state.borrow_mut(), Clock::now().into_std());
                state.sweep(now);
                state.sweep_variants(now);
                state.settle();
                state.drain_errors();
                state.measure();
                state.tell_of_overload();
                (state.context.beat)(index, now);
                if state.stopping.is_some() && state.conns.is_empty() {
                    state.tell_of_visits(now, true);
                    return;
                }
            }
        }
    }
}

/// Gives a connection its place and its task.
fn take(state: &Rc<RefCell<State>>, accepted: Accepted) {
    let Accepted { stream, peer, local, at, head, udp, protocol, tls, takes_publishers } = accepted;
    let ready = || {
        if !tls {
            stream.set_nodelay(true)?;
            // Unsent bytes beyond this would only be late; a viewer that stalls then costs little kernel memory.
            let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(128 << 10);
        }
        TcpStream::from_std(stream)
    };
    let stream = match ready() {
        Ok(stream) => Rc::new(stream),
        Err(error) => return tracing::warn!(%peer, %error, "a connection was lost before it began"),
    };
    let now = Clock::now().into_std();
    let key = {
        let mut state = state.borrow_mut();
        let key = state.admit(now, Arrival { peer, local, at, udp, protocol, tls, takes_publishers }, Rc::clone(&stream));
        state.drive(key, now, Event::Bytes(&head));
        key
    };
    tokio::task::spawn_local(converse(Rc::clone(state), key, stream));
}

/// Takes a connection out when its task is over, also when that ended by a panic: its lease and its place must not stay.
struct Departure {
    state: Rc<RefCell<State>>,
    key: usize,
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.remove(self.key, Clock::now().into_std());
        }
    }
}

/// One connection, from its first byte to its end.
async fn converse(state: Rc<RefCell<State>>, key: usize, stream: Rc<TcpStream>) {
    let _departure = Departure { state: Rc::clone(&state), key };
    let Some(wake) = state.borrow().conns.get(key).map(|conn| Rc::clone(&conn.wake)) else { return };
    loop {
        let (deadline, waits) = {
            let state = state.borrow();
            let Some(conn) = state.conns.get(key) else { return };
            if conn.closing.is_some() {
                break;
            }
            (conn.engine.poll_timeout(), !conn.out.is_empty() || state.is_blocked(conn))
        };
        let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        // A session without a deadline still looks around from time to time.
        let deadline = deadline.map_or_else(|| Clock::now() + Duration::from_secs(3600), Clock::from_std);
        tokio::select! {
            ready = stream.ready(interest) => match ready {
                Err(_) => break,
                Ok(ready) => {
                    if ready.is_writable() {
                        state.borrow_mut().flush(key, Clock::now().into_std());
                    }
                    // One that was handed over is read elsewhere by now.
                    let is_over = state.borrow().conns.get(key).is_none_or(|conn| conn.closing.is_some());
                    if ready.is_readable() && !is_over && !read(&state, key, &stream) {
                        break;
                    }
                }
            },
            () = sleep_until(deadline) => state.borrow_mut().drive(key, Clock::now().into_std(), Event::Timeout),
            () = wake.notified() => {}
        }
    }
    part(&state, key, &stream).await;
}

/// Reads once; false at the end of the connection.
fn read(state: &Rc<RefCell<State>>, key: usize, stream: &TcpStream) -> bool {
    let mut buffer = [0; READ_BYTES];
    match stream.try_read(&mut buffer) {
        Ok(0) => false,
        Ok(read) => {
            let bytes = buffer.get(..read).unwrap_or_default();
            state.borrow_mut().drive(key, Clock::now().into_std(), Event::Bytes(bytes));
            true
        }
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Lets the last answer reach the peer: a close with unread bytes would be a reset that destroys it.
async fn part(state: &Rc<RefCell<State>>, key: usize, stream: &TcpStream) {
    let ends = state.borrow().conns.get(key).is_some_and(|conn| conn.closing.is_some() && !conn.handed_over);
    if !ends {
        return;
    }
    let farewell = async {
        loop {
            let written = {
                let mut state = state.borrow_mut();
                let Some(conn) = state.conns.get_mut(key) else { return };
                match conn.out.flush(&conn.stream) {
                    Ok(_) => conn.out.is_empty(),
                    Err(_) => return,
                }
            };
            if written {
                break;
            }
            if stream.writable().await.is_err() {
                return;
            }
        }
        let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
        loop {
            if stream.readable().await.is_err() {
                return;
            }
            match discard(stream) {
                Ok(0) => return,
                // A peer that floods must not hold the thread.
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(LINGER, farewell).await;
}

/// Reads what nobody wants any more. Not inlined into the task, where its buffer would lie as long as the session lasts.
fn discard(stream: &TcpStream) -> std::io::Result<usize> {
    stream.try_read(&mut [0; 1024])
}
