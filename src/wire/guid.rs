//! GUIDs as the 16 bytes they are on the wire.

use std::fmt;

/// A GUID in file order: three little-endian groups, then eight bytes as written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID written as text `AABBCCDD-EEFF-GGHH-IIJJ-KKLLMMNNOOPP`, from its numeric parts.
    pub const fn from_parts(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d @ ..] = self.0;
        write!(
            f,
            "{:08X}-{:04X}-{:04X}-",
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1])
        )?;
        for (i, byte) in d.iter().enumerate() {
            if i == 2 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let header = Guid::from_parts(0x75B2_2630, 0x668E, 0x11CF, [0xA6, 0xD9, 0, 0xAA, 0, 0x62, 0xCE, 0x6C]);
        assert_eq!(header.0[..4], [0x30, 0x26, 0xB2, 0x75]);
        assert_eq!(header.to_string(), "75B22630-668E-11CF-A6D9-00AA0062CE6C");
    }
}
