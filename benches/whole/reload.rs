//! What a reload costs those who play on: how long one takes, and the longest time without a packet, with reloads and without.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use wmrelay::client::{PlayOptions, play_observed};
use wmrelay::playing::ClientEvent;

use crate::daemon::{Daemon, Swarm, number};
use crate::media::SMALL;
use crate::rtsp_camera::now;
use crate::{SPAN, load, quantile};

const VIEWERS: usize = 500;
const RELOADS: u32 = 20;

/// Prints the section.
pub(crate) fn reload() {
    println!("{VIEWERS} UDP viewers of 300 kbit/s; each reload adds a publishing point or takes one away; {}", load());
    let daemon = Daemon::start("", &[SMALL]);
    for reloads in [0, RELOADS] {
        let span = SPAN * 2;
        let watch = gap_ms(&daemon, span);
        let crowd = Swarm::of(&daemon, &SMALL, VIEWERS).ramp(500).seconds(span);
        let crowd = std::thread::spawn(move || crowd.run());
        daemon.wait_for_viewers(VIEWERS + 1);
        let took: Vec<f64> = (0..reloads).map(|round| reload_ms(&daemon, round % 2 == 0)).collect();
        let report: Value = crowd.join().expect("the swarm runs");
        let gap = watch.join().expect("it plays");
        if !took.is_empty() {
            let (median, worst) = (quantile(&took, 0.5), quantile(&took, 1.0));
            println!("a reload: {median:.1} ms (median of {reloads}, the command line's process included), worst {worst:.1}");
        }
        println!(
            "{reloads} reloads: longest time between two packets of one viewer {gap:.1} ms; of all packets the latest {:.1} ms late, {} lost",
            number(&report["delay_ms"], "max"),
            report["whole_run"]["lost"]
        );
        daemon.wait_for_viewers(0);
    }
    println!("{}", load());
}

/// Adds a publishing point to the settings, or takes it away, and reloads; milliseconds.
fn reload_ms(daemon: &Daemon, adds: bool) -> f64 {
    let folder = daemon.folder().join("conf.d");
    std::fs::create_dir_all(&folder).expect("conf.d");
    let more = "[[publishing_point]]\nname = \"more\"\nsource = { type = \"demo\" }\n";
    std::fs::write(folder.join("more.toml"), if adds { more } else { "" }).expect("a settings file");
    let begin = now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let output = command.args(["reload", "--json", "--socket"]).arg(daemon.folder().join("control.sock")).output();
    let took = (now() - begin).as_secs_f64() * 1000.0;
    let output = output.expect("it runs");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    assert_eq!(answer["points"].as_array().map(Vec::len), Some(1), "{answer}");
    std::thread::sleep(Duration::from_millis(200));
    took
}

/// The longest time between two packets of a viewer over TCP that plays for about as long as the crowd, milliseconds.
fn gap_ms(daemon: &Daemon, span: Duration) -> std::thread::JoinHandle<f64> {
    let url = format!("mmst://{}/{}", daemon.mms(), SMALL.name);
    let options = PlayOptions { duration: Some(span + Duration::from_secs(1)), ..PlayOptions::new(url.parse().expect("a URL")) };
    std::thread::spawn(move || {
        let (mut last, mut longest): (Option<Instant>, _) = (None, Duration::ZERO);
        let never = Arc::new(tokio::sync::Notify::new());
        let play = play_observed(options, never.notified(), |event, _| {
            if let ClientEvent::Packet { .. } = event {
                let now = now();
                longest = longest.max(last.replace(now).map_or(Duration::ZERO, |last| now - last));
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play).expect("it plays");
        longest.as_secs_f64() * 1000.0
    })
}
