//! A source's bytes, however they come, as headers and packets.

use bytes::{Buf, BytesMut};

use super::chunk::ChunkHead;
use super::framed::Chunks;
use super::header::{DATA_HEAD_LEN, Header, HeaderError};
use super::{guids, padding};
use crate::wire::{Cursor, DecodeError, Guid};

/// Bytes of an object's GUID and size.
const OBJECT_HEAD_LEN: usize = 24;

/// Something that the input has brought.
#[derive(Debug)]
pub enum Event {
    /// A header; the packets that follow have its packet size.
    Header(Header),
    /// Whole packets of the header's size, one behind the other, at least one. They have not been walked.
    Packets(BytesMut),
    /// The source is at its end; nothing follows.
    End,
}

/// Why the input cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It begins with something else.
    #[error("neither ASF nor chunk-framed ASF, it begins with {0:02X?}; ffmpeg writes them with -f asf and -f asf_stream")]
    NotAsf([u8; 4]),
    /// The header is refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The chunks do not follow one another.
    #[error("chunk-framed ASF: {0}")]
    Chunk(DecodeError),
    /// A chunk that cannot stand where it does.
    #[error("chunk-framed ASF: {0}")]
    Order(&'static str),
    /// An object between header and data has an impossible size.
    #[error("ASF: object between header and data states {0} bytes")]
    Object(u64),
    /// The input ended too early.
    #[error("the source ended before its ASF header was whole")]
    NoHeader,
}

/// Reads an ASF source from bytes as they come: plain or in chunks, which it tells by the first bytes.
///
/// Feed it, then poll until `None`; [`Self::finish`] says that no more bytes come. What it holds between polls is
/// bounded by a header, 1 MiB, or by one packet. Packets that came without padding are restored to their fixed
/// size. One that cannot be restored is handed out all the same, as one that no walk accepts, so that it counts as
/// a packet and as an invalid one. Plain input ends at an index, at the Data Object's end where header and Data
/// Object agree about it, or with the bytes; less than a packet at the end is dropped.
///
/// Source: ASF 2; MS-WMSP 2.2.3.
#[derive(Debug, Default)]
pub struct Reader {
    input: BytesMut,
    finished: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is known.
    #[default]
    Start,
    /// Plain: gathering the Header Object.
    PlainHeader,
    /// Plain: the Header Object is here; passing over what stands between it and the data.
    PlainData { header: BytesMut, skip: u64 },
    /// Plain: packets, as many as said or until something else comes.
    PlainPackets { size: usize, left: Option<u64> },
    /// Chunks.
    Chunks(Chunks),
    /// Ended or failed.
    Done,
}

/// What one step of reading brought.
pub(super) enum Step {
    Event(Event),
    /// Another step may bring more.
    Again,
    /// Bytes are missing.
    Wait,
}

impl Reader {
    /// At the start of a source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the source. Poll until `None` before more.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.finished && !matches!(self.state, State::Done) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// No more bytes will come.
    pub const fn finish(&mut self) {
        self.finished = true;
    }

    /// What the bytes so far have brought, one thing a call. After [`Event::End`] or an error always `None`.
    pub fn poll(&mut self) -> Option<Result<Event, StreamError>> {
        loop {
            let step = match &mut self.state {
                State::Done => return None,
                _ => self.step(),
            };
            let event = match step {
                Ok(Step::Again) => continue,
                Ok(Step::Event(event)) => Ok(event),
                Ok(Step::Wait) if !self.finished => return None,
                Ok(Step::Wait) => self.at_end(),
                Err(error) => Err(error),
            };
            if matches!(event, Ok(Event::End) | Err(_)) {
                self.state = State::Done;
                self.input = BytesMut::new();
            }
            return Some(event);
        }
    }

    /// What it means that the bytes are at their end.
    fn at_end(&self) -> Result<Event, StreamError> {
        match &self.state {
            State::PlainPackets { .. } => Ok(Event::End),
            State::Chunks(chunks) if chunks.had_header() => Ok(Event::End),
            _ => Err(StreamError::NoHeader),
        }
    }

