//! One timeline for viewers, whatever the source's clock does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{BatchPacket, Generation};
use super::join_points::JoinPoints;
use crate::asf::{Header, ObjectNumbers, PacketError, Shift, shift};
use crate::wire::Guid;

/// A source's send times may step back by so much, or ahead of the time that really passed, before they are
/// taken for another clock.
const LEAP_MS: i64 = 5000;

/// A header makes every viewer's player begin anew; a source may do that no more often than this.
const HEADER_INTERVAL: Duration = Duration::from_secs(5);

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

/// The header that the source sent last, for packets as they are placed.
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

    /// How long a header that opens a generation has to wait for the last one that did.
    pub(super) fn header_wait(&self, now: Instant, header: &Header) -> Duration {
        let last = self.source.as_ref().filter(|source| !header.continues(&source.header));
        last.map_or(Duration::ZERO, |source| HEADER_INTERVAL.saturating_sub(now.saturating_duration_since(source.at)))
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
        Ok(Some(Placed {
            opened,
            number,
            packet: BatchPacket { number, send_time_ms, join_point, key: info.key, used_len: info.used_len },
        }))
    }

    fn begin(&mut self, now: Instant, file_ids: FileIds<'_>) -> Option<Arc<Generation>> {
        let Source { header, created, at } = self.source.as_ref()?;
        let elapsed_ms = u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX);
        let created = created.saturating_add(elapsed_ms.saturating_mul(FILETIME_PER_MS));
        let file_id = file_ids();
        // What a File ID has of a version and a variant lies behind these bytes.
        let [s0, s1, s2, s3, n0, n1, ..] = file_id.0;
        let generation = Arc::new(Generation {
            number: self.generations,
            header: header.broadcast(file_id, created),
            packet_size: header.packet_size(),
            preroll_ms: header.preroll_ms(),
            bit_rate: header.bit_rate(),
            streams: header.streams().iter().map(|stream| stream.number).collect(),
            video: header.video(),
            ssrc: u32::from_le_bytes([s0, s1, s2, s3]),
            sequence: u16::from_le_bytes([n0, n1]),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::{PacketInfo, payloads, samples, walk};
    use crate::relay::testing::{at, base};
    use proptest::prelude::*;

    /// Video 1, audio 2, packets of 1400 bytes, ten seconds.
    const LIVE: &str = "live-asf-pipe.asf";

    /// A timeline with its virtual clock, and what came out of it.
    struct Bench {
        base: Instant,
        timeline: Timeline,
        file_ids: u8,
        out: Vec<(u64, PacketInfo, Vec<u8>)>,
        opened: Vec<Arc<Generation>>,
    }

    impl Bench {
        fn new() -> Self {
            Self { base: base(), timeline: Timeline::default(), file_ids: 0, out: Vec::new(), opened: Vec::new() }
        }

        fn header(&mut self, ms: u64, header: &Header) {
            let Self { base, timeline, file_ids, opened, .. } = self;
            opened.extend(timeline.header(at(*base, ms), 0, header, &mut || next_id(file_ids)));
        }

        fn place(&mut self, ms: u64, packet: &[u8]) -> Result<BatchPacket, PacketError> {
            let mut packet = packet.to_vec();
            let Self { base, timeline, file_ids, opened, out } = self;
            let placed = timeline.place(at(*base, ms), &mut packet, &mut || next_id(file_ids))?.unwrap();
            opened.extend(placed.opened);
            let info = walk(&packet).unwrap();
            assert_eq!((info.send_time_ms, info.used_len), (placed.packet.send_time_ms, placed.packet.used_len));
            out.push((placed.number, info, packet));
            Ok(placed.packet)
        }

        /// A packet that has this send time in the source; its own lead of presentation over send time stays.
        fn place_at(&mut self, ms: u64, send_time_ms: u32, packet: &[u8]) -> u32 {
            let mut packet = packet.to_vec();
            let own = walk(&packet).unwrap().send_time_ms;
            shift(&mut packet, &Shift::times(send_time_ms.wrapping_sub(own))).unwrap();
            self.place(ms, &packet).unwrap().send_time_ms
        }

        fn numbers(&self) -> Vec<u64> {
            self.out.iter().map(|(number, ..)| *number).collect()
        }
    }

    fn next_id(last: &mut u8) -> Guid {
        *last += 1;
        Guid([*last; 16])
    }

    fn lead(info: &PacketInfo) -> u32 {
        info.first_presentation_ms.wrapping_sub(info.send_time_ms)
    }

    #[test]
    fn a_first_source_passes_as_it_is() {
        for (name, ..) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            let mut bench = Bench::new();
            bench.header(0, &header);
            for packet in &packets {
                bench.place(walk(packet).unwrap().send_time_ms.into(), packet).unwrap();
            }
            assert!(bench.out.iter().map(|(.., packet)| packet).eq(&packets), "{name}");
            assert_eq!(bench.numbers(), (0..packets.len() as u64).collect::<Vec<_>>());
            let [generation] = &bench.opened[..] else { panic!("{name}: {:?}", bench.opened) };
            assert_eq!((generation.number, generation.packet_size), (0, header.packet_size()));
            assert_eq!((generation.preroll_ms, generation.bit_rate), (header.preroll_ms(), header.bit_rate()));
            assert_eq!(generation.header, header.broadcast(Guid([1; 16]), 0));
            assert_eq!(generation.streams.len() as usize, header.streams().len());
        }
    }

    #[test]
    fn key_frames_of_the_first_video_stream_are_join_points() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        let mut joins = 0;
        for packet in &packets {
            let join = bench.place(0, packet).unwrap().join_point;
            assert_eq!(join, walk(packet).unwrap().key_starts.contains(1));
            joins += usize::from(join);
        }
        assert_eq!(joins, 5, "a key frame every two seconds");
    }

    #[test]
    fn a_source_that_comes_back_goes_on_after_the_time_that_passed() {
        for (name, ..) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            let mut bench = Bench::new();
            let mut ms = 0;
            for pause in [0, 7000, 0] {
                let begun = bench.out.len();
                let before = bench.out.last().map(|(_, info, _)| info.send_time_ms);
                bench.header(ms, &header);
                let start = ms + pause;
                for packet in &packets {
                    ms = start + u64::from(walk(packet).unwrap().send_time_ms);
                    bench.place(ms, packet).unwrap();
                }
                let latest = bench.out[..begun].iter().map(|(_, info, _)| info.send_time_ms).max();
                let first = bench.out[begun].1.send_time_ms;
                if let (Some(_), Some(latest)) = (before, latest) {
                    let passed = u32::try_from(pause).unwrap() + walk(&packets[0]).unwrap().send_time_ms;
                    assert_eq!(first, latest + passed.max(1), "{name}");
                }
                for ((_, info, _), source) in bench.out[begun..].iter().zip(&packets) {
                    assert_eq!(lead(info), lead(&walk(source).unwrap()), "{name}: send and presentation times move together");
                }
            }
            assert_eq!(bench.opened.len(), 1, "{name}");
            assert_eq!(bench.numbers(), (0..3 * packets.len() as u64).collect::<Vec<_>>());
            for stream in header.streams() {
                let objects = bench.out.iter().flat_map(|(.., packet)| payloads(packet).unwrap());
                let mut numbers: Vec<u32> = objects.filter(|p| p.stream == stream.number).map(|p| p.object).collect();
                numbers.dedup();
                let follow = numbers.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0xFF);
                assert!(follow, "{name}: object numbers of stream {} run on", stream.number);
            }
        }
    }

    #[test]
    fn a_different_header_opens_a_generation_on_the_sources_own_clock() {
        let (header, packets) = samples::stream(LIVE);
        let (other, others) = samples::stream("mbr-2video-1audio.asf");
        let mut bench = Bench::new();
        bench.header(0, &header);
        bench.place_at(0, 5000, &packets[0]);
        bench.header(1000, &other);
        assert_eq!(bench.place_at(1000, 77, &others[0]), 77);
        bench.header(2000, &header);
        assert_eq!(bench.place_at(2000, 5000, &packets[0]), 5000);
        assert_eq!(bench.numbers(), [0, 1, 2], "numbers run on");
        let generations: Vec<_> = bench.opened.iter().map(|generation| generation.number).collect();
        assert_eq!(generations, [0, 1, 2]);
        assert!(bench.opened.windows(2).all(|pair| pair[0].header != pair[1].header));
        assert_eq!(bench.timeline.generation().map(|generation| generation.number), Some(2));
    }

    #[test]
    fn leaps_of_the_sources_clock_are_taken_out() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        let packet = &packets[0];
        assert_eq!(bench.place_at(0, 10_000, packet), 10_000);
        assert_eq!(bench.place_at(100, 3_600_000, packet), 10_100, "an hour ahead in 100 ms");
        assert_eq!(bench.place_at(150, 3_600_040, packet), 10_140, "and on from there");
        assert_eq!(bench.place_at(160, 3_595_041, packet), 5141, "4999 ms back: out of order, no leap");
        assert_eq!(bench.place_at(170, 3_595_039, packet), 10_150, "5001 ms before the latest");
        assert_eq!(bench.place_at(170, 0, packet), 10_151, "never the same time twice");
        assert_eq!(bench.place_at(3_600_170, 3_600_000, packet), 3_610_151, "an hour ahead in an hour");
        assert_eq!(bench.opened.len(), 1);
    }

    #[test]
    fn a_wrap_of_the_sources_clock_is_no_leap() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        bench.place_at(0, 1000, &packets[0]);
        bench.header(0, &header);
        assert_eq!(bench.place_at(100, u32::MAX - 20, &packets[0]), 1100);
        assert_eq!(bench.place_at(140, 19, &packets[0]), 1140);
        assert_eq!(bench.out.last().map(|(_, info, _)| lead(info)), Some(lead(&walk(&packets[0]).unwrap())));
    }

    #[test]
    fn times_that_players_cannot_count_get_a_generation_near_zero() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        let packet = &packets[0];
        assert_eq!(bench.place_at(0, LAST_SEND_TIME_MS + 1, packet), NEAR_ZERO_MS, "the source begins there");
        assert_eq!(bench.opened.len(), 1, "the header has not been used yet");
        bench.timeline.end();
        assert_eq!(bench.place_at(0, LAST_SEND_TIME_MS - 10, packet), LAST_SEND_TIME_MS - 10);
        assert_eq!(bench.place_at(10, LAST_SEND_TIME_MS, packet), LAST_SEND_TIME_MS);
        assert_eq!(bench.place_at(20, LAST_SEND_TIME_MS + 10, packet), NEAR_ZERO_MS);
        assert_eq!(bench.place_at(30, LAST_SEND_TIME_MS + 20, packet), NEAR_ZERO_MS + 10);
        assert_eq!((bench.numbers(), bench.opened.len()), (vec![0, 1, 2, 3, 4], 3));
        assert!(bench.out.iter().all(|(_, info, _)| lead(info) == lead(&walk(packet).unwrap())));
        assert_eq!(bench.opened[2].header, header.broadcast(Guid([3; 16]), 20 * FILETIME_PER_MS), "the same but for the File ID");
    }

    #[test]
    fn a_pause_past_the_last_time_opens_a_generation() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        bench.place_at(0, LAST_SEND_TIME_MS, &packets[0]);
        bench.header(0, &header);
        assert_eq!(bench.place_at(60_000, 0, &packets[0]), NEAR_ZERO_MS);
        assert_eq!(bench.opened.len(), 2);
    }

    #[test]
    fn creation_dates_go_with_the_time() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        bench.header(0, &header);
        bench.timeline.end();
        bench.place(2000, &packets[0]).unwrap();
        assert_eq!(bench.opened[1].header, header.broadcast(Guid([2; 16]), 20_000_000));
    }

    proptest! {
        #[test]
        fn any_clock_becomes_one_that_players_can_follow(
            steps in prop::collection::vec((0_u32..10, any::<u32>(), 0_u64..20_000), 1..60),
        ) {
            let (header, packets) = samples::stream("edge-packets-pcmu.asf");
            let (mut bench, mut ms, mut source_ms, mut latest) = (Bench::new(), 0, 0_u32, 0);
            bench.header(0, &header);
            for (index, (kind, jump, elapsed)) in steps.into_iter().enumerate() {
                ms += elapsed;
                source_ms = if kind == 0 { jump } else { source_ms.wrapping_add(jump % 3000) };
                if kind == 1 {
                    bench.header(ms, &header);
                }
                let (generations, packet) = (bench.opened.len(), &packets[index]);
                let send_time_ms = bench.place_at(ms, source_ms, packet);
                prop_assert!(send_time_ms <= LAST_SEND_TIME_MS);
                if index > 0 && bench.opened.len() == generations {
                    prop_assert!(i64::from(send_time_ms) >= i64::from(latest) - LEAP_MS);
                    prop_assert!(i64::from(send_time_ms) <= i64::from(latest) + LEAP_MS + i64::try_from(elapsed).unwrap());
                    latest = latest.max(send_time_ms);
                } else {
                    latest = send_time_ms;
                }
                let (number, info, _) = bench.out.last().unwrap();
                prop_assert_eq!(*number, index as u64);
                prop_assert_eq!(lead(info), lead(&walk(packet).unwrap()));
            }
        }
    }

    #[test]
    fn invalid_packets_change_nothing() {
        let (header, packets) = samples::stream(LIVE);
        let mut bench = Bench::new();
        assert!(bench.timeline.place(bench.base, &mut packets[0].clone(), &mut || unreachable!()).unwrap().is_none());
        bench.header(0, &header);
        bench.place_at(0, 1000, &packets[0]);
        assert!(bench.place(5, &[0xFF; 1400]).is_err());
        assert_eq!(bench.place_at(10, 1010, &packets[0]), 1010);
        bench.timeline.end();
        assert!(bench.place(15, &[0xFF; 1400]).is_err() && bench.timeline.generation().is_none());
        assert_eq!(bench.place_at(20, 30, &packets[0]), 30, "after the end another generation begins");
        assert_eq!((bench.numbers(), bench.opened.len()), (vec![0, 1, 2], 2));
    }
}
