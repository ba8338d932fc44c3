//! The description that players get.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tracks::{RTX, RTX_STREAM, Track, Tracks};
use super::{ASF_ENCODING, HEADER_PREFIX, RTX_ENCODING};
use crate::asf::{ContentDescription, Header, StreamKind, StreamRates};
use crate::text::percent_encode;
use crate::viewing::{Content, Description};
use crate::wire::Guid;

/// Longest header with the head of the Data Object that FFmpeg reads: it cuts lines at 16384 bytes.
const BLOB_BOUND: usize = 12_249;
/// Bytes of the Data Object behind the header. Without them FFmpeg shows nothing, and GStreamer fails.
const DATA_HEAD_LEN: usize = 50;
/// Where the Data Object's size is in it.
const DATA_SIZE: Range<usize> = 16..24;
/// Longest title, characters.
const TITLE_BOUND: usize = 256;

/// What a description says besides what the stream itself does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// URL of the whole: absolute, with the authority that the client used, percent-encoded, a slash at the end of its path.
    pub url: String,
    /// Session id of `o=`.
    pub session: u64,
    /// Version of `o=`: another for another header.
    pub version: u64,
    /// Whether the client came over IPv6.
    pub is_ipv6: bool,
    /// Title, where it is not the header's.
    pub title: Option<String>,
    /// One block for all streams, as GStreamer's players need it: it takes each block for a flow of its own.
    pub reduced: bool,
    /// For players outside the dialect. Times begin at 0 and not at the preroll as Windows Media Services has it: FFmpeg and GStreamer
    /// take the begin for their own, and ask for it. The Data Object has the size of its head: FFmpeg counts what comes, seeks or not, and
    /// takes the size for the end.
    pub outside_dialect: bool,
    /// Another for another header; clients repeat it.
    pub etag: Guid,
}

impl Facts {
    /// What follows from the stream: ids of `url` and of the header, the header's File ID as tag, its title; not reduced, times
    /// with the preroll.
    pub fn of(description: &Description, url: String, is_ipv6: bool) -> Self {
        let (session, version) = (number_of(url.as_bytes()), number_of(&description.header));
        let file_id = Header::parse(&description.header).map_or_else(|_| Guid::default(), |header| header.file_id());
        // There are writers that leave it empty.
        let (low, high) = (version, number_of(&version.to_le_bytes()));
        let etag =
            if file_id == Guid::default() { Guid((u128::from(high) << 64 | u128::from(low)).to_le_bytes()) } else { file_id };
        Self { url, session, version, is_ipv6, title: None, reduced: false, outside_dialect: false, etag }
    }
}

/// A number of 63 bits that is hardly another's: FNV-1a.
fn number_of(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step) >> 1
}

/// The description of a Windows Media stream: the lines of Windows Media Services, in their order.
///
/// The header in it has no more than 12,249 bytes with the head of the Data Object, wherever dropping what no player needs
/// gets it there (see [`Header::compact`]). Times are those of packets, with the preroll, unless they are to begin at 0. A header
/// that cannot be read is passed on as it is, without streams.
///
/// Source: MS-RTSP 2.2.5.
pub fn describe(description: &Description, facts: &Facts) -> String {
    let header = Header::parse(&description.header).ok();
    let words = ContentDescription::of(&description.header);
    let title = facts.title.as_ref().or(words.title.as_ref());
    let mut out = Lines::default();
    let (address, any) = if facts.is_ipv6 { ("IP6 ::1", "IP6 ::") } else { ("IP4 127.0.0.1", "IP4 0.0.0.0") };
    out.line("v=0");
    out.line(&format!("o=- {} {} IN {address}", facts.session, facts.version));
    out.line(&format!("s={}", title.map(|title| shortened(title)).filter(|title| !title.is_empty()).unwrap_or("<No Title>")));
    out.line(&format!("c=IN {any}"));

    let blocks = header.as_ref().map(|header| blocks(header, facts.reduced)).unwrap_or_default();
    let peaks = header.as_ref().map(Header::stream_rates).unwrap_or_default();
    let sum = peaks.iter().fold(0_u64, |sum, rates| sum + u64::from(rates.peak));
    // The sum says too little where a stream does not say its own rate; the file's covers all streams.
    let is_whole = !peaks.is_empty() && peaks.iter().all(|rates| rates.peak > 0);
    let peak = if is_whole { sum } else { sum.max(description.bit_rate.into()) };
    out.line(&format!("b=AS:{}", kilobits(peak)));
    let packet_size = header.as_ref().and_then(|header| u32::try_from(header.packet_size()).ok());
    out.line(&format!("a=maxps:{}", packet_size.unwrap_or_default().max(description.packet_size)));
    out.line("t=0 0");
    out.line(&format!("a=control:{}", facts.url));
    out.line(&format!("a=etag:{{{}}}", facts.etag));
    let preroll_ms = header.as_ref().filter(|_| !facts.outside_dialect).map_or(0, |header| u64::from(header.preroll_ms()));
    match description.content {
        Content::Live => out.line("a=type:broadcast,notseekable,notstridable"),
        Content::File { duration_ms, .. } => {
            let end_ms = duration_ms.saturating_add(preroll_ms);
            out.line(&format!("a=range:npt={}-{}", seconds(preroll_ms), seconds(end_ms)));
            if header.as_ref().is_some_and(|header| !header.is_seekable()) {
                out.line("a=type:notseekable,notstridable");
            }
        }
    }
    out.line("a=recvonly");
    let words = ContentDescription { title: title.cloned(), author: words.author };
    out.line(&format!("a=pgmpu:data:application/x-wms-contentdesc,{}", content(&words, description.content, preroll_ms)));
    let blob = header.as_ref().map_or_else(|| description.header.to_vec(), |header| blob(header, &description.header, facts));
    out.line(&format!("a=pgmpu:{HEADER_PREFIX}{}", STANDARD.encode(blob)));

    let mut blocks = blocks.iter();
    // Real servers have the repetitions behind the first stream.
    if let Some((track, rates)) = blocks.next() {
        out.track(track, *rates);
    }
    out.media("application", &[], RTX_ENCODING, RTX, RTX_STREAM);
    for (track, rates) in blocks {
        out.track(track, *rates);
    }
    out.0
}

