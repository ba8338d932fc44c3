//! Variants: cuts of a broadcast for viewers who want only a part of it, or are too slow for all of it.
//!
//! Each shard cuts its own batches once for all viewers of a variant, and from its whole window when the variant is first asked
//! for, so that nobody waits for a key frame that has long been there. The packets keep their numbers on the wire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broadcast::{Phase, Served};
use super::conn::{Place, channel_of};
use super::state::State;
use crate::asf::{self, Kept, Selection, Selector, StreamSet};
use crate::metrics as names;
use crate::relay::{Batch, BatchPacket, Generation, JoinPoints, PointId};
use crate::settings::OnSlow;

/// Variants of one publishing point; whoever wants one more gets all streams.
const MOST: usize = 16;
/// A variant that nobody watches goes after this time.
const UNUSED: Duration = Duration::from_secs(30);
/// A viewer that was at the live edge for so many seconds on end keeps up.
const STEADY_S: u8 = 10;
/// A thinned viewer is given everything again after so many seconds at the live edge; twice as many each time it falls back.
const PATIENCE_S: u8 = STEADY_S;
const MOST_PATIENCE_S: u8 = 160;

/// What makes a broadcast of a shard a variant of another.
#[derive(Debug)]
pub(super) struct Variant {
    /// The broadcast that it is cut from.
    pub(super) base: usize,
    pub(super) selection: Selection,
    /// The header whose streams the selection means.
    generation: u32,
    /// Tells it from earlier variants in the viewers' resend look-up.
    pub(super) tag: u16,
    cutter: Option<Cutter>,
    unused_since: Option<Instant>,
}

/// What is cut of the packets of one header.
#[derive(Debug)]
struct Cutter {
    generation: u32,
    selector: Selector,
    joins: JoinPoints,
}

impl Cutter {
    fn new(generation: &Generation, selection: Selection) -> Self {
        Self {
            generation: generation.number,
            selector: Selector::new(generation.streams, generation.video, selection),
            joins: JoinPoints::new(generation.video.intersection(selection.streams)),
        }
    }
}

impl Variant {
    /// What of a batch belongs to the variant; its packets get the numbers from `first` on.
    fn cut(&mut self, batch: &Batch, first: u64) -> Option<Arc<Batch>> {
        let generation = &batch.generation;
        if generation.number != self.generation {
            // Its viewers are told of the new header when they come to it, and begin anew: so they must come to it.
            return Some(Arc::new(Batch { first, ..batch.clone() }));
        }
        if self.cutter.as_ref().is_none_or(|cutter| cutter.generation != generation.number) {
            self.cutter = Some(Cutter::new(generation, self.selection));
        }
        let cutter = self.cutter.as_mut()?;
        let (mut bytes, mut packets) = (Vec::with_capacity(batch.bytes.len()), Vec::with_capacity(batch.packets.len()));
        for (index, source) in batch.packets.iter().enumerate() {
            let (packet, begin) = (batch.packet(index).unwrap_or_default(), bytes.len());
            if source.join_point && stands_in(packet, generation.video) {
                cutter.selector.stand_in();
                cutter.joins.stand_in();
            }
            match cutter.selector.packet(packet, &mut bytes) {
                Ok(Kept::Whole) => bytes.extend_from_slice(packet),
                Ok(Kept::Rewritten) => {}
                Ok(Kept::Nothing) | Err(_) => continue,
            }
            let Ok(info) = asf::walk(bytes.get(begin..).unwrap_or_default()) else {
                bytes.truncate(begin);
                continue;
            };
            let join_point = cutter.joins.notes(&info);
            packets.push(BatchPacket { join_point, key: info.key, used_len: info.used_len, ..*source });
        }
        bytes.shrink_to_fit();
        let (generation, due) = (Arc::clone(generation), batch.due);
        (!packets.is_empty()).then(|| Arc::new(Batch { generation, first, bytes: bytes.into(), packets: packets.into(), due }))
    }
}

/// Whether a join point is one although no key frame begins in it: there is video, which marks none.
fn stands_in(packet: &[u8], video: StreamSet) -> bool {
    !video.is_empty() && asf::walk(packet).is_ok_and(|info| !info.key_starts.intersects(video))
}

/// What a viewer's slowness is told by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slowness {
    /// Times that it fell out of the window since it kept up last.
    falls: u8,
    /// Seconds at the live edge, up to now.
    steady_s: u8,
    /// It is given key frames only, until it has been steady for so many seconds.
    thinned: bool,
    patience_s: u8,
}

