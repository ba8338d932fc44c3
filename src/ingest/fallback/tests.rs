use std::io::Write as _;

use bytes::BytesMut;
use tokio::time::Instant;

use super::*;
use crate::asf::{Event, Reader, guids, samples, walk};
use crate::ingest::testing::{self, Collector};
use crate::ingest::{demo, file_time};
use crate::relay::{Delivery, PublisherId};
use crate::settings::{PublishingPoint, Settings};

/// A stream that no player takes for the demo's.
const LIVE: &str = "live-asf-pipe.asf";

/// A publishing point `cam` with this source and fallback after two seconds, and `other`, which is pushed to.
struct Bench {
    relay: Arc<Relay>,
    collector: Arc<Collector>,
    cam: Arc<Point>,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(source: Source, kind: FallbackKind) -> Self {
        let fallback = Fallback { kind, after: Duration::from_secs(2) };
        let cam = PublishingPoint { fallback: Some(fallback.clone()), ..PublishingPoint::new("cam", source) };
        let publishing_points = vec![cam, PublishingPoint::new("other", Source::Push)];
        let (relay, collector) = testing::with_settings(&Settings { publishing_points, ..Settings::default() });
        let cam = relay.point("cam").unwrap();
        let task = tokio::spawn(run(Arc::clone(&relay), Arc::clone(&cam), fallback));
        Self { relay, collector, cam, task }
    }

    fn publish(&self, name: &str) -> Publisher {
        self.relay.publish(now(), name, PublisherId::Local).unwrap()
    }

    /// What came of `cam`: when, send time, bytes.
    fn packets(&self) -> Vec<(Instant, u32, bool)> {
        let mut packets = Vec::new();
        for (at, delivery) in self.collector.deliveries.lock().unwrap().iter() {
            if let Delivery::Batch { point, batch } = delivery
                && *point == self.cam.id()
            {
                packets.extend(batch.packets.iter().map(|packet| (*at, packet.send_time_ms, packet.join_point)));
            }
        }
        packets
    }

    fn generations(&self) -> usize {
        let deliveries = self.collector.deliveries.lock().unwrap();
        let of_cam = |delivery: &Delivery| matches!(delivery, Delivery::Generation { point, .. } if *point == self.cam.id());
        deliveries.iter().filter(|(_, delivery)| of_cam(delivery)).count()
    }

