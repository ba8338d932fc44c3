//! What the tests of the archive share: scratch folders, waiting with a bound, small files made to order.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Archive, ArchiveBounds, AsfFile, Block, Lookup, OpenError, ReadError, Start};
use crate::asf::fabricate::{Form, Piece, Plan, audio, data_head, file_properties, header, video};
use crate::asf::samples;

/// Longer than any answer takes; a test that waits so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An archive that looks at its files only when it is told to.
pub(super) fn archive(cache_bytes: usize, readers: usize) -> Arc<Archive> {
    Archive::start_checking(ArchiveBounds { cache_bytes, readers }, None).unwrap()
}

/// Waits for what `call` hands on.
pub(super) fn answer<T: Send + 'static>(call: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |value| sender.send(value).unwrap()));
    receiver.recv_timeout(PATIENCE).expect("no answer")
}

impl Archive {
    pub(super) fn open_and_wait(self: &Arc<Self>, root: &Path, name: &str) -> Result<Arc<AsfFile>, OpenError> {
        answer(|done| self.open(root, name, done))
    }
}

impl AsfFile {
    pub(super) fn block_and_wait(self: &Arc<Self>, number: u64) -> Result<Arc<Block>, ReadError> {
        let (sender, receiver) = mpsc::channel();
        match self.block(number, || Box::new(move |result| _ = sender.send(result))) {
            Lookup::Here(block) => Ok(block),
            Lookup::Pending => receiver.recv_timeout(PATIENCE).expect("no answer"),
            Lookup::Failed(error) => Err(error),
        }
    }

    pub(super) fn locate_and_wait(self: &Arc<Self>, start: Start) -> Result<u64, ReadError> {
        answer(|done| self.locate(start, done))
    }

    /// All packets, by blocks.
    pub(super) fn read_all(self: &Arc<Self>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for number in 0..self.blocks() {
            let block = self.block_and_wait(number).unwrap();
            assert_eq!(block.first(), number * self.packets_per_block());
            packets.extend((0..block.count() as u64).map(|place| block.packet(block.first() + place).unwrap().to_vec()));
            assert_eq!((block.packet(block.first() + block.count() as u64), block.size() % block.count()), (None, 0));
        }
        packets
    }
}

/// A folder of its own with files in it.
pub(super) struct Root(tempfile::TempDir);

impl Root {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a sample and returns its name.
    pub(super) fn sample(&self, name: &'static str) -> &'static str {
        self.write(name, &samples::bytes(name));
        name
    }
}

/// A key frame or other frame that a made packet holds: stream, key, presentation time.
pub(super) type Frame = (u8, bool, u32);

/// A packet of 400 bytes with whole frames of 20 bytes.
pub(super) fn packet(send_time_ms: u32, frames: &[Frame]) -> Vec<u8> {
    let piece = |(stream, key, presentation_ms): &Frame| Piece {
        stream: *stream,
        key: *key,
        object: 0,
        offset: 0,
        presentation_ms: *presentation_ms,
        object_size: None,
        form: Form::Replicated(vec![9; 20], 0),
    };
    let pieces: Vec<_> = frames.iter().map(piece).collect();
    let mut plan = Plan {
        correction: Some(2),
        multiple: true,
        packet_length: 0,
        sequence: 0,
        padding: 2,
        object: 1,
        offset: 3,
        replicated: 1,
        payload_length: 2,
        send_time_ms,
        pieces,
        spare: 0,
    };
    plan.spare = 400 - plan.build().len();
    plan.build()
}

/// Where a made file's counts come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims {
    pub(super) flags: u32,
    /// The Data Object's size; right if not given.
    pub(super) data_len: Option<u64>,
    pub(super) file_packets: u64,
}

impl Claims {
    /// Nothing is known.
    pub(super) const LIVE: Self = Self { flags: 1, data_len: Some(50), file_packets: 0 };
}

/// A file of video streams 1 and 2 and audio 3, preroll 3 s, with something behind the data.
pub(super) fn asf(claims: Claims, packets: &[Vec<u8>], behind: &[u8]) -> Vec<u8> {
    let mut properties = file_properties(400, claims.flags);
    properties[56..64].copy_from_slice(&claims.file_packets.to_le_bytes());
    let mut data = data_head(packets.len() as u64, 400);
    if let Some(len) = claims.data_len {
        data[16..24].copy_from_slice(&len.to_le_bytes());
    }
    [header(&[properties, video(1), video(2), audio(3)]), data, packets.concat(), behind.to_vec()].concat()
}