impl Default for Slowness {
    fn default() -> Self {
        Self { falls: 0, steady_s: 0, thinned: false, patience_s: PATIENCE_S }
    }
}

impl Slowness {
    /// It fell out of the window; whether that is the second time in a row.
    pub(super) fn falls(&mut self) -> bool {
        self.steady_s = 0;
        self.falls = self.falls.saturating_add(1);
        self.falls >= 2 && !self.thinned
    }

    /// A second has passed; whether it deserves all streams again.
    fn second(&mut self, live: bool) -> bool {
        self.steady_s = if live { self.steady_s.saturating_add(1) } else { 0 };
        if !self.thinned && self.steady_s >= STEADY_S {
            self.falls = 0;
        }
        if !self.thinned && self.steady_s == u8::MAX {
            self.patience_s = PATIENCE_S;
        }
        self.thinned && self.steady_s >= self.patience_s
    }

    /// A play begins; what the viewer was like before counts for its patience alone.
    pub(super) fn begin(&mut self) {
        *self = Self { patience_s: self.patience_s, ..Self::default() };
    }

    fn thin(&mut self) {
        (self.thinned, self.falls, self.steady_s) = (true, 0, 0);
    }

    fn restore(&mut self) {
        (self.thinned, self.falls, self.steady_s) = (false, 1, 0);
        self.patience_s = self.patience_s.saturating_mul(2).min(MOST_PATIENCE_S);
    }
}

impl State {
    /// The broadcast from which a selection of a publishing point's streams is served.
    pub(super) fn channel_for(&mut self, point: PointId, selection: Selection) -> usize {
        let base = channel_of(point);
        let Some(generation) = self.broadcasts.get(base).and_then(|broadcast| broadcast.generation.clone()) else { return base };
        let streams = selection.streams.intersection(generation.streams);
        let thinned = selection.thinned.intersection(streams).intersection(generation.video);
        let selection = Selection { streams, thinned };
        if selection == Selection::all(generation.streams) || streams.is_empty() {
            return base;
        }
        let variants = self.broadcasts.get(base).map(|broadcast| broadcast.variants.clone()).unwrap_or_default();
        let is_it = |channel: &usize| {
            let variant = self.variant(*channel);
            variant.is_some_and(|variant| variant.selection == selection && variant.generation == generation.number)
        };
        if let Some(channel) = variants.iter().copied().find(is_it) {
            return channel;
        }
        if variants.len() >= MOST {
            tracing::debug!(point = point.0, "there are {MOST} cuts of this stream already: a viewer gets all of it");
            return base;
        }
        self.new_variant(base, selection, generation.number)
    }

    fn new_variant(&mut self, base: usize, selection: Selection, generation: u32) -> usize {
        self.variant_tags = self.variant_tags.checked_add(1).unwrap_or(1);
        let mut variant = Variant { base, selection, generation, tag: self.variant_tags, cutter: None, unused_since: None };
        let mut cut = self.context.new_broadcast();
        let Some(of) = self.broadcasts.get(base) else { return base };
        // Nobody begins before the newest key frame: what is older would be work and memory for nothing.
        let oldest = of.window.join_point().and_then(|join| of.window.locate(join)).map_or(0, |spot| spot.batch);
        for (batch, _) in (oldest..).map_while(|index| of.window.batch(index)) {
            if let Some(batch) = variant.cut(batch, cut.window.end()) {
                cut.window.push(batch);
            }
        }
        cut.generation.clone_from(&of.generation);
        cut.nothing_is_fresh();
        cut.variant = Some(Box::new(variant));
        let channel = self.broadcasts.add_cut(cut);
        if let Some(of) = self.broadcasts.get_mut(base) {
            of.variants.push(channel);
        }
        channel
    }

    pub(super) fn variant(&self, channel: usize) -> Option<&Variant> {
        self.broadcasts.get(channel)?.variant.as_deref()
    }

    /// The tag of a channel in the viewers' resend look-up; 0 for a publishing point's own.
    pub(super) fn tag(&self, channel: usize) -> u16 {
        self.variant(channel).map_or(0, |variant| variant.tag)
    }

    /// The channel of a publishing point that has, or had, a tag.
    pub(super) fn tagged(&self, point: PointId, tag: u16) -> Option<usize> {
        let base = channel_of(point);
        if tag == 0 {
            return Some(base);
        }
        let variants = &self.broadcasts.get(base)?.variants;
        variants.iter().copied().find(|channel| self.tag(*channel) == tag)
    }

