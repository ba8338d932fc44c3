//! The Header Object: what a stream is, and whether another header describes the same one.

use std::ops::Range;

use bytes::Bytes;

use super::objects::{Object, Objects};
use super::properties::{ExtendedStream, FileProperties, Rates, Stream, StreamKind, stream_bit_rates};
use super::{StreamSet, guids};
use crate::wire::{Cursor, DecodeError, Guid};

/// Largest Header Object taken, in bytes. Real ones have under 10 KiB.
pub const MAX_HEADER_LEN: usize = 1 << 20;

/// Bytes of a Data Object in front of its first packet; on every wire they travel with the header.
pub const DATA_HEAD_LEN: usize = 50;

/// Bytes of a Header Object in front of its first child.
pub(super) const HEADER_HEAD_LEN: usize = 30;
/// Bytes of a Header Extension Object in front of its first child.
pub(super) const EXTENSION_HEAD_LEN: usize = 46;

/// Counts from here on are fill patterns of writers that do not know.
const ABSURD_PACKET_COUNT: u64 = 0xFFFF_FFFF;
/// A year; longer durations are fill patterns too.
const ABSURD_DURATION_MS: u64 = 366 * 86_400_000;

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes are something else.
    #[error("not ASF: the Header Object's GUID is not at the start")]
    NotAsf,
    /// The stated size is beyond all bounds.
    #[error("ASF header of {0} bytes: the relay takes at most 1 MiB")]
    TooLong(u64),
    /// One object is malformed.
    #[error("ASF header: {object} at byte {at}: {cause}")]
    Object {
        /// Name of the object.
        object: &'static str,
        /// Where it begins, in bytes from the start of the header.
        at: usize,
        /// What is wrong in it; its offsets count from the object's body.
        cause: DecodeError,
    },
    /// There is no File Properties Object, so the packet size is unknown.
    #[error("ASF header without a File Properties Object")]
    NoFileProperties,
    /// There is a second one, so the packet size is anybody's guess.
    #[error("ASF header with two File Properties Objects")]
    TwoFileProperties,
    /// Nothing to play.
    #[error("ASF header without a stream")]
    NoStreams,
    /// Two streams share a number.
    #[error("ASF header describes stream {0} twice")]
    TwoStreams(u8),
}

/// A parsed ASF header: the Header Object and what the relay needs of it.
///
/// Cheap to clone, the bytes are shared.
#[derive(Debug, Clone)]
pub struct Header {
    bytes: Bytes,
    file: FileProperties,
    /// Packets by the Data Object, where that and the header agree.
    data_packets: Option<u64>,
    bit_rate: u32,
    streams: Vec<Stream>,
    video: StreamSet,
    /// The Stream Properties Object of each stream, in the order of `streams`.
    stream_properties: Vec<Range<usize>>,
    encryption: Vec<Range<usize>>,
    file_properties: Range<usize>,
    replicated_len: u8,
}

