//! Media over HTTP that is counted by its frames' heads and thrown away.

use crate::asf::chunk::{ChunkHead, ChunkKind, PreHeader};

/// What the next bytes of a response are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Of its head; so many ends of lines came one behind the other.
    Head { line_ends: u8 },
    /// Of a frame's head.
    FrameHead,
    /// So many more of a frame, and whether they are for the engine.
    Frame { left: usize, passes: bool },
    /// Of something else: a text, plain ASF, a body in chunks, which nobody asks for.
    Other,
}

/// Cuts responses at their frames, so that all but media reaches the engine, and media need not.
///
/// The first packet behind anything else passes too: engines wait for it where a stream begins or changes.
///
/// Source: MS-WMSP 2.2.3.
#[derive(Debug)]
pub(super) struct HttpSkim {
    place: Place,
    head: [u8; ChunkHead::LEN],
    head_len: usize,
    /// The next packet is the first.
    is_first: bool,
    /// Media packets that were thrown away.
    pub(super) packets: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
}

impl Default for HttpSkim {
    fn default() -> Self {
        let place = Place::Head { line_ends: 0 };
        Self { place, head: [0; ChunkHead::LEN], head_len: 0, is_first: true, packets: 0, bytes: 0 }
    }
}

impl HttpSkim {
    /// Another connection: what comes next is a response from its beginning on.
    pub(super) fn restart(&mut self) {
        *self = Self { packets: self.packets, bytes: self.bytes, ..Self::default() };
    }

    /// Takes bytes as they come; `pass` gets what is for the engine in pieces, and with `media` everything.
    ///
    /// A change of `media` takes effect at the next frame. What is no frame is passed on, for the engine to judge.
    pub(super) fn feed(&mut self, mut bytes: &[u8], media: bool, mut pass: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            match self.place {
                Place::Head { line_ends } => {
                    let (line_ends, len) = end_of_head(line_ends, bytes);
                    let (piece, rest) = bytes.split_at(len);
                    pass(piece);
                    self.place = if line_ends == 2 { Place::FrameHead } else { Place::Head { line_ends } };
                    bytes = rest;
                }
                Place::FrameHead => {
                    let (piece, rest) = bytes.split_at((ChunkHead::LEN - self.head_len).min(bytes.len()));
                    if let Some(room) = self.head.get_mut(self.head_len..self.head_len + piece.len()) {
                        room.copy_from_slice(piece);
                    }
                    self.head_len += piece.len();
                    bytes = rest;
                    if self.head_len == ChunkHead::LEN {
                        self.take_head(media, &mut pass);
                    } else if !matches!(self.head, [b'$' | 0xA4, ..]) {
                        // A text may be shorter than a head, and its end is for the engine.
                        pass(self.head.get(..self.head_len).unwrap_or_default());
                        self.place = Place::Other;
                    }
                }
                Place::Frame { left, passes } => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    if passes {
                        pass(piece);
                    }
                    self.place = frame(left - piece.len(), passes);
                    bytes = rest;
                }
                Place::Other => return pass(bytes),
            }
        }
    }

    /// Begins a frame, whose head is whole.
    fn take_head(&mut self, media: bool, pass: &mut impl FnMut(&[u8])) {
        self.head_len = 0;
        let Ok(head) = ChunkHead::parse(&self.head) else {
            self.place = Place::Other;
            return pass(&self.head);
        };
        let len = usize::from(head.len);
        let is_media = head.kind == ChunkKind::Data && len >= PreHeader::LEN;
        let passes = media || self.is_first || !is_media;
        self.is_first = !is_media;
        if passes {
            pass(&self.head);
        } else {
            self.packets += 1;
            self.bytes += (len - PreHeader::LEN) as u64;
        }
        self.place = frame(len, passes);
    }
}

/// Where it is with so many bytes of a frame to come.
const fn frame(left: usize, passes: bool) -> Place {
    if left == 0 { Place::FrameHead } else { Place::Frame { left, passes } }
}

/// Looks for the empty line: the ends of lines at the end of these bytes, and how many of the bytes belong to the head.
fn end_of_head(mut line_ends: u8, bytes: &[u8]) -> (u8, usize) {
    for (len, byte) in (1..).zip(bytes) {
        match byte {
            b'\n' if line_ends == 1 => return (2, len),
            b'\n' => line_ends = 1,
            b'\r' => {}
            _ => line_ends = 0,
        }
    }
    (line_ends, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.0 200 OK\r\nServer: Cougar/9.5\r\n\r\n";

    fn frame(mark: u8, kind: u8, len: usize) -> Vec<u8> {
        let [low, high] = u16::try_from(len).unwrap().to_le_bytes();
        [&[mark, kind, low, high][..], &vec![b'$'; len]].concat()
    }

    /// What passes of a response that comes in pieces of `cut` bytes.
    fn passed(skim: &mut HttpSkim, stream: &[u8], cut: usize, media: bool) -> Vec<u8> {
        let mut passed = Vec::new();
        for piece in stream.chunks(cut) {
            skim.feed(piece, media, |bytes| passed.extend_from_slice(bytes));
        }
        passed
    }

    const CUTS: [usize; 9] = [1, 2, 3, 4, 5, 12, 41, 1500, usize::MAX];

    #[test]
    fn all_but_media_passes_however_it_is_cut() {
        let (header, end) = (frame(b'$', b'H', 600), frame(b'$', b'E', 4));
        let media = |len| frame(b'$', b'D', len + PreHeader::LEN);
        let marked = frame(0xA4, b'D', 50 + PreHeader::LEN);
        let change = frame(b'$', b'C', 0);
        let stream =
            [HEAD, &header, &media(700), &media(1), &marked, &media(0), &change, &media(30), &media(65_000), &end].concat();
        let wanted = [HEAD, &header, &media(700), &change, &media(30), &end].concat();
        for cut in CUTS {
            let mut skim = HttpSkim::default();
            assert!(passed(&mut skim, &stream, cut, false) == wanted, "{cut}");
            assert_eq!((skim.packets, skim.bytes), (4, 65_051), "{cut}");
            // Another connection in the midst of a frame.
            passed(&mut skim, &media(9)[..11], cut, false);
            skim.restart();
            assert!(passed(&mut skim, &stream, cut, false) == wanted, "{cut}");
            let mut skim = HttpSkim::default();
            assert!(passed(&mut skim, &stream, cut, true) == stream && skim.packets == 0, "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_passes_whole() {
        for body in [&b"<ASX>\n\n</ASX>"[..], b"$x", b"$Qxx$D\x08\0........", b"no", b"\x30\x26\xB2\x75", b"8\r\n$H\x04\0"] {
            let stream = [HEAD, body].concat();
            for cut in CUTS {
                let mut skim = HttpSkim::default();
                let passed = passed(&mut skim, &stream, cut, false);
                // The head of a frame passes with its last byte.
                assert!(passed == stream || (body == b"$x" && passed == HEAD), "{cut}: {}", String::from_utf8_lossy(&passed));
                assert_eq!(skim.packets, 0);
            }
        }
    }

    #[test]
    fn a_packet_that_began_to_pass_passes_whole() {
        let (mut skim, packet) = (HttpSkim::default(), frame(b'$', b'D', 100));
        let first = passed(&mut skim, &[HEAD, &packet, &packet[..50]].concat(), usize::MAX, true);
        let second = passed(&mut skim, &[&packet[50..], &packet].concat(), usize::MAX, false);
        assert_eq!((first.len() + second.len(), skim.packets), (HEAD.len() + 2 * packet.len(), 1));
    }
}
