//! The header's objects that say what the streams are: File, Stream, Extended Stream and Stream Bitrate Properties.

use super::guids;
use super::objects::{OBJECT_HEAD_LEN, Object};
use crate::wire::{Cursor, DecodeError, Guid};

/// The smallest packet that the Windows Media SDK writes.
const MIN_PACKET_SIZE: u32 = 100;
/// The largest that MMS and HTTP carry: a 16-bit length there counts the packet and 8 bytes more.
const MAX_PACKET_SIZE: u32 = 65_527;
/// A longer preroll is a mistake of the writer.
const MAX_PREROLL_MS: u64 = 60_000;
/// What a preroll over the bound is taken for.
const FALLBACK_PREROLL_MS: u32 = 5_000;
/// Payload extension systems of one stream.
const MAX_EXTENSION_SYSTEMS: u16 = 32;
/// What one byte of replicated data length leaves for payload extensions, behind object size and time.
const MAX_EXTENSION_LEN: u32 = 247;
/// Size of a payload extension system whose data brings its own length.
const VARIABLE: u16 = 0xFFFF;

/// File Properties flag: the sizes, counts and durations are not known.
const BROADCAST: u32 = 1;

/// What the File Properties Object says about the whole stream (ASF 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileProperties {
    pub(super) packet_count: u64,
    /// With preroll, in units of 100 ns.
    pub(super) play_duration: u64,
    pub(super) preroll_ms: u32,
    pub(super) broadcast: bool,
    pub(super) packet_size: u16,
    /// Bits a second.
    pub(super) max_bit_rate: u32,
}

impl FileProperties {
    /// Bytes of the object.
    pub(super) const LEN: usize = 104;

    // Offsets from the start of the object, for edits.
    pub(super) const FILE_ID_AT: usize = 24;
    pub(super) const FILE_SIZE_AT: usize = 40;
    pub(super) const PACKET_COUNT_AT: usize = 56;
    pub(super) const PLAY_DURATION_AT: usize = 64;
    pub(super) const SEND_DURATION_AT: usize = 72;
    pub(super) const PREROLL_AT: usize = 80;
    const FLAGS_AT: usize = 88;
    const PACKET_SIZES_AT: usize = 92;
    pub(super) const BIT_RATE_AT: usize = 100;

    pub(super) fn parse(mut body: Cursor<'_>) -> Result<Self, DecodeError> {
        body.guid("file id")?;
        body.u64("file size")?;
        body.u64("creation date")?;
        let packet_count = body.u64("data packet count")?;
        let play_duration = body.u64("play duration")?;
        body.u64("send duration")?;
        let preroll = body.u64("preroll")?;
        let flags = body.u32("flags")?;
        let min = body.u32("minimum packet size")?;
        let max = body.u32("maximum packet size")?;
        if min != max {
            return Err(body.invalid("packet size", 8, "minimum and maximum differ; only packets of one size can be relayed"));
        }
        let packet_size = match u16::try_from(max) {
            Ok(size) if (MIN_PACKET_SIZE..=MAX_PACKET_SIZE).contains(&max) => size,
            _ => {
                return Err(body.invalid(
                    "packet size",
                    4,
                    "outside 100 to 65527; set the encoder's packet size, 1400 suits most",
                ));
            }
        };
        Ok(Self {
            packet_count,
            play_duration,
            preroll_ms: match u32::try_from(preroll) {
                Ok(ms) if preroll <= MAX_PREROLL_MS => ms,
                _ => FALLBACK_PREROLL_MS,
            },
            broadcast: flags & BROADCAST != 0,
            packet_size,
            max_bit_rate: body.u32("maximum bit rate")?,
        })
    }