impl Header {
    /// Reads a Header Object, and the head of the Data Object where its 50 bytes follow.
    ///
    /// # Errors
    /// [`HeaderError`] where the bytes end early, lie about their sizes, or describe a stream that cannot be
    /// relayed.
    ///
    /// Source: ASF 3; bounds of our own.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut start = Cursor::new(bytes);
        let too_short = |cause| HeaderError::Object { object: "Header Object", at: 0, cause };
        let len = Self::header_len(bytes)?.unwrap_or(HEADER_HEAD_LEN);
        let header = start.take("header", len).map_err(too_short)?;
        let mut found = Found::default();
        found.read_children(header, 0, HEADER_HEAD_LEN, "Header Object", Level::Header)?;
        found.finish(header, start.rest())
    }

    /// How many bytes the Header Object and the 50 bytes behind it are, told from the first 30 bytes.
    ///
    /// `None` where fewer than 30 are there.
    ///
    /// # Errors
    /// [`HeaderError`] where they do not begin a header, or one that is too long.
    pub fn gather_len(first: &[u8]) -> Result<Option<usize>, HeaderError> {
        Ok(Self::header_len(first)?.map(|len| len + DATA_HEAD_LEN))
    }

    /// How many bytes the Header Object has, told from its first 30.
    fn header_len(first: &[u8]) -> Result<Option<usize>, HeaderError> {
        let mut cursor = Cursor::new(first);
        match cursor.guid("object id") {
            Ok(guids::HEADER) => (),
            Ok(_) => return Err(HeaderError::NotAsf),
            Err(_) => return Ok(None),
        }
        let (Ok(size), Ok(_children), Ok(_one), Ok(two)) =
            (cursor.u64("object size"), cursor.u32("children"), cursor.u8("reserved 1"), cursor.u8("reserved 2"))
        else {
            return Ok(None);
        };
        let invalid = |cause| HeaderError::Object { object: "Header Object", at: 0, cause };
        if two != 2 {
            // The standard asks readers to refuse any other value.
            return Err(invalid(cursor.invalid("reserved 2", 1, "must be 2")));
        }
        match usize::try_from(size) {
            Ok(len @ HEADER_HEAD_LEN..=MAX_HEADER_LEN) => Ok(Some(len)),
            Ok(..HEADER_HEAD_LEN) => Err(invalid(cursor.invalid("object size", 14, "under the 30 bytes of its own head"))),
            _ => Err(HeaderError::TooLong(size)),
        }
    }

    /// Size of every packet, 100 to 65527 bytes.
    pub fn packet_size(&self) -> usize {
        usize::from(self.file.packet_size)
    }

    /// What a player buffers before it shows anything; every presentation time includes it.
    ///
    /// At most a minute; more is taken for a mistake and read as 5 s.
    pub const fn preroll_ms(&self) -> u32 {
        self.file.preroll_ms
    }

    /// Bits a second of all streams together, at least 1.
    ///
    /// The sum of what the streams state; where one states nothing, at least the maximum that the file states.
    pub const fn bit_rate(&self) -> u32 {
        self.bit_rate
    }

    /// Whether the header says that the stream is live: sizes, counts and durations are then unknown.
    pub const fn is_broadcast(&self) -> bool {
        self.file.broadcast
    }

    /// How long the stream plays, without the preroll. `None` if live, or if the figure is absurd.
    pub fn play_duration_ms(&self) -> Option<u64> {
        let ms = (self.file.play_duration / 10_000).saturating_sub(u64::from(self.file.preroll_ms));
        (!self.file.broadcast && (1..ABSURD_DURATION_MS).contains(&ms)).then_some(ms)
    }

    /// How many packets the header says there are. `None` if live, or if the figure is absurd.
    pub fn packet_count(&self) -> Option<u64> {
        let count = self.file.packet_count;
        (!self.file.broadcast && (1..ABSURD_PACKET_COUNT).contains(&count)).then_some(count)
    }

    /// How many packets the Data Object holds, where its size, its own count and the packet size agree and the
    /// stream is not live. `None` too where the header came without the Data Object's head.
    pub const fn data_packet_count(&self) -> Option<u64> {
        self.data_packets
    }

    /// The streams, in the header's order; at least one.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// What a video codec keeps beside the BITMAPINFOHEADER of a stream; `None` where it is no video stream of this header.
    pub fn codec_data(&self, number: u8) -> Option<&[u8]> {
        let index = self.streams.iter().position(|stream| stream.number == number && stream.kind == StreamKind::Video)?;
        let object = self.bytes.get(self.stream_properties.get(index)?.clone())?;
        // Behind the object's own fields: 11 bytes of the picture, of which the last two count those of the format.
        let len = u16::from_le_bytes(*object.get(78 + 9..)?.first_chunk()?);
        object.get(78 + 11..)?.get(..usize::from(len))?.get(40..)
    }

    /// The video streams, whose key frames make join points; empty where every packet is one.
    ///
    /// A video stream that declares itself without clean points is not among them: nobody would ever join.
    pub const fn video(&self) -> StreamSet {
        self.video
    }

    /// The longest replicated data of a payload by the declared payload extension systems, 8 to 255 bytes.
    pub(super) fn replicated_len(&self) -> usize {
        usize::from(self.replicated_len)
    }

    /// The whole File Properties Object.
    pub(super) fn file_properties(&self) -> Option<Bytes> {
        (self.file_properties.end <= self.bytes.len()).then(|| self.bytes.slice(self.file_properties.clone()))
    }

    /// The maximum bit rate that the file states, bits a second.
    pub(super) const fn file_bit_rate(&self) -> u32 {
        self.file.max_bit_rate
    }

    /// The Header Object as given, without the Data Object's head.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the streams are the same as in an earlier header, so that players can go on with that one.
    ///
    /// Packet size, preroll, every Stream Properties Object and the encryption objects must match; names, dates,
    /// durations and the File ID need not.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.file.packet_size == earlier.file.packet_size
            && self.file.preroll_ms == earlier.file.preroll_ms
            && self.streams.len() == earlier.streams.len()
            && self.streams.iter().all(|stream| {
                let ours = self.properties_of(stream.number);
                ours.is_some() && ours == earlier.properties_of(stream.number)
            })
            && self.encryption_objects().eq(earlier.encryption_objects())
    }

    /// A stream's Stream Properties Object around its reserved field, where writers leave arbitrary bytes.
    fn properties_of(&self, number: u8) -> Option<(&[u8], &[u8])> {
        let object = self.properties_of_stream(number)?;
        Some((object.get(..74)?, object.get(78..)?))
    }

    /// A stream's whole Stream Properties Object.
    pub(super) fn properties_of_stream(&self, number: u8) -> Option<&[u8]> {
        let index = self.streams.iter().position(|stream| stream.number == number)?;
        self.bytes.get(self.stream_properties.get(index)?.clone())
    }

    /// Whether there is an encryption object of any kind.
    pub(super) const fn is_encrypted(&self) -> bool {
        !self.encryption.is_empty()
    }

    fn encryption_objects(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.encryption.iter().map(|range| self.bytes.get(range.clone()))
    }
}

