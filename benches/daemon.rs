//! The daemon as a whole, built as users build it: time from connect to the first packet, memory a viewer.
//!
//! No Criterion: these are wall-clock and memory figures for people, not for a gate. `tests/measure` runs it.

#![allow(clippy::print_stdout, clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a program that prints figures")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::task::LocalSet;
use wmrelay::client::{PlayOptions, play, play_observed};
use wmrelay::mms::client::ClientEvent;
use wmrelay::mms::session::Transport;

const VIEWERS: usize = 1000;
const WARM: usize = 100;
const PLAYS: usize = 50;

/// The daemon with its test picture on free ports; ended when dropped.
struct Daemon {
    child: Child,
    mms: String,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let ready = folder.path().join("ready.json");
        let any = "127.0.0.1:0";
        let child = Command::new(env!("CARGO_BIN_EXE_wmrelay"))
            .args(["serve", "--mms-listen", any, "--http-listen", any, "--admin-listen", any, "--ready-file"])
            .arg(&ready)
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let mms = wait_for_address(&ready);
        Self { child, mms, _folder: folder }
    }

    /// Resident memory, KiB.
    fn resident_kib(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the daemon lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    fn options(&self, transport: Transport, duration: Option<Duration>) -> PlayOptions {
        let url = format!("mms://{}/demo", self.mms).parse().expect("a URL");
        let ports = "1024-5000".parse().expect("ranges");
        PlayOptions { url, transport: Some(transport), ports, duration }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_address(ready: &Path) -> String {
    for _ in 0..500 {
        if let Ok(text) = std::fs::read_to_string(ready) {
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            return json["mms"][0].as_str().expect("an address").to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the daemon is not ready after 5 s");
}

/// Milliseconds from connect to the first packet over TCP, sorted.
async fn first_packets(daemon: &Daemon) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..PLAYS {
        let report = play(daemon.options(Transport::Tcp, Some(Duration::from_millis(150)))).await.expect("it plays");
        times.push(report.first_packet_ms.expect("a packet"));
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Adds UDP viewers that play for ever, and waits until each has a packet.
async fn watch(daemon: &Daemon, viewers: usize) {
    let (sender, mut playing) = tokio::sync::mpsc::channel(viewers);
    for _ in 0..viewers {
        let (options, sender) = (daemon.options(Transport::Udp, None), sender.clone());
        let mut told = false;
        tokio::task::spawn_local(async move {
            let tell = move |event: &ClientEvent, _| {
                if matches!(event, ClientEvent::Packet { .. }) && !std::mem::replace(&mut told, true) {
                    let _ = sender.try_send(());
                }
            };
            let _ = play_observed(options, std::future::pending(), tell).await;
        });
        // One at a time: what is measured is memory, and the lowest free port is found anew for each.
        playing.recv().await.expect("a viewer that plays");
    }
}

fn main() {
    // A viewer takes two descriptors here.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors for the viewers");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let daemon = Daemon::start();
        // The window has to hold a key frame and some seconds before the figures mean anything.
        watch(&daemon, 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let times = first_packets(&daemon).await;
        println!(
            "TCP, connect to first media packet, {PLAYS} plays: median {:.1} ms, 95th percentile {:.1} ms, longest {:.1} ms",
            times[PLAYS / 2],
            times[PLAYS * 95 / 100],
            times[PLAYS - 1]
        );
        // The window grows to its 20 s first, so that its bytes do not count as the viewers'.
        watch(&daemon, WARM).await;
        tokio::time::sleep(Duration::from_secs(22)).await;
        let before = daemon.resident_kib();
        watch(&daemon, VIEWERS).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = daemon.resident_kib();
        println!(
            "resident memory: {before} KiB with {} viewers, {after} KiB with {VIEWERS} UDP viewers more: {:.1} KiB a viewer",
            WARM + 1,
            (after - before) as f64 / VIEWERS as f64
        );
    });
}
