//! One batch to many UDP viewers: our path between a naive loop and the bare segmented one.
//!
//! The viewers are bound sockets that nobody reads. Their sequence phases and incarnations (4 as open-source players use, 10 as
//! Windows Media Format 9) are drawn at random with a fixed seed, so that images are shared as little as in real life. The three
//! techniques run in turn within each round and are timed by the process's CPU time; what counts are the ratios printed at the
//! end. Absolute times of two runs do not compare.
//!
//! - *naive*: a head is put before each packet for each viewer, one `send_to` each;
//! - *ours*: [`Broadcast::serve`], as the pump calls it: one image a batch, two bytes of each head stamped, one segmented send;
//! - *bare*: the same bytes in one buffer, segmented, without any of our bookkeeping.
//!
//! Left out after measuring: heads gathered beside the packets, two buffers a packet, instead of stamped into the image. At 1000
//! viewers and 7, 16 and 44 packets it cost 1.09, 1.10 and 1.14 times the bare loop, where stamping, with all of our bookkeeping,
//! cost 1.06, 1.06 and 1.03 in the same run.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a bench prints, and panics where its own numbers are wrong"
)]
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use wmrelay::asf::StreamSet;
use wmrelay::mms::media::{self, HEAD_LEN};
use wmrelay::relay::{Batch, BatchPacket, Generation};
use wmrelay::settings::Settings;
use wmrelay::shard::broadcast::{Broadcast, Link, Phase, Tally, Viewer};
use wmrelay::shard::origins::Origins;
use wmrelay::shard::udp::{Route, UdpPort};

const PACKET_SIZE: usize = 1400;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TECHNIQUES: [&str; 3] = ["naive", "ours", "bare"];

/// A small random generator with a fixed seed: the same phases in every run.
struct Phases(u64);

impl Phases {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).expect("31 bits")
    }
}

struct Rig {
    _sockets: Vec<UdpSocket>,
    port: Arc<UdpPort>,
    origins: Origins,
    routes: Vec<Route>,
    phases: Vec<(u8, u32)>,
    broadcast: Broadcast,
    generation: Arc<Generation>,
    packets: usize,
    next: u64,
    plain: UdpSocket,
    image: Vec<u8>,
    spent: [Duration; 3],
}

