//! The requests of a client. Source: MS-WMSP 2.2.2, in non-pipelined mode.

use std::fmt::Write as _;

use super::{Client, Errand};
use crate::asf::StreamSet;
use crate::playing::StartAt;

/// The position that is none, where 0 is one.
const NONE: u32 = u32::MAX;
/// First version of servers that know fast starts of servers.
const BURST_VERSION: u16 = 5;
/// Longest path that is told in a log.
const PATH_BOUND: usize = 1024;

impl Client {
    /// The request for an errand.
    pub(super) fn request(&mut self, errand: Errand) -> Vec<u8> {
        let (method, kind, body) = match errand {
            Errand::Describe | Errand::Play => ("GET", None, String::new()),
            Errand::KeepAlive => ("POST", None, String::new()),
            Errand::Log if self.takes_xml() => ("POST", Some("application/x-wms-LogStats;charset=UTF-8"), self.xml_log()),
            Errand::Log => ("POST", None, String::new()),
        };
        let mut head = format!("{method} {} HTTP/1.0\r\n", self.config.target);
        let mut field = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        };
        field("Accept", "*/*");
        field("User-Agent", &self.config.player);
        field("Host", &self.config.host);
        if self.config.login.is_some() {
            field("X-Accept-Authentication", "Digest, Basic");
        }
        let client_id = self.client_id.map(|id| format!("client-id={id}"));
        match errand {
            Errand::Describe => {
                field("Pragma", &format!("no-cache,rate=1.000,stream-time=0,stream-offset=0:0,packet-num={NONE},max-duration=0"))
            }
            Errand::Play => {
                field("Pragma", &format!("no-cache,rate=1.000,{},max-duration=0", position(self.started_at)));
                field("Pragma", "xPlayStrm=1");
            }
            Errand::KeepAlive => field("Pragma", "no-cache,xKeepAliveInPause=1"),
            Errand::Log => field("Pragma", "no-cache"),
        }
        if let Some(client_id) = client_id.filter(|_| errand != Errand::Describe) {
            field("Pragma", &client_id);
        }
        if errand == Errand::Play {
            if self.server.major >= BURST_VERSION {
                field("Pragma", "LinkBW=2147483647, BurstBW=3500000, BurstDuration=5000");
            }
            if let Some(known) = &self.known {
                field("Pragma", &format!("stream-switch-count={}", known.streams.len()));
                field("Pragma", &format!("stream-switch-entry={}", entries(known.streams, self.selected)));
            }
        }
        if errand == Errand::Log && kind.is_none() {
            field("Pragma", &format!("log-line={}", self.log_line(false)));
        }
        if errand != Errand::Log {
            field("Supported", "com.microsoft.wm.sswitch, com.microsoft.wm.predstrm");
        }
        field("Pragma", &format!("xClientGUID={{{}}}", self.config.guid));
        field("Accept-Language", "*");
        if let Some(kind) = kind {
            field("Content-Type", kind);
        }
        if method == "POST" {
            field("Content-Length", &body.len().to_string());
        }
        if let Some(authorization) = self.authorization(method) {
            field("Authorization", &authorization);
        }
        field("Connection", "close");
        head.push_str("\r\n");
        head.push_str(&body);
        head.into_bytes()
    }

    /// Windows Media servers from version 9 on want XML; encoders and older ones a line. Source: MS-WMSP 3.1.5.11.
    const fn takes_xml(&self) -> bool {
        self.server.is_cougar && self.server.major >= 9
    }

    fn authorization(&mut self, method: &str) -> Option<String> {
        let (login, challenge) = self.config.login.as_ref().zip(self.challenge.as_ref())?;
        self.answers += 1;
        let mut cnonce = String::new();
        for byte in self.config.salt {
            let _ = write!(cnonce, "{byte:02x}");
        }
        let _ = write!(cnonce, "{:08x}", self.answers);
        Some(challenge.answer(login, method, &self.config.target, self.answers, &cnonce))
    }

    /// The fields of a client's log, separated by spaces. Source: MS-WMLOG 2.2.1; `more`: the three that came with version 9.
    fn log_line(&self, more: bool) -> String {
        let path = self.config.target.split('?').next().unwrap_or_default();
        let url: String = format!("http://{}{path}", self.config.host).chars().take(PATH_BOUND).collect();
        let played_s = self.played.as_secs();
        let rate = self.stats.bytes.saturating_mul(8).checked_div(played_s).unwrap_or(0);
        let version = self.config.player.split_once('/').map_or("9.0", |(_, version)| version);
        let mut fields =
            vec!["0.0.0.0".into(), "-".into(), "-".into(), "-".into(), url.clone(), "0".into(), played_s.to_string()];
        fields.extend(["1".into(), "200".into(), format!("{{{}}}", self.config.guid), version.to_owned(), "en-US".into()]);
        fields.push(self.config.player.clone());
        // Referer, program, its version, system, its version, processor.
        fields.extend(std::iter::repeat_n("-".to_owned(), 6));
        fields.extend(["0".into(), "-".into(), rate.to_string(), "http".into(), "TCP".into()]);
        // Codecs, channel, what the server sent.
        fields.extend(std::iter::repeat_n("-".to_owned(), 4));
        fields.extend([self.stats.bytes.to_string(), "-".into(), self.stats.packets.to_string()]);
        // Lost three ways, resend requests, recovered two ways, pauses for buffering, and their time.
        fields.extend(std::iter::repeat_n("0".to_owned(), 8));
        fields.extend(["100".into(), "-".into(), "-".into(), "-".into(), "-".into()]);
        if more {
            fields.extend([url, "-".into(), "-".into()]);
        }
        fields.join(" ")
    }

    fn xml_log(&self) -> String {
        let escaped = |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<XML><Summary>{}</Summary></XML>", escaped(self.log_line(true)))
    }
}