    /// Overwrites bytes of the object, which is known to be whole.
    pub(super) fn put(object: &mut [u8], at: usize, bytes: &[u8]) {
        if let Some(field) = object.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    /// A field of the object, which is known to be whole.
    pub(super) fn u64_at(object: &[u8], at: usize) -> u64 {
        object.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    pub(super) fn file_id(object: &[u8]) -> Guid {
        object.get(Self::FILE_ID_AT..).and_then(|rest| rest.first_chunk()).map_or(Guid([0; 16]), |bytes| Guid(*bytes))
    }

    /// The object with another number of packets, and another size of them, which is taken into its bounds.
    pub(super) fn with_packets(object: &[u8], packets: u64, packet_size: usize) -> Vec<u8> {
        let size = u32::try_from(packet_size).unwrap_or(u32::MAX).clamp(MIN_PACKET_SIZE, MAX_PACKET_SIZE).to_le_bytes();
        let mut new = object.to_vec();
        Self::put(&mut new, Self::PACKET_COUNT_AT, &packets.to_le_bytes());
        Self::put(&mut new, Self::PACKET_SIZES_AT, &[size, size].concat());
        new
    }

    /// The seekable flag.
    pub(super) fn is_seekable(object: &[u8]) -> bool {
        object.get(Self::FLAGS_AT).is_some_and(|flags| flags & 2 != 0)
    }

    /// Flags of a file: no broadcast, seekable or not; bits without a meaning stay.
    pub(super) fn put_flags(object: &mut [u8], seekable: bool) {
        if let Some(flags) = object.get_mut(Self::FLAGS_AT) {
            *flags = *flags & !3 | u8::from(seekable) << 1;
        }
    }
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Sound.
    Audio,
    /// Moving pictures, the only kind with key frames to wait for.
    Video,
    /// Script commands.
    Command,
    /// Still pictures, JFIF.
    Jfif,
    /// Still pictures, degradable JPEG.
    DegradableJpeg,
    /// Files.
    FileTransfer,
    /// Anything, in Microsoft's binary form.
    Binary,
    /// A type that ASF does not define.
    Other(Guid),
}

impl StreamKind {
    fn of(guid: Guid) -> Self {
        match guid {
            guids::AUDIO => Self::Audio,
            guids::VIDEO => Self::Video,
            guids::COMMAND => Self::Command,
            guids::JFIF => Self::Jfif,
            guids::DEGRADABLE_JPEG => Self::DegradableJpeg,
            guids::FILE_TRANSFER => Self::FileTransfer,
            guids::BINARY => Self::Binary,
            other => Self::Other(other),
        }
    }
}

/// The codec and shape of a stream, for logs and lists; the relay decodes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// From WAVEFORMATEX.
    Audio {
        /// Format tag: 0x0161 is Windows Media Audio 2, for instance.
        tag: u16,
        /// Channels.
        channels: u16,
        /// Samples a second.
        sample_rate: u32,
        /// Average bytes a second.
        bytes_per_s: u32,
    },
    /// From the encoded image size and BITMAPINFOHEADER.
    Video {
        /// Codec.
        four_cc: [u8; 4],
        /// Pixels, as stated.
        width: u32,
        /// Pixels, as stated.
        height: u32,
    },
    /// The kind of stream has no format that the relay reads.
    Unread,
}

/// One stream of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// 1 to 127, once in a header.
    pub number: u8,
    /// What it carries.
    pub kind: StreamKind,
    /// Its codec.
    pub format: Format,
    /// Whether its payloads are encrypted (DRM).
    pub encrypted: bool,
    /// Bits a second; 0 where the header does not say.
    pub bit_rate: u32,
}

impl Stream {
    /// Reads a Stream Properties Object's body (ASF 3.3).
    pub(super) fn parse(mut body: Cursor<'_>) -> Result<Self, DecodeError> {
        let kind = StreamKind::of(body.guid("stream type")?);
        body.guid("error correction type")?;
        body.u64("time offset")?;
        let type_len = body.u32("type-specific data length")?;
        let correction_len = body.u32("error correction data length")?;
        let flags = body.u16("stream flags")?;
        let number = stream_number(&body, flags & 0x7F)?;
        // Microsoft's writers leave arbitrary bytes in the reserved field.
        body.u32("reserved")?;
        let type_specific = body.take("type-specific data", usize::try_from(type_len).unwrap_or(usize::MAX))?;
        body.skip("error correction data", usize::try_from(correction_len).unwrap_or(usize::MAX))?;
        let format = match kind {
            StreamKind::Audio => audio_format(type_specific)?,
            StreamKind::Video => video_format(type_specific)?,
            _ => Format::Unread,
        };
        Ok(Self { number, kind, format, encrypted: flags & 0x8000 != 0, bit_rate: 0 })
    }

    /// Its leaky-bucket rate, else its average, else what its audio format says, else 0.
    pub(super) fn rate(&self, leaky_bucket: &Rates, average: &Rates) -> u32 {
        leaky_bucket.of(self.number).or_else(|| average.of(self.number)).unwrap_or(match self.format {
            Format::Audio { bytes_per_s, .. } => bytes_per_s.saturating_mul(8),
            _ => 0,
        })
    }
}

fn stream_number(after: &Cursor<'_>, number: u16) -> Result<u8, DecodeError> {
    match u8::try_from(number) {
        Ok(number @ 1..=127) => Ok(number),
        _ => Err(after.invalid("stream number", 2, "outside 1 to 127")),
    }
}