    /// Cuts a new batch for all variants, and lets those viewers change over that waited for a key frame in it.
    pub(super) fn push_to_variants(&mut self, base: usize, now: Instant, tick: Duration, batch: &Batch) {
        let Some(of) = self.broadcasts.get(base) else { return };
        let channels: Vec<usize> = of.variants.iter().copied().chain([base]).collect();
        let mut joins = Vec::new();
        for channel in channels {
            let Some(broadcast) = self.broadcasts.get_mut(channel) else { continue };
            let cut = broadcast.variant.as_mut().and_then(|variant| variant.cut(batch, broadcast.window.end()));
            let from = cut.as_ref().map_or(batch.first, |cut| cut.first);
            if let Some(cut) = cut {
                broadcast.push(now, tick, cut);
            }
            if !broadcast.wanted_by.is_empty()
                && let Some(join) = broadcast.window.next_join_point(from)
            {
                joins.push((channel, join));
            }
        }
        for (channel, join) in joins {
            let keys = self.broadcasts.get_mut(channel).map(|broadcast| std::mem::take(&mut broadcast.wanted_by));
            for key in keys.unwrap_or_default() {
                self.change_over(key, channel, join, now);
            }
        }
    }

    /// A playing viewer of a broadcast is to get another selection: at once where nothing new is to begin, else with the next
    /// key frame.
    pub(super) fn reselect(&mut self, key: usize, selection: Selection) {
        let Some(conn) = self.conns.get(key) else { return };
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return };
        let (point, current, index) = (opened.point.id(), opened.channel, *index);
        let target = self.channel_for(point, selection);
        let Some(cold) = self.broadcasts.get_mut(current).and_then(|broadcast| broadcast.viewers.cold_mut(index)) else { return };
        cold.wanted = None;
        if target == current {
            // The player wants by itself what it was given for being slow.
            cold.slowness.begin();
            return;
        }
        if self.begins_nothing(current, target) {
            let Some(location) = self.location(current, index) else { return };
            let Some(to) = self.broadcasts.get(target).map(|broadcast| broadcast.window.at_source(location)) else { return };
            if let Some(cold) = self.broadcasts.get_mut(current).and_then(|broadcast| broadcast.viewers.cold_mut(index)) {
                cold.slowness.begin();
            }
            return self.move_to(key, target, to);
        }
        if let Some(cold) = self.broadcasts.get_mut(current).and_then(|broadcast| broadcast.viewers.cold_mut(index)) {
            cold.wanted = Some(target);
        }
        if let Some(broadcast) = self.broadcasts.get_mut(target).filter(|broadcast| !broadcast.wanted_by.contains(&key)) {
            broadcast.wanted_by.push(key);
        }
    }

    /// Whether all video of one channel is in another, so that a viewer may go over in the middle.
    fn begins_nothing(&self, from: usize, to: usize) -> bool {
        let full = |channel: usize| {
            let broadcast = self.broadcasts.get(channel)?;
            let video = broadcast.generation.as_ref()?.video;
            let Some(variant) = &broadcast.variant else { return Some((video, StreamSet::EMPTY)) };
            Some((video.intersection(variant.selection.streams), variant.selection.thinned))
        };
        let (Some((has, has_thinned)), Some((wants, wants_thinned))) = (full(from), full(to)) else { return false };
        wants.difference(has).is_empty() && wants.intersection(has_thinned).difference(wants_thinned).is_empty()
    }

    /// The number in the source of the packet that a viewer gets next.
    fn location(&self, channel: usize, index: usize) -> Option<u64> {
        let broadcast = self.broadcasts.get(channel)?;
        let next = broadcast.viewers.hot(index)?.next.packet;
        // Who fell out of the window has lost what was before it.
        Some(broadcast.source_number(next.max(broadcast.window.begin())))
    }

    /// Sends a viewer what is left for it before a join point of another channel, and takes it there.
    fn change_over(&mut self, key: usize, target: usize, join: u64, now: Instant) {
        let Some(conn) = self.conns.get(key) else { return };
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return };
        let (current, index) = (opened.channel, *index);
        let base = self.variant(target).map_or(target, |variant| variant.base);
        if base != channel_of(opened.point.id()) {
            return;
        }
        let Some(location) = self.broadcasts.get(target).map(|broadcast| broadcast.source_number(join)) else { return };
        let Some(broadcast) = self.broadcasts.get_mut(current) else { return };
        if broadcast.viewers.cold(index).is_none_or(|cold| cold.wanted != Some(target)) {
            return;
        }
        match broadcast.serve_before(index, location, &self.origins, &mut self.tally) {
            Ok(Served::Live) => {
                if let Some(cold) = broadcast.viewers.cold_mut(index) {
                    cold.wanted = None;
                    if cold.slowness.thinned {
                        cold.slowness.restore();
                    }
                }
                self.move_to(key, target, join);
            }
            served => {
                // Not now: with the next one.
                if let Some(broadcast) = self.broadcasts.get_mut(target) {
                    broadcast.wanted_by.push(key);
                }
                if !matches!(served, Ok(Served::CatchingUp)) {
                    self.follow(current, index, now, served);
                }
            }
        }
    }

    /// Takes a viewer to another channel of the same publishing point, where it goes on with this packet.
    fn move_to(&mut self, key: usize, target: usize, packet: u64) {
        let tag = self.tag(target);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (Some(opened), Place::Seat(index)) = (&mut conn.opened, &conn.place) else { return };
        let index = *index;
        let Some(mut viewer) = self.broadcasts.get_mut(opened.channel).and_then(|from| from.viewers.swap_remove(index)) else {
            return;
        };
        viewer.cold.track.switch(&mut viewer.hot.next, tag, packet);
        let from = std::mem::replace(&mut opened.channel, target);
        let catches_up = viewer.hot.phase != Phase::Live;
        let Some(to) = self.broadcasts.get_mut(target) else { return };
        conn.place = Place::Seat(to.viewers.push(viewer));
        to.catching_up |= catches_up;
        let moved = self.broadcasts.get(from).and_then(|from| from.viewers.cold(index)).map(|viewer| viewer.conn);
        if let Some(conn) = moved.and_then(|moved| self.conns.get_mut(moved)) {
            conn.place = Place::Seat(index);
        }
        self.pump_wake.notify_one();
    }

    /// A viewer has fallen out of the window twice: it gets key frames and sound from here on.
    pub(super) fn thin(&mut self, key: usize) {
        if self.context.settings.delivery.on_slow != OnSlow::Thin {
            return;
        }
        let Some(conn) = self.conns.get(key) else { return };
        let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { return };
        let (point, current, index, session) = (opened.point.id(), opened.channel, *index, conn.session);
        let selection = Selection { thinned: conn.selection.streams, ..conn.selection };
        let target = self.channel_for(point, selection);
        if target == current {
            return;
        }
        let Some(location) = self.location(current, index) else { return };
        let Some(broadcast) = self.broadcasts.get(target) else { return };
        let to = broadcast.window.at_source(location);
        if let Some(cold) = self.broadcasts.get_mut(current).and_then(|broadcast| broadcast.viewers.cold_mut(index)) {
            cold.slowness.thin();
            cold.wanted = None;
        }
        metrics::counter!(names::THINNED).increment(1);
        tracing::info!(session, "too slow for all of the stream: it gets key frames and sound");
        self.move_to(key, target, to);
    }

    /// A second has passed: viewers that keep up get all streams again, variants that nobody watches go.
    pub(super) fn sweep_variants(&mut self, now: Instant) {
        let mut restored = Vec::new();
        for (channel, broadcast) in self.broadcasts.iter_mut() {
            for index in 0..broadcast.viewers.len() {
                let Some((hot, cold)) = broadcast.viewers.both_mut(index) else { continue };
                if cold.slowness.second(hot.phase == Phase::Live && !hot.blocked) && cold.wanted.is_none() {
                    restored.push(cold.conn);
                }
            }
            let used = !broadcast.viewers.is_empty() || !broadcast.wanted_by.is_empty();
            let Some(variant) = &mut broadcast.variant else { continue };
            let since = *variant.unused_since.get_or_insert(now);
            if used {
                variant.unused_since = None;
            } else if now.saturating_duration_since(since) >= UNUSED {
                tracing::debug!(channel, "nobody watches this cut of a stream any more");
                broadcast.is_free = true;
            }
        }
        for channel in self.broadcasts.cuts() {
            let Some(broadcast) = self.broadcasts.get_mut(channel).filter(|broadcast| broadcast.is_free) else { continue };
            let Some(variant) = broadcast.variant.take() else { continue };
            *broadcast = self.context.new_broadcast();
            broadcast.is_free = true;
            if let Some(base) = self.broadcasts.get_mut(variant.base) {
                base.variants.retain(|other| *other != channel);
            }
        }
        for key in restored {
            if let Some(selection) = self.conns.get(key).map(|conn| conn.selection) {
                self.reselect(key, selection);
            }
        }
    }
}

#[cfg(test)]
mod tests;
