//! Descriptions of others, and ours read again.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::asf::{Header, samples};
use crate::viewing::{Content, Description};
use crate::wire::Guid;

const BASE: &str = "rtsp://h:8554/a/";

fn live(name: &str) -> Description {
    let (source, _) = samples::stream(name);
    let header = source.broadcast(Guid([9; 16]), 1);
    let streams = source.streams().iter().map(|stream| stream.number).collect();
    let packet_size = u32::try_from(source.packet_size()).unwrap();
    Description { header, packet_size, bit_rate: source.bit_rate(), streams, content: Content::Live, ssrc: 0 }
}

fn described(description: &Description, reduced: bool) -> String {
    describe(description, &Facts { reduced, ..Facts::of(description, BASE.into(), false) })
}

#[test]
fn ours_are_read_again() {
    for (name, ..) in samples::STREAMS {
        let live = live(name);
        let remote = Remote::parse(&described(&live, false), BASE).unwrap();
        assert_eq!((remote.url.as_str(), remote.is_broadcast, remote.range), (BASE, true, None), "{name}");
        assert_eq!(remote.etag.as_deref(), Some("{09090909-0909-0909-0909-090909090909}"));
        let asf = remote.windows_media.unwrap();
        assert_eq!((&asf.blob, asf.packet_bound), (&live.header, live.packet_size), "{name}");
        let found: Vec<_> = remote.media.iter().map(|media| (media.url.clone(), media.role)).collect();
        let mut expected: Vec<_> = Tracks::of(&live)
            .as_slice()
            .iter()
            .map(|track| (format!("{BASE}{}", track.token), Role::Asf(track.stream)))
            .collect();
        expected.insert(1, (format!("{BASE}rtx"), Role::Rtx));
        assert_eq!(found, expected, "{name}");
        assert!(remote.media.iter().all(|media| media.url.strip_suffix(media.token()) == Some(BASE)), "{name}");
        let reduced = Remote::parse(&described(&live, true), BASE).unwrap();
        assert_eq!(reduced.media.len(), 2, "{name}");
    }
    let file = Description { content: Content::File { duration_ms: 5000, packets: 94 }, ..live("vod-wmv2-wmav2-indexed.wmv") };
    let remote = Remote::parse(&described(&file, false), BASE).unwrap();
    assert_eq!(remote.range, Some(NptRange { start: Npt::Ms(3100), end_ms: Some(8100) }));
}

/// A description of a real server's shape, with this header.
fn foreign(blob: &str) -> String {
    format!(
        "v=0\r\no=broken\r\ns=News\r\nc=IN IP4\r\nb=AS:x\r\na=maxps:1452\r\nt=0 0\r\na=control:rtsp://10.0.0.5/news.asf/\r\n\
         a=etag:{{A}}\r\na=range:npt=3.100-173.903\r\ns=again\r\nstray line\r\na=pgmpu:data:application/x-wms-contentdesc,8\r\n\
         a=pgmpu:data:application/vnd.ms.wms-hdr.ASFv1;base64,{blob}\r\nm=audio 0 RTP/AVP 96 98\r\nb=X-AV:1.5\r\n\
         a=rtpmap:96 X-ASF-PF/1000\r\na=rtpmap:98 x-wms-fec/1000\r\na=control:audio\r\na=stream:2\r\n\
         m=application 0 RTP/AVP 96\r\na=rtpmap:96 x-wms-rtx/1000\r\na=control:rtx\r\na=stream:65536\r\n\
         m=video 0 RTP/AVP 96\r\na=rtpmap:96 x-asf-pf/1000\r\na=control:stream=1\r\na=stream:0\r\n"
    )
}

#[test]
fn descriptions_of_windows_media_servers() {
    let (source, _) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
    let head = source.data_head();
    let bare = source.bytes().to_vec();
    for blob in [
        STANDARD.encode(&bare),
        STANDARD_NO_PAD.encode([bare.as_slice(), &head].concat()),
        STANDARD.encode([bare.as_slice(), &[0; 7], &head, &[1; 9]].concat()),
    ] {
        let remote = Remote::parse(&foreign(&blob), "rtsp://pull.example/news.asf").unwrap();
        let asf = remote.windows_media.unwrap();
        assert_eq!(asf.blob, [bare.as_slice(), &head].concat());
        assert_eq!((asf.header.data_packet_count(), asf.packet_bound), (Some(94), 3200));
        assert_eq!((remote.url.as_str(), remote.title.as_deref()), ("rtsp://pull.example/news.asf/", Some("News")));
        assert_eq!((remote.etag.as_deref(), remote.is_broadcast), (Some("{A}"), false));
        assert_eq!(remote.range.unwrap().end_ms, Some(173_903));
        let media: Vec<_> = remote.media.iter().map(|media| (media.url.as_str(), media.kind, media.role)).collect();
        assert_eq!(
            media,
            [
                ("rtsp://pull.example/news.asf/audio", MediaKind::Audio, Role::Asf(2)),
                ("rtsp://pull.example/news.asf/rtx", MediaKind::Other, Role::Rtx),
                ("rtsp://pull.example/news.asf/stream=1", MediaKind::Video, Role::Asf(1)),
            ]
        );
    }
}

