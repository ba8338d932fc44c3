//! The `RTP-Info` header.

use std::fmt::Write as _;

use super::super::message::decimal;
use super::{parameter, split_list};

/// Most parameters of one item that are read.
const PARAMETERS_BOUND: usize = 32;
/// Most items: there are 127 streams in ASF.
const ITEMS_BOUND: usize = 128;

/// Where a stream's packets go on. Source: RFC 2326 12.33; MS-RTSP 2.2.6.8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpInfo {
    /// URL of the stream.
    pub url: String,
    /// Sequence number of the next packet.
    pub seq: Option<u16>,
    /// Its timestamp, in the unit of the stream's clock.
    pub rtptime: Option<u32>,
}

/// Why the header has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an item of the RTP-Info header has no url, or there are more than 128")]
pub struct BadRtpInfo;

impl RtpInfo {
    /// The items of a header, also of an `X-RTP-Info` that lists URLs. Parameters of other names, and numbers that are none, are
    /// passed over.
    ///
    /// # Errors
    /// [`BadRtpInfo`] where an item has no URL.
    pub fn parse_all(value: &str) -> Result<Vec<Self>, BadRtpInfo> {
        let mut items = Vec::new();
        for text in split_list(value, ',').filter(|text| !text.is_empty()) {
            let mut item = Self { url: String::new(), seq: None, rtptime: None };
            for (name, value) in split_list(text, ';').take(PARAMETERS_BOUND).map(parameter) {
                match name.to_ascii_lowercase().as_str() {
                    "url" => value.clone_into(&mut item.url),
                    "seq" => item.seq = decimal(value),
                    "rtptime" => item.rtptime = decimal(value),
                    _ => {}
                }
            }
            if item.url.is_empty() || items.len() == ITEMS_BOUND {
                return Err(BadRtpInfo);
            }
            items.push(item);
        }
        Ok(items)
    }

    /// The value of a header that lists these. A URL that holds a comma or a semicolon is quoted.
    pub fn list(items: &[Self]) -> String {
        let mut value = String::new();
        for item in items {
            if !value.is_empty() {
                value.push_str(", ");
            }
            let quote = if item.url.contains([',', ';']) { "\"" } else { "" };
            // Writing to a String cannot fail. A quotation mark inside of the URL would end it.
            let _ = write!(value, "url={quote}{}{quote}", item.url.replace('"', "%22"));
            if let Some(seq) = item.seq {
                let _ = write!(value, ";seq={seq}");
            }
            if let Some(rtptime) = item.rtptime {
                let _ = write!(value, ";rtptime={rtptime}");
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(url: &str, seq: Option<u16>, rtptime: Option<u32>) -> RtpInfo {
        RtpInfo { url: url.to_owned(), seq, rtptime }
    }

    #[test]
    fn both_ways() {
        for (text, items) in [
            (
                "url=rtsp://h/live.wsx/audio;seq=26968, url=rtsp://h/live.wsx/video;seq=26968",
                vec![item("rtsp://h/live.wsx/audio", Some(26968), None), item("rtsp://h/live.wsx/video", Some(26968), None)],
            ),
            (
                "url=\"rtsp://h/a?k=1,2;x/audio\";seq=65535;rtptime=4294967295",
                vec![item("rtsp://h/a?k=1,2;x/audio", Some(65535), Some(u32::MAX))],
            ),
            ("url=rtsp://h/a?k=v/audio;rtptime=0", vec![item("rtsp://h/a?k=v/audio", None, Some(0))]),
            ("", vec![]),
        ] {
            assert_eq!(RtpInfo::list(&items), text);
            assert_eq!(RtpInfo::parse_all(text), Ok(items), "{text}");
        }
    }

    #[test]
    fn tolerated_and_refused() {
        let odd = "URL = \"rtsp://h/a\" ; Seq = x;rtptime=99999999999;ssrc=1 , ,url=b;seq=5";
        assert_eq!(RtpInfo::parse_all(odd).unwrap(), [item("rtsp://h/a", None, None), item("b", Some(5), None)]);
        for text in ["seq=5", "url=", "url=a,seq=6", &"url=a,".repeat(129)] {
            assert_eq!(RtpInfo::parse_all(text), Err(BadRtpInfo), "{text}");
        }
        assert_eq!(RtpInfo::list(&[item("a\";seq=1,url=\"b", None, None)]), "url=\"a%22;seq=1,url=%22b\"");
    }

    proptest! {
        #[test]
        fn any_items(urls in proptest::collection::vec("[a-z,;=:/]{1,12}", 0..5), seq: Option<u16>, rtptime: Option<u32>) {
            let items: Vec<_> = urls.iter().map(|url| item(url, seq, rtptime)).collect();
            prop_assert_eq!(RtpInfo::parse_all(&RtpInfo::list(&items)), Ok(items));
        }

        #[test]
        fn any_text(text in "\\PC{0,60}") {
            let _ = RtpInfo::parse_all(&text);
        }
    }
}
