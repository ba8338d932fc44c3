use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::*;
use crate::asf;
use crate::asf::chunk::{ChunkHead, ChunkKind};
use crate::ingest::playlist::Medium;
use crate::ingest::testing::Collector;
use crate::ingest::{demo, stop, testing};
use crate::relay::{Delivery, PointId};
use crate::settings::PublishingPoint;

/// A shell script stands for ffmpeg; these tests run on the real clock, as children do, and wait for what must come.
struct Bench {
    transcoders: Arc<Transcoders>,
    relay: Arc<Relay>,
    collector: Arc<Collector>,
    stopper: stop::Stopper,
    stop: Stop,
    folder: tempfile::TempDir,
}

/// Writes who it is, two seconds of ASF, and then nothing more.
const CAMERA: &str = "echo $$ >> pids; cat a.asf; exec sleep 1000";

/// The name of a publishing point, of its input and of its profile.
type Named = (&'static str, &'static str, &'static str);

impl Bench {
    /// `script` runs in the bench's folder.
    fn new(children: usize, script: &str, points: &[Named]) -> Self {
        Self::with_probe(children, script, "exit 1", points)
    }

    /// `probe` is what stands for ffprobe.
    fn with_probe(children: usize, script: &str, probe: &str, points: &[Named]) -> Self {
        Self::lingering(children, script, probe, Duration::from_millis(50), points)
    }

    fn lingering(children: usize, script: &str, probe: &str, linger: Duration, points: &[Named]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Medium::BuiltIn(asf) = demo::medium() else { panic!() };
        // Less than the lead, so that nothing is held back.
        std::fs::write(folder.path().join("a.asf"), &asf[..20_000]).unwrap();
        std::fs::write(folder.path().join("lap.asf"), chunked(&asf::samples::stream("live-asf-pipe.asf").1[..40])).unwrap();
        std::fs::write(folder.path().join("empty.asf"), chunked(&[])).unwrap();
        let [program, prober] = [("ffmpeg", script), ("ffprobe", probe)].map(|(name, script)| {
            let program = folder.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\ncd '{}'\n{script}\n", folder.path().display())).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            program.display().to_string()
        });
        let point = |(name, input, profile): &Named| PublishingPoint {
            source: Source::Ffmpeg {
                input: FfmpegInput { input: (*input).to_owned(), arguments: Vec::new() },
                profile: (*profile).to_owned(),
                start: Start::Watched,
                linger,
            },
            ..PublishingPoint::push((*name).to_owned(), None)
        };
        let mut settings = Settings { publishing_points: points.iter().map(point).collect(), ..Settings::default() };
        // No bounds: the shell's own children would hear of them late.
        settings.transcode = Transcode { ffmpeg: program, ffprobe: prober, children, nice: 0, memory_bytes: None };
        let (relay, collector) = testing::with_settings(&settings);
        let (stopper, stop) = stop::channel();
        let transcoders = Transcoders::new(Handle::current(), Arc::clone(&relay), &settings, stop.downgrade());
        for point in relay.points() {
            transcoders.feed(point, stop.clone());
        }
        Self { transcoders, relay, collector, stopper, stop, folder }
    }

    fn point(&self, name: &str) -> Arc<Point> {
        self.relay.point(name).unwrap()
    }

    /// The children that have been started, by their process ids.
    fn children(&self) -> Vec<String> {
        read(&self.folder.path().join("pids")).lines().map(str::to_owned).collect()
    }

    /// Packets of a publishing point.
    fn packets(&self, point: PointId) -> usize {
        let deliveries = self.collector.deliveries.lock().unwrap();
        let batches = deliveries.iter().filter_map(|(_, delivery)| match delivery {
            Delivery::Batch { point: of, batch } if *of == point => Some(batch.packets.len()),
            _ => None,
        });
        batches.sum()
    }

    async fn plays(&self, point: &Arc<Point>) {
        wait_until(|| self.packets(point.id()) > 5).await;
    }

    /// What a viewer gets who asks for another profile.
    fn wish(&self, point: &str, profile: &str) -> Result<crate::relay::Watch, Refused> {
        self.wish_of("192.0.2.1", point, profile)
    }

    fn wish_of(&self, viewer: &str, point: &str, profile: &str) -> Result<crate::relay::Watch, Refused> {
        let (sender, found) = std::sync::mpsc::channel();
        let answer = Box::new(move |found| sender.send(found).unwrap());
        let (folder, profile, viewer) = (self.point(point), Some(profile.to_owned()), viewer.parse().unwrap());
        self.transcoders.take(Wish { folder, below: String::new(), profile, viewer, wake: Box::new(|| {}), answer });
        match found.recv().unwrap() {
            Found::Live(watch) => Ok(watch),
            Found::Refused(refused) => Err(refused),
            Found::File(_) => panic!("a file"),
        }
    }

    async fn stop(self) {
        let Self { stop, stopper, transcoders, folder, .. } = self;
        drop(stop);
        stopper.stop().await;
        assert!(transcoders.lock().is_empty());
        let pids = read(&folder.path().join("pids"));
        assert!(!pids.lines().any(is_running), "{pids}");
    }
}

/// As ffmpeg writes it to a pipe, with the end that says that this is all.
fn chunked(packets: &[Vec<u8>]) -> Vec<u8> {
    let name = "live-asf-pipe.asf";
    let chunk = |kind, bytes: &[u8]| {
        let len = u16::try_from(bytes.len()).unwrap();
        [ChunkHead { kind, more: false, len }.write().as_slice(), bytes].concat()
    };
    let len = asf::samples::stream(name).0.bytes().len() + 50;
    let mut bytes = chunk(ChunkKind::Header, &asf::samples::bytes(name)[..len]);
    packets.iter().for_each(|packet| bytes.extend(chunk(ChunkKind::Data, packet)));
    bytes.extend(chunk(ChunkKind::End, &[0; 4]));
    bytes
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn is_running(pid: &str) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.expect("it never came");
}

#[tokio::test]
async fn one_input_in_one_profile_is_one_child() {
    let points = [("one", "rtsp://cam/1", "wmp9"), ("two", "rtsp://cam/1", "WMP9"), ("other", "rtsp://cam/2", "wmp9")];
    let bench = Bench::new(8, CAMERA, &points);
    let [one, two, other] = ["one", "two", "other"].map(|name| bench.point(name));
    assert_eq!(bench.children(), [""; 0], "nobody watches");
    let first = one.watch();
    bench.plays(&one).await;
    // The child writes no more: what comes later begins with what came since the key frame, at once.
    let second = two.watch();
    bench.plays(&two).await;
    assert_eq!(bench.children().len(), 1);
    assert_eq!(one.generation().unwrap().streams, two.generation().unwrap().streams);
    let third = other.watch();
    bench.plays(&other).await;
    assert_eq!(bench.children().len(), 2);

    // One that leaves takes nothing from those who stay.
    let child = bench.children()[0].clone();
    drop(first);
    wait_until(|| one.generation().is_none()).await;
    assert!(is_running(&child) && two.generation().is_some());
    drop(second);
    wait_until(|| !is_running(&child)).await;
    assert!(is_running(&bench.children()[1]));
    // And it comes again with the next who watches.
    let again = one.watch();
    wait_until(|| bench.children().len() == 3 && one.generation().is_some()).await;
    drop((third, again));
    bench.stop().await;
}

#[tokio::test]
async fn another_profile_is_lent_while_it_is_watched() {
    let bench = Bench::new(8, CAMERA, &[("cam", "rtsp://cam/1", "wmp9")]);
    let cam = bench.point("cam");
    let own = cam.watch();
    let [one, two] = [(); 2].map(|()| bench.wish("cam", "wmp64").unwrap());
    assert!(Arc::ptr_eq(one.point(), two.point()) && one.point().id() != cam.id());
    bench.plays(&cam).await;
    bench.plays(one.point()).await;
    assert_eq!(bench.children().len(), 2);
    // The same profile again, this time by the name of one who wants it as its own: no third child.
    let same = bench.wish("cam", "wmp9").unwrap();
    bench.plays(same.point()).await;
    assert_eq!(bench.children().len(), 2);
    let lent = Arc::clone(one.point());
    drop((one, two));
    wait_until(|| bench.relay.lent(cam.id(), "", Some("wmp64")).is_none()).await;
    assert!(lent.generation().is_none() && cam.generation().is_some());
    for unknown in ["no", "?profile=wmp64", ""] {
        let refused = bench.wish("cam", unknown).unwrap_err();
        assert_eq!((refused.hr, refused.cause), (Hresult::FILE_NOT_FOUND, "unknown_name"), "{unknown}");
    }
    drop((own, same));
    bench.stop().await;
}

#[tokio::test]
async fn no_more_children_than_the_settings_allow() {
    let bench = Bench::new(1, CAMERA, &[("one", "rtsp://cam/1", "wmp9"), ("two", "rtsp://cam/2", "wmp9")]);
    let [one, two] = ["one", "two"].map(|name| bench.point(name));
    let first = one.watch();
    bench.plays(&one).await;
    // Who waits hears at once that nothing comes.
    let ends = Arc::new(AtomicUsize::new(0));
    let second = two.watch();
    let refused = bench.wish("one", "radio").unwrap_err();
    assert_eq!((refused.hr, refused.cause), (Hresult::TOO_MANY_SESSIONS, NO_CHILD));
    wait_until(|| {
        let ended = bench.collector.deliveries.lock().unwrap();
        let of_two = |delivery: &Delivery| matches!(delivery, Delivery::Ended { point, .. } if *point == two.id());
        ends.store(ended.iter().filter(|(_, delivery)| of_two(delivery)).count(), Ordering::Relaxed);
        ends.load(Ordering::Relaxed) > 0
    })
    .await;
    assert_eq!(bench.children().len(), 1);
    // A place that is free is taken.
    drop(first);
    bench.plays(&two).await;
    assert_eq!(bench.children().len(), 2);
    drop(second);
    bench.stop().await;
}

#[tokio::test]
async fn a_child_that_lingers_gives_way() {
    let points = [("one", "rtsp://cam/1", "wmp9"), ("two", "rtsp://cam/2", "wmp9")];
    let bench = Bench::lingering(1, CAMERA, "exit 1", Duration::from_secs(1000), &points);
    let [one, two] = ["one", "two"].map(|name| bench.point(name));
    let first = one.watch();
    bench.plays(&one).await;
    assert_eq!(bench.wish("two", "radio").unwrap_err().cause, NO_CHILD, "it is watched");
    drop(first);
    let second = two.watch();
    bench.plays(&two).await;
    wait_until(|| one.generation().is_none() && !is_running(&bench.children()[0])).await;
    assert_eq!((bench.children().len(), bench.collector.ends()), (2, 1), "that of the one alone has ended");
    // And to who wishes for another profile.
    drop(second);
    let other = bench.wish("one", "radio").unwrap();
    bench.plays(other.point()).await;
    assert!(two.generation().is_none());
    drop(other);
    bench.stop().await;
}

#[tokio::test]
async fn what_comes_to_a_port_is_had_by_one_child() {
    let points = [("one", "udp://127.0.0.1:5000", "wmp9"), ("two", "udp://127.0.0.1:5000", "wmp64")];
    let bench = Bench::new(8, CAMERA, &points);
    let [one, two] = ["one", "two"].map(|name| bench.point(name));
    let first = one.watch();
    bench.plays(&one).await;
    let second = two.watch();
    wait_until(|| bench.collector.ends() > 0).await;
    assert_eq!(bench.children().len(), 1);
    assert!(one.generation().is_some() && two.generation().is_none());
    drop(first);
    bench.plays(&two).await;
    assert_eq!(bench.children().len(), 2);
    drop(second);
    bench.stop().await;
}

#[tokio::test]
async fn one_address_is_lent_half_of_the_children() {
    let points = [("one", "rtsp://cam/1", "wmp9"), ("two", "rtsp://cam/2", "wmp9")];
    let bench = Bench::new(4, CAMERA, &points);
    let mut lent: Vec<_> = ["wmp64", "radio"].map(|profile| bench.wish("one", profile).unwrap()).into();
    for (point, profile) in [("one", "wmp12"), ("two", "wmp64"), ("two", "radio")] {
        let refused = bench.wish(point, profile).unwrap_err();
        assert_eq!((refused.hr, refused.cause), (Hresult::TOO_MANY_SESSIONS, NO_SHARE), "{point} {profile}");
    }
    // What is there already takes nothing, and others get theirs.
    lent.push(bench.wish("one", "radio").unwrap());
    let two = bench.point("two");
    let watch = two.watch();
    bench.plays(&two).await;
    let other = bench.wish_of("192.0.2.2", "two", "wmp64").unwrap();
    bench.plays(other.point()).await;
    assert_eq!(bench.wish_of("192.0.2.3", "two", "radio").unwrap_err().cause, NO_CHILD);
    // It has its share again when what was lent has gone back, whoever watched it last.
    drop(lent);
    wait_until(|| bench.transcoders.lock().len() == 2 && bench.wish("one", "wmp12").is_ok()).await;
    drop((watch, other));
    bench.stop().await;
}

#[tokio::test]
async fn who_looks_through_many_has_one_at_a_time() {
    let bench = Bench::new(4, CAMERA, &[("one", "rtsp://cam/1", "wmp9")]);
    for profile in ["wmp64", "radio", "wmp12"] {
        // Nothing has had the time to end.
        drop(bench.wish("one", profile).map_err(|refused| refused.cause).unwrap());
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_child_that_ends_is_run_again() {
    let bench = Bench::new(8, "echo $$ >> pids; cat a.asf", &[("cam", "rtsp://cam/1", "wmp9")]);
    let cam = bench.point("cam");
    let watch = cam.watch();
    wait_until(|| bench.children().len() >= 2 && bench.packets(cam.id()) > 20).await;
    // The same header again: viewers notice a pause, nothing else.
    assert_eq!(bench.collector.generations(), 1);
    assert_eq!(bench.collector.ends(), 0);
    drop(watch);
    bench.stop().await;
}

/// What ffprobe says of a file whose H.264 is copied.
const H264: &str = "echo '{\"streams\":[{\"codec_type\":\"video\",\"codec_name\":\"h264\",\"pix_fmt\":\"yuv420p\",\
                    \"width\":320,\"height\":240}]}'";

/// How often children were begun again because of a fault.
fn restarts(page: &str) -> u32 {
    let of = |line: &str| line.starts_with("wmrelay_transcode_restarts_total").then(|| line.rsplit_once(' ')?.1.parse().ok());
    page.lines().find_map(of).flatten().unwrap_or_default()
}

#[tokio::test]
async fn a_file_that_is_copied_begins_again_at_its_end() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let script = "echo $$ >> pids; echo \"$@\" >> arguments; cat lap.asf";
    let bench = Bench::with_probe(8, script, H264, &[("cam", "/srv/a.mp4", "wmp12")]);
    let cam = bench.point("cam");
    let watch = cam.watch();
    wait_until(|| bench.children().len() >= 4 && bench.packets(cam.id()) >= 120).await;
    assert_eq!((bench.collector.generations(), bench.collector.ends(), restarts(&recorder.handle().render())), (1, 0, 0));
    let times: Vec<u32> = bench.collector.packets().iter().map(|(_, send_time_ms, _)| *send_time_ms).collect();
    assert!(times.is_sorted(), "one timeline: {times:?}");
    let arguments = read(&bench.folder.path().join("arguments"));
    assert!(arguments.contains("-c:v copy") && !arguments.contains("-stream_loop"), "{arguments}");
    drop(watch);
    wait_until(|| cam.generation().is_none()).await;
    bench.stop().await;
}

#[tokio::test]
async fn laps_of_nothing_are_faults() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let bench = Bench::with_probe(8, "echo $$ >> pids; cat empty.asf", H264, &[("cam", "/srv/a.mp4", "wmp12")]);
    let watch = bench.point("cam").watch();
    wait_until(|| bench.children().len() >= 3).await;
    assert_eq!(restarts(&recorder.handle().render()), 2);
    drop(watch);
    bench.stop().await;
}

#[tokio::test]
async fn a_loan_goes_back_where_its_profile_is_gone() {
    let bench = Bench::new(2, CAMERA, &[("cam", "x", "wmp9")]);
    let (cam, input) = (bench.point("cam"), FfmpegInput { input: "x".into(), arguments: Vec::new() });
    let (watch, loan) = bench.relay.lend(cam.id(), "", Some("wmp64")).unwrap();
    let said = Arc::<Mutex<Option<String>>>::default();
    let hears = Arc::clone(&said);
    let failed: Failed = Box::new(move |reason| *hears.lock().unwrap() = Some(reason.to_owned()));
    let (transcoders, stop) = (Arc::clone(&bench.transcoders), bench.stop.clone());
    let lent = tokio::spawn(async move {
        transcoders.feed_lent(loan.unwrap(), input, "gone", Duration::from_millis(50), stop, failed).await;
    });
    wait_until(|| bench.collector.ends() == 1).await;
    assert!(said.lock().unwrap().as_deref().is_some_and(|reason| reason.contains("no such profile")));
    assert!(!watch.point().source_expected(), "nobody is to wait for it");
    assert!(bench.relay.lent(cam.id(), "", Some("wmp64")).is_some());
    drop(watch);
    lent.await.unwrap();
    assert!(bench.relay.lent(cam.id(), "", Some("wmp64")).is_none());
    bench.stop().await;
}

#[tokio::test]
async fn garbage_is_told_and_tried_again() {
    let bench = Bench::new(8, "echo $$ >> pids; head -c 100000 /dev/urandom", &[("cam", "rtsp://cam/1", "wmp9")]);
    let cam = bench.point("cam");
    let watch = cam.watch();
    wait_until(|| bench.children().len() >= 2).await;
    assert!(cam.generation().is_none() && bench.packets(cam.id()) == 0);
    drop(watch);
    bench.stop().await;
}

#[tokio::test]
async fn the_words_of_ffmpeg_are_kept_with_each_publishing_point() {
    let script = "echo '[tcp @ 0x7f3a] rtsp://u:p@h/1: Connection refused' >&2; echo 'Conversion failed!' >&2; exit 1";
    let bench = Bench::new(4, script, &[("one", "rtsp://u:p@h/1", "wmp9"), ("two", "rtsp://u:p@h/1", "wmp9")]);
    let points = ["one", "two"].map(|name| bench.point(name));
    let watches = points.clone().map(|point| point.watch());
    for point in &points {
        wait_until(|| point.source_health().last_fault.is_some_and(|fault| fault.in_a_row == 2)).await;
        let reason = point.source_health().last_fault.unwrap().reason;
        assert_eq!(reason, "it said \"tcp: rtsp://…@h/1: Connection refused\"; its output ended; exit status: 1");
    }
    drop(watches);
    bench.stop().await;
}
