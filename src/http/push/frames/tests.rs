use proptest::prelude::*;

use super::*;

/// A header as media encoders make it: WMA, 44.1 kHz, stereo; 286 bytes and the Data Object's 50.
///
/// Packets of 100 bytes, the smallest that are relayed.
const HEADER: &str = "
    3026b2758e66cf11a6d900aa0062ce6c 1e010000000000000300000001 02
    a1dcab8c47a9cf118ee400c00c205365 6800000000000000 101112131415161718191a1b1c1d1e1f
    0000000000000000 0000000000000000 d001000000000000 0000000000000000 0000000000000000 1c0c000000000000
    01000000 64000000 64000000 00fa0000
    b503bf5f2ea9cf118ee300c00c205365 2e00000000000000 11d2d3abbaa9cf118ee600c00c205365 0600 00000000
    9107dcb7b7a9cf118ee600c00c205365 6a00000000000000 409e69f84d5bcf11a8fd00805f5c442b 0057fb20555bcf11a8fd00805f5c442b
    0000000000000000 1c000000 00000000 0100 00000000 6101 0200 44ac0000 401f0000 7301 1000 0a00 00000000010000000000
    3626b2758e66cf11a6d900aa0062ce6c 3200000000000000 101112131415161718191a1b1c1d1e1f 0000000000000000 0101";
/// A packet without its padding: 47 bytes.
const PACKET: &str = "820000085d00d20400002e0081070000000008140000 00ee100000 0102030405060708090a0b0c0d0e0f1011121314";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().filter_map(|digit| char::from(digit).to_digit(16)).filter_map(|digit| u8::try_from(digit).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn frame(letter: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let [low, high] = u16::try_from(body.len()).unwrap().to_le_bytes();
    [&[b'$', letter, low, high][..], &body].concat()
}

fn header() -> Vec<u8> {
    frame(b'H', &[&bytes(HEADER)])
}

fn packet() -> Vec<u8> {
    frame(b'D', &[&bytes(PACKET)])
}

fn change() -> Vec<u8> {
    frame(b'C', &[&[0; 4], &bytes(HEADER)])
}

const END: [u8; 8] = *b"$E\x04\0\0\0\0\0";
const ENTRY_END: [u8; 8] = *b"$E\x04\0\x01\0\0\0";
const FILLER: [u8; 12] = *b"$F\x08\0\0\0\0\0\0\0\0\0";
const NO_FILLER: [u8; 4] = *b"$F\0\0";

/// What comes out of pieces of one body.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Progress, Result<(), FrameError>) {
    let mut frames = Frames::default();
    let (mut out, mut progress) = (Vec::new(), Progress::default());
    frames.begin();
    for piece in pieces {
        match frames.push(piece, &mut out) {
            Ok(more) => {
                progress.media |= more.media;
                progress.ended = progress.ended.or(more.ended);
            }
            // How far a push that failed has come is for nobody to know.
            Err(error) => return (out, Progress::default(), Err(error)),
        }
    }
    let end = frames.end();
    (out, progress, end)
}

fn error_of(body: &[u8]) -> FrameError {
    let (.., end) = read([body]);
    end.unwrap_err()
}

#[test]
fn frames_of_the_reference() {
    assert_eq!((header().len(), &header()[..8]), (340, &b"$H\x50\x01\x30\x26\xb2\x75"[..]));
    assert_eq!((packet().len(), &packet()[..8]), (51, &b"$D\x2f\0\x82\0\0\x08"[..]));
    assert_eq!((change().len(), &change()[..12]), (344, &b"$C\x54\x01\0\0\0\0\x30\x26\xb2\x75"[..]));
    let body = [&header()[..], &packet(), &NO_FILLER, &packet(), &ENTRY_END, &FILLER, &change(), &packet(), &END].concat();
    let (out, progress, end) = read([&body[..]]);
    assert_eq!((out == body, progress, end), (true, Progress { media: true, ended: Some(0) }, Ok(())));
    // The reader behind makes a header, three packets of their full size, and an end of it.
    let mut reader = crate::asf::Reader::new();
    reader.feed(&out);
    let (mut packets, mut headers) = (0, 0);
    while let Some(event) = reader.poll() {
        match event.unwrap() {
            crate::asf::Event::Header(_) => headers += 1,
            crate::asf::Event::Packets(batch) => packets += batch.len(),
            crate::asf::Event::End => {}
        }
    }
    assert_eq!((headers, packets), (2, 300));
}

#[test]
fn cut_at_every_length_and_split_at_every_byte() {
    let body = [&header()[..], &packet(), &FILLER, &ENTRY_END, &change(), &packet(), &END].concat();
    let whole = read([&body[..]]);
    assert!(whole.1.ended == Some(0) && whole.2.is_ok());
    assert_eq!(read(body.chunks(1)), whole);
    let mut boundaries = 0;
    for cut in 0..body.len() {
        assert_eq!(read([&body[..cut], &body[cut..]]), whole, "{cut}");
        let (out, _, end) = read([&body[..cut]]);
        assert!(body.starts_with(&out) && out.len() <= cut);
        boundaries += usize::from(end.is_ok());
        assert_eq!(end, if out.len() == cut { Ok(()) } else { Err(FrameError::Straddles(cut - out.len())) }, "{cut}");
    }
    assert_eq!(boundaries, 7, "nothing, and behind each frame but the last");
}