    fn step(&mut self) -> Result<Step, StreamError> {
        match &mut self.state {
            State::Start => {
                let Some(next) = sniff(&self.input)? else { return Ok(Step::Wait) };
                self.state = next;
                Ok(Step::Again)
            }
            State::PlainHeader => {
                let Some(whole) = Header::gather_len(&self.input)? else { return Ok(Step::Wait) };
                let len = whole - DATA_HEAD_LEN;
                if self.input.len() < len {
                    return Ok(Step::Wait);
                }
                self.state = State::PlainData { header: self.input.split_to(len), skip: 0 };
                Ok(Step::Again)
            }
            State::PlainData { header, skip } => {
                let now = usize::try_from(*skip).unwrap_or(usize::MAX).min(self.input.len());
                self.input.advance(now);
                *skip -= now as u64;
                if *skip > 0 || self.input.len() < OBJECT_HEAD_LEN {
                    return Ok(Step::Wait);
                }
                let Some((guid, size)) = object_head(&self.input) else { return Ok(Step::Wait) };
                if guid != guids::DATA {
                    if size < OBJECT_HEAD_LEN as u64 {
                        return Err(StreamError::Object(size));
                    }
                    *skip = size;
                    return Ok(Step::Again);
                }
                if self.input.len() < DATA_HEAD_LEN {
                    return Ok(Step::Wait);
                }
                header.extend_from_slice(&self.input.split_to(DATA_HEAD_LEN));
                let header = Header::parse(header)?;
                self.state = State::PlainPackets { size: header.packet_size(), left: header.data_packet_count() };
                Ok(Step::Event(Event::Header(header)))
            }
            State::PlainPackets { size, left } => Ok(plain_packets(&mut self.input, *size, left)),
            State::Chunks(chunks) => chunks.step(&mut self.input),
            State::Done => Ok(Step::Wait),
        }
    }
}

/// Plain or chunks, told from the first four bytes; `None` until they are there.
fn sniff(input: &[u8]) -> Result<Option<State>, StreamError> {
    let Some(first) = input.first_chunk::<4>() else { return Ok(None) };
    if guids::HEADER.0.starts_with(first) {
        return Ok(Some(State::PlainHeader));
    }
    match ChunkHead::parse(first) {
        Ok(_) => Ok(Some(State::Chunks(Chunks::default()))),
        Err(_) => Err(StreamError::NotAsf(*first)),
    }
}

fn object_head(bytes: &[u8]) -> Option<(Guid, u64)> {
    let mut cursor = Cursor::new(bytes);
    Some((cursor.guid("object id").ok()?, cursor.u64("object size").ok()?))
}

/// Whether what stands at a packet's place is one of the objects that follow the data.
fn is_index(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|guid| {
        matches!(Guid(*guid), guids::SIMPLE_INDEX | guids::INDEX | guids::MEDIA_OBJECT_INDEX | guids::TIMECODE_INDEX)
    })
}