fn audio_format(type_specific: &[u8]) -> Result<Format, DecodeError> {
    let mut wave = Cursor::new(type_specific);
    let tag = wave.u16("audio format tag")?;
    let channels = wave.u16("audio channels")?;
    let sample_rate = wave.u32("audio sample rate")?;
    let bytes_per_s = wave.u32("audio bytes per second")?;
    wave.u16("audio block align")?;
    wave.u16("audio bits per sample")?;
    // A byte or two may follow the codec data: FFmpeg makes the whole even.
    let codec_len = wave.u16("audio codec data length")?;
    wave.skip("audio codec data", usize::from(codec_len))?;
    Ok(Format::Audio { tag, channels, sample_rate, bytes_per_s })
}

fn video_format(type_specific: &[u8]) -> Result<Format, DecodeError> {
    let mut image = Cursor::new(type_specific);
    let width = image.u32("encoded image width")?;
    let height = image.u32("encoded image height")?;
    image.u8("image flags")?;
    let format_len = image.u16("video format data length")?;
    let mut bitmap = Cursor::new(image.take("video format data", usize::from(format_len))?);
    let bitmap_len = bitmap.u32("bitmap header length")?;
    if bitmap_len < 40 || usize::try_from(bitmap_len).is_ok_and(|len| len > type_specific.len() - 11) {
        return Err(bitmap.invalid("bitmap header length", 4, "under 40 bytes or longer than the data around it"));
    }
    bitmap.skip("bitmap size and planes", 12)?;
    let four_cc = bitmap.array("video codec")?;
    bitmap.skip("bitmap header", 20)?;
    Ok(Format::Video { four_cc, width, height })
}

/// What the relay needs of an Extended Stream Properties Object (ASF 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExtendedStream<'a> {
    pub(super) number: u8,
    /// Leaky-bucket rate, bits a second.
    pub(super) bit_rate: u32,
    /// The stream has no clean points to begin at.
    pub(super) no_clean_points: bool,
    /// The longest replicated data that its payload extension systems make, 8 to 255 bytes.
    pub(super) replicated_len: u8,
    /// The Stream Properties Object of a stream that is hidden from old readers.
    pub(super) embedded: Option<Object<'a>>,
}

impl<'a> ExtendedStream<'a> {
    /// Offsets from the start of the object, for the broadcast header's edits.
    pub(super) const START_AND_END_TIME: std::ops::Range<usize> = 24..40;
    pub(super) const PEAK_RATE_AT: usize = 52;
    pub(super) const FLAGS_AT: usize = 68;
    pub(super) const SEEKABLE: u8 = 2;
    pub(super) const NO_CLEAN_POINTS: u32 = 4;
    pub(super) const RESEND_LIVE_CLEAN_POINTS: u8 = 8;

    pub(super) fn parse(object: &Object<'a>) -> Result<Self, DecodeError> {
        let mut body = object.body();
        body.skip("start and end time", 16)?;
        let bit_rate = body.u32("data bit rate")?;
        body.skip("buckets and object size", 24)?;
        let flags = body.u32("flags")?;
        let number = body.u16("stream number")?;
        let number = stream_number(&body, number)?;
        body.u16("language index")?;
        body.u64("average time per frame")?;
        let names = body.u16("number of stream names")?;
        let systems = body.u16("number of payload extension systems")?;
        if systems > MAX_EXTENSION_SYSTEMS {
            return Err(body.invalid("number of payload extension systems", 2, "over 32"));
        }
        for _ in 0..names {
            body.u16("name language")?;
            let len = body.u16("name length")?;
            body.skip("stream name", usize::from(len))?;
        }
        let (mut fixed, mut variable) = (0, false);
        for _ in 0..systems {
            body.guid("payload extension system")?;
            let size = body.u16("payload extension size")?;
            variable |= size == VARIABLE;
            fixed += if size == VARIABLE { 0 } else { u32::from(size) };
            if fixed > MAX_EXTENSION_LEN {
                return Err(body.invalid("payload extension size", 2, "more than fits into replicated data"));
            }
            let len = body.u32("payload extension info length")?;
            body.skip("payload extension info", usize::try_from(len).unwrap_or(usize::MAX))?;
        }
        Ok(Self {
            number,
            bit_rate,
            no_clean_points: flags & Self::NO_CLEAN_POINTS != 0,
            replicated_len: if variable { u8::MAX } else { u8::try_from(8 + fixed).unwrap_or(u8::MAX) },
            embedded: embedded_object(object, body)?,
        })
    }
}

