//! Files on demand: seeks in an hour of video, and a thousand viewers all over it, beside as many of the same media live.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use wmrelay::client::{PlayOptions, play_observed};
use wmrelay::playing::{ClientEvent, StartAt};

use crate::daemon::{Daemon, Swarm, number};
use crate::media::PACKET_SIZE;
use crate::{assert_all_play, median};

/// Two minutes of video and sound, 1.15 Mbit/s, 25 pictures a second, a key frame every two seconds.
const CLIP: &str = "-f lavfi -i testsrc2=size=480x360:rate=25,noise=alls=20:allf=t -f lavfi -i sine=440 -c:v wmv2 -b:v 1050k \
                    -minrate 1050k -maxrate 1050k -bufsize 210k -g 50 -c:a wmav2 -b:a 96k -t 120";
/// How often the hour has it.
const CLIPS: u32 = 30;
/// The hour must have that many bytes.
const LEAST_BYTES: u64 = 500_000_000;
/// Bytes of blocks of files in memory: what there is unless one says otherwise, and more than the hour has.
const CACHE: u64 = 128 << 20;
const LARGE_CACHE: u64 = 1 << 30;
const SEEKS: usize = 200;
const VIEWERS: usize = 1000;
const SPAN: Duration = Duration::from_secs(60);
/// How long the live path is measured.
const LIVE_SPAN: Duration = Duration::from_secs(15);

/// An hour of video with an index, made once and kept.
struct Hour {
    folder: PathBuf,
    /// Times of its key frames, milliseconds of media, and the packets they begin in.
    keys: Vec<(u64, u64)>,
    /// Bytes in front of its packets.
    start: u64,
    packets: u64,
}

/// What one form of seek came to.
#[derive(Default)]
struct Seeks {
    wrong: usize,
    first_packet_ms: Vec<f64>,
}

/// Prints the section.
pub(crate) fn files() {
    let hour = Hour::make();
    println!(
        "{} bytes, {} packets of {PACKET_SIZE} bytes, {} key frames",
        std::fs::metadata(hour.folder.join("hour.wmv")).expect("it is there").len(),
        hour.packets,
        hour.keys.len()
    );
    seeks(&hour);
    for (transport, cache) in [("UDP", CACHE), ("TCP", CACHE), ("UDP", LARGE_CACHE)] {
        crowd(&hour, transport, cache);
    }
}