fn plain_packets(input: &mut BytesMut, size: usize, left: &mut Option<u64>) -> Step {
    let room = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
    if room == 0 {
        return Step::Event(Event::End);
    }
    let whole = input.chunks_exact(size).take(room).take_while(|packet| !is_index(packet)).count();
    if whole == 0 {
        return if input.len() < size { Step::Wait } else { Step::Event(Event::End) };
    }
    *left = left.map(|left| left.saturating_sub(whole as u64));
    let mut packets = input.split_to(whole * size);
    packets.chunks_exact_mut(size).for_each(padding::settle);
    Step::Event(Event::Packets(packets))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::chunk::{ChunkKind, PreHeader};
    use crate::asf::fabricate::{audio, data_head, file_properties, header, object};
    use crate::asf::framed::MAX_BATCH_LEN;
    use crate::asf::{samples, strip, walk};

    /// What came out of a reader, with the packets joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        headers: Vec<bytes::Bytes>,
        packets: Vec<u8>,
        ended: bool,
        error: Option<StreamError>,
    }

    fn take(reader: &mut Reader, into: &mut Read) {
        while let Some(event) = reader.poll() {
            assert!(!into.ended && into.error.is_none(), "something came after the end");
            match event {
                Ok(Event::Header(header)) => into.headers.push(header.bytes().clone()),
                Ok(Event::Packets(packets)) => {
                    assert!(!packets.is_empty());
                    into.packets.extend_from_slice(&packets);
                }
                Ok(Event::End) => into.ended = true,
                Err(error) => into.error = Some(error),
            }
        }
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let (mut reader, mut read) = (Reader::new(), Read::default());
        for piece in pieces {
            reader.feed(piece);
            take(&mut reader, &mut read);
        }
        reader.finish();
        take(&mut reader, &mut read);
        assert!(read.ended != read.error.is_some(), "one end, or one error");
        read
    }

    fn chunk(kind: ChunkKind, body: &[u8]) -> Vec<u8> {
        let head = ChunkHead { kind, more: false, len: u16::try_from(body.len()).unwrap() };
        [&head.write()[..], body].concat()
    }

    /// A small live header with the Data Object's head.
    fn small(packet_size: u32) -> Vec<u8> {
        [header(&[file_properties(packet_size, 1), audio(1)]), data_head(0, 0)].concat()
    }

    /// A packet of one payload and no length but its own.
    fn packet(len: usize, fill: u8) -> Vec<u8> {
        let mut packet = vec![0x82, 0, 0, 0, 0x5D, 7, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 0];
        packet.resize(len, fill);
        packet
    }

    #[test]
    fn plain_and_framed_give_the_same_packets() {
        let (plain, framed) = (samples::bytes("live-asf-pipe.asf"), samples::bytes("live-asf_stream-pipe.mmsh"));
        let (plain, framed) = (read([&plain[..]]), read([&framed[..]]));
        assert_eq!(plain.packets.len(), 217 * 1400);
        assert!(plain == framed, "same encoder, same input, two framings");
    }

    #[test]
    fn packets_are_the_bytes_of_the_file() {
        let file = samples::bytes("vod-wmv2-wmav2-indexed.wmv");
        let read = read([&file[..]]);
        let start = read.headers[0].len() + 50;
        assert!(read.packets == file[start..start + 94 * 3200], "without the index behind them");
    }

    #[test]
    fn sources_split_at_every_byte() {
        let header = small(100);
        let plain = [header.clone(), packet(100, 1), packet(100, 2), object(guids::SIMPLE_INDEX, &[0; 100])].concat();
        let pushed = [
            chunk(ChunkKind::Header, &header),
            chunk(ChunkKind::Filler, &[0; 9]),
            chunk(ChunkKind::Data, &packet(60, 1)),
            chunk(ChunkKind::End, &[1, 0, 0, 0]),
            chunk(ChunkKind::Change, &[&[0; 4], &small(120)[..]].concat()),
            chunk(ChunkKind::Data, &packet(120, 2)),
            chunk(ChunkKind::End, &[0; 4]),
        ]
        .concat();
        for input in [plain, pushed] {
            let whole = read([&input[..]]);
            assert!(whole.ended && whole.packets.len() >= 200);
            assert_eq!(read(input.chunks(1)), whole);
            for cut in 0..input.len() {
                assert_eq!(read([&input[..cut], &input[cut..]]), whole, "cut at {cut}");
            }
        }
    }

    /// Wherever a source breaks off, what was whole before has come out.
    #[test]
    fn sources_cut_at_every_length() {
        let plain = [small(100), packet(100, 1), packet(100, 2)].concat();
        let head = plain.len() - 200;
        for cut in 0..plain.len() {
            let read = read([&plain[..cut]]);
            assert_eq!(read.packets.len(), cut.saturating_sub(head) / 100 * 100, "{cut}");
            assert_eq!(read.error, (cut < head).then_some(StreamError::NoHeader), "{cut}");
        }
        let framed = [chunk(ChunkKind::Header, &small(100)), chunk(ChunkKind::Data, &packet(100, 1))].concat();
        for cut in 0..framed.len() {
            let read = read([&framed[..cut]]);
            assert_eq!(read.error, (cut < framed.len() - 104).then_some(StreamError::NoHeader), "{cut}");
        }
    }

    #[test]
    fn stripped_packets_are_restored() {
        let (_, packets) = samples::stream("edge-packets-pcmu.asf");
        let file = samples::bytes("edge-packets-pcmu.asf");
        let mut input = chunk(ChunkKind::Header, &file[..file.len() - 130 * 800]);
        for packet in &packets {
            let mut short = Vec::new();
            strip(packet, &mut short).unwrap();
            input.extend_from_slice(&chunk(ChunkKind::Data, &short));
        }
        let read = read(input.chunks(1000));
        assert_eq!(read.packets.len(), 130 * 800);
        for (restored, packet) in read.packets.chunks(800).zip(&packets) {
            assert!(crate::asf::payloads(restored).unwrap().eq(crate::asf::payloads(packet).unwrap()));
        }
    }

    #[test]
    fn packets_that_cannot_be_restored_count_as_invalid() {
        let header = chunk(ChunkKind::Header, &small(100));
        for bad in [&[0x82; 40][..], &[], &packet(101, 1)] {
            let read =
                read([&[&header[..], &chunk(ChunkKind::Data, bad), &chunk(ChunkKind::Data, &packet(100, 1))].concat()[..]]);
            assert_eq!(read.packets.len(), 200);
            assert!(walk(&read.packets[..100]).is_err() && walk(&read.packets[100..]).is_ok());
        }
    }

    /// A header in pieces, each behind a pre-header, as servers send it.
    #[test]
    fn a_header_in_pieces() {
        let header = small(100);
        let piece = |flags, bytes: &[u8]| {
            let len = u16::try_from(bytes.len() + 8).unwrap();
            let pre = PreHeader { location: 0, incarnation: 0, flags, len };
            chunk(ChunkKind::Header, &[&pre.write()[..], bytes].concat())
        };
        for at in [16, 29, 30, 100, header.len() - 50, header.len() - 1] {
            let input = [piece(PreHeader::FIRST, &header[..at]), piece(PreHeader::LAST, &header[at..])].concat();
            let read = read([&input[..]]);
            assert_eq!((read.headers.len(), read.ended), (1, true), "{at}");
        }
        let early = [piece(PreHeader::FIRST, &header[..100]), chunk(ChunkKind::Data, &[0; 108])].concat();
        assert!(matches!(read([&early[..]]).error, Some(StreamError::Order(_))));
    }

    #[test]
    fn objects_between_header_and_data_are_passed_over() {
        let (head, data) = (header(&[file_properties(100, 1), audio(1)]), data_head(0, 0));
        let between = |size: u64| {
            let mut other = object(Guid([4; 16]), &[0; 700]);
            other[16..24].copy_from_slice(&size.to_le_bytes());
            [&head[..], &other, &data, &packet(100, 1)].concat()
        };
        let good = between(724);
        assert_eq!(read(good.chunks(10)).packets.len(), 100);
        assert_eq!(read([&between(23)[..]]).error, Some(StreamError::Object(23)));
        assert_eq!(read([&between(u64::MAX)[..]]).error, Some(StreamError::NoHeader), "skips to the end without a buffer");
    }

    #[test]
    fn ends_where_the_data_object_does() {
        let file =
            [header(&[file_properties(100, 2), audio(1)]), data_head(2, 100), packet(100, 1).repeat(2), vec![0; 500]].concat();
        assert_eq!(read(file.chunks(70)).packets.len(), 200);
        for index in [guids::SIMPLE_INDEX, guids::INDEX, guids::MEDIA_OBJECT_INDEX, guids::TIMECODE_INDEX] {
            let live = [small(100), packet(100, 1).repeat(3), object(index, &[0; 500])].concat();
            assert_eq!(read(live.chunks(333)).packets.len(), 300);
        }
    }

    #[test]
    fn anything_else_is_refused_at_once() {
        for input in [&b"GET / HTTP/1.1"[..], b"$X\0\0", &[0x47; 188], &guids::DATA.0] {
            let mut reader = Reader::new();
            reader.feed(&input[..4]);
            let first = *input.first_chunk().unwrap();
            assert_eq!(reader.poll().map(|event| event.err()), Some(Some(StreamError::NotAsf(first))));
        }
        assert_eq!(read([&b"0&"[..]]).error, Some(StreamError::NoHeader));
        assert_eq!(read([&[][..]]).error, Some(StreamError::NoHeader));
        assert!(matches!(read([&chunk(ChunkKind::Header, &[0; 60])[..]]).error, Some(StreamError::Header(HeaderError::NotAsf))));
        let framed = chunk(ChunkKind::Header, &small(100));
        assert!(matches!(read([&[&framed[..], b"\0\0\0\0"].concat()[..]]).error, Some(StreamError::Chunk(_))));
        assert!(matches!(read([&[framed, chunk(ChunkKind::PacketPair, &[])].concat()[..]]).error, Some(StreamError::Order(_))));
    }

    #[test]
    fn packets_before_a_fault_come_out() {
        let input = [chunk(ChunkKind::Header, &small(100)), chunk(ChunkKind::Data, &packet(100, 1)), vec![0; 4]].concat();
        let read = read([&input[..]]);
        assert_eq!(read.packets.len(), 100);
        assert!(matches!(read.error, Some(StreamError::Chunk(_))));
    }

    /// Tiny chunks become whole packets; what one event holds stays bounded all the same.
    #[test]
    fn tiny_chunks_do_not_blow_up() {
        let mut reader = Reader::new();
        reader.feed(&chunk(ChunkKind::Header, &small(65_527)));
        reader.feed(&chunk(ChunkKind::Data, &packet(30, 1)).repeat(1_000));
        let mut packets = 0;
        while let Some(event) = reader.poll() {
            if let Event::Packets(batch) = event.unwrap() {
                assert!(batch.capacity() <= 2 * MAX_BATCH_LEN, "{}", batch.capacity());
                packets += batch.len() / 65_527;
            }
        }
        assert_eq!(packets, 1_000);
    }

    #[test]
    fn what_is_fed_after_the_end_is_not_kept() {
        let mut reader = Reader::new();
        reader.feed(b"no ASF");
        assert!(reader.poll().unwrap().is_err());
        reader.feed(&[0; 1000]);
        assert!(reader.poll().is_none() && reader.input.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn samples_cut_anywhere_read_the_same(sample in 0..samples::STREAMS.len(), cuts in proptest::collection::vec(1..9000_usize, 1..40)) {
            let file = samples::bytes(samples::STREAMS[sample].0);
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), &file[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert!(read(pieces) == read([&file[..]]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(
            start in 0..4_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            step in 1..50_usize,
        ) {
            let start = match start {
                0 => Vec::new(),
                1 => small(100),
                2 => chunk(ChunkKind::Header, &small(100)),
                _ => [chunk(ChunkKind::Header, &small(100)), b"$D".to_vec()].concat(),
            };
            let input = [start, bytes].concat();
            let stepwise = read(input.chunks(step));
            prop_assert_eq!(stepwise, read([&input[..]]));
        }

        #[test]
        fn damaged_sources_never_panic(hits in proptest::collection::vec((0..4000_usize, any::<u8>()), 1..8), framed in any::<bool>()) {
            let name = if framed { "live-asf_stream-pipe.mmsh" } else { "live-asf-pipe.asf" };
            let mut file = samples::bytes(name);
            file.truncate(20_000);
            for (at, value) in hits {
                file[at] = value;
            }
            prop_assert!(read(file.chunks(777)) == read([&file[..]]));
        }
    }
}
