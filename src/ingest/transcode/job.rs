//! One ffmpeg child for an input and a profile, and all that its output goes to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::process::ChildStdout;
use tokio::sync::{broadcast, watch};
use tokio::time::{Duration, Instant, sleep};
use tracing::{debug, info, warn};

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
use crate::ingest::watched::Watched;
use crate::settings::{FOREVER, FfmpegInput, Profile, Transcode, url_without_secrets};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Events that a publishing point may be behind, each of [`READ_BYTES`] at most; then it loses packets.
const EVENTS: usize = 128;
/// What is kept since the last key frame, for publishing points that come later.
const BACKLOG_BYTES: usize = 4 << 20;
/// Laps begin no sooner one after the other: a file of one picture keeps no processor busy.
const SHORTEST_LAP: Duration = Duration::from_secs(1);

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
    /// Who watches each of these.
    watchers: Mutex<Vec<Watched>>,
    /// Another input is to have its place: who merely lingers leaves it.
    gives_way: watch::Sender<bool>,
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
    /// The input is at its end, and begins again at once.
    Lap,
    /// The child ended, failed or hung.
    Failed(Failure),
}

/// A run that is no more.
struct Failure {
    reason: String,
    /// How long media came of it; `None`: none did.
    played: Option<Duration>,
}

/// Why no more is read of a child.
enum OutputEnd {
    /// It wrote all that it had to write.
    Whole,
    /// Words for a person.
    Broken(String),
}

/// From when to when packets of a child have gone out.
#[derive(Default)]
struct Aired(Option<(Instant, Instant)>);

impl Aired {
    fn note(&mut self) {
        let now = Instant::now();
        self.0 = Some((self.0.map_or(now, |(first, _)| first), now));
    }

    /// A child that then says nothing plays no longer by that.
    fn lasted(&self) -> Option<Duration> {
        self.0.map(|(first, last)| last.saturating_duration_since(first))
    }
}

