//! The daemon as a whole, built as users build it, beside loops that do nothing but send.
//!
//! No Criterion: the daemon and `wmrelay swarm` are processes of their own. What counts are the ratios, of rounds in which daemon
//! and loops run in turn; times are of this machine at this moment. Sections can be named: `cargo bench --bench whole -- udp`.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a program that prints figures"
)]

mod camera;
mod cold;
mod daemon;
mod files;
mod gstreamer;
mod listeners;
mod loops;
mod media;
mod reload;
mod rtsp_camera;

use std::time::Duration;

use daemon::{Daemon, Swarm, number};
use loops::{TcpLoops, UdpLoops};
use media::{RADIO, SMALL, SMOOTH, VIDEO};
use serde_json::Value;

const TICK: Duration = Duration::from_millis(40);
const SPAN: Duration = Duration::from_secs(6);
const ROUNDS: usize = 3;
const JOIN_RUNS: usize = 7;

/// A section: its name, and what prints it.
type Section = (&'static str, fn());

const SECTIONS: [Section; 16] = [
    ("udp", udp),
    ("tcp", tcp),
    ("http", http),
    ("rtsp", rtsp),
    ("tick", tick),
    ("crowd", crowd),
    ("radio", radio),
    ("curve", curve),
    ("joins", joins),
    ("memory", memory),
    ("files", files::files),
    ("listeners", listeners::listeners),
    ("gstreamer", gstreamer::gstreamer),
    ("cold", cold::cold),
    ("camera", camera::camera),
    ("reload", reload::reload),
];

fn main() {
    // A viewer of the loops takes one or two descriptors here.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors for the viewers");
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, section) in SECTIONS {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            println!("\n== {name}");
            section();
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The smallest of these figures that this part of them does not exceed: 0.5 is the median, 1 the largest.
fn quantile(of: &[f64], part: f64) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// What else the machine does: the load of the last minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("load {} on {processors} processors", load.split(' ').next().unwrap_or_default())
}

/// All play to the end: figures of fewer would look like better ones.
fn assert_all_play(report: &Value, viewers: usize) {
    assert_eq!(report["viewers_playing"].as_u64(), Some(viewers as u64), "not all viewers play: {}", report["failures"]);
}

/// 1000 viewers of 2 Mbit/s over UDP whose sockets nobody reads, the daemon's whole process.
fn udp() {
    datagrams("UDP", wmrelay::mms::media::HEAD_LEN, |daemon| Swarm::of(daemon, &VIDEO, 1000));
}

/// The same in RTP.
fn rtsp() {
    datagrams("RTSP", wmrelay::rtsp::media::HEAD_LEN, |daemon| Swarm::over_rtsp(daemon, &VIDEO, 1000));
}

fn datagrams(name: &str, head_len: usize, swarm: fn(&Daemon) -> Swarm) {
    let daemon = Daemon::start("", &[VIDEO]);
    let (ticks, loops) = (media::ticks(&daemon.path(&VIDEO), TICK), UdpLoops::new(1000, head_len));
    let (mut to_bare, mut to_naive, mut user) = (Vec::new(), Vec::new(), Vec::new());
    loops.bare(&ticks, TICK, SPAN / 6);
    for round in 1..=ROUNDS {
        let report = swarm(&daemon).addresses("127.0.0.2").unread().seconds(SPAN).run();
        assert_all_play(&report, 1000);
        let ours = number(&report, "server_cpu_ns_per_packet");
        let (bare, naive) = (loops.bare(&ticks, TICK, SPAN), loops.naive(&ticks, TICK, SPAN));
        println!(
            "round {round}: {} play; ours {ours:.0} ns a packet ({:.0} in user space), bare segmented sends {bare:.0}, one sendto a packet {naive:.0}",
            report["viewers_playing"],
            number(&report, "server_user_ns_per_packet")
        );
        to_bare.push(ours / bare);
        to_naive.push(ours / naive);
        user.push(number(&report, "server_user_ns_per_packet"));
    }
    println!(
        "1000 {name} viewers of 2 Mbit/s: {:.2} x the bare loop, {:.2} x one sendto a packet, {:.0} ns a packet in user space (medians)",
        median(to_bare),
        median(to_naive),
        median(user)
    );
    println!("packets a send: ours {:.2}, the bare loop {:.2}", daemon.packets_a_send("udp"), loops.packets_a_send(&ticks));
}

/// The same over TCP, read without looking.
fn tcp() {
    streamed("TCP", |daemon| Swarm::of(daemon, &VIDEO, 1000).tcp());
}

/// The same over HTTP, in Windows Media's frames.
fn http() {
    streamed("HTTP", |daemon| Swarm::over_http(daemon, &VIDEO, 1000));
}

/// 1000 viewers of 2 Mbit/s with a connection each, beside a loop of bare writes.
fn streamed(name: &str, swarm: fn(&Daemon) -> Swarm) {
    let daemon = Daemon::start("", &[VIDEO]);
    let (ticks, loops) = (media::ticks(&daemon.path(&VIDEO), TICK), TcpLoops::new(1000));
    let mut to_bare = Vec::new();
    for round in 1..=ROUNDS {
        let report = swarm(&daemon).unread().seconds(SPAN).run();
        assert_all_play(&report, 1000);
        let (ours, bare) = (number(&report, "server_cpu_ns_per_packet"), loops.bare(&ticks, TICK, SPAN));
        println!(
            "round {round}: {} play; ours {ours:.0} ns a packet ({:.0} in user space), bare writev {bare:.0}",
            report["viewers_playing"],
            number(&report, "server_user_ns_per_packet")
        );
        to_bare.push(ours / bare);
    }
    println!("1000 {name} viewers of 2 Mbit/s: {:.2} x the bare writev loop (median)", median(to_bare));
    println!("packets a send: ours {:.2}, the bare loop {:.2}", daemon.packets_a_send("tcp"), TcpLoops::packets_a_send(&ticks));
}

/// What a tick saves: all settings in turn, twice. Two figures of one setting that differ show what the machine adds.
fn tick() {
    for (medium, round) in [&VIDEO, &SMALL, &SMOOTH].into_iter().flat_map(|medium| [(medium, 1), (medium, 2)]) {
        for tick_ms in [0, 20, 40, 50] {
            let daemon = Daemon::start(&format!("[delivery]\ntick_ms = {tick_ms}\n"), &[VIDEO, SMALL, SMOOTH]);
            let report = Swarm::of(&daemon, medium, 1000).addresses("127.0.0.2").unread().seconds(SPAN).run();
            println!(
                "{}, round {round}, tick of {tick_ms} ms: {:.0} ns a packet, {:.2} packets a send, delay {}",
                medium.name,
                number(&report, "server_cpu_ns_per_packet"),
                daemon.packets_a_send("udp"),
                delay(&report)
            );
        }
    }
}

fn delay(report: &Value) -> String {
    let delay = &report["delay_ms"];
    format!("p50 {:.1}, p99 {:.1}, longest {:.1} ms", number(delay, "p50"), number(delay, "p99"), number(delay, "max"))
}

/// How a crowd fares: who plays, what is lost, how late it comes.
fn tell(what: &str, report: &Value) {
    let measured = &report["measured"];
    println!(
        "{what}: {} of {} play, {} packets, {} missing, {} lost; delay {}; server {:.0} ns a packet, {:.0} % of a core; swarm {:.0} %{}",
        report["viewers_playing"],
        report["viewers_asked"],
        measured["packets"],
        measured["gaps"],
        measured["lost"],
        delay(report),
        number(report, "server_cpu_ns_per_packet"),
        100.0 * number(report, "server_core_share"),
        100.0 * number(report, "own_core_share"),
        match &report["dropped_here"] {
            Value::Null => String::new(),
            dropped => format!(", which dropped {dropped}"),
        }
    );
}

/// Thousands of UDP viewers of 300 kbit/s that read.
fn crowd() {
    for viewers in [5000, 9000] {
        let daemon = Daemon::start("", &[SMALL]);
        let report = Swarm::of(&daemon, &SMALL, viewers).addresses("127.0.0.2-127.0.0.9").ramp(1000).seconds(SPAN * 2).run();
        tell(&format!("{viewers} UDP viewers of 300 kbit/s"), &report);
    }
}

/// 15,000 TCP viewers of a radio, served by one thread.
fn radio() {
    let daemon = Daemon::start("shards = 1\n", &[RADIO]);
    let report = Swarm::of(&daemon, &RADIO, 15_000).tcp().addresses("127.0.0.2-127.0.0.9").ramp(1500).seconds(SPAN * 2).run();
    tell("15000 TCP viewers of 32 kbit/s, one shard", &report);
}

/// Cost against the number of viewers.
fn curve() {
    let daemon = Daemon::start("", &[RADIO, SMALL]);
    for viewers in [100, 1000, 5000, 10_000, 15_000] {
        let report = Swarm::of(&daemon, &RADIO, viewers).tcp().addresses("127.0.0.2-127.0.0.9").ramp(1500).seconds(SPAN).run();
        tell(&format!("{viewers:>5} TCP viewers of 32 kbit/s"), &report);
    }
    for viewers in [100, 1000, 5000, 9000] {
        let swarm = Swarm::of(&daemon, &SMALL, viewers).addresses("127.0.0.2-127.0.0.9").ramp(1500);
        tell(&format!("{viewers:>5} UDP viewers of 300 kbit/s, unread"), &swarm.unread().seconds(SPAN).run());
    }
}

/// How quickly viewers get in: 500 within a second beside 1000 that watch, which leave before the next 500 come.
fn joins() {
    let daemon = Daemon::start("", &[VIDEO]);
    let watching = Swarm::of(&daemon, &VIDEO, 1000).addresses("127.0.0.2").unread().seconds(Duration::from_secs(300)).start();
    let (mut p50, mut p95, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=JOIN_RUNS {
        daemon.wait_for_viewers(1000);
        let report = Swarm::of(&daemon, &VIDEO, 500).addresses("127.0.0.3").ramp(500).unread().seconds(Duration::ZERO).run();
        let first = &report["first_packet_ms"];
        println!(
            "run {run}: {} joined, {:.0} joins/s: first packet after StartPlaying p50 {:.1}, p95 {:.1}, p99 {:.1} ms",
            report["viewers_joined"],
            number(&report, "joins_per_s"),
            number(first, "p50"),
            number(first, "p95"),
            number(first, "p99")
        );
        p50.push(number(first, "p50"));
        p95.push(number(first, "p95"));
        p99.push(number(first, "p99"));
    }
    println!(
        "1000 watching, 500 joins/s: first packet after StartPlaying p50 {:.1}, p95 {:.1}, p99 {:.1} ms (medians of {JOIN_RUNS} runs)",
        median(p50),
        median(p95),
        median(p99)
    );
    drop(watching);
    for (transport, viewers) in [("UDP", 3000), ("TCP", 6000)] {
        let daemon = Daemon::start("", &[SMALL]);
        let swarm = Swarm::of(&daemon, &SMALL, viewers).addresses("127.0.0.4").ramp(10_000).unread().seconds(Duration::ZERO);
        let report = if transport == "TCP" { swarm.tcp().run() } else { swarm.run() };
        println!(
            "as fast as they come, {transport}, unread: {:.0} joins/s, {} of {viewers} joined",
            number(&report, "joins_per_s"),
            report["viewers_joined"]
        );
    }
}

/// Resident memory of a viewer, after the window has grown to its full length.
fn memory() {
    for (transport, viewers) in [("UDP", 3000), ("TCP", 3000)] {
        let daemon = Daemon::start("[window]\nseconds = 5\n", &[SMALL]);
        Swarm::of(&daemon, &SMALL, 50).addresses("127.0.0.2").seconds(Duration::from_secs(12)).run();
        let swarm = Swarm::of(&daemon, &SMALL, viewers).addresses("127.0.0.3").seconds(SPAN);
        let report = if transport == "TCP" { swarm.tcp().run() } else { swarm.run() };
        println!("{transport}: {:.1} KiB a viewer", number(&report, "server_growth_per_viewer_bytes") / 1024.0);
    }
}
