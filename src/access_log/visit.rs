//! What a line is about.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::ClientReport;

/// What one session did with one name, as the server saw it.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Who.
    pub peer: IpAddr,
    /// To which of our addresses it came.
    pub local: SocketAddr,
    /// When it ended.
    pub ended: SystemTime,
    /// From its begin to then.
    pub lasted: Duration,
    /// The scheme of its URL: `mms` or `http`.
    pub protocol: &'static str,
    /// `TCP` or `UDP`.
    pub transport: &'static str,
    /// What it opened, decoded, without what stood behind a question mark; empty where it never came so far.
    pub name: String,
    /// How it went, in the numbers of HTTP.
    pub status: u16,
    /// The player's own words about itself.
    pub agent: String,
    /// The GUID by which a player knows itself, without braces.
    pub player_id: Option<String>,
    /// Who it proved to be.
    pub user: Option<String>,
    /// Duration of a file; zero where it is live.
    pub duration: Duration,
    /// Bytes of a file; 0 where it is live.
    pub file_bytes: u64,
    /// Of the stream, bit/s.
    pub bit_rate: u32,
    /// Bytes of media sent, framing included.
    pub bytes: u64,
    /// ASF packets sent.
    pub packets: u64,
    /// Packets that it asked for again.
    pub resends_asked: u64,
    /// Sessions in all when it ended.
    pub viewers: u32,
    /// Number of the session.
    pub session: u64,
    /// What the player said about its playing.
    pub report: Option<ClientReport>,
}

impl Visit {
    /// Takes in what came after it in the same session with the same name.
    pub fn goes_on_as(&mut self, later: Self) {
        let began = self.ended.checked_sub(self.lasted).unwrap_or(self.ended);
        self.lasted = later.ended.duration_since(began).unwrap_or(self.lasted);
        self.ended = later.ended;
        self.bytes += later.bytes;
        self.packets += later.packets;
        self.resends_asked += later.resends_asked;
        self.viewers = later.viewers;
        self.status = later.status;
        self.user = later.user.or(self.user.take());
        self.report = later.report.or(self.report.take());
    }
}

#[cfg(test)]
mod tests {
    use crate::access_log::Visit;
    use crate::access_log::line::visit;

    #[test]
    fn who_proved_to_be_somebody_later_is_somebody() {
        let of = |user: Option<&str>| Visit { user: user.map(str::to_owned), ..visit() };
        for (before, after, expected) in
            [(None, Some("anna"), "anna"), (Some("anna"), None, "anna"), (Some("anna"), Some("bob"), "bob")]
        {
            let mut whole = of(before);
            whole.goes_on_as(of(after));
            assert_eq!(whole.user.as_deref(), Some(expected));
        }
    }
}
