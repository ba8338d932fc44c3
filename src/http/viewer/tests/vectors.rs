//! A synthetic stream: packets of 64 bytes, one stream of sound, a header of 336 bytes. Source: MS-WMSP 2.2.3, put together by
//! hand; the number in `AFFlags` is the constant 0 here.

use super::{Rig, frames};
use crate::http::wrap::{Slab, Wrap, chunk};
use crate::viewing::{Answer, Description};

/// The `$H` frame of the header.
const HEADER: &str = "\
    24 48 58 01 00 00 00 00 00 0c 58 01 30 26 b2 75 \
    8e 66 cf 11 a6 d9 00 aa 00 62 ce 6c 1e 01 00 00 \
    00 00 00 00 03 00 00 00 01 02 a1 dc ab 8c 47 a9 \
    cf 11 8e e4 00 c0 0c 20 53 65 68 00 00 00 00 00 \
    00 00 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d \
    1e 1f 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
    d0 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
    00 00 00 00 00 00 00 00 00 00 1c 0c 00 00 00 00 \
    00 00 01 00 00 00 40 00 00 00 40 00 00 00 00 fa \
    00 00 b5 03 bf 5f 2e a9 cf 11 8e e3 00 c0 0c 20 \
    53 65 2e 00 00 00 00 00 00 00 11 d2 d3 ab ba a9 \
    cf 11 8e e6 00 c0 0c 20 53 65 06 00 00 00 00 00 \
    91 07 dc b7 b7 a9 cf 11 8e e6 00 c0 0c 20 53 65 \
    6a 00 00 00 00 00 00 00 40 9e 69 f8 4d 5b cf 11 \
    a8 fd 00 80 5f 5c 44 2b 00 57 fb 20 55 5b cf 11 \
    a8 fd 00 80 5f 5c 44 2b 00 00 00 00 00 00 00 00 \
    1c 00 00 00 00 00 00 00 01 00 00 00 00 00 61 01 \
    02 00 44 ac 00 00 40 1f 00 00 73 01 10 00 0a 00 \
    00 00 00 00 01 00 00 00 00 00 36 26 b2 75 8e 66 \
    cf 11 a6 d9 00 aa 00 62 ce 6c 32 00 00 00 00 00 \
    00 00 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d \
    1e 1f 00 00 00 00 00 00 00 00 01 01 \
    ";

/// The `$D` frame of packet 5000, with the sequence number 7.
const PACKET: &str = "\
    24 44 48 00 88 13 00 00 00 07 48 00 82 00 00 08 \
    5d 11 d2 04 00 00 2e 00 81 07 00 00 00 00 08 14 \
    00 00 00 ee 10 00 00 01 02 03 04 05 06 07 08 09 \
    0a 0b 0c 0d 0e 0f 10 11 12 13 14 00 00 00 00 00 \
    00 00 00 00 00 00 00 00 00 00 00 00 \
    ";

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn what_a_player_is_sent() {
    let (header, frame) = (bytes(HEADER), bytes(PACKET));
    let mut rig = Rig::new();
    rig.live = Some(Ok(Description {
        header: header[12..].to_vec().into(),
        packet_size: 64,
        bit_rate: 64_000,
        streams: [1].into_iter().collect(),
        content: crate::viewing::Content::Live,
        ssrc: 0,
    }));
    let play = |version| {
        format!(
            "GET /live HTTP/1.1\r\nHost: h\r\nUser-Agent: NSPlayer/7.0\r\nPragma: xPlayStrm=1,version11-enabled={version}\r\n\r\n"
        )
    };
    let mut link = rig.connect();
    rig.hear(&mut link, play(0));
    let (_, body) = link.response();
    assert_eq!((body.len(), frames(&body)), (348, vec!["H 348".to_owned()]));
    assert_eq!(body, header);
    let mut link = rig.connect();
    rig.hear(&mut link, play(1));
    assert_eq!(link.response().1, chunk(&header));
    assert!(chunk(&header).starts_with(b"15c\r\n"));
    rig.tell(&mut link, Answer::Ended);
    assert_eq!(link.take(), b"8\r\n$E\x04\0\0\0\0\0\r\n0\r\n\r\n");

    let (slab, mut image) = (Slab::new(64), Vec::new());
    slab.push(&frame[12..], 5000, &mut image);
    let mut shared = frame;
    shared[9] = 0;
    assert_eq!(image[slab.part(Wrap::Framed)], shared);
    assert_eq!(image[slab.part(Wrap::Chunked)], chunk(&shared));
    assert!(image.starts_with(b"4c\r\n"));
}
