//! One camera by two ways: taken in by the daemon itself, and by an ffmpeg of its own that copies or transcodes.
//!
//! What is told of each is the processor time of the daemon and of its children, and how long a picture takes from the camera's socket
//! until a viewer over TCP has the last byte of it: its number says which one it is, in whatever codec it comes.

use std::path::Path;
use std::time::{Duration, Instant};

use wmrelay::asf::{Header, payloads};
use wmrelay::client::{AsfFile, PlayOptions, play_observed};
use wmrelay::playing::ClientEvent;

use crate::daemon::Daemon;
use crate::rtsp_camera::{Camera, FRAME_RATE, PICTURES, now, numbers};
use crate::{load, quantile};

/// What comes first may have waited for the viewer.
const SETTLED: Duration = Duration::from_secs(5);
const SPAN: Duration = Duration::from_secs(20);
/// Each way so often, in turn.
const ROUNDS: usize = 2;
/// From camera to wire, by the daemon itself.
const GOAL_MS: f64 = 150.0;

/// A way, and the source of its publishing point behind the URL.
const WAYS: [(&str, &str); 3] = [
    ("by the daemon itself", "type = \"camera\", url"),
    ("by ffmpeg that copies (wmp12)", "type = \"ffmpeg\", profile = \"wmp12\", input"),
    ("by ffmpeg that transcodes (wmp9)", "type = \"ffmpeg\", profile = \"wmp9\", input"),
];

/// Processor seconds.
#[derive(Clone, Copy, Default)]
struct Cpu {
    daemon_s: f64,
    children_s: f64,
}

/// What a viewer saw.
#[derive(Default)]
struct Seen {
    events: Vec<(Instant, ClientEvent)>,
    /// When it was noted, and what the processor had done until then: at first, and at last.
    spent: Vec<(Instant, Cpu)>,
}

/// A picture as it came.
struct Picture {
    object: u32,
    /// Bytes that are still to come.
    missing: u32,
    whole_at: Instant,
}

/// Prints the section.
pub(crate) fn camera() {
    println!("640x360, {FRAME_RATE} pictures a second, a key frame a second, AAC beside them; {}", load());
    let camera = Camera::start();
    let mut latencies = WAYS.map(|_| Vec::new());
    for round in 1..=ROUNDS {
        for ((name, source), latencies) in WAYS.iter().zip(&mut latencies) {
            let settings = format!(
                "[[publishing_point]]\nname = \"camera\"\nsource = {{ start = \"watched\", {source} = \"{}\" }}\n",
                camera.url()
            );
            let daemon = Daemon::start(&settings, &[]);
            let seen = watch(&daemon);
            let [(from, before), .., (to, after)] = &seen.spent[..] else { panic!("{name}: it ended early") };
            let seconds = to.duration_since(*from).as_secs_f64();
            let (of_round, skipped) = latencies_ms(&camera, &seen);
            println!(
                "round {round}, {name}: {:.1} ms of a processor a second of video in the daemon, {:.1} in its children; \
                 {}; {} pictures, {skipped} skipped or doubled; {}",
                (after.daemon_s - before.daemon_s) * 1000.0 / seconds,
                (after.children_s - before.children_s) * 1000.0 / seconds,
                tell(&of_round),
                of_round.len(),
                load()
            );
            latencies.extend(of_round);
        }
    }
    for ((name, _), latencies) in WAYS.iter().zip(&latencies) {
        println!("camera to wire {name}: {} (goal of the daemon itself: {GOAL_MS} ms)", tell(latencies));
    }
}

fn tell(latencies_ms: &[f64]) -> String {
    let [median, p99, worst] = [0.5, 0.99, 1.0].map(|part| quantile(latencies_ms, part));
    format!("median {median:.0}, p99 {p99:.0}, worst {worst:.0} ms")
}

