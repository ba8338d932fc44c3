//! Stills: the last key frame of a publishing point as a picture.
//!
//! While a page asks for them, what is sent is listened to as a shard does, which starts no source, and the packets of the last key
//! frame are kept. Whoever asks is told at once what there is; where that is too old, a task of its own has ffmpeg make another one,
//! one at a time and no more often than some seconds a publishing point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::asf::payloads;
use crate::ingest::still;
use crate::relay::{Batch, Delivery, Generation, Point, ShardPort};

/// A picture is good for so long.
const FRESH: Duration = Duration::from_secs(5);
/// One that could not be made is tried again after so long.
const RETRY: Duration = Duration::from_secs(30);
/// A publishing point that nobody asked for in so long is not listened to.
const IDLE: Duration = Duration::from_secs(30);
/// Publishing points that are listened to at once.
const FOLLOWED_MAX: usize = 64;
/// A key frame is waited for so long before the next one who asks has it waited for anew.
const PATIENCE: Duration = Duration::from_secs(12);
/// The packets of a frame are all there when so much later ones have come, or those of a preroll if that is longer: encoders of low
/// rates spread a key frame over a second and more.
const FRAME_MS: u32 = 400;
/// A frame of more bytes is cut off.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Makes and keeps the stills.
pub(super) struct Stills {
    kept: Mutex<Kept>,
    /// One ffmpeg at a time.
    turn: Semaphore,
    /// Who makes them, by name or path; `None`: there is no such program.
    ffmpeg: Option<String>,
}

/// What there is at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Still {
    /// JPEG, some seconds old.
    Fresh(Bytes),
    /// JPEG; another one is made, or could not be made.
    Older(Bytes),
    /// None yet, or none that can be made.
    None,
}

#[derive(Default)]
struct Kept {
    points: Vec<Followed>,
    /// A task looks after what is idle.
    swept: bool,
}

struct Followed {
    /// Itself, not its name or number, which another one may have later.
    point: Weak<Point>,
    follower: Arc<Follower>,
    asked_at: Instant,
    made: Made,
}

/// What was made for a publishing point.
#[derive(Default)]
struct Made {
    /// The last good one, and of what: a picture of what was sent before another header is none any more.
    picture: Option<(Instant, Arc<Generation>, Bytes)>,
    /// When and of what none could be made.
    failure: Option<(Instant, Arc<Generation>)>,
    /// A task is at it.
    in_flight: bool,
}

impl Made {
    /// What there is of what is sent now.
    fn still(&self, now: Instant, generation: &Arc<Generation>) -> Still {
        match &self.picture {
            Some((at, of, picture)) if Arc::ptr_eq(of, generation) => {
                if now.saturating_duration_since(*at) < FRESH {
                    Still::Fresh(picture.clone())
                } else {
                    Still::Older(picture.clone())
                }
            }
            _ => Still::None,
        }
    }

    /// Whether another one is to be made now.
    fn is_due(&self, now: Instant, generation: &Arc<Generation>) -> bool {
        let failed =
            |(at, of): &(Instant, Arc<Generation>)| Arc::ptr_eq(of, generation) && now.saturating_duration_since(*at) < RETRY;
        !self.in_flight && !self.failure.as_ref().is_some_and(failed) && !matches!(self.still(now, generation), Still::Fresh(_))
    }

    /// Notes what came of one; a good one before it stays where there is none.
    fn note(&mut self, now: Instant, generation: Arc<Generation>, picture: Option<Bytes>) {
        match picture {
            Some(picture) => (self.picture, self.failure) = (Some((now, generation, picture)), None),
            None => self.failure = Some((now, generation)),
        }
    }
}

impl Stills {
    /// None yet. Looks for `ffmpeg`, a name or a path.
    pub(super) fn new(ffmpeg: &str) -> Arc<Self> {
        let ffmpeg = still::is_there(ffmpeg).then(|| ffmpeg.to_owned());
        Arc::new(Self { kept: Mutex::default(), turn: Semaphore::new(1), ffmpeg })
    }

    /// Whether there is what makes them.
    pub(super) const fn can_be_made(&self) -> bool {
        self.ffmpeg.is_some()
    }

