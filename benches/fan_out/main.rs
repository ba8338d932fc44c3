//! One batch to many viewers: our path between a naive loop, a bare one, and what else could be done.
//!
//! Heads differ from viewer to viewer in two bytes a packet. Their phases and incarnations are drawn at random with a fixed seed,
//! so that images are shared as little as in real life: 2.3 of 1000 viewers have the same. All techniques of a table run in turn
//! within each round and are timed by the CPU time of the sending thread, to which loopback charges the receiving side of UDP;
//! what counts are the ratios printed at the end. Absolute times of two runs do not compare.
//!
//! - *naive*: a head is put before each packet for each viewer, one `sendto` or write each;
//! - *ours*: `Broadcast::serve`, as the pump calls it: one image a pass, two bytes of each head stamped, one send;
//! - *ours, HTTP*: the same with slabs, of which a part is sent and nothing stamped;
//! - *ours, RTP*, *interleaved*: the same with RTP packets, which are the same for all, 8 bytes longer than *bare* has them, 12 over
//!   TCP; *own*: numbered for each viewer, as for those who have come from a variant;
//! - *bare*: the same bytes to all from one buffer, one send a viewer, no bookkeeping. It is 1.00 in the tables;
//! - *stamped*: ours without its bookkeeping;
//! - *copied*, *gathered*: heads and packets copied into a scratch buffer for each viewer; or two buffers a packet;
//! - *image per group*: one image for all viewers of the same two bytes, made anew for each batch; *one group*: if all had the same;
//! - *connected*: a connected UDP socket a viewer; *sendmmsg*: 16 viewers a call, without heads or with 16 images to stamp;
//! - *tokio*: bare, but through `try_write_vectored`.
//!
//! UDP viewers are bound sockets that nobody reads, once as they are, so that the kernel cuts each segmented send, and once with
//! `UDP_GRO`, so that it need not and only the sender's share is left. TCP viewers are read by a thread on the other processor.
//!
//! Measured on a virtual machine with 2 processors over loopback: medians of one run with little beside it, quartiles 1 to 2 %
//! from them (TCP to 7 %). Four runs before, with other jobs beside them, lay within 0.03 of it where nothing had changed. 1000
//! viewers, times bare, at 1, 7, 16, 44 packets:
//!
//! |                   | 1    | 7    | 16   | 44   | taken whole: 1 | 7    | 16    | 44    |
//! |-------------------|------|------|------|------|----------------|------|-------|-------|
//! | naive             | 1.01 | 3.79 | 5.25 | 6.64 | 1.01           | 6.15 | 13.06 | 26.01 |
//! | ours              | 1.03 | 1.02 | 1.02 | 1.01 | 1.03           | 1.03 | 1.04  | 1.03  |
//! | stamped           | 1.01 | 1.00 | 1.00 | 1.00 | 0.99           | 0.98 | 1.01  | 0.98  |
//! | copied            | 1.02 | 1.03 | 1.05 | 1.06 | 1.01           | 1.03 | 1.13  | 1.24  |
//! | gathered          | 1.06 | 1.11 | 1.10 | 1.17 | 1.06           | 1.17 | 1.28  | 1.46  |
//! | image per group   | 1.03 | 1.08 | 1.12 | 1.19 | 1.04           | 1.14 | 1.32  | 1.62  |
//! | connected         | 0.92 | 0.95 | 0.97 | 0.98 | 0.92           | 0.91 | 0.91  | 0.92  |
//! | sendmmsg, stamped | 0.90 | 0.92 | 0.95 | 1.00 | 0.90           | 0.88 | 0.99  | 0.97  |
//! | TCP: naive        | 1.00 | 6.10 | 12.6 | 17.9 |                |      |       |       |
//! | TCP: ours         | 0.95 | 1.01 | 1.04 | 0.99 |                |      |       |       |
//! | TCP: tokio        | 1.02 | 1.02 | 1.00 | 1.01 |                |      |       |       |
//! | TCP: gathered     | 1.02 | 1.05 | 1.11 | 1.25 |                |      |       |       |
//!
//! With 1, 10 and 100 viewers ours is at 1.08, 1.03 and 1.01 at 7 packets. Single columns lay far off in earlier runs with narrow
//! quartiles (stamped 1.47, copied 1.80): how buffers and sockets happen to lie is drawn once a column. What only one column says,
//! nothing follows from.
//!
//! What follows:
//! - Stamping costs nothing that can be measured, whatever the size of the group: one image for all, and no images per group. Two
//!   or three viewers an image never repay its making, and even one group for all would not beat stamping.
//! - One image a pass in one buffer that stays in the cache, and one line of memory a viewer: before, with an image a batch and
//!   records of 300 bytes, ours was at 1.05 and with one viewer at 1.3.
//! - `sendmmsg` is all that beats bare on one socket, by the system calls that it saves, which are dear on this machine: a tenth
//!   of a short send, nothing at 44 packets that the kernel cuts. 4 viewers a call gain half of it, 64 no more than 16, one loses.
//!   Connected sockets gain as much or less and cost a socket a viewer. Both are left for later.
//! - tokio's look at its record of a connection costs little here, where nothing else wants the cache. In the whole daemon it was
//!   390 ns a viewer and pass, and 1.18 times bare instead of 1.07 (`benches/whole`), so passes write past it.
//! - Sizes decide: a last packet that is shorter is free; one in four costs 1.6, 2.0 and 2.5 times bare (7, 16, 44 packets); sizes
//!   that grow from packet to packet cost as much as naive, 15 % less in one `sendmmsg` a viewer. Equal sizes are worth padding.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a bench prints, and panics where its own numbers are wrong"
)]
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod drain;
mod ours;
mod packets;
mod rounds;
mod tcp;
mod udp;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use crate::drain::{Processor, pin};
use crate::rounds::Rounds;
use crate::tcp::Connections;
use crate::udp::{Delivery, Receivers};

