//! Another publishing point's packets, from its newest key frame on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout};

use super::super::{file_time, now};
use super::{StandInError, guise, wait_for_turn};
use crate::asf::{Guise, Header, ParameterSets};
use crate::relay::{Batch, Delivery, Generation, Point, Publisher, ShardPort};

/// Bytes that are kept: where the newest key frame is further back, the next one is waited for. The windows of viewers hold most of
/// them anyway.
const KEPT_BYTES: usize = 8 << 20;
/// So often it is asked whether the source is back while the other publishing point has nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Hears what a publishing point tells the shards.
#[derive(Default)]
pub(super) struct Tap {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Default)]
struct Kept {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// What comes continues what is here, or was taken.
    in_step: bool,
    /// Pieces are taken as they come; else only those since the newest key frame are kept.
    is_live: bool,
}

/// Packets of a batch.
struct Piece {
    batch: Arc<Batch>,
    /// The first of them.
    from: usize,
}

impl Tap {
    pub(super) fn new(point: &Point) -> Arc<Self> {
        let tap = Arc::new(Self::default());
        let port: Arc<dyn ShardPort> = tap.clone();
        point.follow(&port);
        tap
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Piece> {
        let mut kept = self.lock();
        let piece = kept.pieces.pop_front()?;
        kept.bytes -= piece.batch.bytes.len();
        Some(piece)
    }

    async fn next(&self) -> Piece {
        loop {
            if let Some(piece) = self.take() {
                return piece;
            }
            // Holds a permit where something came in between.
            self.news.notified().await;
        }
    }
}

impl ShardPort for Tap {
    fn deliver(&self, delivery: Delivery) {
        let mut kept = self.lock();
        match delivery {
            Delivery::Batch { batch, .. } => kept.push(batch),
            Delivery::Generation { .. } | Delivery::Ended { .. } | Delivery::Vacated { .. } => kept.clear(),
            Delivery::SourceLost { .. } => {}
        }
        drop(kept);
        self.news.notify_one();
    }
}

impl Kept {
    fn push(&mut self, batch: Arc<Batch>) {
        let newest = batch.packets.iter().rposition(|packet| packet.join_point);
        let mut from = 0;
        if let Some(newest) = newest.filter(|_| !self.is_live || !self.in_step) {
            self.clear();
            (self.in_step, from) = (true, newest);
        }
        if !self.in_step {
            return;
        }
        self.bytes += batch.bytes.len();
        self.pieces.push_back(Piece { batch, from });
        if self.bytes > KEPT_BYTES {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        (self.bytes, self.in_step) = (0, false);
    }
}

/// While it lives, packets are taken as they come.
struct Live<'t>(&'t Tap);

impl<'t> Live<'t> {
    fn begin(tap: &'t Tap) -> Self {
        tap.lock().is_live = true;
        Self(tap)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.lock();
        kept.is_live = false;
        // What was taken is missing.
        kept.clear();
    }
}

/// Shows what `other` shows until the source is back.
///
/// # Errors
/// [`StandInError`]; the source's return is one of them.
pub(super) async fn stand_in(mut publisher: Publisher, other: &Arc<Point>, tap: &Tap) -> Result<(), StandInError> {
    // Where it starts when it is watched, it is from now on.
    let _watch = other.watch();
    let _live = Live::begin(tap);
    let mut current: Option<Arc<Generation>> = None;
    let mut guised: Option<Guise> = None;
    loop {
        let Ok(Piece { batch, from }) = timeout(LOOK, tap.next()).await else {
            publisher.alive(now())?;
            continue;
        };
        let is_new = current.as_ref().is_none_or(|current| current.number != batch.generation.number);
        if is_new {
            let header = Header::parse(&batch.generation.header)?;
            guised = guise(publisher.point(), &header, ParameterSets::InHeader);
            let shown = guised.as_ref().map_or(&header, Guise::header);
            wait_for_turn(&publisher, shown).await?;
            publisher.header(now(), file_time(), shown)?;
            current = Some(Arc::clone(&batch.generation));
        }
        let bytes = batch.bytes.get(from * batch.generation.packet_size..).unwrap_or_default();
        // What was kept fills the silence before: its times are those at which it came.
        let came = Instant::from_std(batch.due).min(Instant::now());
        let mut packets = BytesMut::from(bytes);
        if let Some(guise) = &guised {
            for packet in packets.chunks_exact_mut(batch.generation.packet_size.max(1)) {
                // They were found sound.
                let _ = guise.put_on(packet);
            }
        }
        publisher.packets(came.into_std(), packets)?;
    }
}