    /// The last key frame, as far as there is a picture of it by now; another one is made where that is old.
    pub(super) fn of(self: &Arc<Self>, point: &Arc<Point>) -> Still {
        let Some(generation) = point.generation().filter(|generation| self.can_be_made() && !generation.video.is_empty()) else {
            return Still::None;
        };
        let now = Instant::now();
        let follower = self.follow(point);
        let mut kept = self.lock();
        let Some(followed) = kept.points.iter_mut().find(|followed| followed.is_of(point)) else { return Still::None };
        if followed.made.is_due(now, &generation) {
            followed.made.in_flight = true;
            tokio::spawn(Arc::clone(self).make(Arc::downgrade(point), follower));
        }
        followed.made.still(now, &generation)
    }

    /// Makes one; who asked may be gone by then.
    async fn make(self: Arc<Self>, point: Weak<Point>, follower: Arc<Follower>) {
        let made = self.picture(&point, &follower).await;
        let mut kept = self.lock();
        // It is another one's where it was forgotten meanwhile.
        let followed = kept.points.iter_mut().find(|followed| Arc::ptr_eq(&followed.follower, &follower));
        if let Some(followed) = followed {
            followed.made.in_flight = false;
            if let Some((generation, picture)) = made {
                followed.made.note(Instant::now(), generation, picture);
            }
        }
    }

    /// A picture of the last key frame, or that none could be made of it; `None`: there is no such frame.
    async fn picture(&self, point: &Weak<Point>, follower: &Follower) -> Option<(Arc<Generation>, Option<Bytes>)> {
        timeout(PATIENCE, follower.has_frame()).await.ok()?;
        let _turn = self.turn.acquire().await.ok()?;
        let (generation, frame) = follower.frame()?;
        let picture = still::jpeg(self.ffmpeg.as_deref()?, frame).await;
        if let Err(error) = &picture {
            let point = point.upgrade();
            tracing::debug!(point = point.as_ref().map(|point| point.name()), error, "there is no still of it");
        }
        Some((generation, picture.ok()))
    }

    /// Listens to a publishing point from now on, if not already.
    fn follow(self: &Arc<Self>, point: &Arc<Point>) -> Arc<Follower> {
        let now = Instant::now();
        let mut kept = self.lock();
        if let Some(followed) = kept.points.iter_mut().find(|followed| followed.is_of(point)) {
            followed.asked_at = now;
            return Arc::clone(&followed.follower);
        }
        if kept.points.len() >= FOLLOWED_MAX
            && let Some(oldest) = (0..kept.points.len()).min_by_key(|i| kept.points.get(*i).map(|followed| followed.asked_at))
        {
            kept.points.swap_remove(oldest);
        }
        let follower = Arc::new(Follower::default());
        let made = Made::default();
        kept.points.push(Followed { point: Arc::downgrade(point), follower: Arc::clone(&follower), asked_at: now, made });
        let is_first = !std::mem::replace(&mut kept.swept, true);
        drop(kept);
        let port: Arc<dyn ShardPort> = follower.clone();
        point.follow(&port);
        if is_first {
            tokio::spawn(Arc::clone(self).sweep());
        }
        follower
    }

