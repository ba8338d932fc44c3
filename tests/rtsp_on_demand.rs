//! RTSP on demand: real players get what the file holds, wherever they begin, and a pause loses nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::archive::{HASTE, archive, decoded, serve};
use support::daemon::Daemon;
use support::gstreamer::{self, GSTREAMER, Transport, pictures_in};
use support::media::{SAMPLES, Sample, data, with_places};
use support::player::{self, frames};
use support::process::{Finished, Process};
use support::rtsp::{Connection, Incoming, rtp};
use support::{ready, wait_for};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);
const INDEXED: &str = "vod-wmv2-wmav2-indexed.wmv";
/// Where plays begin is logged.
const PLACES_IN_LOG: &str = "[log]\nlevel = \"info,wmrelay::shard=debug\"\n";

/// The frames of each stream, streams by kind and in the file's order within it: RTSP lists sound first.
type ByKind = BTreeMap<String, Vec<Vec<String>>>;

/// What an ffmpeg that came to its end said of frames.
#[track_caller]
fn by_kind(done: &Finished) -> ByKind {
    assert!(done.status.success(), "{}", done.stderr);
    let mut streams: BTreeMap<usize, (String, Vec<String>)> = BTreeMap::new();
    for line in done.stdout.lines().filter_map(|line| line.strip_prefix("#media_type ")) {
        let (stream, kind) = line.split_once(": ").unwrap();
        streams.insert(stream.parse().unwrap(), (kind.to_owned(), Vec::new()));
    }
    for frame in frames(&done.stdout) {
        streams.get_mut(&frame.stream).unwrap().1.push(frame.md5);
    }
    let mut kinds = ByKind::new();
    for (kind, md5s) in streams.into_values() {
        kinds.entry(kind).or_default().push(md5s);
    }
    assert!(!kinds.is_empty(), "{}", done.stderr);
    kinds
}

/// The frames of an input as they are stored, read by an ffmpeg with these options.
#[track_caller]
fn stored(options: &[&str], input: &str) -> ByKind {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-fflags", "nofillin+noparse"]).args(options);
    command.args(["-i", input, "-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
    by_kind(&Process::start(command).finish(MINUTE))
}

#[track_caller]
fn assert_same(what: &str, got: &ByKind, expected: &ByKind) {
    let counts = |kinds: &ByKind| -> BTreeMap<String, Vec<usize>> {
        kinds.iter().map(|(kind, streams)| (kind.clone(), streams.iter().map(Vec::len).collect())).collect()
    };
    assert_eq!(counts(got), counts(expected), "{what}: frames");
    assert!(got == expected, "{what}: other frames");
}

/// Does the same with every sample at once; each has a hundred ports of its own, the first of which is told.
fn with_each_sample(work: impl Fn(Sample, u16) + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for (sample, first) in SAMPLES.into_iter().zip((1100..).step_by(100)) {
            scope.spawn(move || work(sample, first));
        }
    });
}

