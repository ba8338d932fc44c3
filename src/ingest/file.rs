//! Files played as a live source: in real time, one after the other, from the start again after the last.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tracing::{Instrument as _, info, info_span, warn};

use super::back_off::BackOff;
use super::fallback::{StandInError, guise, wait_for_turn};
use super::laps::Laps;
use super::lent::Tenure;
use super::playlist::{self, Item, Medium};
use super::stop::Stop;
use super::watched::Watched;
use super::{file_time, now};
use crate::asf::{Guise, Header, ParameterSets};
use crate::relay::{Loan, Point, PublishError, Publisher, PublisherId};
use crate::settings::Start;

/// Packets that are due so soon go along with the ones that are due now: fewer, larger batches.
const EARLY: Duration = Duration::from_millis(20);
/// Who is later than this (a machine that slept, a disk that hung) goes on from there instead of rushing after.
const LATE: Duration = Duration::from_secs(5);

/// Plays until it is dropped.
pub(super) async fn run(point: Arc<Point>, media: Vec<Medium>) {
    run_when(point, media, Start::Always, Duration::ZERO).await;
}

/// The same while somebody watches, if that is what `start` says: from the beginning each time.
pub(super) async fn run_when(point: Arc<Point>, media: Vec<Medium>, start: Start, linger: Duration) {
    let span = info_span!("file", point = point.name());
    let mut watched = Watched::new(&point, start);
    let mut player = Player { point, on_air: None, back_off: BackOff::new() };
    let work = async {
        loop {
            watched.begin().await;
            tokio::select! {
                () = player.run(media.clone()) => {}
                () = watched.end(linger) => info!("stopped, nobody watches"),
            }
            player.back_off = BackOff::new();
            if let Some(OnAir { publisher, .. }) = player.on_air.take() {
                publisher.end(now());
            }
        }
    };
    work.instrument(span).await;
}

