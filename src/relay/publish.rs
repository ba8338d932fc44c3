//! How a source feeds a publishing point.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use thiserror::Error;

use super::batch::{Batch, BatchPacket, Generation};
use super::counted::Counted;
use super::delivery::Delivery;
use super::drops::{DropCause, Drops};
use super::point::Point;
use super::recutting::Recutting;
use super::stand_in::{Headed, Held, Role};
use super::timeline::Timeline;
use crate::asf::{Header, PacketError, StreamSet, blank_url_commands, walk};
use crate::settings::{FOREVER, Source};

/// A publisher that was silent for so long gives way to another one with the same credentials: its connection is
/// most likely dead, and the newcomer is the same encoder.
const SILENCE: Duration = Duration::from_secs(2);

/// So many invalid packets one after the other are no accident.
const INVALID_IN_A_ROW: u32 = 50;

/// Who publishes: what has to be equal for a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublisherId {
    /// A user who gave the password.
    User(String),
    /// A program on this machine, without a password.
    Local,
    /// The daemon's own source of the publishing point: file, child process, demo.
    BuiltIn,
}

/// Why nobody may publish under a name now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefusal {
    /// There is no such publishing point.
    #[error("there is no publishing point {name:?}; add it to the settings with `source = {{ type = \"push\" }}`")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The publishing point has a source of its own.
    #[error("publishing point {name:?} has a source of another type than \"push\"")]
    NotPush {
        /// The name asked for.
        name: String,
    },
    /// Somebody publishes already.
    #[error("publishing point {name:?} has a publisher already; its connection must end or fall silent first")]
    Busy {
        /// The name asked for.
        name: String,
    },
}

/// Why a publisher cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Another connection of the same publisher took over.
    #[error("another connection with the same credentials took over after this one was silent for 2 s")]
    Superseded,
    /// An operator ended it.
    #[error("an operator disconnected it, or the settings say no longer that it feeds this")]
    Dismissed,
    /// What stood in for a source gives way to it, which is back.
    #[error("the source is back")]
    Yielded,
    /// Packets before the header.
    #[error("packets came before an ASF header")]
    NoHeader,
    /// The bytes are not whole packets.
    #[error("{len} bytes are not a whole number of packets of {packet_size} bytes")]
    NotWhole {
        /// Bytes that came.
        len: usize,
        /// The packet size by the source's header.
        packet_size: usize,
    },
    /// Too many invalid packets one after the other.
    #[error("{count} invalid ASF packets in a row, the last one: {last}; does the header belong to this stream?")]
    Invalid {
        /// How many.
        count: u32,
        /// What was wrong with the last one.
        last: PacketError,
    },
}

/// What became of the source's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Sent on, as they are or cut anew.
    pub packets: u64,
    /// Invalid, and left out.
    pub invalid: u64,
}

/// The source side of a publishing point.
#[derive(Default)]
pub(super) struct Feed {
    timeline: Timeline,
    /// Between who is on the air and the timeline, where packets do not fit a datagram.
    recutting: Option<Recutting>,
    drops: Drops,
    publisher: Option<Current>,
    stand_in: Option<Current>,
    on_air: Role,
    /// Of the source, while something stands in for it.
    held: Option<Held>,
    /// The header that the source sent last, whether it is there or not.
    source_header: Option<Header>,
    /// Since when there is no publisher; the first tick after the loss tells.
    gone_since: Option<Instant>,
    /// Since when no packet of the source has come.
    quiet_since: Option<Instant>,
    /// When the last packet came of what stands in.
    stood_in: Option<Instant>,
    /// Whether packets came since the source was lost last.
    up: bool,
    tokens: u64,
    /// Publishers up to this token have to go: another source feeds it, or none.
    expelled: u64,
    /// Nobody can feed it any more.
    closed: bool,
    counted: Counted,
}

struct Current {
    /// Tells this publisher from earlier ones.
    token: u64,
    id: PublisherId,
    /// When it last gave a sign of life.
    active: Instant,
    /// The header that it sent last.
    header: Option<Headed>,
    invalid_in_a_row: u32,
    /// It is told to go.
    dismissed: bool,
}

impl Current {
    const fn new(token: u64, id: PublisherId, now: Instant) -> Self {
        Self { token, id, active: now, header: None, invalid_in_a_row: 0, dismissed: false }
    }

    /// Whether it gives way to another one with the same credentials.
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.active) >= SILENCE
    }
}

