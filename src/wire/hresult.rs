//! Result codes of reports.

use std::fmt;

/// An HRESULT as it stands in a report: 0 is success, bit 31 set is failure.
///
/// Source: MS-MMSP 1.8, 2.2.4; which code fits which situation is our choice, since the specification fixes almost none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hresult(pub u32);

impl Hresult {
    /// Success.
    pub const OK: Self = Self(0);
    /// End of stream with another playlist entry to follow.
    pub const MORE: Self = Self(1);
    /// Access denied.
    pub const ACCESS_DENIED: Self = Self(0x8007_0005);
    /// An argument is outside its range.
    pub const INVALID_ARGUMENT: Self = Self(0x8007_0057);
    /// The server, or this address, has as many sessions as it may have.
    pub const TOO_MANY_SESSIONS: Self = Self(0xC00D_000F);
    /// Neither TCP nor UDP is allowed.
    pub const PROTOCOL_MISMATCH: Self = Self(0xC00D_0012);
    /// No such publishing point.
    pub const FILE_NOT_FOUND: Self = Self(0xC00D_001A);
    /// The name breaks the rules for names.
    pub const INVALID_NAME: Self = Self(0xC00D_001C);
    /// No UDP resource is left.
    pub const NETWORK_RESOURCE_FAILURE: Self = Self(0xC00D_0028);
    /// The message does not fit the state of the session.
    pub const INVALID_REQUEST: Self = Self(0xC00D_002B);
    /// No bandwidth is left.
    pub const INSUFFICIENT_BANDWIDTH: Self = Self(0xC00D_002C);
    /// The publishing point has as many viewers as it may have.
    pub const OPEN_FILE_LIMIT: Self = Self(0xC00D_0031);
    /// The message cannot be understood.
    pub const BAD_CONTROL_DATA: Self = Self(0xC00D_0032);
    /// The publishing point has no source now.
    pub const NO_STREAM: Self = Self(0xC00D_0033);
    /// The UDP port is leased to somebody else.
    pub const DUPLICATE_ADDRESS: Self = Self(0xC00D_0037);
    /// The UDP port is not one that the server sends to.
    pub const INVALID_PORT: Self = Self(0xC00D_0043);
    /// Fast forward and rewind are refused.
    pub const STRIDE_REFUSED: Self = Self(0xC00D_0045);
    /// UDP is switched off.
    pub const UDP_DISABLED: Self = Self(0xC00D_00D1);

    /// Whether the code is a failure (bit 31).
    pub const fn is_failure(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

impl fmt::Display for Hresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match *self {
            Self::OK => "success",
            Self::MORE => "more to come",
            Self::ACCESS_DENIED => "access denied",
            Self::INVALID_ARGUMENT => "invalid argument",
            Self::TOO_MANY_SESSIONS => "too many sessions",
            Self::PROTOCOL_MISMATCH => "no transport allowed",
            Self::FILE_NOT_FOUND => "no such publishing point",
            Self::INVALID_NAME => "invalid name",
            Self::NETWORK_RESOURCE_FAILURE => "no UDP port left",
            Self::INVALID_REQUEST => "invalid in this state",
            Self::INSUFFICIENT_BANDWIDTH => "no bandwidth left",
            Self::OPEN_FILE_LIMIT => "publishing point full",
            Self::BAD_CONTROL_DATA => "message not understood",
            Self::NO_STREAM => "no source",
            Self::DUPLICATE_ADDRESS => "UDP port taken",
            Self::INVALID_PORT => "UDP port not allowed",
            Self::STRIDE_REFUSED => "no fast forward",
            Self::UDP_DISABLED => "UDP switched off",
            _ => return write!(f, "0x{:08X}", self.0),
        };
        write!(f, "0x{:08X} ({meaning})", self.0)
    }
}

impl fmt::Debug for Hresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bit_31_is_failure() {
        assert!(!Hresult::OK.is_failure() && !Hresult::MORE.is_failure());
        assert!(Hresult::INVALID_PORT.is_failure() && Hresult::ACCESS_DENIED.is_failure());
        assert_eq!(Hresult::INVALID_PORT.to_string(), "0xC00D0043 (UDP port not allowed)");
        assert_eq!(Hresult(0x8000_4005).to_string(), "0x80004005");
    }
}