/// Techniques that Criterion reports on; the tables have all.
const REPORTED: [&str; 6] = ["naive", "ours", "ours, HTTP framed", "ours, RTP", "ours, interleaved", "bare"];
/// Packets after which our window lets one go for each that comes.
const WINDOW_PACKETS: usize = 4_500;
/// Rounds where Criterion does not choose their number.
const ROUNDS: usize = 30;

/// Has Criterion time one technique after the other, of which every round runs all.
fn report(criterion: &mut Criterion, name: &str, viewers: usize, packets: usize, rounds: &mut Rounds) {
    let mut group = criterion.benchmark_group(format!("fan_out/{name}/{viewers}_viewers"));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(20)).measurement_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements((viewers * packets) as u64));
    for (technique, name) in rounds.names().into_iter().enumerate().filter(|(_, name)| REPORTED.contains(name)) {
        group.bench_function(BenchmarkId::new(name, packets), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| rounds.round()[technique]).sum());
        });
    }
    group.finish();
}

/// A column of a table: packets a batch, and the rounds with so many.
type Column = (usize, Rounds);

/// Prints what each technique cost, as a multiple of bare sending.
fn print_table(title: &str, viewers: usize, columns: &[Column]) {
    let Some((_, first)) = columns.first() else { return };
    println!("\n{title}");
    print!("{:<20}", "packets a batch");
    columns.iter().for_each(|(packets, _)| print!("{packets:>12}"));
    println!();
    let row = |name: &str, of: &str, to: &str| {
        print!("{name:<20}");
        for (_, rounds) in columns {
            rounds.ratio(of, to).map_or_else(|| print!("{:>12}", "-"), |ratio| print!("{ratio:>12}"));
        }
        println!();
    };
    first.names().iter().filter(|name| **name != "bare").for_each(|name| row(name, name, "bare"));
    if first.names().contains(&"ours") {
        row("ours / naive", "ours", "naive");
        row("bare / naive", "bare", "naive");
    }
    print!("{:<20}", "bare, ns a viewer");
    for (_, rounds) in columns {
        print!("{:>12}", rounds.median("bare").unwrap_or_default().as_nanos() / viewers as u128);
    }
    println!();
}

fn over_udp(criterion: &mut Criterion, viewers: usize, delivery: Delivery) -> Vec<Column> {
    let receivers = Receivers::new(viewers, delivery);
    let name = if delivery == Delivery::Cut { "udp" } else { "udp_whole" };
    let column = |packets| {
        let mut techniques = udp::techniques(&receivers, packets);
        techniques.extend(udp::alternatives(&receivers, packets));
        let mut rounds = Rounds::new(techniques, viewers * packets);
        // A full window, where few viewers leave its first memory unshared; with many it is little beside the sends.
        rounds.warm_up((WINDOW_PACKETS / packets).min(50_000 / (viewers * packets)).max(3));
        report(criterion, name, viewers, packets, &mut rounds);
        (packets, rounds)
    };
    [1, 4, 7, 16, 44].map(column).into()
}

fn ragged(viewers: usize) -> Vec<Column> {
    let receivers = Receivers::new(viewers, Delivery::Cut);
    let column = |packets| {
        let mut rounds = Rounds::new(udp::ragged(&receivers, packets), viewers * packets);
        rounds.warm_up(3);
        for _ in 0..ROUNDS {
            rounds.round();
        }
        (packets, rounds)
    };
    [7, 16, 44].map(column).into()
}

fn over_tcp(criterion: &mut Criterion, viewers: usize) -> Vec<Column> {
    let connections = Connections::new(viewers);
    let column = |packets| {
        let mut rounds = Rounds::new(tcp::techniques(&connections, packets), viewers * packets);
        rounds.warm_up(5);
        report(criterion, "tcp", viewers, packets, &mut rounds);
        (packets, rounds)
    };
    [1, 7, 16, 44].map(column).into()
}

fn fan_out(criterion: &mut Criterion) {
    // Sockets of both ends.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors for the viewers");
    pin(Processor::First);
    let mut tables = Vec::new();
    for viewers in [1, 10, 100, 1000] {
        tables.push((format!("UDP, viewers: {viewers}"), viewers, over_udp(criterion, viewers, Delivery::Cut)));
    }
    tables.push(("UDP, 1000 viewers who take a segmented send whole".into(), 1000, over_udp(criterion, 1000, Delivery::Whole)));
    tables.push(("UDP, 1000 viewers, packets of different sizes".into(), 1000, ragged(1000)));
    for viewers in [100, 1000] {
        tables.push((format!("TCP, viewers: {viewers}"), viewers, over_tcp(criterion, viewers)));
    }
    println!("\nCPU time of the sending thread over that of bare in the same round: median, half the distance of the quartiles");
    tables.iter().for_each(|(title, viewers, columns)| print_table(title, *viewers, columns));
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