/// The object that may close an Extended Stream Properties Object; present where there is room for a head.
fn embedded_object<'a>(outer: &Object<'a>, mut body: Cursor<'a>) -> Result<Option<Object<'a>>, DecodeError> {
    if body.remaining() < OBJECT_HEAD_LEN {
        return Ok(None);
    }
    let bytes = body.rest();
    let at = outer.at + OBJECT_HEAD_LEN + body.position();
    let guid = body.guid("embedded object id")?;
    let size = body.u64("embedded object size")?;
    match usize::try_from(size).ok().filter(|size| *size >= OBJECT_HEAD_LEN).and_then(|size| bytes.get(..size)) {
        Some(bytes) => Ok((guid == guids::STREAM_PROPERTIES).then_some(Object { guid, at, bytes })),
        None => Err(body.invalid("embedded object size", 8, "under 24 or past the end of the object around it")),
    }
}

/// Bits a second by stream number, 0 where not stated.
pub(super) struct Rates([u32; 128]);

impl Default for Rates {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Rates {
    /// Notes a rate; of several for one stream the first counts.
    pub(super) fn note(&mut self, number: u8, rate: u32) {
        if let Some(known) = self.0.get_mut(usize::from(number)).filter(|known| **known == 0) {
            *known = rate;
        }
    }