#[test]
fn descriptions_of_other_servers() {
    let text = "v=0\no=- 0 0 IN IP4 1.2.3.4\ns=-\nt=0 0\na=control:*\na=range:npt=now-\nm=video 0 RTP/AVP 96\n\
        a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\na=control:trackID=1\nm=audio 0 RTP/AVP 0\n\
        a=control:rtsp://10.0.0.5:99/x/trackID=2\nm=audio 0 RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/44100/2\n";
    let remote = Remote::parse(text, "rtsp://cam/x").unwrap();
    assert!(remote.windows_media.is_none() && remote.is_broadcast && remote.title.is_none());
    let map = |encoding: &str, clock_hz, parameters: Option<&str>| {
        Some(RtpMap { encoding: encoding.into(), clock_hz, parameters: parameters.map(str::to_owned) })
    };
    let media = |url: &str, kind, payload_type, rtpmap, fmtp: Option<&str>| Media {
        url: url.into(),
        kind,
        role: Role::Plain,
        payload_type: Some(payload_type),
        rtpmap,
        fmtp: fmtp.map(str::to_owned),
    };
    assert_eq!(
        remote.media,
        [
            media("rtsp://cam/x/trackID=1", MediaKind::Video, 96, map("H264", 90_000, None), Some("packetization-mode=1")),
            media("rtsp://cam/x/trackID=2", MediaKind::Audio, 0, map("PCMU", 8_000, None), None),
            media("rtsp://cam/x", MediaKind::Audio, 97, map("MPEG4-GENERIC", 44_100, Some("2")), None),
        ]
    );
}

#[test]
fn what_is_not_taken() {
    let media = "m=audio 0 RTP/AVP 0\r\n";
    let refused = |text: &str, base: &str| Remote::parse(text, base).unwrap_err();
    assert_eq!(refused(&"v=0\n".repeat(131_073), BASE), SdpError::TooLong(524_292));
    assert_eq!(refused(&format!("v=0\n{media}"), "/a"), SdpError::Base);
    assert_eq!(refused("v=0\n", BASE), SdpError::NoMedia);
    assert_eq!(refused(&format!("v=0\n{}", media.repeat(17)), BASE), SdpError::TooManyMedia(17));
    assert!(Remote::parse(&format!("v=0\n{}", media.repeat(16)), BASE).is_ok());
    let with = |line: &str| refused(&format!("v=0\n{media}{media}{line}\n"), BASE);
    for clock in ["0", "", "x", "4294967296", "+8000"] {
        assert_eq!(with(&format!("a=rtpmap:0 PCMU/{clock}")), SdpError::Clock(2), "{clock}");
    }
    assert_eq!(with(&format!("a=control:{}", "x".repeat(3000))), SdpError::LongUrl(3016));
    // GStreamer's server has the header in the format's parameters, where no player of Windows Media's looks.
    let headerless = Remote::parse(&format!("v=0\n{media}m=video 0 RTP/AVP 96\na=rtpmap:96 x-asf-pf/1000\n"), BASE).unwrap();
    assert!(headerless.windows_media.is_none() && headerless.media.iter().all(|media| media.role == Role::Plain));
    for text in ["", "m=audio 0 RTP/AVP 0\n", "v=1\n", "v=0\nm=audio x RTP/AVP 0\n", "v=0\nm=audio\n"] {
        assert!(matches!(refused(text, BASE), SdpError::Syntax(_)), "{text}");
    }
    assert_eq!(refused(&foreign("?"), BASE), SdpError::Base64);
    assert_eq!(refused(&foreign(&STANDARD.encode([7; 50])), BASE), SdpError::Header(crate::asf::HeaderError::NotAsf));
}

proptest! {
    #[test]
    fn any_text(text in "(v=0\n)?([a-z]=[ -~\u{e9}\r\0]{0,40}\r?\n){0,20}", base in ".{0,30}") {
        let _ = Remote::parse(&text, &base);
        let _ = Remote::parse(&text, BASE);
    }

    #[test]
    fn any_hit_on_a_description(sample in 0..samples::STREAMS.len(), hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let mut bytes = described(&live(samples::STREAMS[sample].0), false).into_bytes();
        for (at, value) in hits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Ok(remote) = Remote::parse(&String::from_utf8_lossy(&bytes), BASE) {
            prop_assert!(remote.media.iter().all(|media| media.url.starts_with("rtsp://h:8554")));
            prop_assert!(remote.media.iter().all(|media| media.url.bytes().all(|byte| byte.is_ascii_graphic())));
            if let Some(asf) = remote.windows_media {
                prop_assert!(Header::parse(&asf.blob).is_ok());
            }
        }
    }
}