#[test]
fn ffmpeg_takes_every_sample_whole_over_tcp() {
    if !ready("ffmpeg_takes_every_sample_whole_over_tcp", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    with_each_sample(|Sample { name, .. }, _| {
        let got = stored(&["-rtsp_transport", "tcp"], &daemon.rtsp_url("rtsp", &format!("archive/{name}")));
        assert_same(name, &got, &stored(&[], root.path().join(name).to_str().unwrap()));
    });
}

#[test]
fn ffmpeg_takes_every_sample_whole_over_udp() {
    if !ready("ffmpeg_takes_every_sample_whole_over_udp", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    with_each_sample(|Sample { name, .. }, first| {
        let (first, last) = (first.to_string(), (first + 98).to_string());
        let options = ["-rtsp_transport", "udp", "-min_port", &first, "-max_port", &last];
        let got = stored(&options, &daemon.rtsp_url("rtsp", &format!("archive/{name}")));
        assert_same(name, &got, &stored(&[], root.path().join(name).to_str().unwrap()));
    });
    assert_eq!(daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", "udp")]), SAMPLES.len() as f64);
}

#[test]
fn ffmpeg_decodes_every_sample() {
    if !ready("ffmpeg_decodes_every_sample", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    with_each_sample(|Sample { name, .. }, _| {
        let url = daemon.rtsp_url("rtsp", &format!("archive/{name}"));
        let got = by_kind(&player::ffmpeg_with(&["-rtsp_transport", "tcp"], &url, 0).finish(MINUTE));
        let expected = by_kind(&player::ffmpeg(root.path().join(name).to_str().unwrap(), 0).finish(MINUTE));
        assert_same(name, &got, &expected);
    });
}

#[test]
fn gstreamer_takes_every_sample_whole_over_tcp() {
    if !ready("gstreamer_takes_every_sample_whole_over_tcp", GSTREAMER) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    gstreamer_takes_every_sample_whole(&daemon, root.path(), |_| Transport::Tcp);
}

/// At the pace of the media: the end is told over TCP, and GStreamer does not wait for datagrams that are still on their way.
#[test]
fn gstreamer_takes_every_sample_whole_over_udp() {
    if !ready("gstreamer_takes_every_sample_whole_over_udp", GSTREAMER) {
        return;
    }
    let (daemon, root) = archive("");
    gstreamer_takes_every_sample_whole(&daemon, root.path(), Transport::Udp);
    assert!(daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", "udp")]) >= SAMPLES.len() as f64);
    assert_eq!(daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", "tcp")]), 0.0);
}

#[track_caller]
fn gstreamer_takes_every_sample_whole(daemon: &Daemon, root: &Path, transport: impl Fn(u16) -> Transport + Sync) {
    with_each_sample(|Sample { name, .. }, first| {
        let file = daemon.folder().join(name);
        let url = daemon.rtsp_url("rtsp", &format!("archive/{name}"));
        let done = gstreamer::dump_whole(&url, transport(first), &file);
        assert!(done.status.success() && file.exists(), "{name}: {}", done.stderr);
        let [got, expected] = [&file, &root.join(name)].map(|file| stored(&[], file.to_str().unwrap()));
        assert_same(name, &got, &expected);
    });
}

#[test]
fn gstreamer_decodes_a_file_to_its_end() {
    if !ready("gstreamer_decodes_a_file_to_its_end", GSTREAMER) {
        return;
    }
    let (daemon, root) = archive("");
    let expected = &decoded(&root.path().join(INDEXED))[&0];
    let url = |scheme| daemon.rtsp_url(scheme, &format!("archive/{INDEXED}"));
    let outs = ["tcp", "udp", "player"].map(|name| daemon.folder().join(name));
    let players = [
        gstreamer::pictures_to(&url("rtsp"), Transport::Tcp, &outs[0]),
        gstreamer::pictures_to(&url("rtsp"), Transport::Udp(2000), &outs[1]),
        gstreamer::playbin_to(&url("rtsp"), &outs[2]),
    ];
    for (player, out) in players.into_iter().zip(&outs) {
        let done = player.finish(MINUTE);
        let got: Vec<String> = pictures_in(out).into_iter().map(|frame| frame.md5).collect();
        assert!(got == *expected, "{}: {} of {} pictures\n{}", out.display(), got.len(), expected.len(), done.stderr);
    }
}

/// mpv wants TCP by itself, MPlayer once UDP is refused.
#[test]
fn mpv_and_mplayer_play_a_file_over_tcp() {
    if !ready("mpv_and_mplayer_play_a_file_over_tcp", &[Program("ffmpeg"), Program("mpv"), Program("mplayer")]) {
        return;
    }
    let (daemon, _root) = archive(HASTE);
    let url = daemon.rtsp_url("rtsp", &format!("archive/{INDEXED}"));
    assert!(player::mpv(&url, 60) >= 59);
    assert_eq!(player::mplayer(&url, 60), player::mplayer(data(INDEXED).to_str().unwrap(), 60));
    assert_eq!(daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", "udp")]), 0.0);
}

/// FFmpeg forgets, in a seek, that it has read a part of an ASF packet, and takes the next one for the rest of it: it finds no frame
/// for seconds. (What it read before a seek also counted towards the size of the file, until its descriptions named none.) A file with one frame in each packet has no such rest, and shows where the daemon begins: at the first packet
/// that is to be heard at or after the place.
#[test]
fn ffmpeg_seeks() {
    if !ready("ffmpeg_seeks", FFMPEG) {
        return;
    }
    let (root, places) = with_places();
    let daemon = serve(root.path(), HASTE);
    let from = |options: &[&str], input: &str, seconds: &str| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-noaccurate_seek"]).args(options).args(["-ss", seconds, "-i", input]);
        command.args(["-c", "copy", "-f", "framemd5", "-"]);
        by_kind(&Process::start(command).finish(MINUTE))["audio"][0].clone()
    };
    let whole = &stored(&[], root.path().join("places.asf").to_str().unwrap())["audio"][0];
    assert_eq!(whole.len(), places.len());
    let seek = |ms: u64, transport: &str, port: u16| {
        let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
        let expected = &whole[places.iter().position(|place| *place >= ms).unwrap()..];
        let url = daemon.rtsp_url("rtsp", "archive/places.asf");
        let [first_port, last_port] = [port, port + 98].map(|port| port.to_string());
        let options = ["-rtsp_transport", transport, "-min_port", &first_port, "-max_port", &last_port];
        let got = from(&options, &url, &seconds);
        assert!(got == *expected, "{seconds} s by {transport}: {} of {} frames", got.len(), expected.len());
    };
    std::thread::scope(|scope| {
        for (ms, port) in [(3000, 2100), (5770, 2200), (500, 2300), (11_240, 2400)] {
            let seek = &seek;
            scope.spawn(move || seek(ms, "tcp", port));
            scope.spawn(move || seek(ms, "udp", port));
        }
    });
}

/// The places that it asks for in other files, and where they lead: to the packet of the last key frame in front of them.
#[test]
fn ffmpeg_asks_for_the_place_that_it_was_told() {
    if !ready("ffmpeg_asks_for_the_place_that_it_was_told", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(&format!("{PLACES_IN_LOG}{HASTE}"));
    let keys = support::media::key_frames(&root.path().join(INDEXED));
    let url = daemon.rtsp_url("rtsp", &format!("archive/{INDEXED}"));
    for ms in [1500_u64, 3000, 5000, 7500] {
        let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
        // What it makes of that is its own affair, see above.
        player::ffmpeg_with(&["-rtsp_transport", "tcp", "-ss", &seconds], &url, 1).finish(MINUTE);
        let key = keys.iter().rev().find(|(at, _)| *at <= ms).unwrap_or(&keys[0]).1;
        let line = format!("asked=Time {{ ms: {ms} }} packet={key}");
        assert!(daemon.log().lines().any(|logged| logged.ends_with(&line)), "no {line}: {keys:?}");
    }
}

#[test]
fn gstreamer_seeks_to_the_right_key_frame() {
    if !ready("gstreamer_seeks_to_the_right_key_frame", &[GSTREAMER, &[Program("gst-play-1.0")]].concat()) {
        return;
    }
    // It cannot seek any more once it was told of the end.
    let (daemon, root) = archive(&format!("{PLACES_IN_LOG}[delivery]\nburst_ms = 0\n"));
    let file = root.path().join(INDEXED);
    let whole = &decoded(&file)[&0];
    let keys = support::media::key_frames(&file);
    let url = daemon.rtsp_url("rtspt", &format!("archive/{INDEXED}"));
    std::thread::scope(|scope| {
        for ms in [2500_u64, 5000, 7500] {
            let (daemon, url, keys) = (&daemon, &url, &keys);
            scope.spawn(move || {
                let out = daemon.folder().join(ms.to_string());
                let done = gstreamer::play_from(url, &format!("{}.{:03}", ms / 1000, ms % 1000), &out).finish(MINUTE);
                let got: Vec<String> = pictures_in(&out).into_iter().map(|frame| frame.md5).collect();
                assert!(whole.ends_with(&got), "{ms} ms: {} of {} pictures\n{}", got.len(), whole.len(), done.stderr);
                let (at, packet) = keys.iter().rev().find(|(at, _)| *at <= ms).unwrap();
                // 15 pictures a second, the first is shown 46 ms behind the begin.
                let expected = whole.len() - ((at - keys[0].0) * 15 / 1000) as usize;
                assert_eq!(got.len(), expected, "{ms} ms: not from the key frame at {at} ms on");
                assert!(daemon.log().contains(&format!("asked=Time {{ ms: {ms} }} packet={packet}")), "{}", daemon.log());
            });
        }
    });
}

/// Packets up to the end of the stream, or so many: number and payload.
#[track_caller]
fn media(connection: &mut Connection, most: usize) -> Vec<(u16, Vec<u8>)> {
    let mut packets = Vec::new();
    while packets.len() < most {
        match connection.receive(MINUTE) {
            Some(Incoming::Frame(0, packet)) => {
                let (sequence, _, payload) = rtp(&packet);
                packets.push((sequence, payload.to_vec()));
            }
            // The end of the stream.
            Some(Incoming::Message(message)) if message.line.starts_with("SET_PARAMETER ") => break,
            other => panic!("wanted media behind {} packets, got {other:?}", packets.len()),
        }
    }
    packets
}

const INTERLEAVED: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

/// What comes before and behind a pause, together, is what comes without one; numbers go on as if there had been none.
#[test]
fn a_pause_of_ten_seconds_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(data(INDEXED), root.path().join(INDEXED)).unwrap();
    let daemon = serve(root.path(), "[delivery]\nburst_ms = 0\n");
    let name = format!("archive/{INDEXED}");
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| {
            let mut connection = Connection::open(daemon.rtsp, &name);
            connection.play(INTERLEAVED);
            media(&mut connection, usize::MAX)
        });
        let mut connection = Connection::open(daemon.rtsp, &name);
        connection.play(INTERLEAVED);
        let mut got = media(&mut connection, 35);
        connection.granted("PAUSE", "", "");
        // What was on its way when the daemon heard of it stands in front of the answer.
        while let Some(unit) = connection.receive(Duration::from_millis(1)) {
            let Incoming::Frame(0, packet) = unit else { panic!("{unit:?} in a pause") };
            let (sequence, _, payload) = rtp(&packet);
            got.push((sequence, payload.to_vec()));
        }
        let nothing = connection.receive(Duration::from_secs(10));
        assert!(nothing.is_none(), "{nothing:?} in a pause");
        assert!(got.len() < 60, "the pause came in the middle of it: {} packets", got.len());
        connection.granted("PLAY", "", "");
        got.extend(media(&mut connection, usize::MAX));

        let whole = whole.join().unwrap();
        assert!(got.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)), "numbers go on");
        assert_eq!(got.len(), whole.len());
        assert!(got.iter().map(|(_, payload)| payload).eq(whole.iter().map(|(_, payload)| payload)), "other packets");
    });
    wait_for("both ends", MINUTE, || (daemon.metric("wmrelay_viewers", &[]) == 0.0).then_some(()));
}
