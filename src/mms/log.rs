//! Logging: what the player saw, told after a stop or an end.

use std::fmt;

use super::frame::{Message, body};
use crate::wire::{Cursor, DecodeError, Hresult, Writer};

/// Bytes of the packed structure.
const LOG_LEN: u32 = 1490;
/// Bytes of its second half, which counts itself.
const INFO_LEN: u32 = 1142;

/// `LinkViewerToMacLogging`. Sent by Windows Media Format 7 and later. Source: MS-MMSP 2.2.1.1, 2.2.1.2, 2.2.4.20.
///
/// Texts are single-byte characters taken as Latin-1, at most as long as their fields. All of it is a claim: [`fmt::Display`]
/// gives a summary that is safe to log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logging {
    /// URL of the stream.
    pub url: String,
    /// URL of the station file.
    pub channel_url: String,
    /// The application.
    pub user_agent: String,
    /// Page that holds the player.
    pub hosting_page: String,
    /// Version of the player, four 16-bit parts, the highest first.
    pub client_version: u64,
    /// Language.
    pub language: String,
    /// GUID of the player.
    pub player_id: String,
    /// Program file of the player.
    pub host_exe: String,
    /// Its version.
    pub host_exe_version: u64,
    /// Duration of the file, milliseconds.
    pub file_duration_ms: u32,
    /// Size of the file, bytes.
    pub file_size: u64,
    /// Bits per second.
    pub bandwidth: u32,
    /// Audio codec.
    pub audio_codec: String,
    /// Video codec.
    pub video_codec: String,
    /// Where it began, milliseconds.
    pub start_ms: u32,
    /// How long it played, milliseconds.
    pub played_ms: u32,
    /// Speed, 1 is normal.
    pub rate: u16,
    /// Times that it had to wait for data.
    pub buffering_count: u32,
    /// How long it waited in all, milliseconds.
    pub buffering_ms: u32,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets received.
    pub packets_received: u32,
    /// Packets lost in the end.
    pub packets_lost: u32,
    /// Packets recovered by error correction.
    pub packets_recovered_ecc: u32,
    /// Lowest share of packets received, percent.
    pub min_quality: u32,
    /// How it ended.
    pub hr: Hresult,
    /// File id.
    pub source_id: u32,
    /// The player's address as it sees itself.
    pub address: u32,
    /// Name of its computer.
    pub computer: String,
    /// Operating system.
    pub os: String,
    /// Its version.
    pub os_version: u64,
    /// Processor.
    pub cpu: String,
    /// Protocol.
    pub protocol: String,
    /// Transport.
    pub transport: String,
    /// Packets lost on the network, before resends.
    pub packets_lost_net: u32,
    /// Longest run of them.
    pub packets_lost_run: u32,
    /// Resend requests sent.
    pub resend_requests: u32,
    /// Packets that resends brought back.
    pub packets_recovered: u32,
    /// Packets sent again.
    pub packets_resent: u32,
}

