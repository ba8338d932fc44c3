//! Script commands: words of a source to its players. Captions pass; those that open web pages do not, unless they may.

use bytes::Bytes;

use super::StreamSet;
use super::guids;
use super::header::Header;
use super::layout::{Layout, RawPayload};
use super::packet::{PacketError, walk_by};
use super::properties::StreamKind;
use super::rewrite::Edit;
use crate::wire::{Cursor, DecodeError};

/// Where the two counts of a Script Command Object stand, behind its head and a reserved GUID.
const COUNTS_AT: usize = 40;

/// Whether a command opens something: `URL` and its relatives, and `FILENAME`, which makes a player leave for another stream.
fn opens(kind: &str) -> bool {
    let kind = kind.trim_start();
    let begins = |word: &str| kind.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    begins("URL") || begins("FILENAME")
}

/// The type of a command in a stream, where all of it is there: UTF-16 up to a NUL.
fn kind(data: &[u8]) -> Option<String> {
    let units = data.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let units: Vec<u16> = units.collect();
    let end = units.iter().position(|unit| *unit == 0)?;
    Some(String::from_utf16_lossy(units.get(..end)?))
}

/// Whether the first bytes of a command are to go. What comes in pieces can be put together in other ways than it looks here, so
/// that of such a command one letter decides.
fn is_forbidden(data: &[u8], is_whole: bool) -> bool {
    match kind(data) {
        Some(kind) if is_whole => opens(&kind),
        Some(kind) => kind.trim_start().starts_with(['U', 'u', 'F', 'f']),
        None => true,
    }
}

impl Header {
    /// The streams that carry commands.
    pub fn command_streams(&self) -> StreamSet {
        self.streams().iter().filter(|stream| stream.kind == StreamKind::Command).map(|stream| stream.number).collect()
    }

    /// The header with all commands emptied that open web pages or other streams; itself where it has none. No length changes, so that
    /// places behind it stay where they are.
    ///
    /// A list of commands that cannot be read is emptied as a whole.
    ///
    /// Source: ASF 3.6.
    #[must_use]
    pub fn without_url_commands(&self) -> Bytes {
        self.rewritten(|object| match object.guid {
            guids::SCRIPT_COMMAND => Edit::Replace(without_urls(object.bytes)),
            _ => Edit::Keep,
        })
    }
}

/// A Script Command Object in which nothing opens anything, of the same length.
fn without_urls(object: &[u8]) -> Vec<u8> {
    let mut new = object.to_vec();
    match openers(object) {
        Ok(places) => places.into_iter().for_each(|(at, len)| blank(&mut new, at, len)),
        // No types, no commands.
        Err(_) => blank(&mut new, COUNTS_AT, object.len().saturating_sub(COUNTS_AT)),
    }
    new
}

/// Where the names of types stand in a Script Command Object that open something, and the commands of such types: place and length.
fn openers(object: &[u8]) -> Result<Vec<(usize, usize)>, DecodeError> {
    let mut cursor = Cursor::new(object);
    cursor.skip("Script Command head", COUNTS_AT)?;
    let (commands, types) = (cursor.u16("commands")?, cursor.u16("command types")?);
    let (mut openers, mut places) = (Vec::new(), Vec::new());
    for _ in 0..types {
        let len = usize::from(cursor.u16("type name length")?) * 2;
        let at = cursor.position();
        let name = cursor.take("type name", len)?.as_chunks::<2>().0;
        let name: Vec<u16> = name.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let opens = opens(&String::from_utf16_lossy(&name));
        openers.push(opens);
        places.extend(opens.then_some((at, len)));
    }
    for _ in 0..commands {
        cursor.skip("command time", 4)?;
        let kind = cursor.u16("command type")?;
        let len = usize::from(cursor.u16("command length")?) * 2;
        let at = cursor.position();
        cursor.skip("command", len)?;
        if openers.get(usize::from(kind)).copied().unwrap_or(true) {
            places.push((at, len));
        }
    }
    Ok(places)
}

