//! The source side of a publishing point: who is on the air, and what becomes of their packets.

use std::time::{Duration, Instant};

use super::PublisherId;
use super::outbox::Outbox;
use crate::asf::{Header, PacketError};
use crate::relay::counted::Counted;
use crate::relay::delivery::Delivery;
use crate::relay::drops::{DropCause, Drops};
use crate::relay::faults::{Fault, Faults};
use crate::relay::point::Point;
use crate::relay::recutting::Recutting;
use crate::relay::stand_in::{Headed, Held, Role};
use crate::relay::timeline::Timeline;
use crate::settings::FOREVER;

/// A publisher that was silent for so long gives way to another one with the same credentials: its connection is
/// most likely dead, and the newcomer is the same encoder.
const SILENCE: Duration = Duration::from_secs(2);

/// The source side of a publishing point.
#[derive(Default)]
pub(in crate::relay) struct Feed {
    pub(super) timeline: Timeline,
    /// Between who is on the air and the timeline, where packets do not fit a datagram.
    pub(super) recutting: Option<Recutting>,
    pub(super) drops: Drops,
    pub(super) publisher: Option<Current>,
    pub(super) stand_in: Option<Current>,
    pub(super) on_air: Role,
    /// Of the source, while something stands in for it.
    pub(super) held: Option<Held>,
    /// The header that the source sent last, whether it is there or not.
    pub(super) source_header: Option<Header>,
    /// Since when there is no publisher; the first tick after the loss tells.
    pub(super) gone_since: Option<Instant>,
    /// Since when no packet of the source has come.
    pub(super) quiet_since: Option<Instant>,
    /// When the last packet came of what stands in.
    pub(super) stood_in: Option<Instant>,
    /// Whether packets came since the source was lost last.
    pub(super) up: bool,
    pub(super) tokens: u64,
    /// Publishers up to this token have to go: another source feeds it, or none.
    pub(super) expelled: u64,
    /// Nobody can feed it any more.
    pub(super) closed: bool,
    pub(super) counted: Counted,
    pub(super) faults: Faults,
    /// Since when something stands in for the source.
    pub(super) stands_in_since: Option<Instant>,
}

pub(super) struct Current {
    /// Tells this publisher from earlier ones.
    pub(super) token: u64,
    pub(super) id: PublisherId,
    /// When it last gave a sign of life.
    pub(super) active: Instant,
    /// The header that it sent last.
    pub(super) header: Option<Headed>,
    pub(super) invalid_in_a_row: u32,
    /// It is told to go.
    pub(super) dismissed: bool,
}

impl Current {
    pub(super) const fn new(token: u64, id: PublisherId, now: Instant) -> Self {
        Self { token, id, active: now, header: None, invalid_in_a_row: 0, dismissed: false }
    }

    /// Whether it gives way to another one with the same credentials.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.active) >= SILENCE
    }
}

impl Feed {
    /// Ends the stream of a source that stayed away, or silent, for longer than its time-out, and that nothing stood in for.
    pub(in crate::relay) fn tick(&mut self, now: Instant, point: &Point) {
        self.counted.tick(now);
        if self.recutting.as_ref().is_some_and(|recutting| recutting.is_overdue(now)) {
            self.flush(now, point);
        }
        let since = match &self.publisher {
            Some(current) => current.active,
            None => *self.gone_since.get_or_insert(now),
        };
        let since = self.stood_in.map_or(since, |stood_in| stood_in.max(since));
        let timed_out = |timeout| now.saturating_duration_since(since) >= timeout;
        if point.settings().source_timeout.is_some_and(timed_out) && self.timeline.generation().is_some() {
            self.flush(now, point);
            self.end(point);
        }
    }

    pub(in crate::relay) const fn is_up(&self) -> bool {
        self.up
    }

    /// The source ended, or could not begin, and nobody had told it to go.
    pub(in crate::relay) fn failed(&mut self, now: Instant, reason: &str, point: &Point) {
        if self.faults.note(now, reason) {
            self.counted.restarts += 1;
            point.meters().restarts.increment(1);
        }
    }

    /// What would be lent to a name brought nothing.
    pub(in crate::relay) fn name_failed(&mut self, now: Instant, reason: &str) {
        self.faults.note(now, reason);
        // Names have nothing to do with each other: there is no row of faults.
        self.faults.came();
    }