/// The right to feed a publishing point; the source is gone when it is dropped.
pub struct Publisher {
    point: Arc<Point>,
    token: u64,
    role: Role,
}

impl Publisher {
    pub(super) fn new(point: Arc<Point>, now: Instant, id: PublisherId) -> Result<Self, PublishRefusal> {
        let name = || point.name().to_owned();
        // Under the lock under which the settings change: else who was let in by those before would not be among those expelled.
        let mut feed = point.lock_feed();
        let pushed = matches!(point.settings().source, Source::Push);
        if !pushed && id != PublisherId::BuiltIn {
            return Err(PublishRefusal::NotPush { name: name() });
        }
        if feed.closed {
            return Err(PublishRefusal::Unknown { name: name() });
        }
        if let Some(current) = &feed.publisher
            && (current.id != id || !current.is_silent(now))
        {
            return Err(PublishRefusal::Busy { name: name() });
        }
        feed.tokens += 1;
        let token = feed.tokens;
        feed.publisher = Some(Current::new(token, id, now));
        feed.gone_since = None;
        feed.held = None;
        drop(feed);
        Ok(Self { point, token, role: Role::Source })
    }

    /// For what stands in for the source, once its turn has come; else how long that takes if the source stays silent.
    pub(super) fn stand_in(point: Arc<Point>, now: Instant) -> Result<Self, Duration> {
        let mut feed = point.lock_feed();
        let wait = feed.stand_in_wait(now, &point);
        if !wait.is_zero() {
            return Err(wait);
        }
        feed.tokens += 1;
        let token = feed.tokens;
        feed.stand_in = Some(Current::new(token, PublisherId::BuiltIn, now));
        drop(feed);
        Ok(Self { point, token, role: Role::StandIn })
    }

    /// The publishing point that is fed.
    pub fn point(&self) -> &Arc<Point> {
        &self.point
    }

    /// Bytes came that are no whole packet yet: the source is not silent.
    ///
    /// # Errors
    /// [`PublishError::Superseded`].
    pub fn alive(&self, now: Instant) -> Result<(), PublishError> {
        self.lock(now).map(drop)
    }

    /// How long to wait before [`Publisher::header`]: headers that make viewers begin anew come 5 s apart at least,
    /// whichever connection brings them. Sources that are not trusted are to be held for so long. A source that something stands in
    /// for is not: viewers get its header with its packets.
    ///
    /// # Errors
    /// [`PublishError::Superseded`] and [`PublishError::Yielded`].
    pub fn header_wait(&self, now: Instant, header: &Header) -> Result<Duration, PublishError> {
        let fitting = self.point.fitting(header);
        let feed = self.lock(now)?;
        if self.role == Role::Source && feed.on_air == Role::StandIn {
            return Ok(Duration::ZERO);
        }
        Ok(feed.timeline.header_wait(now, fitting.as_ref().unwrap_or(header)))
    }

    /// The source begins, or begins anew, with this header. `created` is the present time as FILETIME, 100 ns since 1601.
    ///
    /// A header that continues the current one keeps it: packets go on where the last ones ended, as much later as
    /// time passed. Any other opens a new generation. Where the settings say so and packets do not fit a datagram, viewers
    /// get a header for smaller ones, and it is that one which continues or does not. While something stands in for the source
    /// all that waits for the packet that gives the source its place back.
    ///
    /// # Errors
    /// [`PublishError::Superseded`]; [`PublishError::Yielded`] where the source came back before what was to stand in for it.
    pub fn header(&mut self, now: Instant, created: u64, header: &Header) -> Result<(), PublishError> {
        let mut guard = self.lock(now)?;
        let feed = &mut *guard;
        let headed = Headed::new(now, created, header, &self.point);
        match self.role {
            Role::Source => {
                let is_back = feed.source_header.replace(header.clone()).is_some();
                feed.held = None;
                let current = feed.publisher.as_mut().ok_or(PublishError::Superseded)?;
                if current.header.replace(headed.clone()).is_none() && is_back {
                    self.point.meters().restarts.increment(1);
                    feed.counted.restarts += 1;
                }
                if feed.on_air == Role::StandIn {
                    return Ok(());
                }
            }
            Role::StandIn => {
                if !feed.stand_in_wait(now, &self.point).is_zero() {
                    return Err(PublishError::Yielded);
                }
                let current = feed.stand_in.as_mut().ok_or(PublishError::Yielded)?;
                current.header = Some(headed.clone());
            }
        }
        feed.flush(now, &self.point);
        feed.put_on_air(self.role, &self.point);
        feed.begin(now, &headed, &self.point);
        Ok(())
    }

