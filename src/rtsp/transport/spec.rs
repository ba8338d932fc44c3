//! The `Transport` header.

use std::fmt;

use super::super::message::decimal;
use super::{parameter, split_list};

/// Most specs that one header may list.
const SPECS_BOUND: usize = 8;
/// Most parameters of one spec.
const PARAMETERS_BOUND: usize = 32;

/// A port, and the second of a pair where one was written. It need not be the next.
pub type Ports = (u16, Option<u16>);
/// A channel, and the second of a pair where one was written; the two differ.
pub type Channels = (u8, Option<u8>);

/// What carries RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lower {
    /// A datagram a packet; also where nothing is said.
    Udp,
    /// Interleaved frames on the connection itself.
    Tcp,
}

/// Which way media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// To the client.
    Play,
    /// To the server; some write `receive`.
    Record,
}

/// One way for media to travel, as asked for or as granted. Source: RFC 2326 12.39; MS-RTSP 2.2.6.11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What carries it.
    pub lower: Lower,
    /// False where multicast is named. RFC 2326 has multicast for what says neither; servers that forget `unicast` mean unicast.
    pub unicast: bool,
    /// UDP ports of the client, RTP first.
    pub client_port: Option<Ports>,
    /// UDP ports of the server, RTP first.
    pub server_port: Option<Ports>,
    /// Channels of interleaved frames, RTP first.
    pub interleaved: Option<Channels>,
    /// SSRC of the packets that the server sends.
    pub ssrc: Option<u32>,
    /// Which way.
    pub mode: Option<Mode>,
    /// Address that the packets come from.
    pub source: Option<String>,
    /// Address that they are to go to. Read, never written: it is nobody's business but the peer's.
    pub destination: Option<String>,
}

/// Why a `Transport` header is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTransport {
    /// Over 8 specs, or 32 parameters in one.
    #[error("the Transport header has more than 8 specs, or 32 parameters in one")]
    TooMany,
    /// `client_port` is not `a` or `a-b`, each 0 to 65535.
    #[error("client_port of the Transport header is not one or two ports")]
    ClientPort,
    /// `interleaved` is not `a` or `a-b`, each 0 to 255 and distinct.
    #[error("interleaved of the Transport header is not one or two channels, 0 to 255, that differ")]
    Interleaved,
}

impl Spec {
    /// A unicast spec that says nothing else.
    pub const fn new(lower: Lower) -> Self {
        Self {
            lower,
            unicast: true,
            client_port: None,
            server_port: None,
            interleaved: None,
            ssrc: None,
            mode: None,
            source: None,
            destination: None,
        }
    }

    /// The specs of all `Transport` headers of a message, the most wanted first.
    ///
    /// Specs of profiles other than RTP/AVP are left out, and so are parameters that mean nothing here. An SSRC or a server port that
    /// cannot be read counts as not said: servers write odd ones.
    ///
    /// # Errors
    /// [`BadTransport`] where bounds are exceeded, or where ports or channels of a client are none.
    pub fn parse_all<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<Self>, BadTransport> {
        let mut specs = Vec::new();
        let texts = values.flat_map(|value| split_list(value, ',')).filter(|text| !text.is_empty());
        for (index, text) in texts.enumerate() {
            if index == SPECS_BOUND {
                return Err(BadTransport::TooMany);
            }
            specs.extend(Self::parse(text)?);
        }
        Ok(specs)
    }