impl Message for Logging {
    const MID: u32 = 0x0003_0032;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let sizes = |expected: u32, cursor: &mut Cursor<'_>| match cursor.u32("cbSize")? {
            size if size == expected => Ok(()),
            _ => Err(cursor.invalid("cbSize", 4, "not the size of the structure")),
        };
        sizes(LOG_LEN, &mut cursor)?;
        sizes(INFO_LEN, &mut cursor)?;
        let c = &mut cursor;
        Ok(Self {
            url: text(c, 260)?,
            channel_url: text(c, 260)?,
            user_agent: text(c, 64)?,
            hosting_page: text(c, 260)?,
            client_version: c.u64("qwClientVersion")?,
            language: text(c, 16)?,
            player_id: text(c, 40)?,
            host_exe: text(c, 32)?,
            host_exe_version: c.u64("qwHostExeVer")?,
            file_duration_ms: c.u32("msFileDuration")?,
            file_size: c.u64("qwFileSize")?,
            bandwidth: c.u32("dwAvgBandwidthBps")?,
            audio_codec: text(c, 64)?,
            video_codec: text(c, 64)?,
            start_ms: c.u32("msStartTime")?,
            played_ms: c.u32("msPlayed")?,
            rate: c.u16("rate")?,
            buffering_count: c.u32("dwBufferingCount")?,
            buffering_ms: c.u32("msBufferingTime")?,
            bytes_received: c.u64("qwBytesReceived")?,
            packets_received: c.u32("dwPacketsReceived")?,
            packets_lost: c.u32("dwPacketsLostClient")?,
            packets_recovered_ecc: c.u32("dwPacketsRecoveredECC")?,
            min_quality: c.u32("dwMinReceptionQuality")?,
            hr: Hresult(c.u32("hr")?),
            source_id: c.u32("dwSourceId")?,
            address: c.u32("dwIPAddress")?,
            computer: text(c, 260)?,
            os: text(c, 16)?,
            os_version: c.u64("qwOSVersion")?,
            cpu: text(c, 16)?,
            protocol: text(c, 8)?,
            transport: text(c, 8)?,
            packets_lost_net: c.u32("dwPacketsLostNet")?,
            packets_lost_run: c.u32("dwPacketsLostContNet")?,
            resend_requests: c.u32("dwResendRequests")?,
            packets_recovered: c.u32("dwRecoveredResent")?,
            packets_resent: c.u32("dwPacketsResent")?,
        })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(LOG_LEN).u32(INFO_LEN);
        field(body, &self.url, 260);
        field(body, &self.channel_url, 260);
        field(body, &self.user_agent, 64);
        field(body, &self.hosting_page, 260);
        body.u64(self.client_version);
        field(body, &self.language, 16);
        field(body, &self.player_id, 40);
        field(body, &self.host_exe, 32);
        body.u64(self.host_exe_version).u32(self.file_duration_ms).u64(self.file_size).u32(self.bandwidth);
        field(body, &self.audio_codec, 64);
        field(body, &self.video_codec, 64);
        body.u32(self.start_ms).u32(self.played_ms).u16(self.rate).u32(self.buffering_count).u32(self.buffering_ms);
        body.u64(self.bytes_received).u32(self.packets_received).u32(self.packets_lost).u32(self.packets_recovered_ecc);
        body.u32(self.min_quality).u32(self.hr.0).u32(self.source_id).u32(self.address);
        field(body, &self.computer, 260);
        field(body, &self.os, 16);
        body.u64(self.os_version);
        field(body, &self.cpu, 16);
        field(body, &self.protocol, 8);
        field(body, &self.transport, 8);
        body.u32(self.packets_lost_net).u32(self.packets_lost_run).u32(self.resend_requests);
        body.u32(self.packets_recovered).u32(self.packets_resent);
    }
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "played {} ms over {}, {} packets, {} lost, {} recovered, {} rebufferings of {} ms, agent {}, os {}, result {}",
            self.played_ms,
            escaped(&self.transport),
            self.packets_received,
            self.packets_lost,
            self.packets_recovered,
            self.buffering_count,
            self.buffering_ms,
            escaped(&self.user_agent),
            escaped(&self.os),
            self.hr,
        )
    }
}

/// A peer's text made safe for one line of a log: printable ASCII, at most 128 characters, everything else escaped.
pub fn escaped(text: &str) -> String {
    let mut out: String = text.chars().take(128).flat_map(char::escape_default).collect();
    if out.is_empty() {
        out.push('-');
    }
    out
}

fn text(cursor: &mut Cursor<'_>, width: usize) -> Result<String, DecodeError> {
    let bytes = cursor.take("string", width)?;
    Ok(bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
}

fn field(body: &mut Writer, text: &str, width: usize) {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).take(width - 1).collect();
    body.bytes(&bytes).zeros(width - bytes.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mms::frame::encode;

    fn sample() -> Logging {
        Logging {
            url: "mms://198.51.100.20/live/cam1".into(),
            user_agent: "NSPlayer".into(),
            os: "Windows_98".into(),
            transport: "UDP".into(),
            rate: 1,
            played_ms: 61_000,
            packets_received: 812,
            packets_resent: 5,
            ..Logging::default()
        }
    }

    #[test]
    fn size_places_and_round_trip() {
        let packet = encode(7, &sample());
        assert_eq!(packet.len(), 1536);
        let message = &packet[32..];
        // Offsets of the reference: the structure is packed, nothing is aligned behind `rate`.
        assert_eq!(&message[16..22], b"mms://");
        assert_eq!(message[1112..1116], 61_000u32.to_le_bytes());
        assert_eq!(message[1116..1118], [1, 0]);
        assert_eq!(message[1134..1138], 812u32.to_le_bytes());
        assert_eq!(&message[1470..1473], b"UDP");
        assert_eq!(message[1494..1498], 5u32.to_le_bytes());
        assert_eq!(Logging::parse(message), Ok(sample()));
    }

    #[test]
    fn texts_without_nul_and_wrong_sizes() {
        let mut message = encode(0, &sample())[32..].to_vec();
        message[536..600].fill(b'A');
        assert_eq!(Logging::parse(&message).unwrap().user_agent, "A".repeat(64));
        for at in [8, 12] {
            let mut wrong = message.clone();
            wrong[at] ^= 1;
            assert!(Logging::parse(&wrong).is_err());
        }
        for n in 0..1498 {
            assert!(Logging::parse(&message[..n]).is_err());
        }
    }

    #[test]
    fn a_summary_stays_on_its_line() {
        let log = Logging { user_agent: "x\nsession=forged \u{1b}[31m".into(), ..sample() };
        let line = log.to_string();
        assert!(line.is_ascii() && !line.contains(['\n', '\u{1b}']), "{line}");
        assert_eq!(escaped(""), "-");
        assert!(escaped(&"é".repeat(9999)).len() < 1000);
    }
}
