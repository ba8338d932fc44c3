//! Stills: the last key frame of a publishing point as a picture.
//!
//! While a page asks for them, what is sent is listened to as a shard does, which starts no source, and the packets of the last key
//! frame are kept. ffmpeg makes a picture of them, one at a time and no more often than some seconds a publishing point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Duration, Instant, sleep, timeout};

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
/// Requests that wait at once; browsers ask for what they show.
const WAITING_MAX: usize = 64;
/// The first key frame is waited for so long.
const PATIENCE: Duration = Duration::from_secs(12);
/// The packets of a frame are all there when so much later ones have come.
const FRAME_MS: u32 = 400;
/// A frame of more bytes is cut off.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Makes and keeps the stills.
pub(super) struct Stills {
    kept: Mutex<Kept>,
    /// One ffmpeg at a time.
    turn: Semaphore,
    waiting: Semaphore,
    has_ffmpeg: bool,
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
    made: Option<Made>,
}

#[derive(Clone)]
struct Made {
    at: Instant,
    /// Of what; a picture of what was sent before another header is none any more.
    generation: Arc<Generation>,
    /// `None`: it could not be made.
    picture: Option<Bytes>,
}

impl Stills {
    /// None yet. Looks for ffmpeg.
    pub(super) fn new() -> Arc<Self> {
        let has_ffmpeg = still::has_ffmpeg();
        let (turn, waiting) = (Semaphore::new(1), Semaphore::new(WAITING_MAX));
        Arc::new(Self { kept: Mutex::default(), turn, waiting, has_ffmpeg })
    }

    /// Whether there is what makes them.
    pub(super) const fn can_be_made(&self) -> bool {
        self.has_ffmpeg
    }

    /// The last key frame as JPEG; `None` where there is none in time, or none that can be shown.
    pub(super) async fn of(self: &Arc<Self>, point: &Arc<Point>) -> Option<Bytes> {
        if !self.has_ffmpeg || point.generation().is_none_or(|generation| generation.video.is_empty()) {
            return None;
        }
        let _waits = self.waiting.try_acquire().ok()?;
        let follower = self.follow(point);
        if let Some(made) = self.made(point, true) {
            return made.picture;
        }
        // An older one is better than none.
        let older = || self.made(point, false).and_then(|made| made.picture);
        if timeout(PATIENCE, follower.has_frame()).await.is_err() {
            return older();
        }
        let _turn = self.turn.acquire().await.ok()?;
        if let Some(made) = self.made(point, true) {
            return made.picture;
        }
        let Some((generation, frame)) = follower.frame() else { return older() };
        let picture = still::jpeg(frame).await;
        if let Err(error) = &picture {
            tracing::debug!(point = point.name(), error, "there is no still of it");
        }
        let made = Made { at: Instant::now(), generation, picture: picture.ok() };
        if let Some(followed) = self.lock().points.iter_mut().find(|followed| followed.is_of(point)) {
            followed.made = Some(made.clone());
        }
        made.picture
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
        kept.points.push(Followed { point: Arc::downgrade(point), follower: Arc::clone(&follower), asked_at: now, made: None });
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

    /// What was made of what it sends now.
    fn made(&self, point: &Arc<Point>, fresh: bool) -> Option<Made> {
        let generation = point.generation()?;
        let kept = self.lock();
        let made = kept.points.iter().find(|followed| followed.is_of(point))?.made.as_ref()?;
        let good_for = if made.picture.is_some() { FRESH } else { RETRY };
        (Arc::ptr_eq(&made.generation, &generation) && (!fresh || made.at.elapsed() < good_for)).then(|| made.clone())
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
        match batch.packets.iter().rposition(|packet| packet.join_point) {
            Some(key) => {
                // The next one has begun.
                is_whole = self.finish();
                self.coming.push((Arc::clone(batch), key));
            }
            None if !self.coming.is_empty() => self.coming.push((Arc::clone(batch), 0)),
            None => {}
        }
        let began = self.coming.first().and_then(|(batch, from)| Some(batch.packets.get(*from)?.send_time_ms));
        let lasts = began.zip(batch.packets.last()).map(|(began, last)| last.send_time_ms.saturating_sub(began));
        let bytes: usize = self.coming.iter().map(|(batch, _)| batch.bytes.len()).sum();
        if lasts.is_some_and(|lasts| lasts >= FRAME_MS) || bytes >= FRAME_BYTES_MAX {
            is_whole |= self.finish();
        }
        is_whole
    }

    fn finish(&mut self) -> bool {
        if self.coming.is_empty() {
            return false;
        }
        self.frame = std::mem::take(&mut self.coming);
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
    use crate::relay::{BatchPacket, PointId};

    fn batch(first: u64, packets: &[(u32, bool)]) -> Arc<Batch> {
        let video: StreamSet = [1].into_iter().collect();
        let generation = Arc::new(Generation {
            number: 0,
            header: Bytes::from_static(b"H"),
            packet_size: 2,
            preroll_ms: 0,
            bit_rate: 0,
            streams: video,
            video,
            ssrc: 0,
            sequence: 0,
        });
        let bytes = (first..).take(packets.len()).flat_map(|n| format!("{n:02}").into_bytes()).collect::<Vec<_>>().into();
        let packet = |(number, &(send_time_ms, join_point))| BatchPacket {
            number,
            send_time_ms,
            join_point,
            key: join_point,
            used_len: 2,
        };
        let packets = (first..).zip(packets).map(packet).collect();
        Arc::new(Batch { generation, first, bytes, packets, due: super::super::guard::now() })
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
}