    /// `None` for other profiles.
    fn parse(text: &str) -> Result<Option<Self>, BadTransport> {
        let mut parts = split_list(text, ';');
        let profile = parts.next().unwrap_or_default();
        let lower = match profile.to_ascii_uppercase().as_str() {
            "RTP/AVP" => None,
            "RTP/AVP/UDP" => Some(Lower::Udp),
            "RTP/AVP/TCP" => Some(Lower::Tcp),
            _ => return if parts.count() > PARAMETERS_BOUND { Err(BadTransport::TooMany) } else { Ok(None) },
        };
        let mut spec = Self::new(lower.unwrap_or(Lower::Udp));
        for (index, part) in parts.enumerate() {
            if index == PARAMETERS_BOUND {
                return Err(BadTransport::TooMany);
            }
            let (name, value) = parameter(part);
            match name.to_ascii_lowercase().as_str() {
                "multicast" => spec.unicast = false,
                "client_port" => spec.client_port = Some(pair(value).ok_or(BadTransport::ClientPort)?),
                "server_port" => spec.server_port = pair(value),
                "interleaved" => {
                    let channels: Channels = pair(value).ok_or(BadTransport::Interleaved)?;
                    if channels.1 == Some(channels.0) {
                        return Err(BadTransport::Interleaved);
                    }
                    spec.interleaved = Some(channels);
                }
                "ssrc" => spec.ssrc = ssrc(value),
                "mode" => spec.mode = mode(value),
                "source" => spec.source = Some(value.to_owned()).filter(|value| !value.is_empty()),
                "destination" => spec.destination = Some(value.to_owned()).filter(|value| !value.is_empty()),
                _ => {}
            }
        }
        // Channels have no meaning but inside the connection.
        if lower.is_none() && spec.interleaved.is_some() && spec.client_port.is_none() {
            spec.lower = Lower::Tcp;
        }
        Ok(Some(spec))
    }

    /// The value of a `Transport` header that lists these.
    pub fn list(specs: &[Self]) -> String {
        specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lower {
            Lower::Udp => "RTP/AVP/UDP",
            Lower::Tcp => "RTP/AVP/TCP",
        })?;
        f.write_str(if self.unicast { ";unicast" } else { ";multicast" })?;
        if let Some(source) = self.source.as_deref().filter(|source| !source.contains([',', ';', '"', ' '])) {
            write!(f, ";source={source}")?;
        }
        let pairs = [
            ("server_port", self.server_port),
            ("client_port", self.client_port),
            ("interleaved", self.interleaved.map(|(first, second)| (first.into(), second.map(Into::into)))),
        ];
        for (name, pair) in pairs {
            match pair {
                Some((first, Some(second))) => write!(f, ";{name}={first}-{second}")?,
                Some((first, None)) => write!(f, ";{name}={first}")?,
                None => {}
            }
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, ";ssrc={ssrc:08x}")?;
        }
        match self.mode {
            Some(Mode::Play) => f.write_str(";mode=PLAY"),
            Some(Mode::Record) => f.write_str(";mode=RECORD"),
            None => Ok(()),
        }
    }
}

/// `a` or `a-b`.
fn pair<T: std::str::FromStr>(text: &str) -> Option<(T, Option<T>)> {
    match text.split_once('-') {
        Some((first, second)) => Some((decimal(first.trim())?, Some(decimal(second.trim())?))),
        None => Some((decimal(text)?, None)),
    }
}

fn ssrc(text: &str) -> Option<u32> {
    // `from_str_radix` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())?
}