    /// Sends whole packets on, as batches that are due now. Each is walked once; an invalid one is left out. Of packets that
    /// are cut anew the last bytes wait for the next ones, for a second and a half at most. Packets of a source that something
    /// stands in for wait until viewers can go on with them.
    ///
    /// # Errors
    /// [`PublishError`]; after [`PublishError::Invalid`] the source is to be dropped, what was valid has been sent.
    pub fn packets(&mut self, now: Instant, mut packets: BytesMut) -> Result<Accepted, PublishError> {
        let (point, role) = (&self.point, self.role);
        let mut guard = self.lock(now)?;
        let feed = &mut *guard;
        if role == Role::StandIn && feed.on_air == Role::Source && feed.stand_in_headed() {
            return Err(PublishError::Yielded);
        }
        let headed = feed.current(role).and_then(|current| current.header.as_ref());
        let headed = headed.ok_or(PublishError::NoHeader)?;
        let (packet_size, commands) = (headed.header.packet_size(), headed.commands);
        let len = packets.len();
        if !len.is_multiple_of(packet_size) {
            return Err(PublishError::NotWhole { len, packet_size });
        }
        let mut outbox = Outbox { point, now, left: len / packet_size, draft: None };
        let (mut accepted, mut broken) = (Accepted::default(), None);
        for packet in packets.chunks_exact_mut(packet_size) {
            if commands != StreamSet::EMPTY {
                // What is invalid is told below.
                let _ = blank_url_commands(packet, commands);
            }
            let is_on_air = feed.on_air == role;
            let taken = if is_on_air { feed.place(now, packet, &mut outbox) } else { feed.hold(packet) };
            match taken {
                Ok(()) => {
                    accepted.packets += 1;
                    if let Some(current) = feed.current(role) {
                        current.invalid_in_a_row = 0;
                    }
                    if !is_on_air {
                        feed.take_back(now, &mut outbox);
                    }
                }
                Err(last) => {
                    let uncut = is_on_air && feed.recutting.is_some() && walk(packet).is_ok();
                    point.drops(&mut feed.drops, now, if uncut { DropCause::Uncut } else { DropCause::Invalid }, &last);
                    accepted.invalid += 1;
                    let Some(current) = feed.current(role) else { break };
                    current.invalid_in_a_row += 1;
                    if current.invalid_in_a_row >= INVALID_IN_A_ROW {
                        broken = Some(PublishError::Invalid { count: current.invalid_in_a_row, last });
                        break;
                    }
                }
            }
        }
        if feed.on_air == role {
            feed.place_cut(now, &mut outbox);
        }
        outbox.send();
        match role {
            Role::Source => {
                if accepted.packets > 0 {
                    feed.quiet_since = Some(now);
                    if !std::mem::replace(&mut feed.up, true) {
                        point.tell_source(true);
                    }
                }
                point.meters().packets.increment(accepted.packets);
                point.meters().invalid.increment(accepted.invalid);
                feed.counted.take(now, accepted, packet_size);
            }
            Role::StandIn if accepted.packets > 0 => feed.stood_in = Some(now),
            Role::StandIn => {}
        }
        broken.map_or(Ok(accepted), Err)
    }

    /// The source stops because nobody watches: whoever comes next is to wait for it, and not to get what is left of now. Where
    /// somebody watches after all and something can stand in, the source is only gone.
    pub fn end(self, now: Instant) {
        let stands_in = self.point.settings().fallback.is_some() && self.point.watchers() > 0;
        let Ok(mut feed) = self.lock(now) else { return };
        let is_last = match self.role {
            Role::Source if feed.on_air == Role::Source => !stands_in,
            // The stand-in ends it, if that is there.
            Role::Source => feed.stand_in.is_none(),
            // The source does.
            Role::StandIn => feed.on_air == Role::StandIn && !feed.source_is_headed(),
        };
        if is_last {
            feed.flush(now, &self.point);
            feed.end(&self.point);
        }
    }

