//! The far ends of TCP connections: a thread on another processor that throws away what comes.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;

/// Most bytes that one call throws away.
const BUFFER: usize = 256 << 10;
/// After this the bytes are not coming.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which end of the processors that this process may use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Processor {
    /// The first is the sender's.
    First,
    /// The last is the readers'.
    Last,
}

/// Keeps this thread on one processor, so that sender and readers do not take turns on one.
pub(crate) fn pin(processor: Processor) {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let mut indexes = (0..CpuSet::count()).filter(|index| allowed.is_set(*index) == Ok(true));
    let chosen = match processor {
        Processor::First => indexes.next(),
        Processor::Last => indexes.next_back(),
    };
    let mut one = CpuSet::new();
    if chosen.is_some_and(|index| one.set(index).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &one);
    }
}

/// A thread that reads connections; ended when dropped.
pub(crate) struct Drain {
    read: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drain {
    /// Begins to read these.
    pub(crate) fn new(streams: Vec<TcpStream>) -> Self {
        let (read, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&read), Arc::clone(&stop));
        let thread = std::thread::spawn(move || drain(&streams, &count, &ended));
        Self { read, stop, thread: Some(thread) }
    }

    /// Waits until that many bytes have been read in all.
    pub(crate) fn wait_for(&self, bytes: u64) {
        let step = Duration::from_micros(50);
        let mut waited = Duration::ZERO;
        while self.read.load(Ordering::Acquire) < bytes {
            assert!(waited < PATIENCE, "the readers have {} of {bytes} bytes", self.read.load(Ordering::Acquire));
            std::thread::sleep(step);
            waited += step;
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drain(streams: &[TcpStream], read: &AtomicU64, stop: &AtomicBool) {
    pin(Processor::Last);
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("a descriptor");
    for (index, stream) in streams.iter().enumerate() {
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64)).expect("memory");
    }
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Acquire) {
        let count = epoll.wait(&mut events, EpollTimeout::from(100_u8)).unwrap_or(0);
        for event in &events[..count] {
            let stream = &streams[event.data() as usize];
            // Over TCP the flag means that nothing is copied.
            if let Ok(bytes) = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT) {
                read.fetch_add(bytes as u64, Ordering::AcqRel);
            }
        }
    }
}
