//! One timeline for viewers, whatever the source's clock does.

use std::sync::Arc;
use std::time::Instant;

use super::batch::{BatchPacket, Generation};
use super::join_points::JoinPoints;
use crate::asf::{Header, ObjectNumbers, PacketError, Shift, shift};
use crate::wire::Guid;

/// A source's send times may step back by so much, or ahead of the time that really passed, before they are
/// taken for another clock.
const LEAP_MS: i64 = 5000;

/// Times beyond get a generation of their own that begins near zero again: players read them as signed numbers, and
/// break where they wrap.
const LAST_SEND_TIME_MS: u32 = 0x7FFF_FFFF;

/// Where a timeline begins that is moved near zero, so that presentation times a little before their send times
/// do not wrap below it.
const NEAR_ZERO_MS: u32 = 1000;

/// Ticks of 100 ns, as FILETIME counts them, in a millisecond.
const FILETIME_PER_MS: u64 = 10_000;

/// Makes File IDs.
pub(super) type FileIds<'a> = &'a mut dyn FnMut() -> Guid;

/// The generations, packet numbers and times of one publishing point.
///
/// Packet numbers run on for ever. Times run on within a generation: a source that comes back with an equal header,
/// or leaps on its own clock, is moved by one constant so that it goes on as much later as really passed.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    source: Option<Source>,
    open: Option<Open>,
    objects: ObjectNumbers,
    /// Number of the next generation.
    generations: u32,
    /// Number of the next packet.
    packets: u64,
}

/// The header that the source sent last.
#[derive(Debug)]
struct Source {
    header: Header,
    /// The File Properties' creation date, 100 ns since 1601, and when that was.
    created: u64,
    at: Instant,
}

#[derive(Debug)]
struct Open {
    generation: Arc<Generation>,
    joins: JoinPoints,
    /// Added to the source's times; wraps.
    delta_ms: u32,
    /// The source starts over: what comes next is not on the clock of what came last.
    anew: bool,
    latest: Option<Latest>,
}

/// The end of what was placed so far.
#[derive(Debug, Clone, Copy)]
struct Latest {
    /// The latest send time, as viewers see it.
    send_time_ms: u32,
    /// When the last packet came.
    at: Instant,
}

/// A packet that has its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// The generation that begins with the packet.
    pub(super) opened: Option<Arc<Generation>>,
    pub(super) number: u64,
    pub(super) packet: BatchPacket,
}

impl Timeline {
    /// The size of the source's packets; `None` before its header.
    pub(super) fn packet_size(&self) -> Option<usize> {
        self.source.as_ref().map(|source| source.header.packet_size())
    }

    /// The current generation; `None` before the first header and after the end.
    pub(super) fn generation(&self) -> Option<&Arc<Generation>> {
        self.open.as_ref().map(|open| &open.generation)
    }

    /// Takes the header of a source that begins, and returns the generation that it opens; `None` if it continues
    /// the current one.
    pub(super) fn header(
        &mut self,
        now: Instant,
        created: u64,
        header: &Header,
        file_ids: FileIds<'_>,
    ) -> Option<Arc<Generation>> {
        let continues = self.source.as_ref().is_some_and(|source| header.continues(&source.header));
        if let Some(open) = self.open.as_mut().filter(|_| continues) {
            open.anew = true;
            self.objects.restart();
            return None;
        }
        self.objects = ObjectNumbers::new();
        self.source = Some(Source { header: header.clone(), created, at: now });
        self.begin(now, file_ids)
    }

    /// Ends the current generation: whatever comes next opens another one.
    pub(super) fn end(&mut self) {
        self.open = None;
    }

    /// Gives a packet its number, and moves its times and object numbers to where they belong.
    ///
    /// Without a header there is no place and `None`.
    ///
    /// # Errors
    /// [`PacketError`] where the packet is invalid: it has no place, and nothing else changes.
    pub(super) fn place(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        file_ids: FileIds<'_>,
    ) -> Result<Option<Placed>, PacketError> {
        let delta_ms = self.open.as_ref().map_or(0, |open| open.delta_ms);
        let mut info = self.objects.shift(packet, delta_ms)?;
        let goal = self.open.as_ref().map_or(info.send_time_ms.into(), |open| open.goal_ms(now, info.send_time_ms));
        let goal = u32::try_from(goal).ok().filter(|goal| *goal <= LAST_SEND_TIME_MS);
        let used_up = |open: &Open| goal.is_none() && open.latest.is_some();
        let opened = if self.open.as_ref().is_none_or(used_up) { self.begin(now, file_ids) } else { None };
        let Some(open) = &mut self.open else { return Ok(None) };

        let send_time_ms = goal.unwrap_or(NEAR_ZERO_MS);
        let correction_ms = send_time_ms.wrapping_sub(info.send_time_ms);
        if correction_ms != 0 {
            info = shift(packet, &Shift::times(correction_ms))?;
        }
        open.delta_ms = delta_ms.wrapping_add(correction_ms);
        open.anew = false;
        let latest_ms = open.latest.map_or(send_time_ms, |latest| latest.send_time_ms.max(send_time_ms));
        open.latest = Some(Latest { send_time_ms: latest_ms, at: now });
        let join_point = open.joins.notes(&info);
        let number = self.packets;
        self.packets += 1;
        Ok(Some(Placed { opened, number, packet: BatchPacket { send_time_ms, join_point, used_len: info.used_len } }))
    }

    fn begin(&mut self, now: Instant, file_ids: FileIds<'_>) -> Option<Arc<Generation>> {
        let Source { header, created, at } = self.source.as_ref()?;
        let elapsed_ms = u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX);
        let created = created.saturating_add(elapsed_ms.saturating_mul(FILETIME_PER_MS));
        let generation = Arc::new(Generation {
            number: self.generations,
            header: header.broadcast(file_ids(), created),
            packet_size: header.packet_size(),
            preroll_ms: header.preroll_ms(),
            bit_rate: header.bit_rate(),
            streams: header.streams().iter().map(|stream| stream.number).collect(),
            video: header.video(),
        });
        self.generations = self.generations.wrapping_add(1);
        let joins = JoinPoints::new(generation.video);
        self.open = Some(Open { generation: Arc::clone(&generation), joins, delta_ms: 0, anew: false, latest: None });
        Some(generation)
    }
}

impl Open {
    /// Where a packet belongs that has this send time by the present shift, milliseconds; it may be beyond u32.
    fn goal_ms(&self, now: Instant, send_time_ms: u32) -> u64 {
        let Some(latest) = self.latest else { return send_time_ms.into() };
        let elapsed_ms = i64::try_from(now.saturating_duration_since(latest.at).as_millis()).unwrap_or(i64::MAX / 2);
        let latest_ms = i64::from(latest.send_time_ms);
        // Both wrap, their distance does not.
        let ahead_ms = i64::from(send_time_ms.wrapping_sub(latest.send_time_ms).cast_signed());
        let leaps = ahead_ms < -LEAP_MS || ahead_ms > LEAP_MS + elapsed_ms;
        let step_ms = if self.anew || leaps { elapsed_ms.max(1) } else { ahead_ms };
        u64::try_from(latest_ms + step_ms).unwrap_or(latest.send_time_ms.into())
    }
}