/// The streams that have a block, each with its rates; with all streams' rates where it stands for all.
fn blocks(header: &Header, reduced: bool) -> Vec<(Track, StreamRates)> {
    let rates = header.stream_rates();
    let tracks = Tracks::of_streams(header.streams());
    if reduced {
        let sum = rates.iter().fold(StreamRates::default(), |sum, one| StreamRates {
            average: sum.average.saturating_add(one.average),
            peak: sum.peak.saturating_add(one.peak),
        });
        return tracks.main().cloned().map(|track| (track, sum)).into_iter().collect();
    }
    let by_number: Vec<_> = header.streams().iter().map(|stream| stream.number).zip(rates).collect();
    let rates_of = |number| by_number.iter().find(|(of, _)| *of == number).map(|(_, rates)| *rates).unwrap_or_default();
    tracks.as_slice().iter().map(|track| (track.clone(), rates_of(track.stream))).collect()
}

/// Header Object and head of the Data Object.
fn blob(header: &Header, whole: &[u8], facts: &Facts) -> Vec<u8> {
    let compact = header.compact(BLOB_BOUND - DATA_HEAD_LEN);
    let behind = whole.get(header.bytes().len()..).and_then(|behind| behind.first_chunk::<DATA_HEAD_LEN>());
    let mut head = behind.copied().unwrap_or_else(|| header.data_head());
    if facts.outside_dialect
        && let Some(size) = head.get_mut(DATA_SIZE)
    {
        size.copy_from_slice(&(DATA_HEAD_LEN as u64).to_le_bytes());
    }
    [compact.as_ref(), &head].concat()
}

/// The content in words, percent-encoded. Types: 31 is text, 3 a number; lengths are bytes.
///
/// Source: MS-WMSP 2.2.4.
fn content(words: &ContentDescription, content: Content, preroll_ms: u64) -> String {
    let mut items = vec![("language", 31, "en-us".to_owned())];
    items.extend(words.title.as_ref().map(|title| ("title", 31, shortened(title).to_owned())));
    items.extend(words.author.as_ref().map(|author| ("author", 31, author.clone())));
    if let Content::File { duration_ms, .. } = content {
        items.push(("WMS_CONTENT_DESCRIPTION_PLAYLIST_ENTRY_START_OFFSET", 3, preroll_ms.to_string()));
        items.push(("WMS_CONTENT_DESCRIPTION_PLAYLIST_ENTRY_DURATION", 3, duration_ms.to_string()));
    }
    let item = |(name, kind, value): &(&str, u8, String)| {
        format!("{},{name},{kind},{},{}", name.len(), value.len(), percent_encode(value))
    };
    items.iter().map(item).collect::<Vec<_>>().join(",") + "%0D%0A"
}

fn shortened(title: &str) -> &str {
    let end = title.char_indices().nth(TITLE_BOUND).map_or(title.len(), |(at, _)| at);
    title.get(..end).unwrap_or_default()
}