    fn ends(&self) -> usize {
        self.collector.ends()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The demo's picture as a file.
fn demo_file() -> tempfile::NamedTempFile {
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Sends a sample in its time, over and over.
async fn feed(publisher: &mut Publisher, name: &str, seconds: u64) {
    let (header, packets) = samples::stream(name);
    let end = Instant::now() + Duration::from_secs(seconds);
    'laps: loop {
        let begin = Instant::now();
        publisher.header(now(), file_time(), &header).unwrap();
        for packet in &packets {
            let due = begin + Duration::from_millis(crate::asf::send_time_ms(packet).unwrap().into());
            if due >= end {
                break 'laps;
            }
            tokio::time::sleep_until(due).await;
            publisher.packets(now(), BytesMut::from(packet.as_slice())).unwrap();
        }
    }
    tokio::time::sleep_until(end).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_stands_in_and_yields_to_the_source() {
    let file = demo_file();
    let bench = Bench::new(Source::Push, FallbackKind::File(file.path().to_owned()));
    let begun = Instant::now();
    sleep(Duration::from_secs(12)).await;
    // Nobody ever came: from the third second on there is something to see, in real time and without a seam.
    let packets = bench.packets();
    let first = packets.first().unwrap().0 - begun;
    assert!((2.0..3.5).contains(&first.as_secs_f64()), "{first:?}");
    assert!(packets.windows(2).all(|pair| pair[1].0 - pair[0].0 < Duration::from_millis(300) && pair[1].1 >= pair[0].1));
    assert_eq!((bench.generations(), bench.ends()), (1, 0));

    // The source, in another format: from its key frame on it alone is seen.
    let mut source = bench.publish("cam");
    feed(&mut source, LIVE, 10).await;
    assert_eq!(bench.generations(), 2);
    let before = bench.packets();
    drop(source);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.packets().len(), before.len(), "not yet");
    sleep(Duration::from_secs(10)).await;
    assert!(bench.packets().len() > before.len() + 100);
    assert_eq!((bench.generations(), bench.ends()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_equal_file_is_one_stream_with_the_source() {
    let file = demo_file();
    let bench = Bench::new(Source::Push, FallbackKind::File(file.path().to_owned()));
    for _ in 0..20 {
        // The encoder that made the file.
        let source = tokio::spawn(file::run(Arc::clone(&bench.cam), vec![demo::medium()]));
        sleep(Duration::from_secs(3)).await;
        source.abort();
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!((bench.generations(), bench.ends()), (1, 0));
    let packets = bench.packets();
    assert!(packets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "the stream's clock never steps back");
    // 160 s passed, and so much on the stream's clock.
    let (first, last) = (packets[0], packets[packets.len() - 1]);
    let drift = f64::from(last.1 - first.1) / 1000.0 - (last.0 - first.0).as_secs_f64();
    assert!(drift.abs() < 1.0, "{drift}");
}

/// The demo, of a writer with another preroll: its header, and how much sooner its packets are shown than the file's.
fn hasty_demo() -> (Header, Vec<Vec<u8>>, u32) {
    const PREROLL_MS: u32 = 500;
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    let mut reader = Reader::new();
    reader.feed(bytes);
    let Some(Ok(Event::Header(header))) = reader.poll() else { panic!() };
    let Some(Ok(Event::Packets(packets))) = reader.poll() else { panic!() };
    let mut hasty = header.bytes().to_vec();
    let at = hasty.windows(16).position(|window| window == guids::FILE_PROPERTIES.0).unwrap() + 80;
    hasty[at..at + 4].copy_from_slice(&PREROLL_MS.to_le_bytes());
    let packets = packets.chunks(header.packet_size()).map(<[u8]>::to_vec).collect();
    (Header::parse(&hasty).unwrap(), packets, header.preroll_ms() - PREROLL_MS)
}

#[tokio::test(start_paused = true)]
async fn what_another_writer_made_goes_on_under_the_header_of_the_source() {
    let file = demo_file();
    let (header, packets, sooner_ms) = hasty_demo();
    assert!(sooner_ms > 0);
    let bench = Bench::new(Source::Push, FallbackKind::File(file.path().to_owned()));
    for _ in 0..3 {
        let mut source = bench.publish("cam");
        source.header(now(), file_time(), &header).unwrap();
        source.packets(now(), BytesMut::from(packets[0].as_slice())).unwrap();
        drop(source);
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!((bench.generations(), bench.ends()), (1, 0));
    let lead = |packet: &[u8]| walk(packet).map(|info| info.first_presentation_ms.wrapping_sub(info.send_time_ms)).unwrap();
    let (mut files, mut all) = (0, 0);
    let own = lead(&packets[0]);
    for (_, delivery) in bench.collector.deliveries.lock().unwrap().iter() {
        let Delivery::Batch { batch, .. } = delivery else { continue };
        for packet in batch.bytes.chunks(batch.generation.packet_size) {
            all += 1;
            // The source's own went through as they were.
            files += usize::from(lead(packet) < own);
        }
    }
    assert_eq!(all - files, 3, "of the source, of {all}");
    assert!(all > 100);
}

#[tokio::test(start_paused = true)]
async fn another_publishing_point_stands_in_from_its_newest_key_frame() {
    let bench = Bench::new(Source::Push, FallbackKind::Point("other".into()));
    let mut other = bench.publish("other");
    let begun = Instant::now();
    feed(&mut other, LIVE, 20).await;
    let packets = bench.packets();
    let first = packets[0];
    assert!((2.0..3.2).contains(&(first.0 - begun).as_secs_f64()), "{:?}", first.0 - begun);
    assert!(first.2, "viewers can begin at once");
    assert_eq!((bench.generations(), bench.relay.point("other").unwrap().watchers()), (1, 1));

    // The source comes back: nothing of the other is seen, nor is it watched.
    let mut source = bench.publish("cam");
    let demo = tokio::spawn(async move { feed(&mut source, "mbr-2video-1audio.asf", 15).await });
    feed(&mut other, LIVE, 10).await;
    assert_eq!((bench.generations(), bench.relay.point("other").unwrap().watchers()), (2, 0));
    demo.await.unwrap();
    // And once more, with a pause of the other one in between.
    feed(&mut other, LIVE, 10).await;
    assert_eq!(bench.generations(), 3);
    sleep(Duration::from_secs(10)).await;
    let before = bench.packets().len();
    feed(&mut other, LIVE, 5).await;
    assert!(bench.packets().len() > before + 50);
    assert_eq!((bench.generations(), bench.ends()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_played_leaves_all_as_it_was() {
    let bench = Bench::new(Source::Push, FallbackKind::File("no/such/file.asf".into()));
    sleep(Duration::from_secs(60)).await;
    assert!(bench.packets().is_empty());
    let mut source = bench.publish("cam");
    feed(&mut source, LIVE, 10).await;
    assert!(bench.packets().len() > 100);
    drop(source);
    for _ in 0..40 {
        sleep(Duration::from_secs(1)).await;
        bench.relay.tick(now());
    }
    assert_eq!(bench.ends(), 0, "without a time-out in the settings");
}

#[tokio::test(start_paused = true)]
async fn of_a_source_that_is_started_by_viewers_it_is_shown_to_them_alone() {
    let file = demo_file();
    let source = Source::Exec { argv: vec!["none".into()], start: Start::Watched, linger: Duration::from_secs(3) };
    let bench = Bench::new(source, FallbackKind::File(file.path().to_owned()));
    sleep(Duration::from_secs(60)).await;
    assert!(bench.packets().is_empty(), "nobody watches");
    for round in 1..4 {
        let watch = bench.cam.watch();
        let (begun, before) = (Instant::now(), bench.packets().len());
        sleep(Duration::from_secs(6)).await;
        let first = bench.packets()[before].0 - begun;
        assert!((2.0..3.5).contains(&first.as_secs_f64()), "the source has its time to start: {first:?}");
        drop(watch);
        sleep(Duration::from_secs(10)).await;
        let last = bench.packets().last().unwrap().0 - begun;
        assert!((8.0..9.5).contains(&last.as_secs_f64()), "{last:?}");
        assert_eq!((bench.ends(), bench.generations()), (round, round));
    }
}
