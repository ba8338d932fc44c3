//! How a source feeds a publishing point.

mod feed;
mod outbox;

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use thiserror::Error;

use super::delivery::Delivery;
use super::drops::DropCause;
use super::point::Point;
use super::stand_in::{Headed, Role};
use crate::asf::{Header, PacketError, StreamSet, blank_url_commands, walk};
use crate::settings::Source;
use feed::Current;
use outbox::Outbox;

pub(super) use feed::Feed;

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
    #[error("an operator disconnected it")]
    Dismissed,
    /// It was let in by settings that hold no longer.
    #[error("the settings say no longer that it feeds this")]
    Expelled,
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
        feed.faults.begins();
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
                feed.source_header = Some(header.clone());
                feed.held = None;
                let current = feed.publisher.as_mut().ok_or(PublishError::Superseded)?;
                current.header = Some(headed.clone());
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
        if self.role == Role::StandIn {
            feed.stands_in_since.get_or_insert(now);
        }
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
        let mut outbox = Outbox::new(point, now, len / packet_size);
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
                    feed.faults.came();
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
            Role::Source if self.token <= feed.expelled => PublishError::Expelled,
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

#[cfg(test)]
mod tests;