fn seeks(hour: &Hour) {
    let daemon = Daemon::start(&hour.settings(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Other places each time: the blocks of the same ones would be in memory.
    let mut places = Places(11);
    for (name, what) in [("hour.wmv", "indexed"), ("no-index.wmv", "no index"), ("bogus-index.wmv", "bogus index")] {
        for form in ["time", "packet", "offset"] {
            let mut seeks = Seeks::default();
            for _ in 0..SEEKS {
                let (start, expected) = hour.place(form, &mut places);
                let (landed, ms) = runtime.block_on(seek(&format!("mmst://{}/archive/{name}", daemon.mms()), start));
                seeks.wrong += usize::from(landed != Some(expected));
                seeks.first_packet_ms.push(ms);
            }
            seeks.first_packet_ms.sort_by(f64::total_cmp);
            println!(
                "{what}, by {form}: {} right, {} wrong; first packet after StartPlaying median {:.2}, p95 {:.2}, longest {:.2} ms",
                SEEKS - seeks.wrong,
                seeks.wrong,
                seeks.first_packet_ms[SEEKS / 2],
                seeks.first_packet_ms[SEEKS * 95 / 100],
                seeks.first_packet_ms[SEEKS - 1]
            );
        }
    }
}

/// The number of the first packet, and from StartPlaying to it, milliseconds.
async fn seek(url: &str, start: StartAt) -> (Option<u64>, f64) {
    let (came, mut asked, mut first) = (Notify::new(), None, None);
    let options = PlayOptions { start, ..PlayOptions::new(url.parse().expect("a URL")) };
    let report = play_observed(options, came.notified(), |event, _| match event {
        ClientEvent::Starting => asked = Some(Instant::now()),
        ClientEvent::Packet { .. } if first.is_none() => {
            first = Some(Instant::now());
            came.notify_one();
        }
        _ => {}
    });
    let landed = report.await.expect("it plays").first_location.map(u64::from);
    let ms = asked.zip(first).map_or(f64::NAN, |(asked, first)| (first - asked).as_secs_f64() * 1000.0);
    (landed, ms)
}

/// All over the file, and beside it as many of the same media live.
fn crowd(hour: &Hour, transport: &str, cache_bytes: u64) {
    let daemon = Daemon::start(&format!("[on_demand]\ncache_bytes = {cache_bytes}\n{}", hour.settings()), &[]);
    let swarm = |name: &str, address: &str| {
        let swarm = Swarm::of_name(&daemon, name, VIEWERS).addresses(address).unread();
        if transport == "TCP" { swarm.tcp() } else { swarm }
    };
    let label = if transport == "TCP" { "tcp" } else { "udp" };
    let count = |name: &str| daemon.metric(&format!("wmrelay_{name}_total"), "");
    let sent = || daemon.metric("wmrelay_sent_packets_total", label);
    let live = swarm("live", "127.0.0.2").seconds(LIVE_SPAN).run();
    assert_all_play(&live, VIEWERS);
    daemon.wait_for_viewers(0);

    let names = ["late_sends", "late_reads", "disk_reads", "disk_read_bytes", "cache_hits"];
    let (before, sent_before) = (names.map(count), sent());
    let (report, memory) = std::thread::scope(|scope| {
        let swarm = swarm("archive/hour.wmv", "127.0.0.3").anywhere().seconds(SPAN);
        let report = scope.spawn(move || swarm.run());
        daemon.wait_for_viewers(VIEWERS);
        std::thread::sleep(SPAN / 2);
        let memory = (daemon.resident_bytes(), daemon.metric("wmrelay_cache_bytes", ""));
        (report.join().expect("a report"), memory)
    });
    assert_all_play(&report, VIEWERS);
    let [late, late_reads, reads, read_bytes, hits] = {
        let after = names.map(count);
        std::array::from_fn(|n| after[n] - before[n])
    };
    let packets = sent() - sent_before;
    println!(
        "{VIEWERS} {transport} viewers anywhere, {} s, cache of {} MiB: {packets:.0} packets sent, {late:.0} of them more than 100 ms late ({:.3} %)",
        SPAN.as_secs(),
        cache_bytes >> 20,
        100.0 * late / packets
    );
    println!(
        "  disk: {reads:.0} reads, {:.1} MiB, of {:.1} MiB sent; {hits:.0} cache hits ({:.1} %); {late_reads:.0} late reads",
        read_bytes / f64::from(1 << 20),
        packets * PACKET_SIZE as f64 / f64::from(1 << 20),
        100.0 * hits / (hits + reads)
    );
    let alone = idle(hour);
    let (resident, cache) = memory;
    println!(
        "  memory: {:.1} MiB, {:.1} of them cache, {:.1} without viewers: {:.1} KiB a viewer beside the cache",
        resident / f64::from(1 << 20),
        cache / f64::from(1 << 20),
        alone / f64::from(1 << 20),
        (resident - cache - alone) / 1024.0 / VIEWERS as f64
    );
    let cost = |report: &Value| number(report, "server_cpu_ns_per_packet");
    println!(
        "  processor: {:.0} ns a packet, live {:.0} ns: {:.2} x; {:.0} % of a core",
        cost(&report),
        cost(&live),
        cost(&report) / cost(&live),
        100.0 * number(&report, "server_core_share")
    );
}

/// What a daemon takes that nobody watches, bytes: the median of three.
fn idle(hour: &Hour) -> f64 {
    median((0..3).map(|_| Daemon::start(&hour.settings(), &[]).resident_bytes()).collect())
}

impl Hour {
    fn make() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hour");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (clip, hour) = (folder.join("clip.asf"), folder.join("hour.wmv"));
        if !hour.exists() {
            ffmpeg(&CLIP.split_whitespace().collect::<Vec<_>>(), &clip);
            let path = clip.display().to_string();
            let part = folder.join("part");
            ffmpeg(&["-stream_loop", &(CLIPS - 1).to_string(), "-i", &path, "-map", "0", "-c", "copy"], &part);
            std::fs::rename(&part, &hour).expect("the same folder");
        }
        assert!(std::fs::metadata(&hour).expect("made").len() >= LEAST_BYTES, "the hour is too small");
        let (start, packets) = data(&hour);
        other_indexes(&hour, start + packets * PACKET_SIZE as u64);
        Self { keys: key_frames(&hour, start), folder, start, packets }
    }

    fn settings(&self) -> String {
        let live = self.folder.join("clip.asf");
        format!(
            "[limits]\nmax_send_delay_ms = 0\n[[publishing_point]]\nname = \"archive/\"\nsource = {{ type = \"files\", root = {:?} }}\n\
             [[publishing_point]]\nname = \"live\"\nsource = {{ type = \"file\", path = {live:?} }}\n",
            self.folder
        )
    }

    /// Any place in one of the forms, and the packet to begin with.
    fn place(&self, form: &str, places: &mut Places) -> (StartAt, u64) {
        if form == "time" {
            let ms = places.below(self.keys.last().expect("some").0);
            let key = self.keys.partition_point(|(at, _)| *at <= ms).saturating_sub(1);
            return (StartAt::Time { s: ms as f64 / 1000.0 }, self.keys[key].1);
        }
        let packet = 1 + places.below(self.packets - 1);
        let key = self.keys.partition_point(|(_, at)| *at <= packet).saturating_sub(1);
        let start = match form {
            "packet" => StartAt::Packet(packet as u32),
            _ => StartAt::Offset((self.start + packet * PACKET_SIZE as u64) as u32),
        };
        (start, self.keys[key].1)
    }
}

/// Places all over a file, the same in each run (splitmix64).
struct Places(u64);

impl Places {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn ffmpeg(arguments: &[&str], to: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]).args(arguments);
    command.args(["-packet_size", &PACKET_SIZE.to_string(), "-f", "asf"]).arg(to);
    assert!(command.status().expect("ffmpeg is there: tests/run installs it").success(), "ffmpeg makes {}", to.display());
}