    pub(super) fn of(&self, number: u8) -> Option<u32> {
        self.0.get(usize::from(number)).copied().filter(|rate| *rate > 0)
    }
}

/// Average bit rates by stream, from a Stream Bitrate Properties Object's body (ASF 3.12).
pub(super) fn stream_bit_rates(mut body: Cursor<'_>, mut found: impl FnMut(u8, u32)) -> Result<(), DecodeError> {
    for _ in 0..body.u16("number of bit rates")? {
        let flags = body.u16("bit rate flags")?;
        let rate = body.u32("average bit rate")?;
        if let Ok(number @ 1..=127) = u8::try_from(flags & 0x7F) {
            found(number, rate);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Writer;

    fn file_properties(min: u32, max: u32, preroll: u64) -> Vec<u8> {
        let mut out = Writer::default();
        out.zeros(32).u64(7).u64(50_000_000).zeros(8).u64(preroll).u32(1).u32(min).u32(max).u32(64_000);
        out.finish()
    }

    #[test]
    fn packet_size_bounds() {
        for (min, max, good) in [
            (100, 100, true),
            (65_527, 65_527, true),
            (0, 0, false),
            (1, 1, false),
            (99, 99, false),
            (65_528, 65_528, false),
            (u32::MAX, u32::MAX, false),
            (1400, 1401, false),
        ] {
            assert_eq!(FileProperties::parse(Cursor::new(&file_properties(min, max, 0))).is_ok(), good, "{min} {max}");
        }
    }

    #[test]
    fn preroll_is_clamped() {
        let preroll = |ms| FileProperties::parse(Cursor::new(&file_properties(1400, 1400, ms))).unwrap().preroll_ms;
        assert_eq!([preroll(0), preroll(60_000), preroll(60_001), preroll(u64::MAX)], [0, 60_000, 5_000, 5_000]);
    }

    fn stream(kind: Guid, type_specific: &[u8], flags: u16) -> Vec<u8> {
        let mut out = Writer::default();
        out.guid(kind).zeros(24).u32(u32::try_from(type_specific.len()).unwrap()).u32(1);
        out.u16(flags).u32(0xBAD_CAFE).bytes(type_specific).u8(0);
        out.finish()
    }

    fn wave(codec_len: u16, codec: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(0x161).u16(2).u32(44_100).u32(8_000).u16(1).u16(16).u16(codec_len).bytes(codec);
        out.finish()
    }

    fn image(format_len: u16, bitmap_len: u32, codec: usize) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(320).u32(240).u8(2).u16(format_len).u32(bitmap_len).zeros(12).bytes(b"WMV2").zeros(20 + codec);
        out.finish()
    }

    #[test]
    fn streams_say_what_they_are() {
        let audio = Stream::parse(Cursor::new(&stream(guids::AUDIO, &wave(2, &[1, 2, 0]), 0x8001))).unwrap();
        assert_eq!((audio.number, audio.encrypted), (1, true));
        assert_eq!(audio.format, Format::Audio { tag: 0x161, channels: 2, sample_rate: 44_100, bytes_per_s: 8_000 });
        let video = Stream::parse(Cursor::new(&stream(guids::VIDEO, &image(44, 44, 4), 127))).unwrap();
        assert_eq!((video.number, video.kind), (127, StreamKind::Video));
        assert_eq!(video.format, Format::Video { four_cc: *b"WMV2", width: 320, height: 240 });
        let other = Stream::parse(Cursor::new(&stream(Guid([9; 16]), &[], 3))).unwrap();
        assert_eq!(other.kind, StreamKind::Other(Guid([9; 16])));
    }

    #[test]
    fn hostile_streams_are_refused() {
        for (what, bytes) in [
            ("stream 0", stream(guids::AUDIO, &wave(0, &[]), 0)),
            ("short WAVEFORMATEX", stream(guids::AUDIO, &[0; 17], 1)),
            ("cbSize past the end", stream(guids::AUDIO, &wave(3, &[1, 2]), 1)),
            ("short image", stream(guids::VIDEO, &image(40, 40, 0)[..50], 1)),
            ("format data past the end", stream(guids::VIDEO, &image(41, 40, 0), 1)),
            ("format data too short", stream(guids::VIDEO, &image(39, 40, 0), 1)),
            ("bitmap header too short", stream(guids::VIDEO, &image(40, 39, 0), 1)),
            ("bitmap header past the end", stream(guids::VIDEO, &image(40, 41, 0), 1)),
            ("type-specific data past the end", stream(guids::VIDEO, &image(40, 40, 0), 1)[..60].to_vec()),
        ] {
            assert!(Stream::parse(Cursor::new(&bytes)).is_err(), "{what}");
        }
    }

    fn extended(names: u16, systems: &[(u16, u32)], tail: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        out.guid(guids::EXTENDED_STREAM_PROPERTIES).u64(0).zeros(16).u32(96_000).zeros(24).u32(6).u16(2).u16(0).u64(0);
        out.u16(names).u16(u16::try_from(systems.len()).unwrap());
        for _ in 0..names {
            out.u16(0).u16(2).bytes(b"x\0");
        }
        for (size, info) in systems {
            out.zeros(16).u16(*size).u32(*info);
        }
        out.bytes(tail);
        out.finish()
    }

    fn parse_extended(bytes: &[u8]) -> Result<ExtendedStream<'_>, DecodeError> {
        ExtendedStream::parse(&Object { guid: guids::EXTENDED_STREAM_PROPERTIES, at: 100, bytes })
    }

    #[test]
    fn extended_stream_properties() {
        let mut hidden = Writer::default();
        hidden.guid(guids::STREAM_PROPERTIES).u64(30).zeros(6);
        let bytes = extended(2, &[(2, 0), (VARIABLE, 0)], &hidden.finish());
        let parsed = parse_extended(&bytes).unwrap();
        assert_eq!((parsed.number, parsed.bit_rate, parsed.no_clean_points), (2, 96_000, true));
        let embedded = parsed.embedded.unwrap();
        assert_eq!((embedded.bytes.len(), embedded.at), (30, 100 + bytes.len() - 30));
        assert_eq!(parse_extended(&extended(0, &[], &[0; 23])).unwrap().embedded, None);
        let whole = bytes.len() - 30;
        for cut in 0..whole {
            assert!(parse_extended(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn hostile_extended_stream_properties_are_refused() {
        let mut lying = Writer::default();
        lying.guid(guids::STREAM_PROPERTIES).u64(u64::MAX);
        for (what, bytes) in [
            ("33 systems", extended(0, &[(1, 0); 33], &[])),
            ("fixed sizes over 247", extended(0, &[(124, 0), (124, 0)], &[])),
            ("info past the end", extended(0, &[(1, u32::MAX)], &[])),
            ("embedded object past the end", extended(0, &[], &lying.finish())),
        ] {
            assert!(parse_extended(&bytes).is_err(), "{what}");
        }
        let mut bad_number = extended(0, &[], &[]);
        bad_number[72] = 128;
        assert!(parse_extended(&bad_number).is_err(), "stream 128");
    }

    #[test]
    fn bit_rates_by_stream() {
        let mut out = Writer::default();
        out.u16(3).u16(1).u32(10).u16(0x8000).u32(20).u16(0xFFFF).u32(30);
        let bytes = out.finish();
        let mut found = Vec::new();
        stream_bit_rates(Cursor::new(&bytes), |number, rate| found.push((number, rate))).unwrap();
        assert_eq!(found, [(1, 10), (127, 30)], "stream 0 is passed over");
        assert!(stream_bit_rates(Cursor::new(&bytes[..19]), |_, _| ()).is_err());
    }
}