/// Where the walk through the header is: the standard lets most objects stand on either level.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Header,
    Extension,
}

/// What the walk has found so far.
#[derive(Default)]
struct Found {
    file: Option<FileProperties>,
    streams: Vec<Stream>,
    stream_properties: Vec<Range<usize>>,
    encryption: Vec<Range<usize>>,
    leaky_bucket_rates: Rates,
    average_rates: Rates,
    no_clean_points: StreamSet,
    file_properties: Range<usize>,
    replicated_len: u8,
}

impl Found {
    /// Reads the children of an object, `bytes`, which begins at byte `at` of the header; they begin at `start` in it.
    fn read_children(
        &mut self,
        bytes: &[u8],
        at: usize,
        start: usize,
        name: &'static str,
        level: Level,
    ) -> Result<(), HeaderError> {
        for object in Objects::new(bytes.get(start..).unwrap_or_default()) {
            let mut object = object.map_err(|cause| HeaderError::Object { object: name, at: at + start, cause })?;
            object.at += at + start;
            self.read_object(&object, level)?;
        }
        Ok(())
    }

    fn read_object(&mut self, object: &Object<'_>, level: Level) -> Result<(), HeaderError> {
        let within = |name| move |cause| HeaderError::Object { object: name, at: object.at, cause };
        let range = object.at..object.at + object.bytes.len();
        match object.guid {
            guids::FILE_PROPERTIES => {
                let file = FileProperties::parse(object.body()).map_err(within("File Properties Object"))?;
                if self.file.replace(file).is_some() {
                    return Err(HeaderError::TwoFileProperties);
                }
                self.file_properties = range;
            }
            guids::STREAM_PROPERTIES => self.read_stream(object)?,
            guids::EXTENDED_STREAM_PROPERTIES => {
                let name = "Extended Stream Properties Object";
                let extended = ExtendedStream::parse(object).map_err(within(name))?;
                if extended.no_clean_points {
                    self.no_clean_points.insert(extended.number);
                }
                self.replicated_len = self.replicated_len.max(extended.replicated_len);
                self.leaky_bucket_rates.note(extended.number, extended.bit_rate);
                if let Some(embedded) = extended.embedded {
                    self.read_stream(&embedded)?;
                }
            }
            guids::STREAM_BITRATE_PROPERTIES => {
                let rates = &mut self.average_rates;
                stream_bit_rates(object.body(), |number, rate| rates.note(number, rate))
                    .map_err(within("Stream Bitrate Properties Object"))?;
            }
            guids::CONTENT_ENCRYPTION | guids::EXTENDED_CONTENT_ENCRYPTION | guids::ADVANCED_CONTENT_ENCRYPTION => {
                self.encryption.push(range);
            }
            guids::HEADER_EXTENSION if level == Level::Header => {
                let name = "Header Extension Object";
                object.body().skip("extension head", EXTENSION_HEAD_LEN - 24).map_err(within(name))?;
                // Its own data size field repeats the object's size, not always right; only the latter counts.
                self.read_children(object.bytes, object.at, EXTENSION_HEAD_LEN, name, Level::Extension)?;
            }
            _ => (),
        }
        Ok(())
    }

