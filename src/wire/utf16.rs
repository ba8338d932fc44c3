//! UTF-16LE strings, NUL-terminated or not.

/// Text of UTF-16LE bytes up to the first NUL unit or the end; a lone trailing byte is ignored.
///
/// At most `max_units` units are read. `None` where they are not valid UTF-16.
pub fn decode_utf16(bytes: &[u8], max_units: usize) -> Option<String> {
    let units =
        bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).take(max_units).take_while(|unit| *unit != 0);
    char::decode_utf16(units).collect::<Result<String, _>>().ok()
}

/// UTF-16LE bytes of `text` with a closing NUL unit.
pub fn encode_utf16_nul(text: &str) -> Vec<u8> {
    text.encode_utf16().chain(std::iter::once(0)).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_nul_and_refuses_lone_surrogates() {
        let bytes = encode_utf16_nul("Köln 🎥");
        assert_eq!(decode_utf16(&bytes, 64).as_deref(), Some("Köln 🎥"));
        assert_eq!(decode_utf16(&bytes, 2).as_deref(), Some("Kö"));
        assert_eq!(decode_utf16(&[0x00, 0xD8, 0x41, 0x00], 64), None);
        assert_eq!(decode_utf16(&[0x41, 0x00, 0x42], 64).as_deref(), Some("A"));
    }
}