    /// Forgets what nobody asks for, until that is all.
    async fn sweep(self: Arc<Self>) {
        loop {
            sleep(IDLE / 2).await;
            let mut kept = self.lock();
            kept.points.retain(|followed| followed.asked_at.elapsed() < IDLE);
            if kept.points.is_empty() {
                kept.swept = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    fn is_of(&self, point: &Arc<Point>) -> bool {
        std::ptr::eq(self.point.as_ptr(), Arc::as_ptr(point))
    }
}

/// Hears what a publishing point sends, and keeps the last key frame of it.
#[derive(Default)]
struct Follower {
    held: Mutex<Held>,
    news: Notify,
}

#[derive(Default)]
struct Held {
    generation: Option<Arc<Generation>>,
    /// From a key frame on.
    coming: Vec<Part>,
    /// Stream and number of the media object that this key frame is, where its packet tells.
    object: Option<(u8, u32)>,
    /// The one before that, whole.
    frame: Vec<Part>,
}

/// Packets of a batch from this one on.
type Part = (Arc<Batch>, usize);

impl Follower {
    /// Waits for a key frame.
    async fn has_frame(&self) {
        loop {
            let news = self.news.notified();
            if !self.lock().frame.is_empty() {
                return;
            }
            news.await;
        }
    }

    /// Header and packets of the last key frame.
    fn frame(&self) -> Option<(Arc<Generation>, Bytes)> {
        let (generation, parts) = {
            let held = self.lock();
            (held.generation.clone()?, held.frame.clone())
        };
        let mut asf = BytesMut::from(&*generation.header);
        for (batch, from) in parts {
            let begin = from.saturating_mul(batch.generation.packet_size);
            let room =
                FRAME_BYTES_MAX.saturating_sub(asf.len()) / batch.generation.packet_size.max(1) * batch.generation.packet_size;
            let packets = batch.bytes.get(begin..).unwrap_or_default();
            asf.extend_from_slice(packets.get(..room).unwrap_or(packets));
        }
        Some((generation, asf.freeze()))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Whether a frame is whole by this.
    fn take(&mut self, batch: &Arc<Batch>) -> bool {
        if self.generation.as_ref().is_none_or(|generation| generation.number != batch.generation.number) {
            *self = Self { generation: Some(Arc::clone(&batch.generation)), ..Self::default() };
        }
        let mut is_whole = false;
        let from = match batch.packets.iter().rposition(|packet| packet.join_point) {
            Some(key) => {
                // The next one has begun.
                is_whole = self.finish();
                key
            }
            None if !self.coming.is_empty() => 0,
            None => return false,
        };
        self.coming.push((Arc::clone(batch), from));
        let next_begins = self.next_begins(batch, from);
        let began = self.coming.first().and_then(|(batch, from)| Some(batch.packets.get(*from)?.send_time_ms));
        let lasts = began.zip(batch.packets.last()).map(|(began, last)| last.send_time_ms.saturating_sub(began));
        let bytes: usize = self.coming.iter().map(|(batch, _)| batch.bytes.len()).sum();
        let is_over = lasts.is_some_and(|lasts| lasts >= FRAME_MS.max(batch.generation.preroll_ms));
        if next_begins || is_over || bytes >= FRAME_BYTES_MAX {
            is_whole |= self.finish();
        }
        is_whole
    }

    /// Whether the packets of a batch from one on show the media object behind the key frame; the first of them may be its beginning.
    fn next_begins(&mut self, batch: &Batch, from: usize) -> bool {
        let video = batch.generation.video;
        for payload in (from..batch.packets.len()).filter_map(|index| payloads(batch.packet(index)?).ok()).flatten() {
            match self.object {
                None if payload.key && payload.offset == 0 && video.contains(payload.stream) => {
                    self.object = Some((payload.stream, payload.object));
                }
                Some((stream, object)) if payload.stream == stream && payload.object != object => return true,
                _ => {}
            }
        }
        false
    }

    fn finish(&mut self) -> bool {
        if self.coming.is_empty() {
            return false;
        }
        self.frame = std::mem::take(&mut self.coming);
        self.object = None;
        true
    }
}

impl ShardPort for Follower {
    fn deliver(&self, delivery: Delivery) {
        let is_whole = match delivery {
            Delivery::Batch { batch, .. } => self.lock().take(&batch),
            Delivery::Generation { generation, .. } => {
                *self.lock() = Held { generation: Some(generation), ..Held::default() };
                false
            }
            Delivery::Vacated { .. } | Delivery::Ended { .. } => {
                *self.lock() = Held::default();
                false
            }
            // The last frame is still the last.
            Delivery::SourceLost { .. } => false,
        };
        if is_whole {
            self.news.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::StreamSet;
    use crate::asf::fabricate::command_packet;
    use crate::relay::{BatchPacket, PointId};

    fn generation(preroll_ms: u32, packet_size: usize) -> Arc<Generation> {
        let video: StreamSet = [1].into_iter().collect();
        let header = Bytes::from_static(b"H");
        let (number, bit_rate, ssrc, sequence) = (0, 0, 0, 0);
        Arc::new(Generation { number, header, packet_size, preroll_ms, bit_rate, streams: video, video, ssrc, sequence })
    }

    fn batch_of(generation: &Arc<Generation>, first: u64, packets: &[(u32, bool)], bytes: Vec<u8>) -> Arc<Batch> {
        let packet = |(number, &(send_time_ms, join_point))| BatchPacket {
            number,
            send_time_ms,
            join_point,
            key: join_point,
            used_len: 2,
        };
        let packets = (first..).zip(packets).map(packet).collect();
        let due = super::super::guard::now();
        Arc::new(Batch { generation: Arc::clone(generation), first, bytes: bytes.into(), packets, due })
    }

    /// Packets that hold their numbers, and no media.
    fn batch(first: u64, packets: &[(u32, bool)]) -> Arc<Batch> {
        let bytes = (first..).take(packets.len()).flat_map(|n| format!("{n:02}").into_bytes()).collect();
        batch_of(&generation(0, 2), first, packets, bytes)
    }

    #[test]
    fn the_last_key_frame_is_kept() {
        let follower = Follower::default();
        let tell = |batch: Arc<Batch>| follower.deliver(Delivery::Batch { point: PointId(0), batch });
        let frame = || follower.frame().map(|(_, frame)| String::from_utf8(frame.to_vec()).unwrap());
        tell(batch(0, &[(0, false), (40, false)]));
        assert_eq!(frame().as_deref(), Some("H"), "no key frame yet");
        tell(batch(2, &[(80, true), (80, false)]));
        tell(batch(4, &[(120, false)]));
        assert_eq!(frame().as_deref(), Some("H"), "not whole yet");
        tell(batch(5, &[(480, false)]));
        assert_eq!(frame().as_deref(), Some("H02030405"));
        tell(batch(6, &[(520, false)]));
        tell(batch(7, &[(560, false), (600, true)]));
        assert_eq!(frame().as_deref(), Some("H02030405"), "the one before, until the next is whole");
        // Every frame a key frame: the next one ends it.
        tell(batch(9, &[(640, true)]));
        assert_eq!(frame().as_deref(), Some("H08"));
        follower.deliver(Delivery::Ended { point: PointId(0) });
        assert_eq!(frame(), None);
    }

    #[test]
    fn a_key_frame_lasts_until_the_next_frame_begins_or_a_preroll_is_over() {
        let slow = generation(3000, 200);
        // A piece of media object 9 of stream 1, or of the one behind it.
        let key_piece = |offset| command_packet(0x81, offset, 90, &[7; 30]);
        let next = || {
            let mut packet = command_packet(0x01, 0, 90, &[7; 30]);
            packet[13] = 10;
            packet
        };
        let tell = |held: &mut Held, first, at_ms, join_point, packet| {
            held.take(&batch_of(&slow, first, &[(at_ms, join_point)], packet))
        };
        let mut held = Held::default();
        assert!(!tell(&mut held, 0, 0, true, key_piece(0)) && !tell(&mut held, 1, 900, false, key_piece(30)));
        assert!(!tell(&mut held, 2, 1800, false, key_piece(60)), "spread over two seconds");
        assert!(tell(&mut held, 3, 1900, false, next()), "whole");
        assert_eq!((held.frame.len(), held.object), (4, None));
        assert!(!tell(&mut held, 4, 2000, true, key_piece(0)) && !tell(&mut held, 5, 4900, false, key_piece(30)));
        assert!(tell(&mut held, 6, 5000, false, key_piece(60)), "3 s are over");
        // All in one packet, and the next frame in the same batch.
        let both = [key_piece(0), next()].concat();
        assert!(held.take(&batch_of(&slow, 7, &[(6000, true), (6000, false)], both)));
    }

    #[test]
    fn a_good_picture_outlives_a_failure() {
        let (now, of) = (Instant::now(), generation(0, 2));
        let (picture, other) = (Bytes::from_static(b"jpeg"), generation(0, 2));
        let mut made = Made::default();
        assert!(made.is_due(now, &of) && made.still(now, &of) == Still::None);
        made.in_flight = true;
        assert!(!made.is_due(now, &of), "one at a time");
        made.in_flight = false;
        made.note(now, Arc::clone(&of), Some(picture.clone()));
        assert!(!made.is_due(now, &of) && made.still(now, &of) == Still::Fresh(picture.clone()));
        let later = now + FRESH;
        assert!(made.is_due(later, &of) && made.still(later, &of) == Still::Older(picture.clone()));
        made.note(later, Arc::clone(&of), None);
        assert!(!made.is_due(later, &of) && made.still(later, &of) == Still::Older(picture));
        assert!(made.is_due(later + RETRY, &of));
        // Of what is sent behind another header there is none yet.
        assert!(made.is_due(later, &other) && made.still(later, &other) == Still::None);
    }
}