    fn lock(&self, now: Instant) -> Result<MutexGuard<'_, Feed>, PublishError> {
        let mut feed = self.point.lock_feed();
        let lost = match self.role {
            Role::Source if self.token <= feed.expelled => PublishError::Dismissed,
            Role::Source => PublishError::Superseded,
            Role::StandIn => PublishError::Yielded,
        };
        let current = feed.current(self.role).filter(|current| current.token == self.token);
        let current = current.ok_or(lost)?;
        if current.dismissed {
            return Err(PublishError::Dismissed);
        }
        current.active = current.active.max(now);
        Ok(feed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut feed = self.point.lock_feed();
        let seat = match self.role {
            Role::Source => &mut feed.publisher,
            Role::StandIn => &mut feed.stand_in,
        };
        let Some(current) = seat.take_if(|current| current.token == self.token) else { return };
        if feed.on_air == self.role {
            // Its last sign of life is the nearest to now that is known here.
            feed.flush(current.active, &self.point);
        }
        if self.role == Role::Source {
            feed.held = None;
            feed.down(&self.point);
            self.point.deliver(&Delivery::SourceLost { point: self.point.id() });
        }
    }
}

impl Feed {
    /// Ends the stream of a source that stayed away, or silent, for longer than its time-out, and that nothing stood in for.
    pub(super) fn tick(&mut self, now: Instant, point: &Point) {
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

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    pub(super) const fn counted(&self) -> Counted {
        self.counted
    }

    /// Tells the publisher to go, with its next sign of life; whether there is one.
    pub(super) const fn dismiss(&mut self) -> bool {
        match &mut self.publisher {
            Some(publisher) => {
                publisher.dismissed = true;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_on_fallback(&self) -> bool {
        self.on_air == Role::StandIn
    }

    pub(super) const fn has_publisher(&self) -> bool {
        self.publisher.is_some()
    }

    /// Whether there is no publisher, or one that gives way.
    pub(super) fn awaits_publisher(&self, now: Instant) -> bool {
        self.publisher.as_ref().is_none_or(|current| current.is_silent(now))
    }

    /// The header that the source sent last.
    pub(super) const fn source_header(&self) -> Option<&Header> {
        self.source_header.as_ref()
    }

    /// The source is asked for from now on: its silence counts from here.
    pub(super) const fn expect_source(&mut self, now: Instant) {
        self.quiet_since = Some(now);
    }

    /// How long it is until something may stand in for the source, if that stays silent; [`FOREVER`] where nothing may.
    fn stand_in_wait(&mut self, now: Instant, point: &Point) -> Duration {
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
    pub(super) fn end(&mut self, point: &Point) {
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
    pub(super) fn expel(&mut self, point: &Point) {
        self.expelled = self.tokens;
        let Some(current) = self.publisher.take() else { return };
        if self.on_air == Role::Source {
            self.flush(current.active, point);
        }
        self.held = None;
        self.down(point);
        point.deliver(&Delivery::SourceLost { point: point.id() });
    }

    /// Whether commands of who feeds it may open something is said anew, by the settings.
    pub(super) fn judge_commands(&mut self, point: &Point) {
        for current in [&mut self.publisher, &mut self.stand_in].into_iter().flatten() {
            if let Some(headed) = &mut current.header {
                headed.commands = Headed::commands_of(&headed.header, point);
            }
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nobody can feed it from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.stand_in = None;
    }

    /// As if nothing had ever come; tokens run on, so that an old publisher is none of the next one's.
    pub(super) fn forget(&mut self, point: &Point) {
        self.down(point);
        self.put_on_air(Role::Source, point);
        *self = Self { tokens: self.tokens, expelled: self.expelled, closed: self.closed, ..Self::default() };
    }

    const fn current(&mut self, role: Role) -> Option<&mut Current> {
        match role {
            Role::Source => self.publisher.as_mut(),
            Role::StandIn => self.stand_in.as_mut(),
        }
    }

    fn source_is_headed(&self) -> bool {
        self.publisher.as_ref().is_some_and(|current| current.header.is_some())
    }

    fn stand_in_headed(&self) -> bool {
        self.stand_in.as_ref().is_some_and(|current| current.header.is_some())
    }

    fn put_on_air(&mut self, role: Role, point: &Point) {
        if std::mem::replace(&mut self.on_air, role) == role {
            return;
        }
        self.held = None;
        match role {
            Role::Source => point.meters().fallback.decrement(1),
            Role::StandIn => {
                point.meters().fallback.increment(1);
                point.meters().fallbacks.increment(1);
            }
        }
    }

    /// Packets of this header follow, on the timeline.
    fn begin(&mut self, now: Instant, headed: &Headed, point: &Point) {
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
    fn place(&mut self, now: Instant, packet: &mut [u8], outbox: &mut Outbox<'_>) -> Result<(), PacketError> {
        match &mut self.recutting {
            Some(recutting) => recutting.push(now, packet),
            None => outbox.place(&mut self.timeline, now, packet),
        }
    }

    /// Gives what was cut anew its place.
    fn place_cut(&mut self, now: Instant, outbox: &mut Outbox<'_>) {
        if let Some(recutting) = &mut self.recutting {
            outbox.place_all(&mut self.timeline, &mut self.drops, now, recutting.take_full(), recutting.packet_size());
        }
    }

    /// Keeps a packet of the source while something stands in for it.
    ///
    /// # Errors
    /// [`PacketError`] where it is invalid: it is left out.
    fn hold(&mut self, packet: &[u8]) -> Result<(), PacketError> {
        let headed = self.publisher.as_ref().and_then(|current| current.header.as_ref());
        let Some(headed) = headed else { return Ok(()) };
        self.held.get_or_insert_with(|| Held::new(headed.header.video())).push(packet)
    }

    /// Gives the source its place back, if viewers can go on with what is held of it.
    fn take_back(&mut self, now: Instant, outbox: &mut Outbox<'_>) {
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
    fn flush(&mut self, now: Instant, point: &Point) {
        let Some((since, packet)) = self.recutting.as_mut().and_then(Recutting::take_open) else { return };
        let mut outbox = Outbox { point, now, left: 0, draft: None };
        // On the timeline it stands where its send time belongs: when the source packet came that it begins with.
        let packet_size = packet.len();
        outbox.place_all(&mut self.timeline, &mut self.drops, since, packet, packet_size);
        outbox.send();
    }

    fn down(&mut self, point: &Point) {
        if std::mem::take(&mut self.up) {
            point.tell_source(false);
        }
    }
}

/// Makes batches of one generation and of a bounded size, and sends them.
struct Outbox<'p> {
    point: &'p Point,
    now: Instant,
    /// Packets that are still to come, at most.
    left: usize,
    draft: Option<Draft>,
}

/// A batch in the making.
// Packets are copied out of the reader's buffer: a slice of it would keep all of the buffer in the windows, whatever
// the slice's length, and the byte bound of a window would bound nothing.
struct Draft {
    generation: Arc<Generation>,
    first: u64,
    bytes: Vec<u8>,
    packets: Vec<BatchPacket>,
}

impl Outbox<'_> {
    /// Gives a packet that came at `came` its place, and takes it along.
    ///
    /// # Errors
    /// [`PacketError`] where it is invalid, and left out.
    fn place(&mut self, timeline: &mut Timeline, came: Instant, packet: &mut [u8]) -> Result<(), PacketError> {
        let point = self.point;
        if let Some(placed) = timeline.place(came, packet, &mut || point.file_id())? {
            if let Some(generation) = placed.opened {
                self.send();
                point.open_generation(generation);
            }
            if let Some(generation) = timeline.generation() {
                self.push(generation, placed.number, placed.packet, packet);
            }
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }

    /// The same for packets that re-cutting made: none should be invalid.
    fn place_all(&mut self, timeline: &mut Timeline, drops: &mut Drops, came: Instant, mut packets: Vec<u8>, packet_size: usize) {
        self.left = packets.len() / packet_size.max(1);
        for packet in packets.chunks_exact_mut(packet_size.max(1)) {
            if let Err(error) = self.place(timeline, came, packet) {
                self.point.drops(drops, self.now, DropCause::Unsound, &error);
            }
        }
    }

    fn push(&mut self, generation: &Arc<Generation>, number: u64, packet: BatchPacket, bytes: &[u8]) {
        let most = (self.point.max_batch_bytes() / bytes.len().max(1)).max(1);
        if self.draft.as_ref().is_some_and(|draft| draft.packets.len() >= most) {
            self.send();
        }
        let draft = self.draft.get_or_insert_with(|| {
            let packets = self.left.clamp(1, most);
            Draft {
                generation: Arc::clone(generation),
                first: number,
                bytes: Vec::with_capacity(packets * bytes.len()),
                packets: Vec::with_capacity(packets),
            }
        });
        draft.bytes.extend_from_slice(bytes);
        draft.packets.push(packet);
    }

    fn send(&mut self) {
        let Some(Draft { generation, first, bytes, packets }) = self.draft.take() else { return };
        let bytes = bytes.into_boxed_slice().into();
        let batch = Arc::new(Batch { generation, first, bytes, packets: packets.into_boxed_slice(), due: self.now });
        self.point.deliver(&Delivery::Batch { point: self.point.id(), batch });
    }
}

#[cfg(test)]
mod tests;