const fn kilobits(bits: u64) -> u64 {
    bits.div_ceil(1000)
}

/// Milliseconds as seconds with three decimals.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Lines of a description.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Adds a line, without what would begin another.
    fn line(&mut self, text: &str) {
        self.0.extend(text.chars().filter(|c| !c.is_control()));
        self.0.push_str("\r\n");
    }

    fn track(&mut self, track: &Track, rates: StreamRates) {
        let kind = match track.kind {
            StreamKind::Audio => "audio",
            StreamKind::Video => "video",
            _ => "application",
        };
        let (peak, average) = (kilobits(rates.peak.into()), kilobits(rates.average.into()));
        let mut bandwidths = Vec::new();
        if peak > 0 {
            bandwidths.push(format!("b=AS:{peak}"));
        }
        if average > 0 && average != peak {
            bandwidths.push(format!("b=X-AV:{average}"));
        }
        self.media(kind, &bandwidths, ASF_ENCODING, &track.token, track.stream.into());
    }

    /// A block. `b=RS` and `b=RR` say that there is no RTCP.
    fn media(&mut self, kind: &str, bandwidths: &[String], encoding: &str, token: &str, stream: u32) {
        self.line(&format!("m={kind} 0 RTP/AVP 96"));
        bandwidths.iter().for_each(|line| self.line(line));
        self.line("b=RS:0");
        self.line("b=RR:0");
        self.line(&format!("a=rtpmap:96 {encoding}/1000"));
        self.line(&format!("a=control:{token}"));
        self.line(&format!("a=stream:{stream}"));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::asf::fabricate::{
        audio, bit_rates, data_head, extended_stream, extension, file_properties, header, object, video,
    };
    use crate::asf::{OnDemandFacts, content_description_object, guids, samples};

    const ETAG: Guid = Guid::from_parts(0xCCEE_392D, 0x83DF, 0xF4AA, [0x13, 0x0B, 0xE8, 0xA0, 0x55, 0x62, 0xCE, 0x63]);

    fn facts() -> Facts {
        Facts {
            url: "rtsp://host:554/live.asf/".into(),
            session: 201_011_221_030_000_001,
            version: 201_011_221_030_000_002,
            is_ipv6: false,
            title: None,
            outside_dialect: false,
            reduced: false,
            etag: ETAG,
        }
    }

    fn description(header: Vec<u8>, content: Content) -> Description {
        let parsed = Header::parse(&header).unwrap();
        Description {
            packet_size: u32::try_from(parsed.packet_size()).unwrap(),
            bit_rate: parsed.bit_rate(),
            streams: parsed.streams().iter().map(|stream| stream.number).collect(),
            header: header.into(),
            content,
            ssrc: 0,
        }
    }

    /// A broadcast: pictures are stream 1, sound is stream 2.
    fn live() -> Description {
        let extended = extension(&[extended_stream(1, 300_000, 8, &[])]);
        let children = [file_properties(1400, 1), video(1), audio(2), extended, bit_rates(&[(1, 250_000), (2, 64_000)])].to_vec();
        description([header(&children), data_head(0, 1400)].concat(), Content::Live)
    }

    fn blob_of(text: &str) -> Vec<u8> {
        let line = text.lines().find_map(|line| line.strip_prefix("a=pgmpu:data:application/vnd.ms.wms-hdr.asfv1;base64,"));
        STANDARD.decode(line.unwrap()).unwrap()
    }

    const BLOCKS: &str = "m=audio 0 RTP/AVP 96\r\nb=AS:64\r\nb=RS:0\r\nb=RR:0\r\na=rtpmap:96 x-asf-pf/1000\r\na=control:audio\r\n\
        a=stream:2\r\nm=application 0 RTP/AVP 96\r\nb=RS:0\r\nb=RR:0\r\na=rtpmap:96 x-wms-rtx/1000\r\na=control:rtx\r\n\
        a=stream:65536\r\nm=video 0 RTP/AVP 96\r\nb=AS:300\r\nb=X-AV:250\r\nb=RS:0\r\nb=RR:0\r\na=rtpmap:96 x-asf-pf/1000\r\n\
        a=control:video\r\na=stream:1\r\n";

    #[test]
    fn every_line_of_a_broadcast() {
        let live = live();
        let head = "v=0\r\no=- 201011221030000001 201011221030000002 IN IP4 127.0.0.1\r\ns=<No Title>\r\nc=IN IP4 0.0.0.0\r\n\
            b=AS:364\r\na=maxps:1400\r\nt=0 0\r\na=control:rtsp://host:554/live.asf/\r\n\
            a=etag:{CCEE392D-83DF-F4AA-130B-E8A05562CE63}\r\na=type:broadcast,notseekable,notstridable\r\na=recvonly\r\n\
            a=pgmpu:data:application/x-wms-contentdesc,8,language,31,5,en-us%0D%0A\r\n\
            a=pgmpu:data:application/vnd.ms.wms-hdr.asfv1;base64,";
        let text = describe(&live, &facts());
        let base64 = STANDARD.encode(&live.header);
        assert_eq!(text, format!("{head}{base64}\r\n{BLOCKS}"));
        assert!(base64.starts_with("MCaydY5mzxGm2QCqAGLOb"));
        let over_v6 = describe(&live, &Facts { is_ipv6: true, ..facts() });
        assert!(over_v6.contains(" IN IP6 ::1\r\n") && over_v6.contains("\r\nc=IN IP6 ::\r\n"), "{over_v6}");
    }

    #[test]
    fn a_stream_that_does_not_say_its_rate_counts_by_the_files() {
        let rates = |known: &[(u16, u32)]| {
            let children = [file_properties(1400, 1), video(1), audio(2), bit_rates(known)];
            let mut live = description([header(&children), data_head(0, 1400)].concat(), Content::Live);
            live.bit_rate = 500_000;
            describe(&live, &facts()).lines().find_map(|line| line.strip_prefix("b=AS:").map(str::to_owned)).unwrap()
        };
        assert_eq!(rates(&[(2, 24_000)]), "500");
        assert_eq!(rates(&[(1, 250_000), (2, 24_000)]), "274");
        assert_eq!(rates(&[(2, 600_000)]), "600");
    }

    #[test]
    fn words_stay_in_their_lines() {
        let mut live = live();
        let children = [file_properties(1400, 1), audio(2), content_description_object("K\u{f6}ln, live", "A\nB")];
        live.header = [header(&children), data_head(0, 1400)].concat().into();
        let text = describe(&live, &facts());
        assert!(text.contains("\r\ns=K\u{f6}ln, live\r\n"), "{text}");
        let list = "contentdesc,8,language,31,5,en-us,5,title,31,11,K%C3%B6ln%2C%20live,6,author,31,2,AB%0D%0A\r\n";
        assert!(text.contains(list), "{text}");
        let own = Facts { title: Some("x\r\na=evil".into()), ..facts() };
        let text = describe(&live, &own);
        assert!(text.contains("\r\ns=xa=evil\r\n") && !text.contains("\na=evil"), "{text}");
        let long = Facts { title: Some("\u{f6}".repeat(300)), ..facts() };
        assert!(describe(&live, &long).contains(&format!("\r\ns={}\r\n", "\u{f6}".repeat(256))));
    }

    #[test]
    fn one_block_for_gstreamer() {
        let text = describe(&live(), &Facts { reduced: true, ..facts() });
        let blocks = "m=video 0 RTP/AVP 96\r\nb=AS:364\r\nb=X-AV:314\r\nb=RS:0\r\nb=RR:0\r\na=rtpmap:96 x-asf-pf/1000\r\n\
            a=control:video\r\na=stream:1\r\nm=application 0 RTP/AVP 96\r\nb=RS:0\r\nb=RR:0\r\na=rtpmap:96 x-wms-rtx/1000\r\n\
            a=control:rtx\r\na=stream:65536\r\n";
        assert!(text.ends_with(blocks), "{text}");
        assert_eq!(text.matches("m=").count(), 2);
    }

    #[test]
    fn files_have_a_range_on_the_axis_of_packets() {
        let (source, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        for seekable in [true, false] {
            let file = source.on_demand(&OnDemandFacts {
                packet_size: source.packet_size(),
                packets: packets.len() as u64,
                play_duration_ms: 170_803,
                send_duration_ms: 9,
                seekable,
                file_id: None,
            });
            let content = Content::File { duration_ms: 170_803, packets: 94 };
            let outside = describe(&description(file.to_vec(), content), &Facts { outside_dialect: true, ..facts() });
            assert!(outside.contains("\r\na=range:npt=0.000-170.803\r\n"), "{outside}");
            let blob = blob_of(&outside);
            assert_eq!(blob[blob.len() - 34..][..8], 50_u64.to_le_bytes());
            assert_eq!(blob[blob.len() - 26..], file[file.len() - 26..]);
            let text = describe(&description(file.to_vec(), content), &facts());
            assert_eq!(source.preroll_ms(), 3100);
            assert!(text.contains("\r\na=range:npt=3.100-173.903\r\n"), "{text}");
            assert_eq!(text.contains("a=type:notseekable,notstridable\r\n"), !seekable);
            let times = ",51,WMS_CONTENT_DESCRIPTION_PLAYLIST_ENTRY_START_OFFSET,3,4,3100,47,\
                WMS_CONTENT_DESCRIPTION_PLAYLIST_ENTRY_DURATION,3,6,170803%0D%0A\r\n";
            assert!(text.contains(times) && text.contains("\r\na=maxps:3200\r\n"), "{text}");
            let blob = blob_of(&text);
            assert_eq!(blob[blob.len() - 50..], file[file.len() - 50..]);
            assert_eq!(Header::parse(&blob).unwrap().data_packet_count(), Some(94));
        }
    }

    #[test]
    fn a_large_header_gets_small_enough() {
        let mut library = crate::wire::Writer::default();
        library.u16(1).zeros(4).u16(2).u16(0).u32(1000).zeros(1002);
        let library = object(guids::METADATA_LIBRARY, &library.finish());
        let unknown = object(Guid([3; 16]), &[7; 600]);
        for (padding, libraries, unknowns, kept_libraries, kept_unknowns) in
            [(60_000, 2, 2, 2, 2), (0, 13, 2, 0, 2), (0, 1, 40, 0, 0)]
        {
            let mut inner = vec![extended_stream(1, 300_000, 8, &[])];
            inner.extend(vec![library.clone(); libraries]);
            inner.push(object(guids::PADDING, &vec![0; padding]));
            let mut children = vec![file_properties(1400, 1), video(1), audio(2), extension(&inner)];
            children.extend(vec![unknown.clone(); unknowns]);
            let large = description([header(&children), data_head(0, 1400)].concat(), Content::Live);
            let text = describe(&large, &facts());
            let blob = blob_of(&text);
            assert!(blob.len() <= 12_249 && text.lines().all(|line| line.len() < 16_384), "{}", blob.len());
            let count = |guid: Guid| blob.windows(16).filter(|window| *window == guid.0).count();
            assert_eq!((count(guids::METADATA_LIBRARY), count(Guid([3; 16]))), (kept_libraries, kept_unknowns));
            assert_eq!(Header::parse(&blob).unwrap().streams(), Header::parse(&large.header).unwrap().streams());
        }
        // Languages that fill the header are needed: it is given as it is.
        let children = [file_properties(1400, 1), audio(2), object(guids::LANGUAGE_LIST, &[0; 13_000])];
        let large = description([header(&children), data_head(0, 1400)].concat(), Content::Live);
        assert_eq!(blob_of(&describe(&large, &facts())), large.header);
    }

    #[test]
    fn samples_and_broken_headers() {
        for (name, _, packet_size) in samples::STREAMS {
            let (source, _) = samples::stream(name);
            let live = description(source.broadcast(Guid([9; 16]), 1).to_vec(), Content::Live);
            let own = Facts::of(&live, "rtsp://h/a/".into(), false);
            assert_eq!(own.etag, Guid([9; 16]));
            let text = describe(&live, &own);
            assert!(text.contains(&format!("\r\na=maxps:{packet_size}\r\n")), "{name}: {text}");
            assert_eq!(text.matches("\r\nm=").count(), source.streams().len() + 1, "{name}");
            let blob = Header::parse(&blob_of(&text)).unwrap();
            assert!(blob.is_broadcast() && blob.continues(&source), "{name}");
        }
        let broken = Description { header: Bytes::from_static(b"none"), ..live() };
        let text = describe(&broken, &Facts::of(&broken, "rtsp://h/a/".into(), true));
        assert!(text.contains(";base64,bm9uZQ==\r\nm=application 0"), "{text}");
    }

    #[test]
    fn ids_follow_url_and_header() {
        let (one, other) = (live(), Description { header: Bytes::from_static(b"x"), ..live() });
        let facts = |description, url: &str| Facts::of(description, url.to_owned(), false);
        assert_eq!(facts(&one, "a").session, facts(&other, "a").session);
        assert_ne!(facts(&one, "a").version, facts(&other, "a").version);
        assert_ne!(facts(&one, "a").session, facts(&one, "b").session);
        let nameless = |title: &str| {
            let mut file = file_properties(1400, 1);
            file[24..40].fill(0);
            description(header(&[file, audio(2), content_description_object(title, "")]), Content::Live)
        };
        assert_ne!(facts(&nameless("x"), "a").etag, facts(&nameless("y"), "a").etag);
    }
}