/// Bytes in front of the packets, and how many packets there are.
fn data(path: &Path) -> (u64, u64) {
    let file = File::open(path).expect("made");
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("a header");
        u64::from_le_bytes(bytes)
    };
    // The Data Object behind the header: GUID, size, File ID, packets, two bytes.
    let header = number(16);
    (header + 50, number(header + 40))
}

/// The same media without an index, and with the empty one that VLC writes.
fn other_indexes(hour: &Path, media_end: u64) {
    let copy = |name: &str, behind: &[u8]| {
        let path = hour.with_file_name(name);
        if path.exists() {
            return;
        }
        std::fs::copy(hour, &path).expect("room on the disk");
        let mut file = File::options().write(true).open(&path).expect("made");
        file.set_len(media_end).expect("shorter");
        file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(behind)).expect("longer");
    };
    copy("no-index.wmv", &[]);
    // The GUID of an Index Object in front of a Simple Index without entries.
    let guid = [0xD3, 0x29, 0xE2, 0xD6, 0xDA, 0x35, 0xD1, 0x11, 0x90, 0x34, 0, 0xA0, 0xC9, 3, 0x49, 0xBE];
    let bogus = [&guid[..], &56_u64.to_le_bytes(), &[0; 16], &10_000_000_u64.to_le_bytes(), &[0; 8]].concat();
    copy("bogus-index.wmv", &bogus);
}

fn key_frames(path: &Path, start: u64) -> Vec<(u64, u64)> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0", "-show_entries", "packet=dts_time,pos,flags"])
        .arg(path)
        .output()
        .expect("ffprobe comes with ffmpeg");
    let text = String::from_utf8(output.stdout).expect("text");
    let of_line = |line: &str| {
        let mut fields = line.split(',');
        let (seconds, position): (f64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(((seconds * 1000.0).round() as u64, (position - start) / PACKET_SIZE as u64))
    };
    let keys: Vec<_> = text.lines().filter(|line| line.contains('K')).filter_map(of_line).collect();
    assert!(keys.len() > 100, "ffprobe finds {} key frames", keys.len());
    keys
}