/// The tokens that say where to begin. A time of 0 is the beginning; of the others the largest number is none.
///
/// Source: MS-WMSP 3.2.5.6.
fn position(at: StartAt) -> String {
    let none = format!("{NONE}:{NONE}");
    match at {
        StartAt::Beginning | StartAt::Packet(0) | StartAt::Offset(0) => {
            format!("stream-time=0,stream-offset={none},packet-num={NONE}")
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        StartAt::Time { s } => {
            let ms = ((s * 1000.0) as u32).min(NONE - 1);
            format!("stream-time={ms},stream-offset={none},packet-num={NONE}")
        }
        StartAt::Packet(number) => format!("stream-time={NONE},stream-offset={none},packet-num={number}"),
        StartAt::Offset(offset) => format!("stream-time={NONE},stream-offset=0:{offset},packet-num={NONE}"),
    }
}

/// Each stream of the header: on, or off.
fn entries(streams: StreamSet, selected: StreamSet) -> String {
    let entry = |stream: u8| format!("ffff:{stream:x}:{}", if selected.contains(stream) { 0 } else { 2 });
    streams.iter().map(entry).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let token = |at, name: &str| {
            position(at).split(',').find_map(|token| Some(token.strip_prefix(name)?.strip_prefix('=')?.to_owned())).unwrap()
        };
        assert_eq!(token(StartAt::Time { s: 12.5 }, "stream-time"), "12500");
        assert_eq!(token(StartAt::Time { s: 1e300 }, "stream-time"), "4294967294");
        assert_eq!(token(StartAt::Time { s: -1.0 }, "stream-time"), "0");
        assert_eq!(token(StartAt::Packet(7), "packet-num"), "7");
        assert_eq!(token(StartAt::Offset(909), "stream-offset"), "0:909");
        assert_eq!(token(StartAt::Packet(0), "packet-num"), "4294967295");
        assert_eq!(entries([1, 2, 0x1F].into_iter().collect(), [2].into_iter().collect()), "ffff:1:2 ffff:2:0 ffff:1f:2");
    }
}
