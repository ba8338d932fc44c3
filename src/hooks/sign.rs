//! Signatures of what is posted, by which the web server knows that it comes from here and now.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The field's name.
pub(super) const FIELD: &str = "Wmrelay-Signature";

/// The value of the field: `t=SECONDS,sha256=HEX`, where the second part is the HMAC-SHA-256, with the secret as its key, of the
/// seconds of Unix time, a full stop, and the body.
///
/// With the time in it a request cannot be sent again later by somebody else: who checks it refuses old ones.
pub(super) fn signature(secret: &[u8], unix_s: u64, body: &[u8]) -> String {
    let mut text = format!("t={unix_s},sha256=");
    // A key of any length is good for an HMAC.
    if let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret) {
        let time = unix_s.to_string();
        let digest = mac.chain_update(time.as_bytes()).chain_update(b".").chain_update(body).finalize().into_bytes();
        for byte in digest {
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_that_of_another_program() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let wanted = "t=1700000000,sha256=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
        assert_eq!(signature(b"0123456789abcdef", 1_700_000_000, b"{\"a\":1}"), wanted);
    }
}
