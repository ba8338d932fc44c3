//! The yardsticks: the same batches at the same times to as many sockets, with no relay around them.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{MsgFlags, recv};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::AsRawFd;
use wmrelay::mms::media;
use wmrelay::shard::origins::Origins;
use wmrelay::shard::udp::{Route, UdpPort};

use crate::media::PACKET_SIZE;

/// A packet of MMS.
const STRIDE: usize = media::HEAD_LEN + PACKET_SIZE;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "a bench keeps time")]
fn now() -> Instant {
    Instant::now()
}

/// As many bytes as the framed packets of the largest tick have; what is in them is all the same to those who carry them.
fn image(ticks: &[usize], stride: usize) -> Vec<u8> {
    vec![7; ticks.iter().max().unwrap_or(&0) * stride]
}

/// As many threads as the daemon has shards share the viewers, since two busy threads of one core slow each other down. Each calls
/// `send` with its viewers and the number of packets of each tick when it is due, for `span`; nanoseconds of them per packet.
fn paced<V: Sync>(ticks: &[usize], tick: Duration, span: Duration, viewers: &[V], send: impl Fn(&[V], usize) + Sync) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begin = now();
    let (send, sum) = (&send, |(cpu, packets), (more, others)| (cpu + more, packets + others));
    let (cpu, packets) = std::thread::scope(|scope| {
        let share = |viewers| {
            scope.spawn(move || {
                let (before, mut packets) = (cpu_time(), 0);
                for (n, count) in (0..).zip(ticks.iter().cycle()) {
                    let due = begin + tick * n;
                    if due >= begin + span {
                        break;
                    }
                    std::thread::sleep(due.saturating_duration_since(now()));
                    send(viewers, *count);
                    packets += count * viewers.len();
                }
                (cpu_time() - before, packets)
            })
        };
        let shares: Vec<_> = viewers.chunks(viewers.len().div_ceil(threads)).map(share).collect();
        shares.into_iter().map(|thread| thread.join().expect("it sends")).fold((Duration::ZERO, 0), sum)
    });
    cpu.as_nanos() as f64 / packets as f64
}

/// UDP sockets that nobody reads.
pub(crate) struct UdpLoops {
    _sockets: Vec<UdpSocket>,
    port: Arc<UdpPort>,
    plain: UdpSocket,
    routes: Vec<Route>,
    /// Bytes of a datagram.
    stride: usize,
}

impl UdpLoops {
    /// So many viewers of packets with a head of so many bytes.
    pub(crate) fn new(viewers: usize, head_len: usize) -> Self {
        let port = Arc::new(UdpPort::bind(SocketAddr::new(HERE, 0), 1472).expect("a port"));
        let mut origins = Origins::default();
        let origin = origins.id(&port, HERE).expect("the first");
        let sockets: Vec<UdpSocket> = (0..viewers).map(|_| UdpSocket::bind((HERE, 0)).expect("descriptors")).collect();
        let route = |socket: &UdpSocket| Route {
            destination: socket.local_addr().expect("bound").into(),
            origin,
            segmented: true,
            fragmented: false,
        };
        let routes = sockets.iter().map(route).collect();
        Self {
            _sockets: sockets,
            port,
            plain: UdpSocket::bind((HERE, 0)).expect("a port"),
            routes,
            stride: head_len + PACKET_SIZE,
        }
    }

    /// Packets that one send of [`Self::bare`] carries, on average.
    pub(crate) fn packets_a_send(&self, ticks: &[usize]) -> f64 {
        let most = self.port.segments(self.stride);
        ticks.iter().sum::<usize>() as f64 / ticks.iter().map(|packets| packets.div_ceil(most)).sum::<usize>() as f64
    }

    /// One segmented send a viewer and tick.
    pub(crate) fn bare(&self, ticks: &[usize], tick: Duration, span: Duration) -> f64 {
        let image = image(ticks, self.stride);
        let most = self.port.segments(self.stride) * self.stride;
        paced(ticks, tick, span, &self.routes, |routes, packets| {
            for route in routes {
                for part in image[..packets * self.stride].chunks(most) {
                    self.port.send(HERE, route, &[IoSlice::new(part)], self.stride);
                }
            }
        })
    }

    /// One `sendto` a packet.
    pub(crate) fn naive(&self, ticks: &[usize], tick: Duration, span: Duration) -> f64 {
        let image = image(ticks, self.stride);
        paced(ticks, tick, span, &self.routes, |routes, packets| {
            for route in routes {
                for packet in image[..packets * self.stride].chunks(self.stride) {
                    let _ = self.plain.send_to(packet, SocketAddr::from(route.destination));
                }
            }
        })
    }
}

/// TCP connections whose other ends a thread drains.
pub(crate) struct TcpLoops {
    streams: Vec<TcpStream>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl TcpLoops {
    /// So many viewers.
    pub(crate) fn new(viewers: usize) -> Self {
        let listener = TcpListener::bind((HERE, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (mut streams, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..viewers {
            readers.push(TcpStream::connect(address).expect("descriptors"));
            let stream = listener.accept().expect("a connection").0;
            stream.set_nodelay(true).expect("TCP");
            streams.push(stream);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            // As the swarm reads: edge-triggered, in turns of 5 ms. Who waits for a socket costs its sender something too.
            let mut poll = Poll::new().expect("epoll");
            for (token, reader) in readers.iter().enumerate() {
                let source = &mut SourceFd(&reader.as_raw_fd());
                poll.registry().register(source, Token(token), Interest::READABLE).expect("epoll");
            }
            let mut nowhere = vec![0; 256 << 10];
            let mut events = Events::with_capacity(8192);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                poll.poll(&mut events, Some(Duration::ZERO)).expect("epoll");
                for event in &events {
                    let reader = readers[event.token().0].as_raw_fd();
                    while recv(reader, &mut nowhere, flags).is_ok_and(|taken| taken > 0) {}
                }
            }
        });
        Self { streams, stop, reader: Some(reader) }
    }

    /// Packets that one write of [`Self::bare`] carries, on average.
    pub(crate) fn packets_a_send(ticks: &[usize]) -> f64 {
        ticks.iter().sum::<usize>() as f64 / ticks.iter().filter(|packets| **packets > 0).count() as f64
    }

    /// One vectored write a viewer and tick that has packets.
    pub(crate) fn bare(&self, ticks: &[usize], tick: Duration, span: Duration) -> f64 {
        let image = image(ticks, STRIDE);
        paced(ticks, tick, span, &self.streams, |streams, packets| {
            for stream in streams.iter().filter(|_| packets > 0) {
                let framed = IoSlice::new(&image[..packets * STRIDE]);
                rustix::io::writev(stream, &[framed]).expect("read in time");
            }
        })
    }
}

impl Drop for TcpLoops {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