    fn read_stream(&mut self, object: &Object<'_>) -> Result<(), HeaderError> {
        let name = "Stream Properties Object";
        let stream = Stream::parse(object.body()).map_err(|cause| HeaderError::Object { object: name, at: object.at, cause })?;
        if self.streams.iter().any(|other| other.number == stream.number) {
            return Err(HeaderError::TwoStreams(stream.number));
        }
        self.streams.push(stream);
        self.stream_properties.push(object.at..object.at + object.bytes.len());
        Ok(())
    }

    fn finish(mut self, header: &[u8], behind: &[u8]) -> Result<Header, HeaderError> {
        let file = self.file.ok_or(HeaderError::NoFileProperties)?;
        if self.streams.is_empty() {
            return Err(HeaderError::NoStreams);
        }
        let mut video = StreamSet::EMPTY;
        for stream in &mut self.streams {
            stream.bit_rate = stream.rate(&self.leaky_bucket_rates, &self.average_rates);
            if stream.kind == StreamKind::Video && !self.no_clean_points.contains(stream.number) {
                video.insert(stream.number);
            }
        }
        let sum = self.streams.iter().fold(0_u32, |sum, stream| sum.saturating_add(stream.bit_rate));
        let all_known = self.streams.iter().all(|stream| stream.bit_rate > 0 || stream.kind == StreamKind::Command);
        Ok(Header {
            bytes: Bytes::copy_from_slice(header),
            file,
            data_packets: data_packets(behind, &file),
            bit_rate: if all_known { sum } else { sum.max(file.max_bit_rate) }.max(1),
            streams: self.streams,
            video,
            stream_properties: self.stream_properties,
            encryption: self.encryption,
            file_properties: self.file_properties,
            replicated_len: self.replicated_len.max(8),
        })
    }
}

