//! What came, as an ASF file.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;

use bytes::Bytes;

use super::order::Order;
use crate::asf::Header;
use crate::playing::ClientEvent;

/// An ASF file in the making: a header as received, and the packets that belong to it in their order.
///
/// What follows a change of the header is left out, as are packets of another size than the header's.
#[derive(Debug)]
pub struct AsfFile {
    file: BufWriter<File>,
    packet_size: usize,
    order: Order,
    changed: bool,
    result: io::Result<()>,
}

impl AsfFile {
    /// Creates the file; one that is there is overwritten.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(File::create(path)?),
            packet_size: 0,
            order: Order::default(),
            changed: false,
            result: Ok(()),
        })
    }

    /// Takes an event of the play; returns whether all went well so far.
    pub fn event(&mut self, event: &ClientEvent) -> bool {
        if self.result.is_ok() {
            self.result = self.try_event(event);
        }
        self.result.is_ok()
    }

    fn try_event(&mut self, event: &ClientEvent) -> io::Result<()> {
        match event {
            // A second first header comes of a second connection, which begins anew.
            ClientEvent::Header(header) => {
                (self.order, self.changed) = (Order::default(), false);
                self.packet_size = Header::parse(header).map(|header| header.packet_size()).unwrap_or_default();
                self.file.rewind()?;
                self.file.get_ref().set_len(0)?;
                self.file.write_all(header)
            }
            ClientEvent::NewHeader(_) => {
                let result = self.release(|order, out| order.flush(out));
                self.changed = true;
                result
            }
            ClientEvent::Starting => self.release(|order, out| order.flush(out)),
            ClientEvent::Packet { sequence, bytes, settled, .. } => {
                self.release(|order, out| order.packet(*sequence, bytes.clone(), *settled, out))
            }
            ClientEvent::GivenUp { settled } => self.release(|order, out| order.settle(*settled, out)),
            _ => Ok(()),
        }
    }

    /// Lets the order of packets go on, and writes what comes out of it.
    fn release(&mut self, change: impl FnOnce(&mut Order, &mut dyn FnMut(Bytes))) -> io::Result<()> {
        let Self { file, packet_size, order, changed, .. } = self;
        let mut result = Ok(());
        change(order, &mut |packet| {
            if result.is_ok() && !*changed && packet.len() == *packet_size {
                result = file.write_all(&packet);
            }
        });
        result
    }

    /// Brings all of it to the file.
    ///
    /// # Errors
    /// The first one of writing, now or before.
    pub fn finish(mut self) -> io::Result<()> {
        std::mem::replace(&mut self.result, Ok(()))?;
        // What is still missing will not come.
        self.release(|order, out| order.flush(out))?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;

    /// A packet behind which nothing is missing.
    fn packet(sequence: u32, bytes: &[u8]) -> ClientEvent {
        amid(sequence, bytes, sequence + 1)
    }

    fn amid(sequence: u32, bytes: &[u8], settled: u32) -> ClientEvent {
        ClientEvent::Packet { location: 0, sequence, bytes: Bytes::copy_from_slice(bytes), resent: false, settled }
    }

    #[test]
    fn one_header_and_its_packets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.asf");
        let sample = samples::bytes("live-asf-pipe.asf");
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let whole = Bytes::copy_from_slice(&sample[..header.bytes().len() + 50]);
        let mut file = AsfFile::create(&path).unwrap();
        // Of a connection that came to nothing.
        file.event(&ClientEvent::Header(whole.clone()));
        file.event(&amid(7, &packets[5], 0));
        file.event(&ClientEvent::Header(whole.clone()));
        for (sequence, bytes) in (0..).zip(&packets[..3]) {
            assert!(file.event(&packet(sequence, bytes)));
        }
        file.event(&packet(3, &[1, 2, 3]));
        file.event(&ClientEvent::NewHeader(whole.clone()));
        file.event(&packet(4, &packets[4]));
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [whole.as_ref(), &packets[..3].concat()].concat());
    }

    #[test]
    fn in_order_whatever_the_order_of_arrival() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.asf");
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let whole = Bytes::copy_from_slice(&samples::bytes("live-asf-pipe.asf")[..header.bytes().len() + 50]);
        let mut file = AsfFile::create(&path).unwrap();
        file.event(&ClientEvent::Header(whole.clone()));
        file.event(&ClientEvent::Starting);
        // 1 comes late; 3 never, which is known in the end; of 6 it is not known before a seek, of 8 not before the end.
        for (sequence, settled) in [(0, 1), (2, 1), (1, 3), (4, 3)] {
            file.event(&amid(sequence, &packets[sequence as usize], settled));
        }
        file.event(&ClientEvent::GivenUp { settled: 5 });
        for (sequence, settled) in [(5, 6), (7, 6)] {
            file.event(&amid(sequence, &packets[sequence as usize], settled));
        }
        file.event(&ClientEvent::Starting);
        file.event(&amid(6, &packets[6], 6));
        file.event(&amid(9, &packets[9], 8));
        file.finish().unwrap();
        let expected: Vec<Vec<u8>> = [0, 1, 2, 4, 5, 7, 9].iter().map(|at| packets[*at].clone()).collect();
        assert_eq!(std::fs::read(&path).unwrap(), [whole.as_ref(), &expected.concat()].concat());
    }

    #[test]
    fn a_full_disk_is_told() {
        let Ok(mut file) = AsfFile::create(Path::new("/dev/full")) else { return };
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        // A device has no length to set.
        assert!(!file.event(&ClientEvent::Header(header.bytes().clone())));
        assert!(!file.event(&packet(0, &packets[0])));
        assert!(file.finish().is_err());
    }
}
