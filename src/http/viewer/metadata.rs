//! What an answer says about the content: features, and the `$M` frame of players from version 9 on.
//!
//! Source: MS-WMSP 2.2.1.4.8, 2.2.3.6, 2.2.4.

use std::fmt::Write as _;

use crate::asf::ContentDescription;
use crate::viewing::Content;

/// The `features` token: libmms and xine seek unless it says `broadcast`.
pub(super) const fn features(content: Content) -> &'static str {
    match content {
        Content::Live => "broadcast,playlist",
        Content::File { .. } => "seekable",
    }
}

/// Text of a `$M` frame. `generation` counts the headers of this play from 1 on.
pub(super) fn text(generation: u32, name: &str, content: Content, header: &[u8]) -> Vec<u8> {
    let broadcast = match content {
        Content::Live => broadcast_id(name),
        Content::File { .. } => 0,
    };
    written(generation, broadcast, features(content), &ContentDescription::of(header))
}

fn written(generation: u32, broadcast: u32, features: &str, words: &ContentDescription) -> Vec<u8> {
    let mut text = format!("playlist-gen-id={generation}, broadcast-id={broadcast}, features=\"{features}\"\0");
    text.push_str("8,language,31,2,en");
    for (name, value) in [("title", &words.title), ("author", &words.author)] {
        if let Some(value) = value {
            // Lengths are bytes; 31 is text.
            let _ = write!(text, ",{},{name},31,{},{value}", name.len(), value.len());
        }
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A number of a broadcast's own, not 0: FNV-1a of its name.
fn broadcast_id(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wrap::metadata_frames;

    /// Vector of MS-WMSP 2.2.3.6 and 2.2.4 put together by hand.
    #[test]
    fn golden() {
        let words = ContentDescription { title: Some("K\u{f6}ln live".into()), author: Some("Demo".into()) };
        let frame = metadata_frames(&written(1, 1, "broadcast,live", &words));
        let expected = "244d8500000000000 00c8500706c61796c6973742d67656e2d69643d312c2062726f6164636173742d69643d312c20\
                        66656174757265733d2262726f6164636173742c6c6976652200382c6c616e67756167652c33312c322c656e2c352c74\
                        69746c652c33312c31302c4bc3b66c6e206c6976652c362c617574686f722c33312c342c44656d6f0d0a";
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.replace(' ', ""));
        assert_eq!(frame.len(), 137);
    }

    #[test]
    fn broadcasts_differ() {
        assert_ne!(broadcast_id("a"), broadcast_id("b"));
        let file = Content::File { duration_ms: 1, packets: 1 };
        assert!(text(1, "a", file, &[]).starts_with(b"playlist-gen-id=1, broadcast-id=0, features=\"seekable\"\0"));
    }
}
