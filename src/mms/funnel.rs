//! The funnel: the data path that the player asks for, and the client id for resends.

use std::net::IpAddr;

use super::connect::NO_PACKET_PAIR;
use super::frame::{Message, body};
use crate::wire::{DecodeError, Hresult, Writer, encode_utf16_nul};

/// UTF-16 units of a funnel name that are read: the longest good one has 56.
const MAX_NAME_UNITS: usize = 64;
/// Fixed text of the specification.
const GRANTED: &str = "Funnel Of The Gods";

/// `LinkViewerToMacFunnelInfo`: asks for the client id. Source: MS-MMSP 2.2.4.19.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunnelInfo {
    /// Whether packet pair is wanted; FFmpeg writes `0x00F0F0F0`: unknown values mean no.
    pub incarnation: u32,
}

impl Message for FunnelInfo {
    const MID: u32 = 0x0003_0018;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { incarnation: body(message)?.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.incarnation);
    }
}

/// `LinkMacToViewerReportFunnelInfo`. Source: MS-MMSP 2.2.4.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportFunnelInfo {
    /// Success or why not.
    pub hr: Hresult,
    /// `nCubs`: names the session in resend requests.
    pub client_id: u32,
}

impl Message for ReportFunnelInfo {
    const MID: u32 = 0x0004_0015;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let hr = Hresult(cursor.u32("hr")?);
        cursor.skip("playIncarnation to fragmentBytes", 16)?;
        Ok(Self { hr, client_id: cursor.u32("nCubs")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(NO_PACKET_PAIR).u32(8).u32(1).u32(0x0001_0000).u32(self.client_id);
        body.u32(0).u32(1).u32(0).u32(0);
    }
}

/// `LinkViewerToMacConnectFunnel`. Source: MS-MMSP 2.2.4.18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectFunnel {
    /// `\\address\TCP or UDP\port`, up to its NUL; unreadable units become U+FFFD.
    pub name: String,
}

/// The data path that a funnel name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funnel {
    /// Data on the control connection.
    Tcp,
    /// Datagrams.
    Udp {
        /// The address in the name, where it is one. Never the address to send to: that is the peer of the connection.
        announced: Option<IpAddr>,
        /// The port on which the player listens, not 0.
        port: u16,
    },
}

impl ConnectFunnel {
    /// The message that asks for UDP datagrams.
    pub fn udp(address: IpAddr, port: u16) -> Self {
        Self { name: format!(r"\\{address}\UDP\{port}") }
    }

    /// The message that asks for TCP.
    pub fn tcp(address: IpAddr, port: u16) -> Self {
        Self { name: format!(r"\\{address}\TCP\{port}") }
    }

    /// What the name asks for; `None` where it is not a funnel name.
    pub fn funnel(&self) -> Option<Funnel> {
        let mut parts = self.name.split('\\');
        let (Some(""), Some(""), Some(address), Some(protocol), Some(port), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        if protocol.eq_ignore_ascii_case("TCP") {
            return Some(Funnel::Tcp);
        }
        if !protocol.eq_ignore_ascii_case("UDP") || port.len() > 5 || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Funnel::Udp { announced: address.parse().ok(), port })
    }
}

impl Message for ConnectFunnel {
    const MID: u32 = 0x0003_0002;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("playIncarnation to funnelMode", 20)?;
        let units = cursor.rest().as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let units = units.take_while(|unit| *unit != 0).take(MAX_NAME_UNITS);
        Ok(Self { name: char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect() })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(u32::MAX).u32(0).u32(10_000_000).u32(2).bytes(&encode_utf16_nul(&self.name));
    }
}

/// `LinkMacToViewerReportConnectedFunnel`: granted. Source: MS-MMSP 2.2.4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportConnectedFunnel;

impl Message for ReportConnectedFunnel {
    const MID: u32 = 0x0004_0002;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        // Windows 2000 cuts the text short: the fixed part is enough.
        body(message)?.skip("hr to packetPayloadSize", 12).map(|()| Self)
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(0).u32(0).bytes(&encode_utf16_nul(GRANTED)).zeros(6);
    }
}

/// `LinkMacToViewerReportDisconnectedFunnel`: refused; the player may ask again on the same connection. Source: MS-MMSP 2.2.4.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportDisconnectedFunnel {
    /// Why.
    pub hr: Hresult,
}

impl Message for ReportDisconnectedFunnel {
    const MID: u32 = 0x0004_0003;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { hr: Hresult(body(message)?.u32("hr")?) })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn funnel(name: &str) -> Option<Funnel> {
        ConnectFunnel { name: name.to_owned() }.funnel()
    }

    #[test]
    fn names() {
        let announced = Some("192.0.2.10".parse().unwrap());
        assert_eq!(funnel(r"\\192.0.2.10\UDP\2048"), Some(Funnel::Udp { announced, port: 2048 }));
        assert_eq!(funnel(r"\\192.0.2.10\udp\65535"), Some(Funnel::Udp { announced, port: 65535 }));
        assert_eq!(funnel(r"\\192.168.0.1\TCP\1242"), Some(Funnel::Tcp));
        assert_eq!(funnel(r"\\nonsense\tcp\nonsense"), Some(Funnel::Tcp));
        assert_eq!(
            funnel(r"\\2001:db8::7\UDP\1024"),
            Some(Funnel::Udp { announced: Some("2001:db8::7".parse().unwrap()), port: 1024 })
        );
        assert_eq!(funnel(r"\\host\UDP\1024"), Some(Funnel::Udp { announced: None, port: 1024 }));
        let bad = [
            "",
            "x",
            r"\\1.2.3.4\UDP\0",
            r"\\1.2.3.4\UDP\65536",
            r"\\1.2.3.4\UDP\000001",
            r"\\1.2.3.4\UDP\+5",
            r"\\1.2.3.4\UDP\",
            r"\1.2.3.4\UDP\1024",
            r"\\1.2.3.4\SCTP\1024",
            r"\\1.2.3.4\UDP\1024\",
            r"\\1.2.3.4\UDP",
        ];
        for name in bad {
            assert_eq!(funnel(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_needs_no_nul_and_is_bounded() {
        let mut message = vec![0; 28];
        message.extend(r"\\1.2.3.4\UDP\1024".encode_utf16().flat_map(u16::to_le_bytes));
        assert!(ConnectFunnel::parse(&message).unwrap().funnel().is_some());
        // VLC leaves a rest of an older name behind the NUL.
        message.extend([0, 0, 0x30, 0]);
        assert!(ConnectFunnel::parse(&message).unwrap().funnel().is_some());
        message.truncate(28);
        message.extend([0x41, 0].repeat(500));
        assert_eq!(ConnectFunnel::parse(&message).unwrap().name.len(), MAX_NAME_UNITS);
    }
}