impl Job {
    pub(super) fn new(input: FfmpegInput, profile: Arc<Profile>) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        let ((wanted, _), (gives_way, _)) = (watch::channel(0), watch::channel(false));
        Self {
            input,
            profile,
            stage: Mutex::default(),
            events,
            said: LastWords::default(),
            wanted,
            watchers: Mutex::default(),
            gives_way,
        }
    }

    /// One more wants it, while `watched` is, or lingers.
    pub(super) fn claim(&self, watched: Watched) {
        let mut watchers = self.lock_watchers();
        watchers.push(watched);
        self.wanted.send_replace(watchers.len());
        self.gives_way.send_replace(false);
    }

    /// It does so no more.
    pub(super) fn release(&self, watched: &Watched) {
        let mut watchers = self.lock_watchers();
        watchers.retain(|other| !other.is_same(watched));
        self.wanted.send_replace(watchers.len());
    }

    /// Whether it counts: one that ends, or was told to, does not.
    pub(super) fn takes_place(&self) -> bool {
        *self.wanted.borrow() > 0 && !*self.gives_way.borrow()
    }

    /// Whether nobody watches what it brings.
    pub(super) fn lingers(&self) -> bool {
        self.lock_watchers().iter().all(|watched| !watched.is_watched())
    }

    /// Leaves its place to another one.
    pub(super) fn give_way(&self) {
        self.gives_way.send_replace(true);
    }

    /// Returns once its place is another one's.
    pub(super) async fn given_up(&self) {
        // The sender is ours.
        let _ = self.gives_way.subscribe().wait_for(|given| *given).await;
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
        let mut is_lap = false;
        loop {
            let begin = Instant::now();
            let end = self.run_once(settings, probes, meters, stop, is_lap).await;
            is_lap = matches!(end, End::Lap);
            let wait = match end {
                End::Stopped | End::Unwanted => return,
                End::Lap => {
                    back_off = BackOff::new();
                    SHORTEST_LAP.saturating_sub(begin.elapsed())
                }
                End::Failed(Failure { reason, played }) => {
                    probes.doubt(&self.input);
                    let wait = self.wait_after(&mut back_off, begin.elapsed(), played);
                    warn!(reason, retry_s = wait.as_secs_f32(), "ended");
                    self.publish(Event::Failed(self.said.instead_of(&reason).into()));
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.unwanted() => return self.publish(Event::Gone),
                () = stop.requested() => return,
            }
            if !is_lap {
                meters.restarts.increment(1);
            }
        }
    }

    /// How long to wait after a run of this length that failed, of which media came for `played`, if any.
    fn wait_after(&self, back_off: &mut BackOff, run: Duration, played: Option<Duration>) -> Duration {
        if self.input.listens() {
            // Nobody listens during a wait, so who sends to us must not find it long. A child that ends at once, and had no sender, has
            // not listened.
            if played.is_some() {
                *back_off = BackOff::new();
            }
            back_off.played(run);
        } else {
            back_off.played(played.unwrap_or_default());
        }
        back_off.after(run)
    }

    /// Waits until nobody wants it.
    async fn unwanted(&self) {
        // The sender is ours.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted == 0).await;
    }

    /// One life of the child. It has ended and is reaped when this returns. `is_lap`: it goes on with what the one before it ended.
    async fn run_once(&self, settings: &Transcode, probes: &Probes, meters: &Meters, stop: &mut Stop, is_lap: bool) -> End {
        self.said.forget();
        let bounds = Bounds { nice: settings.nice, memory_bytes: settings.memory_bytes };
        let copies = tokio::select! {
            copies = probes.copies(&settings.ffprobe, &self.input, &self.profile, bounds) => copies,
            () = self.unwanted() => return self.stopped(End::Unwanted),
            () = stop.requested() => return self.stopped(End::Stopped),
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
            Err(reason) => return self.stopped(End::Failed(Failure { reason, played: None })),
        };
        if is_lap {
            debug!(pid = running.id(), "begins again");
        } else {
            info!(input = shown, pid = running.id(), copies_video = copies.video, copies_audio = copies.audio, "started");
        }
        meters.children.increment(1);
        let (stdout, mut aired) = (running.stdout.take(), Aired::default());
        let end = tokio::select! {
            output = self.pump(stdout, &mut aired) => match output {
                // Without media it would be begun again for ever.
                OutputEnd::Whole if aired.0.is_some() && argv::plays_in_laps(&self.input, &self.profile, copies) => End::Lap,
                OutputEnd::Whole => End::Failed(Failure { reason: "its stream ended".into(), played: aired.lasted() }),
                OutputEnd::Broken(reason) => End::Failed(Failure { reason, played: aired.lasted() }),
            },
            () = self.unwanted() => End::Unwanted,
            () = stop.requested() => End::Stopped,
        };
        let is_asked_to = matches!(end, End::Unwanted | End::Stopped);
        ending.store(is_asked_to, Ordering::Relaxed);
        let end = self.stopped(end);
        let status = running.end(!is_asked_to).await;
        meters.children.decrement(1);
        match end {
            End::Failed(Failure { reason, played }) => End::Failed(Failure { reason: format!("{reason}; {status}"), played }),
            End::Lap => End::Lap,
            End::Unwanted | End::Stopped => {
                info!("stopped, nobody wants it");
                end
            }
        }
    }

    /// Tells all that nothing more comes; a lap is no end for them.
    fn stopped(&self, end: End) -> End {
        if !matches!(end, End::Lap) {
            self.publish(Event::Gone);
        }
        end
    }

    /// Hands on what the child writes, no faster than it plays; returns why that is over.
    async fn pump(&self, stdout: Option<ChildStdout>, aired: &mut Aired) -> OutputEnd {
        let Some(mut stdout) = stdout else { return OutputEnd::Broken("it has no standard output".into()) };
        let (mut reader, mut lead, mut byte_rate) = (Reader::new(), Lead::default(), ByteRate::new());
        let mut buffer = vec![0; READ_BYTES];
        // Who waits for a sender may do so as long as it takes.
        let mut patience = if self.input.listens() { FOREVER } else { SILENCE };
        let mut packet_size = 0;
        loop {
            match child::read(&mut stdout, &mut buffer, patience).await {
                Err(reason) => return OutputEnd::Broken(reason),
                Ok(0) => return OutputEnd::Broken("its output ended".into()),
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
                        self.pace(&mut lead, packets, packet_size, aired).await;
                    }
                    Ok(asf::Event::End) => return OutputEnd::Whole,
                    Err(error) => return OutputEnd::Broken(format!("its output is of no use: {error}")),
                }
            }
        }
    }

    /// Packets as their time comes.
    async fn pace(&self, lead: &mut Lead, mut packets: BytesMut, packet_size: usize, aired: &mut Aired) {
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
                aired.note();
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

    fn lock_watchers(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_child_that_played_or_listened_comes_back_soon() {
        let input = |url: &str| FfmpegInput { input: url.into(), arguments: Vec::new() };
        for (url, run_ms, played_ms, waits_ms) in [
            ("rtsp://h/1", 5000, Some(3000), [500, 500, 500]),
            // It tried, and that was all.
            ("rtsp://h/1", 15_000, None, [500, 1000, 2000]),
            ("rtsp://h/1", 5000, Some(1000), [500, 1000, 2000]),
            // It waited for a sender; or had one that did not stay.
            ("tcp://h:1?listen", 5000, None, [500, 500, 500]),
            ("tcp://h:1?listen", 1000, Some(0), [500, 500, 500]),
            // Its port is another one's.
            ("tcp://h:1?listen", 100, None, [500, 1000, 2000]),
        ] {
            let job = Job { input: input(url), ..job() };
            let (mut back_off, ms) = (BackOff::new(), Duration::from_millis);
            let waits = [(); 3].map(|()| job.wait_after(&mut back_off, ms(run_ms), played_ms.map(ms)));
            assert_eq!(waits, waits_ms.map(ms), "{url} {run_ms} {played_ms:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_child_played_is_from_its_first_packet_to_its_last() {
        let mut aired = Aired::default();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(aired.lasted(), None);
        for _ in 0..3 {
            aired.note();
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(aired.lasted(), Some(Duration::from_secs(2)));
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