    pub(in crate::relay) const fn last_fault(&self) -> Option<&Fault> {
        self.faults.last()
    }

    pub(in crate::relay) const fn stands_in_since(&self) -> Option<Instant> {
        self.stands_in_since
    }

    pub(in crate::relay) const fn counted(&self) -> Counted {
        self.counted
    }

    /// Tells the publisher to go, with its next sign of life; whether there is one.
    pub(in crate::relay) const fn dismiss(&mut self) -> bool {
        match &mut self.publisher {
            Some(publisher) => {
                publisher.dismissed = true;
                self.faults.tell_to_go();
                true
            }
            None => false,
        }
    }

    pub(in crate::relay) fn is_on_fallback(&self) -> bool {
        self.on_air == Role::StandIn
    }

    pub(in crate::relay) const fn has_publisher(&self) -> bool {
        self.publisher.is_some()
    }

    /// Whether there is no publisher, or one that gives way.
    pub(in crate::relay) fn awaits_publisher(&self, now: Instant) -> bool {
        self.publisher.as_ref().is_none_or(|current| current.is_silent(now))
    }

    /// The header that the source sent last.
    pub(in crate::relay) const fn source_header(&self) -> Option<&Header> {
        self.source_header.as_ref()
    }

    /// The source is asked for from now on: its silence counts from here.
    pub(in crate::relay) const fn expect_source(&mut self, now: Instant) {
        self.quiet_since = Some(now);
    }

    /// How long it is until something may stand in for the source, if that stays silent; [`FOREVER`] where nothing may.
    pub(super) fn stand_in_wait(&mut self, now: Instant, point: &Point) -> Duration {
        let Some(after) = point.settings().fallback.as_ref().map(|fallback| fallback.after) else { return FOREVER };
        if self.closed {
            return FOREVER;
        }
        if self.on_air == Role::StandIn {
            return Duration::ZERO;
        }
        let silence = now.saturating_duration_since(*self.quiet_since.get_or_insert(now));
        after.saturating_sub(silence)
    }

    /// Ends the stream, whoever feeds it.
    pub(in crate::relay) fn end(&mut self, point: &Point) {
        self.timeline.end();
        self.down(point);
        if !self.source_is_headed() {
            // Whose header comes next begins.
            self.put_on_air(Role::Source, point);
        }
        point.set_generation(None);
        point.deliver(&Delivery::Ended { point: point.id() });
    }

    /// Whoever feeds it as the source does so no longer, and hears of it with the next sign of life.
    pub(in crate::relay) fn expel(&mut self, point: &Point) {
        self.expelled = self.tokens;
        let Some(current) = self.publisher.take() else { return };
        self.faults.tell_to_go();
        if self.on_air == Role::Source {
            self.flush(current.active, point);
        }
        self.held = None;
        self.down(point);
        point.deliver(&Delivery::SourceLost { point: point.id() });
    }

    /// Whether commands of who feeds it may open something is said anew, by the settings.
    pub(in crate::relay) fn judge_commands(&mut self, point: &Point) {
        for current in [&mut self.publisher, &mut self.stand_in].into_iter().flatten() {
            if let Some(headed) = &mut current.header {
                headed.commands = Headed::commands_of(&headed.header, point);
            }
        }
    }

    pub(in crate::relay) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nobody can feed it from now on.
    pub(in crate::relay) fn close(&mut self) {
        self.closed = true;
        self.stand_in = None;
    }

    /// As if nothing had ever come; tokens run on, so that an old publisher is none of the next one's.
    pub(in crate::relay) fn forget(&mut self, point: &Point) {
        self.down(point);
        self.put_on_air(Role::Source, point);
        *self = Self { tokens: self.tokens, expelled: self.expelled, closed: self.closed, ..Self::default() };
    }

    pub(super) const fn current(&mut self, role: Role) -> Option<&mut Current> {
        match role {
            Role::Source => self.publisher.as_mut(),
            Role::StandIn => self.stand_in.as_mut(),
        }
    }

    pub(super) fn source_is_headed(&self) -> bool {
        self.publisher.as_ref().is_some_and(|current| current.header.is_some())
    }

    pub(super) fn stand_in_headed(&self) -> bool {
        self.stand_in.as_ref().is_some_and(|current| current.header.is_some())
    }