/// Packets by the Data Object's head, if that is there and agrees with itself.
fn data_packets(behind: &[u8], file: &FileProperties) -> Option<u64> {
    let mut head = Cursor::new(behind.get(..DATA_HEAD_LEN)?);
    let guid: Guid = head.guid("object id").ok()?;
    let size = head.u64("object size").ok()?;
    head.guid("file id").ok()?;
    let count = head.u64("packet count").ok()?;
    let whole = count.checked_mul(u64::from(file.packet_size))?.checked_add(50)?;
    (guid == guids::DATA && !file.broadcast && count > 0 && whole == size).then_some(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::{
        audio, bit_rates, data_head, extended_stream, extension, file_properties, header, object, video,
    };
    use crate::asf::{Format, samples};

    fn parse(children: &[Vec<u8>]) -> Result<Header, HeaderError> {
        Header::parse(&header(children))
    }

    #[test]
    fn headers_of_the_samples() {
        let facts = |name| {
            let (header, _) = samples::stream(name);
            (
                header.packet_size(),
                header.preroll_ms(),
                header.packet_count(),
                header.is_broadcast(),
                header.video().iter().collect(),
            )
        };
        assert_eq!(facts("vod-wmv2-wmav2-indexed.wmv"), (3200, 3100, Some(94), false, vec![1]));
        assert_eq!(facts("live-asf-pipe.asf"), (1400, 3100, None, true, vec![1]));
        assert_eq!(facts("audio-wmav2.wma"), (3200, 3100, Some(54), false, vec![]));
        assert_eq!(facts("mbr-2video-1audio.asf"), (1400, 3100, Some(180), false, vec![1, 2]));
        assert_eq!(facts("edge-packets-pcmu.asf"), (800, 1000, Some(130), false, vec![]));

        let (vod, _) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        assert_eq!(vod.data_packet_count(), Some(94));
        assert!(vod.play_duration_ms().is_some_and(|ms| (10_000..10_200).contains(&ms)), "{:?}", vod.play_duration_ms());
        assert_eq!(vod.streams()[0].format, Format::Video { four_cc: *b"WMV2", width: 320, height: 240 });
        assert!(matches!(vod.streams()[1].format, Format::Audio { tag: 0x161, sample_rate: 44_100, .. }));
        let (mbr, _) = samples::stream("mbr-2video-1audio.asf");
        assert_eq!(mbr.streams().iter().map(|stream| stream.bit_rate).collect::<Vec<_>>(), [120_000, 40_000, 32_000]);
        assert_eq!(mbr.bit_rate(), 192_000);
    }

    #[test]
    fn cut_at_every_length() {
        for (name, ..) in samples::STREAMS {
            let (header, _) = samples::stream(name);
            for cut in 0..header.bytes().len() {
                let part = &header.bytes()[..cut];
                assert!(Header::parse(part).is_err(), "{name} {cut}");
                assert_eq!(Header::gather_len(part), Ok((cut >= 30).then(|| header.bytes().len() + 50)), "{name} {cut}");
            }
        }
    }

    /// Each object of a header cut short inside a header whose sizes are right again.
    #[test]
    fn each_object_cut_at_every_length() {
        let hidden = video(3);
        let objects = [
            file_properties(1400, 0),
            audio(1),
            video(2),
            extended_stream(3, 90_000, 0, &hidden),
            bit_rates(&[(1, 5), (2, 6)]),
            extension(&[extended_stream(2, 1, 0, &[])]),
        ];
        assert_eq!(parse(&objects).unwrap().streams().len(), 3);
        for (index, whole) in objects.iter().enumerate() {
            for cut in 24..whole.len() {
                let mut objects = objects.clone();
                objects[index] = object(Guid(*whole.first_chunk().unwrap()), &whole[24..cut]);
                // An Extended Stream Properties Object may end before the object hidden in it.
                let tail = index == 3 && (88..88 + 24).contains(&cut);
                // Bytes at the end of a level that are no object are passed over.
                let gap = index == 5 && (46..46 + 24).contains(&cut);
                assert_eq!(parse(&objects).is_ok(), tail || gap, "object {index} cut at {cut}");
            }
        }
    }

    #[test]
    fn header_object_bounds() {
        let good = header(&[file_properties(1400, 0), audio(1)]);
        let with = |at: usize, bytes: &[u8]| {
            let mut header = good.clone();
            header[at..at + bytes.len()].copy_from_slice(bytes);
            Header::parse(&header).map(|_| ())
        };
        assert_eq!(with(24, &u32::MAX.to_le_bytes()), Ok(()), "the number of children is not believed");
        assert_eq!(with(0, &[0]), Err(HeaderError::NotAsf));
        assert_eq!(with(16, &(1_u64 << 20 | 1).to_le_bytes()), Err(HeaderError::TooLong((1 << 20) + 1)));
        assert_eq!(with(16, &u64::MAX.to_le_bytes()), Err(HeaderError::TooLong(u64::MAX)));
        for (at, bytes) in
            [(29, &[1][..]), (16, &29_u64.to_le_bytes()), (16, &0_u64.to_le_bytes()), (16, &(1_u64 << 20).to_le_bytes())]
        {
            assert!(matches!(with(at, bytes), Err(HeaderError::Object { object: "Header Object", .. })), "{at} {bytes:?}");
        }
    }

    #[test]
    fn what_a_header_needs() {
        let file = || file_properties(1400, 0);
        assert_eq!(parse(&[audio(1)]).err(), Some(HeaderError::NoFileProperties));
        assert_eq!(parse(&[file()]).err(), Some(HeaderError::NoStreams));
        assert_eq!(parse(&[file(), audio(1), file()]).err(), Some(HeaderError::TwoFileProperties));
        assert_eq!(parse(&[file(), audio(1), extension(&[file()])]).err(), Some(HeaderError::TwoFileProperties));
        assert_eq!(parse(&[file(), audio(1), video(1)]).err(), Some(HeaderError::TwoStreams(1)));
        assert_eq!(parse(&[file(), audio(1), extended_stream(1, 0, 0, &video(1))]).err(), Some(HeaderError::TwoStreams(1)));
        assert!(parse(&[audio(1), extension(&[video(2)]), file()]).is_ok(), "in any order, on either level");
    }

    #[test]
    fn extensions_do_not_nest() {
        let mut nested = extension(&[audio(9)]);
        for _ in 0..1_000 {
            nested = extension(&[nested]);
        }
        let header = parse(&[file_properties(1400, 0), audio(1), nested]).unwrap();
        assert_eq!(header.streams().len(), 1, "only the first level of extension is read");
    }

    #[test]
    fn all_streams_there_can_be() {
        let mut children: Vec<_> = (1..=127).map(audio).collect();
        children.push(file_properties(1400, 0));
        assert_eq!(parse(&children).unwrap().bit_rate(), 127 * 64_000);
    }

    #[test]
    fn errors_say_where() {
        let error = parse(&[file_properties(99, 0), audio(1)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ASF header: File Properties Object at byte 30: packet size at byte 72: outside 100 to 65527; set the encoder's packet size, 1400 suits most"
        );
    }

    #[test]
    fn bit_rates_of_streams() {
        let rate = |children: &[Vec<u8>]| {
            let header = parse(&[&[file_properties(1400, 0)], children].concat()).unwrap();
            (header.streams().iter().map(|stream| stream.bit_rate).collect::<Vec<_>>(), header.bit_rate())
        };
        assert_eq!(rate(&[audio(1)]), (vec![64_000], 64_000), "from the audio format");
        assert_eq!(rate(&[audio(1), video(2)]), (vec![64_000, 0], 500_000), "the file's maximum where a stream says nothing");
        assert_eq!(rate(&[audio(1), video(2), bit_rates(&[(2, 90_000)])]), (vec![64_000, 90_000], 154_000));
        assert_eq!(rate(&[bit_rates(&[(2, 9)]), video(2), extended_stream(2, 70_000, 0, &[])]), (vec![70_000], 70_000));
        let top = [audio(1), video(2), bit_rates(&[(1, u32::MAX), (2, u32::MAX)])];
        assert_eq!(rate(&top).1, u32::MAX, "saturates");
    }

    #[test]
    fn streams_without_clean_points_make_no_join_points() {
        let header = parse(&[file_properties(1400, 0), video(1), video(2), extended_stream(2, 1, 4, &[])]).unwrap();
        assert_eq!(header.video().iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn counts_and_durations() {
        let read = |flags, data: &[u8]| {
            let bytes = [header(&[file_properties(1400, flags), audio(1)]), data.to_vec()].concat();
            let header = Header::parse(&bytes).unwrap();
            (header.packet_count(), header.data_packet_count(), header.play_duration_ms())
        };
        assert_eq!(read(2, &data_head(7, 1400)), (Some(7), Some(7), Some(7_000)));
        assert_eq!(read(2, &data_head(7, 1400)[..49]), (Some(7), None, Some(7_000)));
        assert_eq!(read(2, &data_head(7, 1399)).1, None, "its size and its count disagree");
        assert_eq!(read(2, &data_head(0, 1400)).1, None);
        assert_eq!(read(3, &data_head(7, 1400)), (None, None, None), "live: nothing of it counts");
    }

    #[test]
    fn a_header_continues_another() {
        let base = [file_properties(1400, 1), audio(1), video(2)];
        let continues = |children: &[Vec<u8>]| {
            let (now, before) = (parse(children).unwrap(), parse(&base).unwrap());
            assert_eq!(now.continues(&before), before.continues(&now));
            now.continues(&before)
        };
        let mut garbage = audio(1);
        garbage[74..78].fill(0x77);
        let mut other_codec = video(2);
        *other_codec.last_mut().unwrap() = 1;
        let drm = object(guids::CONTENT_ENCRYPTION, &[1; 16]);
        assert!(continues(&base));
        assert!(
            continues(&[video(2), bit_rates(&[(1, 4)]), file_properties(1400, 2), garbage]),
            "order, rates and flags do not count"
        );
        assert!(!continues(&[file_properties(1200, 1), audio(1), video(2)]));
        assert!(!continues(&[file_properties(1400, 1), audio(1)]));
        assert!(!continues(&[file_properties(1400, 1), audio(1), video(3)]));
        assert!(!continues(&[file_properties(1400, 1), audio(1), other_codec]));
        assert!(!continues(&[file_properties(1400, 1), audio(1), video(2), video(3)]));
        assert!(!continues(&[file_properties(1400, 1), audio(1), video(2), drm]));
        let (pipe, _) = samples::stream("live-asf-pipe.asf");
        let (framed, _) = samples::stream("live-asf_stream-pipe.mmsh");
        let (file, _) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        assert!(pipe.continues(&framed) && !pipe.continues(&file));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::gather_len(&bytes);
            let _ = Header::parse(&bytes);
            let _ = Header::parse(&header(&[file_properties(1400, 0), audio(1), bytes]));
        }

        #[test]
        fn damaged_headers_never_panic(
            sample in 0..samples::STREAMS.len(),
            hits in proptest::collection::vec((any::<u16>(), prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()]), 1..6),
        ) {
            let (sound, _) = samples::stream(samples::STREAMS[sample].0);
            let mut bytes = sound.bytes().to_vec();
            for (at, value) in hits {
                let at = 30 + usize::from(at) % (bytes.len() - 30);
                bytes[at] = value;
            }
            if let Ok(header) = Header::parse(&bytes) {
                let live = header.broadcast(Guid([7; 16]), 1);
                prop_assert!(Header::parse(&live).unwrap().continues(&header));
            }
        }
    }
}
