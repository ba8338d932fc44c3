//! Media over TCP that is counted by its heads and thrown away.

use crate::mms::data::{DataHead, HEAD_LEN};
use crate::mms::frame::{LENGTH_BASE, SESSION_ID};

/// Bytes 4 to 7 of control packets.
const CONTROL_ID: [u8; 4] = SESSION_ID.to_le_bytes();
/// Bytes of a control packet's head up to its length.
const CONTROL_HEAD_LEN: usize = 12;

/// Cuts a server's byte stream at its packets, so that control messages reach the engine and media need not.
///
/// A connection cannot be left unread: the server would stand still, and pings would stay unanswered behind the media.
#[derive(Debug, Default)]
pub(super) struct Skim {
    head: [u8; CONTROL_HEAD_LEN],
    head_len: usize,
    /// Bytes of the present packet behind its head.
    left: usize,
    /// Whether the present packet is for the engine.
    passes: bool,
    /// Media packets that were thrown away.
    pub(super) packets: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
}

impl Skim {
    /// Takes bytes as they come; `pass` gets control messages in pieces, and with `media` everything.
    ///
    /// A change of `media` takes effect at the next packet. What is no MMS is passed on, for the engine to judge.
    pub(super) fn feed(&mut self, mut bytes: &[u8], media: bool, mut pass: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
                if self.passes {
                    pass(piece);
                }
                self.left -= piece.len();
                bytes = rest;
                continue;
            }
            let is_control = self.head.get(4..8) == Some(&CONTROL_ID) && self.head_len >= HEAD_LEN;
            let wanted = if is_control { CONTROL_HEAD_LEN } else { HEAD_LEN };
            if self.head_len < wanted {
                let (piece, rest) = bytes.split_at((wanted - self.head_len).min(bytes.len()));
                if let Some(room) = self.head.get_mut(self.head_len..self.head_len + piece.len()) {
                    room.copy_from_slice(piece);
                }
                self.head_len += piece.len();
                bytes = rest;
            }
            self.take_head(media, &mut pass);
        }
    }

    /// Begins a packet where its head is whole.
    fn take_head(&mut self, media: bool, pass: &mut impl FnMut(&[u8])) {
        if self.head_len < HEAD_LEN {
            return;
        }
        let head = self.head;
        if head.get(4..8) == Some(&CONTROL_ID) {
            let &[.., a, b, c, d] = &head;
            if self.head_len < CONTROL_HEAD_LEN {
                return;
            }
            let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            self.left = length.saturating_add(LENGTH_BASE).saturating_sub(CONTROL_HEAD_LEN);
            self.passes = true;
        } else {
            let size = DataHead::parse(&head).map_or(0, |head| usize::from(head.size));
            self.left = size.saturating_sub(HEAD_LEN);
            self.passes = media || size < HEAD_LEN;
            if !self.passes {
                self.packets += 1;
                self.bytes += self.left as u64;
            }
        }
        if self.passes {
            pass(head.get(..self.head_len).unwrap_or_default());
        }
        self.head_len = 0;
        self.head = [0; CONTROL_HEAD_LEN];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mms::frame::encode;
    use crate::mms::ping::Ping;

    fn media(size: usize) -> Vec<u8> {
        [&DataHead::new(7, 10, 0, size).bytes()[..], &vec![9; size]].concat()
    }

    #[test]
    fn messages_pass_and_media_is_counted_however_it_is_cut() {
        let ping = encode(0, &Ping);
        let stream = [&media(700)[..], &ping, &media(1), &media(0), &ping, &ping, &media(65_000)].concat();
        for cut in [1, 2, 3, 7, 8, 11, 12, 13, 100, 1500, stream.len()] {
            let (mut skim, mut passed) = (Skim::default(), Vec::new());
            for piece in stream.chunks(cut) {
                skim.feed(piece, false, |bytes| passed.extend_from_slice(bytes));
            }
            assert_eq!(passed, [&ping[..], &ping, &ping].concat(), "{cut}");
            assert_eq!((skim.packets, skim.bytes), (4, 65_701), "{cut}");

            let (mut skim, mut passed) = (Skim::default(), Vec::new());
            for piece in stream.chunks(cut) {
                skim.feed(piece, true, |bytes| passed.extend_from_slice(bytes));
            }
            assert!(passed == stream && skim.packets == 0, "{cut}");
        }
    }

    #[test]
    fn a_packet_that_began_to_pass_passes_whole() {
        let (mut skim, mut passed) = (Skim::default(), Vec::new());
        let packet = media(100);
        skim.feed(&packet[..50], true, |bytes| passed.extend_from_slice(bytes));
        skim.feed(&[&packet[50..], &packet].concat(), false, |bytes| passed.extend_from_slice(bytes));
        assert_eq!((passed, skim.packets), (packet, 1));
    }
}