/// Plays as what stands in for a source, under the header of that where decoders go on by it, until it is back.
///
/// # Errors
/// The source is back, or nothing can be played.
pub(super) async fn stand_in(publisher: Publisher, media: Vec<Medium>, sets: ParameterSets) -> Result<(), StandInError> {
    let mut items = playlist::read(media);
    let (mut seat, mut on_air) = (Some(publisher), None::<OnAir>);
    let mut failure = None;
    while let Some(item) = items.recv().await {
        match item {
            Item::Header(header) => {
                if let Some(publisher) = seat.take() {
                    let guise = guise(publisher.point(), &header, sets);
                    wait_for_turn(&publisher, guise.as_ref().map_or(&header, Guise::header)).await?;
                    on_air = Some(OnAir::begin(publisher, header, guise)?);
                } else if let Some(on_air) = &mut on_air {
                    if !header.continues(&on_air.header) {
                        let guise = guise(on_air.publisher.point(), &header, sets);
                        wait_for_turn(&on_air.publisher, guise.as_ref().map_or(&header, Guise::header)).await?;
                        on_air.guise = guise;
                    }
                    on_air.header(header)?;
                }
            }
            Item::Packets(packets) => {
                if let Some(on_air) = &mut on_air {
                    on_air.packets(packets).await?;
                }
            }
            Item::Failed { medium, reason } => failure = Some(StandInError::Medium { medium, reason }),
            Item::Nothing { .. } => break,
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Plays for a publishing point that is lent, and gives it back once nobody has watched for the linger.
pub(super) async fn run_lent(loan: Loan, media: Vec<Medium>, linger: Duration, stop: Stop) {
    let span = info_span!("file", point = loan.point().name(), name = loan.name());
    let mut tenure = Tenure::new(Arc::clone(loan.point()), Start::Watched, Some(loan));
    let lent = async {
        while tenure.begins().await {
            let mut player = Player { point: Arc::clone(tenure.point()), on_air: None, back_off: BackOff::new() };
            let mut watched = tenure.watched();
            tokio::select! {
                () = player.run(media.clone()) => return,
                () = watched.end(linger) => info!("ends, nobody watches"),
            }
        }
    };
    stop.until(lent.instrument(span)).await;
}

struct Player {
    point: Arc<Point>,
    on_air: Option<OnAir>,
    back_off: BackOff,
}

/// The state while something is played.
struct OnAir {
    publisher: Publisher,
    /// The medium's own.
    header: Header,
    /// What stands in may be sent under the header of the source.
    guise: Option<Guise>,
    laps: Laps,
    /// When the first packet was sent, or would have been.
    start: Instant,
    since: Instant,
}

impl Player {
    async fn run(&mut self, media: Vec<Medium>) {
        let mut items = playlist::read(media);
        let mut failure = String::new();
        while let Some(item) = items.recv().await {
            let outcome = match item {
                Item::Header(header) => self.header(header),
                Item::Packets(packets) => self.packets(packets).await,
                Item::Failed { medium, reason } => {
                    warn!(medium, reason, "cannot be played");
                    failure = format!("{medium} cannot be played: {reason}");
                    Ok(())
                }
                Item::Nothing { wait } => {
                    warn!(retry_s = wait.as_secs_f32(), "nothing can be played");
                    self.on_air = None;
                    self.point.source_failed(now(), &failure);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                let run = self.on_air.take().map(|on_air| on_air.since.elapsed()).unwrap_or_default();
                let wait = self.back_off.after(run);
                warn!(%error, retry_s = wait.as_secs_f32(), "the file is given up");
                self.point.source_failed(now(), &error.to_string());
                sleep(wait).await;
            }
        }
    }

    fn header(&mut self, header: Header) -> anyhow::Result<()> {
        if let Some(on_air) = &mut self.on_air {
            on_air.header(header)?;
        } else {
            let publisher = self.point.publish(now(), PublisherId::BuiltIn)?;
            info!(packet_size = header.packet_size(), bit_rate = header.bit_rate(), "begins");
            self.on_air = Some(OnAir::begin(publisher, header, None)?);
        }
        Ok(())
    }

    /// Sends packets, each when it is due.
    async fn packets(&mut self, packets: BytesMut) -> anyhow::Result<()> {
        // Given up: the next header begins anew.
        let Some(on_air) = &mut self.on_air else { return Ok(()) };
        Ok(on_air.packets(packets).await?)
    }
}

impl OnAir {
    fn begin(mut publisher: Publisher, header: Header, guise: Option<Guise>) -> Result<Self, PublishError> {
        publisher.header(now(), file_time(), guise.as_ref().map_or(&header, Guise::header))?;
        let mut laps = Laps::default();
        laps.begin(&header, false);
        Ok(Self { publisher, header, guise, laps, start: Instant::now(), since: Instant::now() })
    }

    fn header(&mut self, header: Header) -> Result<(), PublishError> {
        let joined = header.continues(&self.header);
        self.laps.begin(&header, joined);
        if !joined {
            self.publisher.header(now(), file_time(), self.guise.as_ref().map_or(&header, Guise::header))?;
            self.header = header;
        }
        Ok(())
    }

    async fn packets(&mut self, mut packets: BytesMut) -> Result<(), PublishError> {
        let size = self.header.packet_size();
        if let Some(guise) = &self.guise {
            for packet in packets.chunks_exact_mut(size) {
                // The publisher counts the invalid ones.
                let _ = guise.put_on(packet);
            }
        }
        // Bytes at the front that have their place on the timeline.
        let mut placed = 0;
        loop {
            let now = Instant::now();
            let mut wait = None;
            for packet in packets.get_mut(placed..).unwrap_or_default().chunks_exact_mut(size) {
                // The publisher counts the invalid ones and leaves them out.
                let due = self.laps.place(packet).map_or(now, |position_ms| self.due(position_ms, now));
                if due > now + EARLY {
                    wait = Some(due);
                    break;
                }
                placed += size;
            }
            self.publish(packets.split_to(placed))?;
            let Some(due) = wait else { return Ok(()) };
            sleep_until(due).await;
            placed = size;
        }
    }

    fn due(&mut self, position_ms: u64, now: Instant) -> Instant {
        let position = Duration::from_millis(position_ms);
        let due = self.start + position;
        if due + LATE < now {
            warn!(late_s = (now - due).as_secs(), "behind time, goes on from here");
            self.start += now - due;
            return now;
        }
        due
    }

    fn publish(&mut self, packets: BytesMut) -> Result<(), PublishError> {
        if packets.is_empty() { Ok(()) } else { self.publisher.packets(now(), packets).map(drop) }
    }
}

#[cfg(test)]
mod tests;
