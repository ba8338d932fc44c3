//! What the tests of this folder share: descriptions with headers made up.

use std::time::Instant;

use bytes::Bytes;

use crate::asf::fabricate::{audio, data_head, file_properties, header, object, video};
use crate::asf::guids;
use crate::viewing::{Content, Description};

/// The one instant that the virtual clock counts from.
#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
pub(super) fn base() -> Instant {
    Instant::now()
}

/// Header Object and head of the Data Object, padded to `len` bytes: sound is stream 1, pictures are stream 2, preroll is 3 s.
pub(super) fn asf_header(packet_size: u32, len: usize, words: Option<(&str, &str)>) -> Bytes {
    let mut children = vec![file_properties(packet_size, 1), audio(1), video(2)];
    children.extend(words.map(|(title, author)| crate::asf::content_description_object(title, author)));
    let bare = header(&children).len() + 50 + 24;
    children.push(object(guids::PADDING, &vec![0; len - bare]));
    let bytes = [header(&children), data_head(0, packet_size.into())].concat();
    assert_eq!(bytes.len(), len);
    bytes.into()
}

/// A broadcast: packets of 3,200 bytes, a header of 909.
pub(super) fn live() -> Description {
    Description {
        header: asf_header(3200, 909, None),
        packet_size: 3200,
        bit_rate: 1_000_000,
        streams: [1, 2].into_iter().collect(),
        content: Content::Live,
        ssrc: 0,
    }
}

/// A file of 1,000 such packets, which play for a minute.
pub(super) fn file() -> Description {
    Description { content: Content::File { duration_ms: 60_000, packets: 1000 }, ..live() }
}
