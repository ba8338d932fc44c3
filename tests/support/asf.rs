//! A live ASF stream made of nothing: one audio stream, one object a packet, any packet size and rate.
//!
//! Nobody can listen to it. It is for counting packets at rates that no encoder of this size would give; streams
//! for players come from ffmpeg.

/// The stream's shape.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic {
    /// Bytes of every data packet.
    pub packet_size: usize,
    /// Packets for each second of send time.
    pub packets_per_second: u32,
}

const PREROLL_MS: u32 = 1000;
const PACKET_HEAD: usize = 13;
const PAYLOAD_HEAD: usize = 15;

const HEADER_OBJECT: &str = "75B22630-668E-11CF-A6D9-00AA0062CE6C";
const FILE_PROPERTIES: &str = "8CABDCA1-A947-11CF-8EE4-00C00C205365";
const HEADER_EXTENSION: &str = "5FBF03B5-A92E-11CF-8EE3-00C00C205365";
const RESERVED_1: &str = "ABD3D211-A9BA-11CF-8EE6-00C00C205365";
const STREAM_PROPERTIES: &str = "B7DC0791-A9B7-11CF-8EE6-00C00C205365";
const AUDIO_MEDIA: &str = "F8699E40-5B4D-11CF-A8FD-00805F5C442B";
const NO_ERROR_CORRECTION: &str = "20FB5700-5B55-11CF-A8FD-00805F5C442B";
const DATA_OBJECT: &str = "75B22636-668E-11CF-A6D9-00AA0062CE6C";
const FILE_ID: &str = "6B1F0A52-3C1E-4A77-9C55-0D6A3A3F1E77";

impl Synthetic {
    /// Header Object and the 50 bytes that begin the Data Object.
    pub fn header(&self) -> Vec<u8> {
        let bit_rate = self.packet_size as u32 * 8 * self.packets_per_second;
        let packet_size = self.packet_size as u32;
        let bytes_per_second = (self.packet_size - PACKET_HEAD - PAYLOAD_HEAD) as u32 * self.packets_per_second;

        // Flags 1: broadcast, so that sizes and counts mean nothing.
        let mut properties = guid(FILE_ID);
        for field in [0, 132_000_000_000_000_000, 0, 0, 0, u64::from(PREROLL_MS)] {
            properties.extend_from_slice(&field.to_le_bytes());
        }
        for field in [1, packet_size, packet_size, bit_rate] {
            properties.extend_from_slice(&field.to_le_bytes());
        }

        let mut extension = guid(RESERVED_1);
        extension.extend_from_slice(&[6, 0, 0, 0, 0, 0]);

        // WAVEFORMATEX of G.711 µ-law, mono, 8 bit.
        let mut format = vec![7, 0, 1, 0];
        format.extend_from_slice(&bytes_per_second.to_le_bytes());
        format.extend_from_slice(&bytes_per_second.to_le_bytes());
        format.extend_from_slice(&[1, 0, 8, 0, 0, 0]);
        let mut stream = [guid(AUDIO_MEDIA), guid(NO_ERROR_CORRECTION)].concat();
        stream.extend_from_slice(&0_u64.to_le_bytes());
        stream.extend_from_slice(&(format.len() as u32).to_le_bytes());
        stream.extend_from_slice(&[0; 4]);
        stream.extend_from_slice(&[1, 0, 0, 0, 0, 0]);
        stream.extend_from_slice(&format);

        let children =
            [object(FILE_PROPERTIES, &properties), object(HEADER_EXTENSION, &extension), object(STREAM_PROPERTIES, &stream)];
        let mut body = vec![children.len() as u8, 0, 0, 0, 1, 2];
        body.extend(children.concat());
        let mut header = object(HEADER_OBJECT, &body);

        header.extend(guid(DATA_OBJECT));
        header.extend_from_slice(&50_u64.to_le_bytes());
        header.extend(guid(FILE_ID));
        header.extend_from_slice(&0_u64.to_le_bytes());
        header.extend_from_slice(&[1, 1]);
        header
    }

    /// Data packet number `number`: one whole object, whose first bytes are that number.
    pub fn packet(&self, number: u32) -> Vec<u8> {
        let send_time = self.send_time_ms(number);
        let data = self.packet_size - PACKET_HEAD - PAYLOAD_HEAD;
        // Error correction, one payload, padding length as a word (0), usual field sizes.
        let mut packet = vec![0x82, 0, 0, 0x10, 0x5D, 0, 0];
        packet.extend_from_slice(&send_time.to_le_bytes());
        packet.extend_from_slice(&((1000 / self.packets_per_second) as u16).to_le_bytes());
        packet.extend_from_slice(&[1, number as u8, 0, 0, 0, 0, 8]);
        packet.extend_from_slice(&(data as u32).to_le_bytes());
        packet.extend_from_slice(&(send_time + PREROLL_MS).to_le_bytes());
        packet.extend_from_slice(&number.to_le_bytes());
        packet.resize(self.packet_size, number as u8);
        packet
    }

    /// When a packet is to be sent, from the stream's begin.
    pub fn send_time_ms(&self, number: u32) -> u32 {
        (u64::from(number) * 1000 / u64::from(self.packets_per_second)) as u32
    }
}

/// The number that [`Synthetic::packet`] put into a packet.
pub fn number_in(packet: &[u8]) -> Option<u32> {
    let at = PACKET_HEAD + PAYLOAD_HEAD;
    Some(u32::from_le_bytes(packet.get(at..at + 4)?.try_into().unwrap()))
}

/// The send time of a packet in the form that [`Synthetic`] and ffmpeg write.
pub fn send_time_in(packet: &[u8]) -> Option<u32> {
    // Behind error correction (3), length types and properties; the padding length before it varies.
    let padding_field = [0, 1, 2, 4][usize::from(packet.get(3)? >> 3 & 3)];
    let at = 5 + padding_field;
    Some(u32::from_le_bytes(packet.get(at..at + 4)?.try_into().unwrap()))
}

fn object(id: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = guid(id);
    bytes.extend_from_slice(&(24 + body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A GUID on the wire: the first three groups are little-endian.
fn guid(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(byte).to_vec()
}