#[test]
fn what_may_follow_what() {
    let (h, d, c, e, n, f) = (header(), packet(), change(), END.to_vec(), ENTRY_END.to_vec(), FILLER.to_vec());
    let good: &[&[&Vec<u8>]] = &[
        &[&h],
        &[&h, &d, &d, &e],
        &[&h, &e],
        &[&h, &f, &d],
        &[&h, &d, &c, &d],
        &[&h, &n, &c],
        &[&h, &d, &n, &f, &f, &c, &d],
        &[&h, &d, &e, &d, &h],
    ];
    for frames in good {
        assert_eq!(read(frames.iter().map(|frame| &frame[..])).2, Ok(()));
    }
    let other = frame(b'T', &[]);
    let bad: &[(&[&Vec<u8>], ChunkKind)] = &[
        (&[&d], ChunkKind::Data),
        (&[&f], ChunkKind::Filler),
        (&[&c], ChunkKind::Change),
        (&[&e], ChunkKind::End),
        (&[&h, &h], ChunkKind::Header),
        (&[&h, &d, &h], ChunkKind::Header),
        (&[&h, &c], ChunkKind::Change),
        (&[&h, &d, &n, &d], ChunkKind::Data),
        (&[&h, &d, &n, &f, &d], ChunkKind::Data),
        (&[&h, &other], ChunkKind::Test),
    ];
    for (frames, kind) in bad {
        let (.., end) = read(frames.iter().map(|frame| &frame[..]));
        assert!(matches!(&end, Err(FrameError::Order(found, _)) if found == kind), "{end:?}");
    }
}

#[test]
fn the_next_body_goes_on() {
    let mut frames = Frames::default();
    let mut body = |bytes: &[u8]| {
        frames.begin();
        frames.push(bytes, &mut Vec::new()).and_then(|progress| frames.end().map(|()| progress))
    };
    assert_eq!(body(&header()), Ok(Progress { media: true, ended: None }));
    assert!(body(&packet()).is_ok(), "without a header");
    assert!(body(&change()).is_ok(), "at once");
    assert_eq!(body(&[&FILLER[..], &packet()[..20]].concat()), Err(FrameError::Straddles(20)));
    assert!(body(&packet()).is_ok(), "what was begun and lost is no part of this");
    assert!(body(&[header(), packet()].concat()).is_ok(), "an encoder that begins anew");
    assert_eq!(body(&ENTRY_END), Ok(Progress::default()), "exactly at the end");
    assert!(matches!(body(&packet()), Err(FrameError::Order(ChunkKind::Data, _))));
}

#[test]
fn lengths_are_bounded_before_the_bytes_come() {
    for (body, kind) in [
        (frame(b'H', &[&[0; 65_532]])[..4].to_vec(), ChunkKind::Header),
        ([header(), frame(b'D', &[&[0; 101]])[..4].to_vec()].concat(), ChunkKind::Data),
        ([header(), packet(), frame(b'C', &[&[0; 65_532]])[..4].to_vec()].concat(), ChunkKind::Change),
        ([header(), b"$E\x08\0".to_vec()].concat(), ChunkKind::End),
        ([header(), b"$E\x03\0".to_vec()].concat(), ChunkKind::End),
        ([header(), b"$F\xFF\xFF".to_vec()].concat(), ChunkKind::Filler),
    ] {
        assert!(matches!(error_of(&body), FrameError::Length { kind: found, .. } if found == kind), "{kind:?}");
    }
    assert!(matches!(error_of(&[header(), b"#D\0\0".to_vec()].concat()), FrameError::Head(_)));
    // A viewer's frame, with a pre-header; a change without its header.
    assert!(matches!(error_of(&frame(b'H', &[&[0, 0, 0, 0, 0, 12, 88, 1], &bytes(HEADER)])), FrameError::Header(_)));
    assert!(matches!(error_of(&[header(), packet(), frame(b'C', &[&[0; 4]])].concat()), FrameError::Header(_)));
    let refusal = Refusal::from(FrameError::Straddles(3));
    assert!(refusal.status == Status::BadRequest && refusal.text.ends_with('.'), "{}", refusal.text);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(
        start in 0..4_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        step in 1..50_usize,
    ) {
        let start = match start {
            0 => Vec::new(),
            1 => header(),
            2 => [header(), packet(), ENTRY_END.to_vec()].concat(),
            _ => [header(), b"$D".to_vec()].concat(),
        };
        let body = [start, bytes].concat();
        prop_assert_eq!(read(body.chunks(step)), read([&body[..]]));
    }

    #[test]
    fn any_frames_never_panic(letters in proptest::collection::vec((0..9_usize, 0..120_usize), 1..30), step in 1..500_usize) {
        let mut body = header();
        for (letter, len) in letters {
            body.extend(match letter {
                0 => header(),
                1 => packet(),
                2 => change(),
                3 => ENTRY_END.to_vec(),
                _ => frame(b"CDEFH"[letter - 4], &[&vec![1; len]]),
            });
        }
        prop_assert_eq!(read(body.chunks(step)), read([&body[..]]));
    }
}