impl Rig {
    fn new(viewers: usize, packets: usize) -> Self {
        let mut random = Phases(20);
        let port = Arc::new(UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).expect("a UDP port"));
        let sockets: Vec<UdpSocket> =
            (0..viewers).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("descriptors for the viewers")).collect();
        let mut origins = Origins::default();
        let origin = origins.id(&port, HERE).expect("the first");
        let routes: Vec<Route> = sockets
            .iter()
            .map(|socket| Route {
                destination: socket.local_addr().expect("bound").into(),
                origin,
                segmented: true,
                fragmented: false,
            })
            .collect();
        let video: StreamSet = [1].into_iter().collect();
        let generation = Arc::new(Generation {
            number: 0,
            header: Bytes::from_static(b"header"),
            packet_size: PACKET_SIZE,
            preroll_ms: 3000,
            bit_rate: 1_000_000,
            streams: video,
            video,
        });
        let mut broadcast = Broadcast::new(&Settings::default().window);
        broadcast.generation = Some(Arc::clone(&generation));
        let mut phases = Vec::new();
        for (conn, route) in routes.iter().enumerate() {
            let mut viewer = Viewer::new(conn, Link::Udp(*route));
            let incarnation = if random.next().is_multiple_of(2) { 4 } else { 10 };
            let phase = random.next() % 256;
            viewer.start(incarnation, 0, PACKET_SIZE);
            viewer.hot.next.sequence = phase;
            viewer.hot.phase = Phase::Live;
            phases.push((incarnation, phase));
            broadcast.viewers.push(viewer);
        }
        let plain = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP port");
        let mut image = Vec::new();
        media::wrap(&vec![7; PACKET_SIZE * packets], PACKET_SIZE, 0, &mut image);
        let (next, spent) = (0, [Duration::ZERO; 3]);
        Self { _sockets: sockets, port, origins, routes, phases, broadcast, generation, packets, next, plain, image, spent }
    }

    fn batch(&mut self, now: Instant) -> Arc<Batch> {
        let first = self.next;
        self.next += self.packets as u64;
        let packet =
            BatchPacket { send_time_ms: u32::try_from(first).expect("short runs"), join_point: first == 0, used_len: 1400 };
        Arc::new(Batch {
            generation: Arc::clone(&self.generation),
            first,
            bytes: vec![7; PACKET_SIZE * self.packets].into(),
            packets: vec![packet; self.packets].into(),
            due: now,
        })
    }

    fn naive(&self) {
        let mut datagram = [0; HEAD_LEN + PACKET_SIZE];
        for (route, (incarnation, phase)) in self.routes.iter().zip(&self.phases) {
            for (index, framed) in self.image.chunks(HEAD_LEN + PACKET_SIZE).enumerate() {
                datagram.copy_from_slice(framed);
                media::stamp(&mut datagram, HEAD_LEN + PACKET_SIZE, *incarnation, *phase + index as u32);
                let _ = self.plain.send_to(&datagram, SocketAddr::from(route.destination));
            }
        }
    }

    fn ours(&mut self, batch: Arc<Batch>, now: Instant) {
        self.broadcast.push(now, Duration::ZERO, batch);
        let _ = self.broadcast.begin_pass(now, Duration::ZERO);
        let mut tally = Tally::default();
        for index in 0..self.broadcast.viewers.len() {
            let _ = self.broadcast.serve(index, now, &self.origins, &mut tally);
        }
        assert_eq!(tally.udp_packets, (self.routes.len() * self.packets) as u64, "every viewer gets every packet");
    }

    fn bare(&self) {
        let stride = HEAD_LEN + PACKET_SIZE;
        let run = self.port.segments(stride) * stride;
        for route in &self.routes {
            for part in self.image.chunks(run) {
                self.port.send(HERE, route, &[IoSlice::new(part)], stride);
            }
        }
    }

    /// All techniques once; the CPU time of each.
    fn round(&mut self) -> [Duration; 3] {
        #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
        let now = Instant::now();
        let batch = self.batch(now);
        let start = cpu_time();
        self.naive();
        let after_naive = cpu_time();
        self.ours(batch, now);
        let after_ours = cpu_time();
        self.bare();
        let round = [after_naive - start, after_ours - after_naive, cpu_time() - after_ours];
        for (spent, took) in self.spent.iter_mut().zip(round) {
            *spent += took;
        }
        round
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn fan_out(criterion: &mut Criterion) {
    let mut lines = Vec::new();
    for viewers in [1, 100, 1000] {
        let mut group = criterion.benchmark_group(format!("fan_out/{viewers}_viewers"));
        group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        for packets in [1, 7, 16, 44] {
            let mut rig = Rig::new(viewers, packets);
            // Fills the receivers' buffers: from here on every round costs the same.
            for _ in 0..512 / packets {
                rig.round();
            }
            rig.spent = Default::default();
            group.throughput(Throughput::Elements((viewers * packets) as u64));
            for (technique, name) in TECHNIQUES.iter().enumerate() {
                group.bench_function(BenchmarkId::new(*name, packets), |bencher| {
                    bencher.iter_custom(|rounds| (0..rounds).map(|_| rig.round()[technique]).sum());
                });
            }
            let [naive, ours, bare] = rig.spent.map(|spent| spent.as_secs_f64());
            lines.push(format!(
                "{viewers:>5} viewers, {packets:>2} packets a batch: ours / bare {:.2}, ours / naive {:.2}, bare / naive {:.2}",
                ours / bare,
                ours / naive,
                bare / naive
            ));
        }
        group.finish();
    }
    println!("\nCPU time, ratios of interleaved rounds:");
    lines.iter().for_each(|line| println!("{line}"));
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
