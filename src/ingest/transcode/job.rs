//! One ffmpeg child for an input and a profile, and all that its output goes to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::process::ChildStdout;
use tokio::sync::{broadcast, watch};
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::argv;
use super::probe::Probes;
use super::words::{Meters, Progress, masked};
use crate::asf::{self, Header, Reader};
use crate::ingest::back_off::BackOff;
use crate::ingest::byte_rate::ByteRate;
use crate::ingest::child::{self, Bounds, Running, SILENCE, Words};
use crate::ingest::last_words::LastWords;
use crate::ingest::lead::Lead;
use crate::ingest::now;
use crate::ingest::stop::Stop;
use crate::settings::{FOREVER, FfmpegInput, Profile, Transcode, url_without_secrets};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Events that a publishing point may be behind, each of [`READ_BYTES`] at most; then it loses packets.
const EVENTS: usize = 128;
/// What is kept since the last key frame, for publishing points that come later.
const BACKLOG_BYTES: usize = 4 << 20;

/// What a child brings.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// The header of the packets that follow.
    Header(Arc<Header>),
    /// Whole packets.
    Packets(Bytes),
    /// The child has ended; another one will begin with a header.
    Gone,
    /// Why: the child failed, or could not be started.
    Failed(Arc<str>),
}

/// One input in one profile.
pub(super) struct Job {
    pub(super) input: FfmpegInput,
    pub(super) profile: Arc<Profile>,
    stage: Mutex<Stage>,
    events: broadcast::Sender<Event>,
    /// What the child said last.
    said: LastWords,
    /// How many publishing points want it.
    pub(super) wanted: watch::Sender<usize>,
}

/// What a publishing point that comes later begins with.
#[derive(Default)]
struct Stage {
    header: Option<Arc<Header>>,
    /// All packets since the last one in which a key frame begins.
    backlog: Vec<Bytes>,
    len: usize,
    /// Too much has come since: nothing is kept before the next key frame.
    overflowed: bool,
}

impl Stage {
    fn begin(&mut self, header: Arc<Header>) {
        *self = Self { header: Some(header), ..Self::default() };
    }

    fn push(&mut self, packets: &Bytes) {
        let Some(header) = &self.header else { return };
        let (size, video) = (header.packet_size(), header.video());
        for (at, packet) in packets.chunks_exact(size).enumerate() {
            // Sound may begin anywhere.
            let starts = video.is_empty() || asf::walk(packet).is_ok_and(|info| info.key_starts.intersects(video));
            if starts {
                (self.backlog, self.len, self.overflowed) = (Vec::new(), 0, false);
            }
            if self.overflowed || (self.backlog.is_empty() && !starts) {
                continue;
            }
            self.len += size;
            if self.len > BACKLOG_BYTES {
                (self.backlog, self.len, self.overflowed) = (Vec::new(), 0, true);
            } else {
                self.backlog.push(packets.slice(at * size..(at + 1) * size));
            }
        }
    }
}

/// Why a run ended.
enum End {
    /// No publishing point wants it any more.
    Unwanted,
    /// The daemon stops.
    Stopped,
    /// The child ended, failed or hung.
    Failed(String),
}

