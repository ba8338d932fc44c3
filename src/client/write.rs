//! What came, as an ASF file.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;

use crate::asf::Header;
use crate::mms::client::ClientEvent;

/// An ASF file in the making: a header as received, and the packets that belong to it in the order of their arrival.
///
/// What follows a change of the header is left out, as are packets of another size than the header's.
#[derive(Debug)]
pub struct AsfFile {
    file: BufWriter<File>,
    packet_size: usize,
    changed: bool,
    result: io::Result<()>,
}

impl AsfFile {
    /// Creates the file; one that is there is overwritten.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), packet_size: 0, changed: false, result: Ok(()) })
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
                self.changed = false;
                self.packet_size = Header::parse(header).map(|header| header.packet_size()).unwrap_or_default();
                self.file.rewind()?;
                self.file.get_ref().set_len(0)?;
                self.file.write_all(header)
            }
            ClientEvent::NewHeader(_) => {
                self.changed = true;
                Ok(())
            }
            ClientEvent::Packet { bytes, .. } if !self.changed && bytes.len() == self.packet_size => self.file.write_all(bytes),
            _ => Ok(()),
        }
    }

    /// Brings all of it to the file.
    ///
    /// # Errors
    /// The first one of writing, now or before.
    pub fn finish(mut self) -> io::Result<()> {
        self.result.and_then(|()| self.file.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;
    use bytes::Bytes;

    fn packet(bytes: &[u8]) -> ClientEvent {
        ClientEvent::Packet { location: 0, sequence: 0, bytes: Bytes::copy_from_slice(bytes), resent: false, settled: 0 }
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
        file.event(&packet(&packets[5]));
        file.event(&ClientEvent::Header(whole.clone()));
        for bytes in &packets[..3] {
            assert!(file.event(&packet(bytes)));
        }
        file.event(&packet(&[1, 2, 3]));
        file.event(&ClientEvent::NewHeader(whole.clone()));
        file.event(&packet(&packets[4]));
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [whole.as_ref(), &packets[..3].concat()].concat());
    }

    #[test]
    fn a_full_disk_is_told() {
        let Ok(mut file) = AsfFile::create(Path::new("/dev/full")) else { return };
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        // A device has no length to set.
        assert!(!file.event(&ClientEvent::Header(header.bytes().clone())));
        assert!(!file.event(&packet(&packets[0])));
        assert!(file.finish().is_err());
    }
}
