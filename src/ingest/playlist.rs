//! Reads files ahead, one after the other and over again, so that no disk is waited for when a packet is due.

use std::fmt;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::back_off::BackOff;
use crate::asf::{Event, Header, Reader};

/// Bytes read at once, and with it the size of an item.
const READ_BYTES: usize = 64 << 10;
/// Items read ahead.
const AHEAD: usize = 2;

/// Something that holds ASF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Medium {
    File(PathBuf),
    BuiltIn(&'static [u8]),
    /// Made by the daemon.
    Made(Bytes),
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn(_) => f.write_str("the built-in picture"),
            Self::Made(_) => f.write_str("the slate"),
        }
    }
}

/// What reading brings.
#[derive(Debug)]
pub(super) enum Item {
    /// A medium begins.
    Header(Header),
    /// Whole packets of it.
    Packets(BytesMut),
    /// A medium cannot be read, or not to its end.
    Failed { medium: String, reason: String },
    /// None of the media could be read. There is another attempt after this wait.
    Nothing { wait: Duration },
}

/// Starts reading; it ends when the receiver is dropped.
pub(super) fn read(media: Vec<Medium>) -> mpsc::Receiver<Item> {
    let (sender, items) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let Gone = read_all(&media, &sender).await;
    });
    items
}

/// The receiver was dropped.
struct Gone;

async fn read_all(media: &[Medium], items: &mpsc::Sender<Item>) -> Gone {
    let mut back_off = BackOff::new();
    loop {
        let mut packets = false;
        for medium in media {
            let mut reading = Reading { items, packets: false };
            let failure = match reading.medium(medium).await {
                Ok(()) => None,
                Err(Failure::Gone) => return Gone,
                Err(Failure::Medium(reason)) => Some(Item::Failed { medium: medium.to_string(), reason }),
            };
            packets |= reading.packets;
            if let Some(failure) = failure
                && items.send(failure).await.is_err()
            {
                return Gone;
            }
        }
        if packets {
            back_off = BackOff::new();
        } else {
            let wait = back_off.after(Duration::ZERO);
            if items.send(Item::Nothing { wait }).await.is_err() {
                return Gone;
            }
            sleep(wait).await;
        }
    }
}

struct Reading<'a> {
    items: &'a mpsc::Sender<Item>,
    packets: bool,
}

/// Why a medium was not read to its end.
enum Failure {
    Medium(String),
    Gone,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Medium(error.to_string())
    }
}

impl Reading<'_> {
    async fn medium(&mut self, medium: &Medium) -> Result<(), Failure> {
        let mut reader = Reader::new();
        match medium {
            Medium::BuiltIn(bytes) => self.bytes(&mut reader, bytes).await?,
            Medium::Made(bytes) => self.bytes(&mut reader, bytes).await?,
            Medium::File(path) => {
                let mut file = File::open(path).await?;
                let mut buffer = vec![0; READ_BYTES];
                loop {
                    let count = file.read(&mut buffer).await?;
                    if count == 0 {
                        break;
                    }
                    reader.feed(buffer.get(..count).unwrap_or_default());
                    if !self.pass_on(&mut reader).await? {
                        break;
                    }
                }
            }
        }
        reader.finish();
        self.pass_on(&mut reader).await?;
        if self.packets { Ok(()) } else { Err(Failure::Medium("it holds no packets".into())) }
    }

    async fn bytes(&mut self, reader: &mut Reader, bytes: &[u8]) -> Result<(), Failure> {
        for piece in bytes.chunks(READ_BYTES) {
            reader.feed(piece);
            if !self.pass_on(reader).await? {
                break;
            }
        }
        Ok(())
    }

    /// Whether more bytes are of use.
    async fn pass_on(&mut self, reader: &mut Reader) -> Result<bool, Failure> {
        while let Some(event) = reader.poll() {
            let item = match event? {
                Event::Header(header) => Item::Header(header),
                Event::Packets(packets) => {
                    self.packets = true;
                    Item::Packets(packets)
                }
                Event::End => return Ok(false),
            };
            self.items.send(item).await.map_err(|_| Failure::Gone)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::demo;
    use std::io::Write as _;

    async fn next(items: &mut mpsc::Receiver<Item>) -> Item {
        items.recv().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn reads_over_and_over() {
        let Medium::BuiltIn(asf) = demo::medium() else { panic!() };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(asf).unwrap();
        let mut items = read(vec![Medium::File(file.path().to_owned()), demo::medium()]);
        let (mut headers, mut bytes) = (0, 0);
        while headers < 5 {
            match next(&mut items).await {
                Item::Header(_) => headers += 1,
                Item::Packets(packets) => bytes += packets.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bytes % (4 * 1400), 0);
        assert!(bytes > 4 * 200_000);
    }

    #[tokio::test(start_paused = true)]
    async fn names_what_it_cannot_read() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let missing = PathBuf::from("no/such/file.asf");
        let mut items = read(vec![Medium::File(missing), Medium::File(empty.path().to_owned())]);
        let mut waits = Vec::new();
        for _ in 0..3 {
            let Item::Failed { medium, reason } = next(&mut items).await else { panic!() };
            assert!(medium.ends_with("file.asf") && reason.contains("No such file"), "{medium}: {reason}");
            let Item::Failed { reason, .. } = next(&mut items).await else { panic!() };
            assert!(reason.contains("before its ASF header"), "{reason}");
            let Item::Nothing { wait } = next(&mut items).await else { panic!() };
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000]);
    }

    #[tokio::test]
    async fn a_header_alone_is_no_medium() {
        let Medium::BuiltIn(asf) = demo::medium() else { panic!() };
        let mut reader = Reader::new();
        reader.feed(asf);
        let Some(Ok(Event::Header(header))) = reader.poll() else { panic!() };
        let mut items = read(vec![Medium::BuiltIn(&asf[..header.bytes().len() + 50]), demo::medium()]);
        assert!(matches!(next(&mut items).await, Item::Header(_)));
        assert!(matches!(next(&mut items).await, Item::Failed { reason, .. } if reason == "it holds no packets"));
        assert!(matches!(next(&mut items).await, Item::Header(_)));
    }
}