    pub(super) fn put_on_air(&mut self, role: Role, point: &Point) {
        if std::mem::replace(&mut self.on_air, role) == role {
            return;
        }
        self.held = None;
        match role {
            Role::Source => {
                self.stands_in_since = None;
                point.meters().fallback.decrement(1);
            }
            Role::StandIn => {
                point.meters().fallback.increment(1);
                point.meters().fallbacks.increment(1);
            }
        }
    }

    /// Packets of this header follow, on the timeline.
    pub(super) fn begin(&mut self, now: Instant, headed: &Headed, point: &Point) {
        let opened = self.timeline.header(now, headed.created(now), headed.taken(), &mut || point.file_id());
        let before = self.recutting.take().map(|before| before.source_size());
        self.recutting = headed.fitting.as_ref().map(|fitting| Recutting::new(&headed.header, fitting));
        if let Some(recutting) = &self.recutting
            && (opened.is_some() || before != Some(recutting.source_size()))
        {
            tracing::info!(
                point = point.name(),
                packet_size = recutting.source_size(),
                recut_to = recutting.packet_size(),
                "packets of this source do not fit a datagram and are cut anew; the encoder's -packet_size {} would spare it",
                recutting.packet_size()
            );
        }
        if let Some(generation) = opened {
            point.open_generation(generation);
        }
    }

    /// Gives a packet of who is on the air its place, or cuts it anew.
    ///
    /// # Errors
    /// [`PacketError`] where that cannot be done: it is left out.
    pub(super) fn place(&mut self, now: Instant, packet: &mut [u8], outbox: &mut Outbox<'_>) -> Result<(), PacketError> {
        match &mut self.recutting {
            Some(recutting) => recutting.push(now, packet),
            None => outbox.place(&mut self.timeline, now, packet),
        }
    }

    /// Gives what was cut anew its place.
    pub(super) fn place_cut(&mut self, now: Instant, outbox: &mut Outbox<'_>) {
        if let Some(recutting) = &mut self.recutting {
            outbox.place_all(&mut self.timeline, &mut self.drops, now, recutting.take_full(), recutting.packet_size());
        }
    }

    /// Keeps a packet of the source while something stands in for it.
    ///
    /// # Errors
    /// [`PacketError`] where it is invalid: it is left out.
    pub(super) fn hold(&mut self, packet: &[u8]) -> Result<(), PacketError> {
        let headed = self.publisher.as_ref().and_then(|current| current.header.as_ref());
        let Some(headed) = headed else { return Ok(()) };
        self.held.get_or_insert_with(|| Held::new(headed.header.video())).push(packet)
    }

    /// Gives the source its place back, if viewers can go on with what is held of it.
    pub(super) fn take_back(&mut self, now: Instant, outbox: &mut Outbox<'_>) {
        let headed = self.publisher.as_ref().and_then(|current| current.header.as_ref());
        let Some(headed) = headed.filter(|_| self.held.as_ref().is_some_and(Held::is_ready)) else { return };
        if !self.timeline.header_wait(now, headed.taken()).is_zero() {
            return;
        }
        let (headed, point) = (headed.clone(), outbox.point);
        let Some(held) = self.held.take() else { return };
        self.flush(now, point);
        self.stand_in = None;
        self.put_on_air(Role::Source, point);
        self.begin(now, &headed, point);
        for packet in held.into_packets().chunks_exact_mut(headed.header.packet_size()) {
            // They are sound, but cutting may fail.
            if let Err(error) = self.place(now, packet, outbox) {
                point.drops(&mut self.drops, now, DropCause::Uncut, &error);
            }
        }
    }

    /// Sends what re-cutting has not filled yet.
    pub(super) fn flush(&mut self, now: Instant, point: &Point) {
        let Some((since, packet)) = self.recutting.as_mut().and_then(Recutting::take_open) else { return };
        let mut outbox = Outbox::new(point, now, 0);
        // On the timeline it stands where its send time belongs: when the source packet came that it begins with.
        let packet_size = packet.len();
        outbox.place_all(&mut self.timeline, &mut self.drops, since, packet, packet_size);
        outbox.send();
    }

    pub(super) fn down(&mut self, point: &Point) {
        if std::mem::take(&mut self.up) {
            point.tell_source(false);
        }
    }
}
