//! The parts of a packet's way that run for every packet, viewer or join: the walk, re-cutting and selection, publishing,
//! the window, the client port pool.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a bench prints, and panics where its own numbers are wrong"
)]
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wmrelay::asf::{Header, Recut, Recutter, Selection, Selector, StreamSet, walk};
use wmrelay::relay::admission::{Claim, ClientPortPool, TicketShown};
use wmrelay::relay::{Batch, BatchPacket, Delivery, Generation, PublisherId, Relay, ShardPort, Window};
use wmrelay::settings::{Oversize, PublishingPoint, Settings, Source, WindowBounds};
use wmrelay::wire::Guid;

/// Whole packets of a sample: everything behind its header that is a multiple of the packet size.
fn packets(sample: &str, packet_size: usize) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/data/{sample}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let header = Header::gather_len(&bytes).expect("a header").expect("a whole one");
    bytes[header..].chunks_exact(packet_size).filter(|packet| walk(packet).is_ok()).map(<[u8]>::to_vec).collect()
}

fn packet_walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet_walk");
    for (sample, size) in [("vod-wmv2-wmav2-indexed.wmv", 3200), ("live-asf-pipe.asf", 1400), ("edge-packets-pcmu.asf", 800)] {
        let packets = packets(sample, size);
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(sample, |bencher| {
            bencher.iter(|| {
                for packet in &packets {
                    let _ = black_box(walk(black_box(packet)));
                }
            });
        });
    }
    group.finish();
}

fn header(sample: &str) -> Header {
    let path = format!("{}/tests/data/{sample}", env!("CARGO_MANIFEST_DIR"));
    Header::parse(&std::fs::read(path).unwrap()).unwrap()
}

/// Re-cutting both ways and selection, beside the walk that every packet gets.
fn packet_rewrites(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet_rewrites");
    let (sample, size) = ("vod-wmv2-wmav2-indexed.wmv", 3200);
    let (header_3200, packets_3200) = (header(sample), packets(sample, size));
    group.throughput(Throughput::Bytes((packets_3200.len() * size) as u64));
    let mut out = Vec::with_capacity(4 * 1400);
    group.bench_function("recut_file", |bencher| {
        let recut = Recut::new(&header_3200, 1400).unwrap();
        bencher.iter(|| {
            for packet in &packets_3200 {
                out.clear();
                let _ = black_box(recut.recut(black_box(packet), &mut out));
            }
        });
    });
    group.bench_function("recut_live", |bencher| {
        let mut recutter = Recutter::new(&header_3200, 1400);
        bencher.iter(|| {
            for packet in &packets_3200 {
                out.clear();
                let _ = black_box(recutter.push(black_box(packet), &mut out));
            }
        });
    });
    let sample = "mbr-2video-1audio.asf";
    let (header_mbr, packets_mbr) = (header(sample), packets(sample, 1400));
    group.throughput(Throughput::Bytes((packets_mbr.len() * 1400) as u64));
    for (name, streams, thinned) in
        [("select_all", &[1, 2, 3][..], &[][..]), ("select_two", &[1, 3], &[]), ("thin", &[1, 3], &[1])]
    {
        let set = |streams: &[u8]| streams.iter().copied().collect::<StreamSet>();
        let selection = Selection { streams: set(streams), thinned: set(thinned) };
        let mut selector = Selector::new(set(&[1, 2, 3]), header_mbr.video(), selection);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for packet in &packets_mbr {
                    out.clear();
                    let _ = black_box(selector.packet(black_box(packet), &mut out));
                }
            });
        });
    }
    group.finish();
}

/// A shard that lets go of all it gets.
struct Nobody;

impl ShardPort for Nobody {
    fn deliver(&self, delivery: Delivery) {
        black_box(delivery);
    }
}