/// A viewer over TCP, until it has seen enough.
fn watch(daemon: &Daemon) -> Seen {
    let url = format!("mmst://{}/camera", daemon.mms());
    let options = PlayOptions::new(url.parse().expect("a URL"));
    let (mut seen, done) = (Seen::default(), tokio::sync::Notify::new());
    let mut began = None;
    let play = play_observed(options, done.notified(), |event, _| {
        let at = now();
        seen.events.push((at, event.clone()));
        let since = at - *began.get_or_insert(at);
        if !matches!(event, ClientEvent::Packet { .. }) {
            // It counts from the first packet on.
            began = None;
        } else if seen.spent.is_empty() && since >= SETTLED {
            seen.spent.push((at, spent(daemon.id())));
        } else if seen.spent.len() == 1 && since >= SETTLED + SPAN {
            seen.spent.push((at, spent(daemon.id())));
            done.notify_one();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(play).expect("it plays");
    seen
}

/// Milliseconds of each picture that came while the processor was looked at, and how many numbers were not those behind the last.
fn latencies_ms(camera: &Camera, seen: &Seen) -> (Vec<f64>, usize) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("seen.asf");
    let pictures = pictures(&seen.events, &path);
    let numbers = numbers(&path);
    // The last may have been cut off.
    assert!(numbers.len().abs_diff(pictures.len()) <= 1, "{} pictures came, {} were decoded", pictures.len(), numbers.len());
    let measured = |(picture, _): &(&Picture, &usize)| picture.missing == 0 && picture.whole_at >= seen.spent[0].0;
    let (pictures, numbers): (Vec<&Picture>, Vec<usize>) = pictures.iter().zip(&numbers).filter(measured).unzip();
    let age = |(picture, number): (&&Picture, &usize)| camera.age(*number, picture.whole_at);
    let latencies = pictures.iter().zip(&numbers).filter_map(age).map(|age| age.as_secs_f64() * 1000.0).collect();
    let skipped = numbers.windows(2).filter(|pair| pair[1] != (pair[0] + 1) % PICTURES).count();
    (latencies, skipped)
}

/// The pictures of a play, from its first key frame on; the play is written as a file.
fn pictures(events: &[(Instant, ClientEvent)], path: &Path) -> Vec<Picture> {
    let mut file = AsfFile::create(path).expect("a scratch folder");
    let mut pictures: Vec<Picture> = Vec::new();
    let mut video = Default::default();
    for (at, event) in events {
        assert!(file.event(event), "a file");
        match event {
            ClientEvent::Header(header) => video = Header::parse(header).expect("a header").video(),
            ClientEvent::Packet { bytes, .. } => {
                for payload in payloads(bytes).expect("a packet") {
                    let (len, may_begin) = (payload.data.len() as u32, payload.key || !pictures.is_empty());
                    match pictures.last_mut().filter(|picture| picture.object == payload.object) {
                        _ if !video.contains(payload.stream) => {}
                        Some(picture) => {
                            picture.missing = picture.missing.saturating_sub(len);
                            picture.whole_at = *at;
                        }
                        None if payload.offset == 0 && may_begin => {
                            let missing = payload.object_size.saturating_sub(len);
                            pictures.push(Picture { object: payload.object, missing, whole_at: *at });
                        }
                        None => {}
                    }
                }
            }
            _ => {}
        }
    }
    file.finish().expect("a file");
    pictures
}

/// What a daemon and its children have taken of the processor until now.
fn spent(daemon: u32) -> Cpu {
    let children = tasks(daemon).filter_map(|task| std::fs::read_to_string(task.join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|line| line.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    Cpu { daemon_s: cpu_s(daemon), children_s: children.into_iter().map(cpu_s).sum() }
}

/// Of the threads that a process has now.
fn cpu_s(process: u32) -> f64 {
    // Finer than the hundredths of a second in `stat`.
    let times = tasks(process).filter_map(|task| std::fs::read_to_string(task.join("schedstat")).ok());
    times.filter_map(|line| line.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

fn tasks(process: u32) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten().map(|entry| entry.path())
}