/// Makes commands that open web pages or other streams empty, in place; nothing moves. Says how many there were.
///
/// `commands` are the streams that carry commands. A command in pieces loses its type where that could be put together to one of
/// these.
///
/// # Errors
/// [`PacketError`] as [`super::packet::walk`]; the packet is then untouched.
///
/// Source: ASF 9.4; 5.2.3.
pub fn blank_url_commands(packet: &mut [u8], commands: StreamSet) -> Result<u32, PacketError> {
    let layout = Layout::parse(packet)?;
    let info = walk_by(&layout, packet)?;
    let (mut last, mut blanked) = (None, 0);
    for _ in 0..info.payloads {
        let Some(payload) = layout.nth_from(packet, last.as_ref()) else { break };
        last = Some(payload);
        if !commands.contains(payload.stream) {
            continue;
        }
        if payload.is_compressed() {
            blanked += blank_each(packet, &payload);
        } else if payload.offset < 2 && is_forbidden(data_of(packet, &payload), is_whole(packet, &payload)) {
            blank(packet, payload.data_at, payload.data_len);
            blanked += 1;
        }
    }
    Ok(blanked)
}

/// The objects of a compressed payload.
fn blank_each(packet: &mut [u8], payload: &RawPayload) -> u32 {
    let (mut at, end) = (payload.data_at, payload.data_at + payload.data_len);
    let mut blanked = 0;
    while let Some(len) = packet.get(at..end).and_then(|rest| rest.first()).map(|len| usize::from(*len)) {
        let len = len.min(end.saturating_sub(at + 1));
        let data = packet.get(at + 1..at + 1 + len).unwrap_or_default();
        if !data.is_empty() && is_forbidden(data, true) {
            blank(packet, at + 1, len);
            blanked += 1;
        }
        at += 1 + len;
    }
    blanked
}

fn data_of<'p>(packet: &'p [u8], payload: &RawPayload) -> &'p [u8] {
    packet.get(payload.data_at..payload.data_at + payload.data_len).unwrap_or_default()
}

/// Whether a payload says that it holds all of its object.
fn is_whole(packet: &[u8], payload: &RawPayload) -> bool {
    let size = packet.get(payload.replicated_at..).and_then(|replicated| replicated.first_chunk());
    let stated = size.filter(|_| payload.replicated_len >= 8).map(|size| u32::from_le_bytes(*size));
    payload.offset == 0 && stated.is_some_and(|size| size as usize == payload.data_len)
}