/// The first mode of the list that is one.
fn mode(text: &str) -> Option<Mode> {
    text.split(',').find_map(|mode| match mode.trim().to_ascii_lowercase().as_str() {
        "play" => Some(Mode::Play),
        "record" | "receive" => Some(Mode::Record),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> Vec<Spec> {
        Spec::parse_all(std::iter::once(value)).unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    const UDP: Spec = Spec::new(Lower::Udp);
    const TCP: Spec = Spec::new(Lower::Tcp);

    #[test]
    fn what_clients_ask() {
        let play = Some(Mode::Play);
        for (value, specs) in [
            (
                "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=play",
                vec![Spec { client_port: Some((5000, Some(5001))), mode: play, ..UDP }],
            ),
            ("RTP/AVP;unicast;client_port=3240", vec![Spec { client_port: Some((3240, None)), ..UDP }]),
            (
                "RTP/AVP/TCP;unicast;interleaved=0-1;mode=\"PLAY\"",
                vec![Spec { interleaved: Some((0, Some(1))), mode: play, ..TCP }],
            ),
            (
                "RTP/AVP/UDP;unicast;client_port=3236-3237;ssrc=2f73682b;mode=PLAY;FecSpan=18, RTP/AVP/TCP;unicast;interleaved=0-1",
                vec![
                    Spec { client_port: Some((3236, Some(3237))), ssrc: Some(0x2f73_682b), mode: play, ..UDP },
                    Spec { interleaved: Some((0, Some(1))), ..TCP },
                ],
            ),
            (
                "RTP/AVP;multicast,rtp/avp/tcp;mode=receive",
                vec![Spec { unicast: false, ..UDP }, Spec { mode: Some(Mode::Record), ..TCP }],
            ),
            ("RAW/RAW/UDP;unicast;client_port=x,x-pn-tng;a=b,RTP/SAVP;unicast,RTP/AVPF/TCP;unicast", vec![]),
            (
                "RTP/AVP; unicast ; interleaved = 2 - 3 ;mode=\"RECORD,PLAY\"",
                vec![Spec { interleaved: Some((2, Some(3))), mode: Some(Mode::Record), ..TCP }],
            ),
            (
                "RTP/AVP;destination=10.0.0.1;client_port=1-3",
                vec![Spec { destination: Some("10.0.0.1".to_owned()), client_port: Some((1, Some(3))), ..UDP }],
            ),
            ("", vec![]),
            (",,", vec![]),
        ] {
            assert_eq!(parse(value), specs, "{value}");
        }
        let two = ["RTP/AVP;client_port=4", "RTP/AVP/TCP"];
        assert_eq!(Spec::parse_all(two.into_iter()).unwrap(), [Spec { client_port: Some((4, None)), ..UDP }, TCP]);
    }

    #[test]
    fn what_servers_answer() {
        let udp = Spec {
            source: Some("127.0.0.1".to_owned()),
            server_port: Some((5004, Some(5005))),
            client_port: Some((3236, Some(3237))),
            ssrc: Some(0x90cb_caac),
            mode: Some(Mode::Play),
            ..UDP
        };
        let text = "RTP/AVP/UDP;unicast;source=127.0.0.1;server_port=5004-5005;client_port=3236-3237;ssrc=90cbcaac;mode=PLAY";
        assert_eq!((udp.to_string().as_str(), parse(text).as_slice()), (text, &[udp.clone()][..]));
        let tcp = Spec { interleaved: Some((0, Some(1))), ssrc: Some(0xcaac), mode: Some(Mode::Play), ..TCP };
        let text = "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0000caac;mode=PLAY";
        assert_eq!((tcp.to_string().as_str(), parse(text).as_slice()), (text, &[tcp.clone()][..]));
        assert_eq!(parse(&Spec::list(&[udp.clone(), tcp.clone()])), [udp, tcp]);
        for (text, ssrc) in [("A9", Some(0xa9)), ("+1", None), ("1234567890", None), ("xyz", None), ("", None)] {
            assert_eq!(parse(&format!("RTP/AVP/TCP;interleaved=0;ssrc={text};server_port=x"))[0].ssrc, ssrc, "{text}");
        }
        let odd = Spec { source: Some("a;b".to_owned()), destination: Some("c".to_owned()), ..UDP };
        assert_eq!(odd.to_string(), "RTP/AVP/UDP;unicast");
    }

    #[test]
    fn refused() {
        for (value, error) in [
            ("RTP/AVP;client_port=65535-65536", BadTransport::ClientPort),
            ("RTP/AVP;client_port=", BadTransport::ClientPort),
            ("RTP/AVP;client_port=+5-6", BadTransport::ClientPort),
            ("RTP/AVP;client_port=5-6-7", BadTransport::ClientPort),
            ("RTP/AVP/TCP;interleaved=255-256", BadTransport::Interleaved),
            ("RTP/AVP/TCP;interleaved=1-1", BadTransport::Interleaved),
            ("RTP/AVP/TCP;interleaved=-1", BadTransport::Interleaved),
        ] {
            assert_eq!(Spec::parse_all(std::iter::once(value)), Err(error), "{value}");
        }
        for (specs, parameters, good) in [(8, 32, true), (9, 1, false), (1, 33, false)] {
            for profile in ["RTP/AVP", "x-pn-tng"] {
                let value = vec![format!("{profile}{}", ";x".repeat(parameters)); specs].join(",");
                assert_eq!(Spec::parse_all(std::iter::once(value.as_str())).is_ok(), good, "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(RTP/AVP(/TCP)?[;,a-z_=0-9\"-]{0,40}|\\PC{0,20}){0,3}") {
            if let Ok(specs) = Spec::parse_all(std::iter::once(text.as_str())) {
                let _ = Spec::parse_all(std::iter::once(Spec::list(&specs).as_str())).unwrap();
            }
        }
    }
}
