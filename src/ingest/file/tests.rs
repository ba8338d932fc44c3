use super::*;
use crate::asf::fabricate_stream::{Object, objects};
use crate::asf::samples;
use crate::ingest::{demo, testing};
use crate::relay::Delivery;
use crate::settings::Source;

/// Plays for a virtual time; returns the relay's deliveries.
async fn play(media: Vec<Medium>, seconds: u64) -> (Arc<testing::Collector>, Instant) {
    let (relay, collector) = testing::collecting(&[("loop", Source::Demo)]);
    let point = relay.point("loop").unwrap();
    let start = Instant::now();
    let player = tokio::spawn(run(point, media));
    sleep(Duration::from_secs(seconds)).await;
    player.abort();
    let _ = player.await;
    (collector, start)
}

#[tokio::test(start_paused = true)]
async fn plays_in_real_time_lap_after_lap() {
    let (collector, start) = play(vec![demo::medium()], 28).await;
    let packets = collector.packets();
    assert_eq!((collector.generations(), collector.losses()), (1, 1));
    let first = packets[0].1;
    for (at, send_time_ms, _) in &packets {
        let early_ms = i128::from(send_time_ms - first) - at.duration_since(start).as_millis() as i128;
        assert!((0..=20).contains(&early_ms), "{early_ms} ms early at {send_time_ms}");
    }
    assert!(packets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert!(packets.last().unwrap().1 - first > 27_000);
}

#[tokio::test(start_paused = true)]
async fn packets_that_are_due_together_go_together() {
    let (collector, _) = play(vec![demo::medium()], 8).await;
    let batches = collector.deliveries.lock().unwrap().len();
    assert!(batches < 8 * 50, "{batches}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_does_not_stop_the_others() {
    let missing = Medium::File("no/such/file.asf".into());
    let (collector, _) = play(vec![missing, demo::medium()], 20).await;
    assert_eq!((collector.generations(), collector.losses()), (1, 1));
    assert!(collector.packets().windows(2).all(|pair| pair[1].1 - pair[0].1 < 200));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_back_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late.asf");
    let (relay, collector) = testing::collecting(&[("loop", Source::Demo)]);
    let point = relay.point("loop").unwrap();
    let player = tokio::spawn(run(point, vec![Medium::File(path.clone())]));
    sleep(Duration::from_secs(3)).await;
    assert!(collector.packets().is_empty());
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    std::fs::write(&path, bytes).unwrap();
    sleep(Duration::from_secs(40)).await;
    assert!(collector.packets().len() > 100);
    player.abort();
}

#[tokio::test(start_paused = true)]
async fn rubbish_is_given_up() {
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    let mut rubbish = bytes.to_vec();
    rubbish[2000..].fill(0xFF);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rubbish).unwrap();
    let (collector, _) = play(vec![Medium::File(file.path().to_owned())], 60).await;
    assert!(collector.packets().len() < 20);
    assert!((2..20).contains(&collector.losses()), "it waits longer and longer: {}", collector.losses());
}

#[tokio::test(start_paused = true)]
async fn different_files_are_different_generations_in_one_line() {
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/camera-mjpeg-pcmu.asf");
    let (collector, start) = play(vec![demo::medium(), Medium::File(other.into())], 30).await;
    // 8 s, 6 s, again and again.
    assert_eq!((collector.generations(), collector.losses()), (5, 1));
    let packets = collector.packets();
    let longest = packets.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    assert!(longest < Some(Duration::from_millis(500)), "{longest:?}");
    assert!(packets.last().unwrap().0.duration_since(start) > Duration::from_secs(29));
}

/// Three files: the second has the first one's header and half of its packets, the third is something else. One pair of
/// streams goes as it is, the other is cut anew for the datagrams.
#[tokio::test(start_paused = true)]
async fn files_of_equal_headers_are_one_generation_and_another_one_begins_the_next() {
    let small = ("live-asf-pipe.asf", "camera-mjpeg-pcmu.asf", 30);
    let large = ("vod-wmv2-wmav2-indexed.wmv", "h264-aac-nobframes.asf", 30);
    for (name, other, seconds) in [small, large] {
        let (header, packets) = samples::stream(name);
        let bytes = samples::bytes(name);
        let start = Header::gather_len(&bytes).unwrap().unwrap();
        let half = packets.len() / 2;
        let second = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(second.path(), &bytes[..start + half * header.packet_size()]).unwrap();
        let sample = |name: &str| Medium::File(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR")).into());
        let media = vec![sample(name), Medium::File(second.path().to_owned()), sample(other)];
        let (collector, _) = play(media, seconds).await;

        let (mut generations, mut numbers, mut arrivals) = (Vec::new(), Vec::new(), Vec::new());
        for (at, delivery) in collector.deliveries.lock().unwrap().iter() {
            match delivery {
                Delivery::Generation { generation, .. } => generations.push((generation.number, Vec::new(), Vec::new())),
                Delivery::Batch { batch, .. } => {
                    let (number, packets, sends) = generations.last_mut().unwrap();
                    assert_eq!((batch.generation.number, batch.generation.packet_size), (*number, 1400), "{name}");
                    packets.extend(batch.bytes.chunks(1400).map(<[u8]>::to_vec));
                    sends.extend(batch.packets.iter().map(|packet| packet.send_time_ms));
                    numbers.extend(batch.numbers());
                    arrivals.push(*at);
                }
                _ => (),
            }
        }
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{name}: packet numbers run on over all files");
        assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_millis(700)), "{name}: a pause");
        assert_eq!(generations.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [0, 1, 2], "{name}");
        assert!(generations.iter().all(|(.., sends)| sends.is_sorted()), "{name}: send times run on");

        let (found, whole) = (objects(&generations[0].1), objects(&packets));
        let expected: Vec<_> = whole.iter().cloned().chain(objects(&packets[..half])).collect();
        let data = |objects: &[Object]| objects.iter().map(|object| (object.stream, object.data.clone())).collect::<Vec<_>>();
        assert!(data(&found) == data(&expected), "{name}: {} objects of {}", found.len(), expected.len());
        assert_eq!(objects(&generations[1].1), objects(samples::stream(other).1), "{name}: the third file is as it was");
        for stream in [1, 2] {
            let of_stream: Vec<_> = found.iter().filter(|object| object.stream == stream).collect();
            for pair in of_stream.windows(2) {
                assert_eq!(pair[1].number, pair[0].number.wrapping_add(1), "{name}: object numbers of stream {stream}");
                let step_ms = pair[1].presentation_ms.wrapping_sub(pair[0].presentation_ms);
                assert!((1..300).contains(&step_ms), "{name}: stream {stream} goes on after {step_ms} ms");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn why_nothing_can_be_played_is_kept() {
    let (relay, _) = testing::collecting(&[("loop", Source::Demo)]);
    let point = relay.point("loop").unwrap();
    let player = tokio::spawn(run(Arc::clone(&point), vec![Medium::File("no/such/file.asf".into())]));
    sleep(Duration::from_secs(2)).await;
    let fault = point.source_health().last_fault.unwrap();
    assert_eq!((fault.in_a_row, point.source_health().restarts), (3, 3));
    assert!(fault.reason.starts_with("no/such/file.asf cannot be played: No such file"), "{}", fault.reason);
    player.abort();
}