impl Job {
    pub(super) fn new(input: FfmpegInput, profile: Arc<Profile>) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        let (wanted, _) = watch::channel(0);
        Self { input, profile, stage: Mutex::default(), events, said: LastWords::default(), wanted }
    }

    /// What there is, and all that comes from now on.
    pub(super) fn join(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let stage = self.lock();
        let header = stage.header.iter().cloned().map(Event::Header);
        let events = header.chain(stage.backlog.iter().cloned().map(Event::Packets)).collect();
        // Under the lock: nothing comes twice, nothing is missed.
        (events, self.events.subscribe())
    }

    /// Runs children one after the other while somebody wants them; returns when nobody does, or when the daemon stops.
    pub(super) async fn run(&self, settings: &Transcode, probes: &Probes, meters: &Meters, stop: &mut Stop) {
        let mut back_off = BackOff::new();
        let mut runs = 0_u32;
        loop {
            let begin = Instant::now();
            if runs > 0 {
                meters.restarts.increment(1);
            }
            runs = runs.saturating_add(1);
            let reason = match self.run_once(settings, probes, meters, stop).await {
                End::Stopped | End::Unwanted => return,
                End::Failed(reason) => reason,
            };
            probes.forget(&self.input);
            // Nobody listens during a wait, so who sends to us must not find it long.
            if argv::listens(&self.input) {
                back_off = BackOff::new();
            }
            let wait = back_off.after(begin.elapsed());
            warn!(reason, retry_s = wait.as_secs_f32(), "ended");
            self.publish(Event::Failed(self.said.instead_of(&reason).into()));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.unwanted() => return,
                () = stop.requested() => return,
            }
        }
    }

    /// Waits until nobody wants it.
    async fn unwanted(&self) {
        // The sender is ours.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted == 0).await;
    }

    /// One life of the child. It has ended and is reaped when this returns.
    async fn run_once(&self, settings: &Transcode, probes: &Probes, meters: &Meters, stop: &mut Stop) -> End {
        self.said.forget();
        let bounds = Bounds { nice: settings.nice, memory_bytes: settings.memory_bytes };
        let copies = tokio::select! {
            copies = probes.copies(&settings.ffprobe, &self.input, &self.profile, bounds) => copies,
            () = self.unwanted() => return End::Unwanted,
            () = stop.requested() => return End::Stopped,
        };
        let shown = url_without_secrets(&self.input.input);
        let (input, instead, mut progress) = (self.input.input.clone(), shown.clone(), Progress::new(meters));
        // What it says about its end is no news where that is our doing.
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let said = self.said.clone();
        let words = Words {
            heard: move |line: &str| progress.hears(line) || ends.load(Ordering::Relaxed),
            log: move |line: &str| {
                let line = masked(&line.replace(&input, &instead));
                info!(line, "says");
                said.say(&line);
            },
        };
        let argv = argv::ffmpeg(&settings.ffmpeg, &self.input, &self.profile, copies);
        let mut running = match Running::start(&argv, bounds, words) {
            Ok(running) => running,
            Err(reason) => return End::Failed(reason),
        };
        info!(input = shown, pid = running.id(), copies_video = copies.video, copies_audio = copies.audio, "started");
        meters.children.increment(1);
        let stdout = running.stdout.take();
        let end = tokio::select! {
            reason = self.pump(stdout) => End::Failed(reason),
            () = self.unwanted() => End::Unwanted,
            () = stop.requested() => End::Stopped,
        };
        ending.store(!matches!(end, End::Failed(_)), Ordering::Relaxed);
        self.publish(Event::Gone);
        let status = running.end(matches!(end, End::Failed(_))).await;
        meters.children.decrement(1);
        match end {
            End::Failed(reason) => End::Failed(format!("{reason}; {status}")),
            other => {
                info!("stopped, nobody wants it");
                other
            }
        }
    }

    /// Hands on what the child writes, no faster than it plays; returns why that is over.
    async fn pump(&self, stdout: Option<ChildStdout>) -> String {
        let Some(mut stdout) = stdout else { return "it has no standard output".into() };
        let (mut reader, mut lead, mut byte_rate) = (Reader::new(), Lead::default(), ByteRate::new());
        let mut buffer = vec![0; READ_BYTES];
        // Who waits for a sender may do so as long as it takes.
        let mut patience = if argv::listens(&self.input) { FOREVER } else { SILENCE };
        let mut packet_size = 0;
        loop {
            match child::read(&mut stdout, &mut buffer, patience).await {
                Err(reason) => return reason,
                Ok(0) => return "its output ended".into(),
                Ok(count) => reader.feed(buffer.get(..count).unwrap_or_default()),
            }
            patience = SILENCE;
            while let Some(event) = reader.poll() {
                match event {
                    Ok(asf::Event::Header(header)) => {
                        packet_size = header.packet_size();
                        lead = Lead::default();
                        byte_rate.set_bit_rate(header.bit_rate());
                        self.publish(Event::Header(Arc::new(header)));
                    }
                    Ok(asf::Event::Packets(packets)) => {
                        sleep(byte_rate.take(now(), packets.len())).await;
                        self.pace(&mut lead, packets, packet_size).await;
                    }
                    Ok(asf::Event::End) => return "its stream ended".into(),
                    Err(error) => return format!("its output is of no use: {error}"),
                }
            }
        }
    }

    /// Packets as their time comes.
    async fn pace(&self, lead: &mut Lead, mut packets: BytesMut, packet_size: usize) {
        if packet_size == 0 {
            return;
        }
        while !packets.is_empty() {
            let (mut count, mut wait) = (0, Duration::ZERO);
            for packet in packets.chunks_exact(packet_size) {
                let held = asf::walk(packet).ok().and_then(|info| lead.check(now(), info.send_time_ms).err());
                if let Some(held) = held {
                    wait = held;
                    break;
                }
                count += 1;
            }
            // Not whole: the reader makes no such.
            if count == 0 && wait.is_zero() {
                return;
            }
            if count > 0 {
                self.publish(Event::Packets(packets.split_to(count * packet_size).freeze()));
            }
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
    }

    fn publish(&self, event: Event) {
        let mut stage = self.lock();
        match &event {
            Event::Header(header) => stage.begin(Arc::clone(header)),
            Event::Packets(packets) => stage.push(packets),
            Event::Gone => *stage = Stage::default(),
            Event::Failed(_) => {}
        }
        // Nobody may be there to hear it.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;
    use crate::settings::Settings;

    fn job() -> Job {
        let input = FfmpegInput { input: "rtsp://h/1".into(), arguments: Vec::new() };
        Job::new(input, Arc::new(Settings::default().profiles[0].clone()))
    }

    /// How many packets one that comes now begins with, and the first of them.
    fn backlog(job: &Job) -> (usize, Option<Bytes>) {
        let (events, _) = job.join();
        let packets = events.into_iter().filter_map(|event| match event {
            Event::Packets(packets) => Some(packets),
            Event::Header(_) | Event::Gone | Event::Failed(_) => None,
        });
        let packets: Vec<_> = packets.collect();
        (packets.len(), packets.first().cloned())
    }

    #[test]
    fn who_comes_later_begins_with_the_last_key_frame() {
        let (job, (header, packets)) = (job(), samples::stream("live-asf-pipe.asf"));
        let (video, header) = (header.video(), Arc::new(header));
        let is_key = |packet: &[u8]| asf::walk(packet).unwrap().key_starts.intersects(video);
        assert!(job.join().0.is_empty());
        job.publish(Event::Header(Arc::clone(&header)));
        let mut expected = None;
        for packet in &packets {
            expected = if is_key(packet) { Some(1) } else { expected.map(|packets| packets + 1) };
            job.publish(Event::Packets(Bytes::copy_from_slice(packet)));
            let (count, first) = backlog(&job);
            assert_eq!((count, first.is_none_or(|first| is_key(&first))), (expected.unwrap_or(0), true));
        }
        assert!(expected.is_some_and(|packets| packets > 1), "the sample has key frames, and more behind them");
        // Before a header nothing is of use, and a child that is gone leaves nothing.
        job.publish(Event::Header(Arc::clone(&header)));
        assert_eq!((job.join().0.len(), backlog(&job).0), (1, 0));
        job.publish(Event::Gone);
        assert!(job.join().0.is_empty());
    }

    #[test]
    fn the_backlog_is_bounded_and_sound_begins_anywhere() {
        let (job, (header, packets)) = (job(), samples::stream("audio-wmav2.wma"));
        job.publish(Event::Header(Arc::new(header)));
        job.publish(Event::Packets(Bytes::from(packets[..3].concat())));
        assert_eq!(backlog(&job), (1, Some(Bytes::copy_from_slice(&packets[2]))));
        let mut stage = Stage::default();
        let (video, packets) = samples::stream("live-asf-pipe.asf");
        let key = packets.iter().position(|packet| asf::walk(packet).unwrap().key_starts.intersects(video.video())).unwrap();
        let rest = packets.iter().find(|packet| !asf::walk(packet).unwrap().key_starts.intersects(video.video())).unwrap();
        let video_size = video.packet_size();
        stage.begin(Arc::new(video));
        stage.push(&Bytes::copy_from_slice(&packets[key]));
        for _ in 0..2 * BACKLOG_BYTES / video_size {
            stage.push(&Bytes::copy_from_slice(rest));
            assert!(stage.backlog.len() * video_size <= BACKLOG_BYTES);
        }
        assert!(stage.overflowed && stage.backlog.is_empty());
        stage.push(&Bytes::copy_from_slice(&packets[key]));
        assert_eq!((stage.backlog.len(), stage.overflowed), (1, false));
    }

    #[tokio::test]
    async fn what_comes_meanwhile_is_heard_once() {
        let (job, (header, packets)) = (job(), samples::stream("live-asf-pipe.asf"));
        job.publish(Event::Header(Arc::new(header)));
        let (before, mut events) = job.join();
        job.publish(Event::Packets(Bytes::copy_from_slice(&packets[0])));
        job.publish(Event::Gone);
        assert!(matches!(&before[..], [Event::Header(_)]));
        assert!(matches!(events.recv().await, Ok(Event::Packets(_))));
        assert!(matches!(events.recv().await, Ok(Event::Gone)));
        assert!(events.try_recv().is_err());
    }
}