/// Publishing a stream of 3200-byte packets as it is, and cut anew for datagrams; the ratio is what re-cutting costs.
fn publish(criterion: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
    let now = Instant::now();
    let mut group = criterion.benchmark_group("publish");
    let (sample, size) = ("vod-wmv2-wmav2-indexed.wmv", 3200);
    let (header, packets) = (header(sample), packets(sample, size).concat());
    group.throughput(Throughput::Bytes(packets.len() as u64));
    // One packet at a time, as a live encoder sends, and the whole stream at once.
    for (calls, at_once) in [("one_by_one", size), ("at_once", packets.len())] {
        for (name, oversize) in [("as_it_is", Oversize::Fragment), ("recut", Oversize::Recut)] {
            let point = PublishingPoint::new("cam", Source::Push);
            let mut settings = Settings { publishing_points: vec![point], ..Settings::default() };
            settings.udp.oversize = oversize;
            let relay = Relay::new(&settings, Box::new(Guid::default), vec![Arc::new(Nobody)]);
            let mut publisher = relay.publish(now, "cam", PublisherId::Local).unwrap();
            publisher.header(now, 0, &header).unwrap();
            group.bench_function(BenchmarkId::new(name, calls), |bencher| {
                bencher.iter_batched(
                    || packets.chunks(at_once).map(BytesMut::from).collect::<Vec<_>>(),
                    |calls| calls.into_iter().for_each(|packets| drop(black_box(publisher.packets(now, packets)))),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn batch(generation: &Arc<Generation>, first: u64, now: Instant) -> Arc<Batch> {
    let packets = (0..7)
        .map(|index| BatchPacket {
            number: first + u64::from(index),
            send_time_ms: (first as u32 + index) * 5,
            join_point: (first + u64::from(index)).is_multiple_of(200),
            key: false,
            used_len: 1400,
        })
        .collect();
    Arc::new(Batch { generation: Arc::clone(generation), first, bytes: Bytes::from(vec![0; 7 * 1400]), packets, due: now })
}

fn window(criterion: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
    let now = Instant::now();
    let video: StreamSet = [1].into_iter().collect();
    let header = Bytes::from_static(b"header");
    let generation = Arc::new(Generation {
        number: 0,
        header,
        packet_size: 1400,
        preroll_ms: 3000,
        bit_rate: 2_000_000,
        streams: video,
        video,
        ssrc: 7,
        sequence: 9,
    });
    let bounds = WindowBounds { seconds: 20, bytes: 32 << 20 };
    let mut group = criterion.benchmark_group("window");
    for viewers in [1_u64, 100, 10_000] {
        let mut window: Window<u64> = Window::new(&bounds);
        let mut first = 0;
        for _ in 0..500 {
            window.push(batch(&generation, first, now));
            first += 7;
        }
        group.throughput(Throughput::Elements(viewers));
        // A push and one look per viewer: most at the live edge, every tenth some seconds behind.
        group.bench_function(BenchmarkId::new("push_and_find", viewers), |bencher| {
            bencher.iter_batched(
                || {
                    first += 7;
                    batch(&generation, first - 7, now)
                },
                |batch| {
                    window.push(batch);
                    for viewer in 0..viewers {
                        let behind = if viewer.is_multiple_of(10) { 700 } else { 7 };
                        black_box(window.locate(window.end() - behind));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn port_pool(criterion: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
    let start = Instant::now();
    let mut group = criterion.benchmark_group("port_pool");
    for held in [0_u16, 100, 3000] {
        let pool = ClientPortPool::new(&Settings::default().udp);
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let leases: Vec<_> =
            (0..held).map(|owner| pool.claim_lowest(start, address, u64::from(owner)).expect("a free port")).collect();
        let mut round = 0;
        group.bench_function(BenchmarkId::new("lowest", held), |bencher| {
            bencher.iter(|| {
                // Each claim a minute after the one before, so that the freed port has rested.
                round += 1;
                black_box(pool.claim_lowest(start + Duration::from_secs(60 * round), address, 1_000_000).is_ok())
            });
        });
        group.bench_function(BenchmarkId::new("announced", held), |bencher| {
            bencher.iter(|| {
                round += 1;
                let claim =
                    Claim { address, port: 4_999, announced: None, player: None, owner: 1_000_000, ticket: TicketShown::NotYet };
                black_box(pool.claim(start + Duration::from_secs(60 * round), claim).is_ok())
            });
        });
        drop(leases);
    }
    group.finish();
}

criterion_group!(benches, packet_walk, packet_rewrites, publish, window, port_pool);
criterion_main!(benches);