fn blank(packet: &mut [u8], at: usize, len: usize) {
    if let Some(data) = packet.get_mut(at..at + len) {
        data.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, command, command_packet, commands, file_properties, header, object};
    use crate::asf::{payloads, walk};
    use crate::wire::Writer;
    use proptest::prelude::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    /// Types and commands (time, type, text), as ASF 3.6 has them.
    fn list(types: &[&str], commands: &[(u32, u16, &str)]) -> Vec<u8> {
        let mut body = Writer::with_capacity(0);
        body.zeros(16).u16(u16::try_from(commands.len()).unwrap()).u16(u16::try_from(types.len()).unwrap());
        for kind in types {
            body.u16(u16::try_from(kind.encode_utf16().count()).unwrap()).bytes(&utf16(kind));
        }
        for (time, kind, text) in commands {
            body.u32(*time).u16(*kind).u16(u16::try_from(text.encode_utf16().count()).unwrap()).bytes(&utf16(text));
        }
        object(guids::SCRIPT_COMMAND, &body.finish())
    }

    fn with(list: &[u8]) -> Header {
        Header::parse(&header(&[file_properties(1400, 2), audio(1), list.to_vec()])).unwrap()
    }

    #[test]
    fn lists_lose_what_opens_something() {
        let types = ["TEXT", "url", "Filename", "URLAndExit"];
        let full = with(&list(&types, &[(1, 0, "one"), (2, 1, "http://evil"), (3, 0, "two"), (4, 2, "x.asf"), (5, 3, "y")]));
        let nothing = |len: usize| "\0".repeat(len);
        let emptied = ["TEXT", &nothing(3), &nothing(8), &nothing(10)];
        let commands = [(1, 0, "one"), (2, 1, &nothing(11)), (3, 0, "two"), (4, 2, &nothing(5)), (5, 3, &nothing(1))];
        assert_eq!(full.without_url_commands(), with(&list(&emptied, &commands)).bytes());
        let harmless = with(&list(&["TEXT"], &[(1, 0, "one")]));
        assert_eq!(harmless.without_url_commands(), harmless.bytes());
        let stray = with(&list(&["TEXT"], &[(1, 7, "one")]));
        assert_eq!(stray.without_url_commands(), with(&list(&["TEXT"], &[(1, 7, &nothing(3))])).bytes(), "of no type");
    }

    #[test]
    fn lists_that_cannot_be_read_are_emptied() {
        let whole = list(&["TEXT"], &[(1, 0, "one")]);
        for cut in 24..whole.len() - 1 {
            let mut short = whole[..cut].to_vec();
            short[16..24].copy_from_slice(&(cut as u64).to_le_bytes());
            let mut expected = short.clone();
            expected.iter_mut().skip(40).for_each(|byte| *byte = 0);
            assert_eq!(with(&short).without_url_commands(), with(&expected).bytes(), "{cut}");
        }
    }

    #[test]
    fn streams_of_commands() {
        let header = Header::parse(&header(&[file_properties(200, 1), audio(1), commands(3)])).unwrap();
        assert_eq!(header.command_streams(), streams());
    }

    const COMMANDS: u8 = 3;

    fn streams() -> StreamSet {
        [COMMANDS].into_iter().collect()
    }

    fn blanked(mut packet: Vec<u8>) -> (u32, Vec<u8>) {
        let before = walk(&packet).unwrap();
        let count = blank_url_commands(&mut packet, streams()).unwrap();
        assert_eq!(walk(&packet).unwrap(), before, "nothing but the data changes");
        let data = payloads(&packet).unwrap().next().unwrap().data.to_vec();
        (count, data)
    }

    #[test]
    fn captions_pass_and_web_pages_do_not() {
        let size = |data: &[u8]| u32::try_from(data.len()).unwrap();
        for (kind, goes) in [
            ("TEXT", false),
            ("caption", false),
            ("Fonts", false),
            ("URL", true),
            ("url", true),
            (" UrlAndExit", true),
            ("FILENAME", true),
        ] {
            let data = command(kind, "http://x");
            let (count, left) = blanked(command_packet(COMMANDS, 0, size(&data), &data));
            assert_eq!((count, left.iter().all(|byte| *byte == 0)), (u32::from(goes), goes), "{kind}");
            assert!(goes || left == data, "{kind}");
            // Another stream's bytes are nobody's business.
            assert_eq!(blanked(command_packet(1, 0, size(&data), &data)), (0, data.clone()), "{kind}");
        }
    }

    #[test]
    fn commands_in_pieces_lose_a_type_that_could_be_one() {
        let whole = command("URL", "http://x");
        for cut in 1..whole.len() {
            let first = blanked(command_packet(COMMANDS, 0, 26, &whole[..cut])).1;
            let behind = blanked(command_packet(COMMANDS, u32::try_from(cut).unwrap(), 26, &whole[cut..])).1;
            let put_together = [first, behind].concat();
            assert!(kind(&put_together).is_some_and(|kind| !opens(&kind)), "cut at {cut}: {:?}", kind(&put_together));
        }
        let text = command("TEXT", "a long caption");
        assert_eq!(blanked(command_packet(COMMANDS, 0, 500, &text)), (0, text.clone()), "its type is there");
        assert_eq!(blanked(command_packet(COMMANDS, 0, 500, &text[..6])).0, 1, "its type is not");
        assert_eq!(blanked(command_packet(COMMANDS, 100, 500, &text)), (0, text), "the rest of one");
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes: Vec<u8>) {
            let before = bytes.clone();
            let walked = walk(&bytes);
            let done = blank_url_commands(&mut bytes, streams());
            prop_assert_eq!(done.is_ok(), walked.is_ok());
            prop_assert!(done.is_ok() || bytes == before);
        }

        #[test]
        fn any_list(bytes: Vec<u8>) {
            prop_assert_eq!(without_urls(&bytes).len(), bytes.len());
        }
    }
}
