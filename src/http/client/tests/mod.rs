//! Clients on a virtual clock, against servers told line by line, and against our own engine.

mod hostile;
mod joined;
mod servers;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Client, ClientConfig};
use crate::asf::fabricate::{audio, data_head, file_properties, header, video};
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput};
use crate::text::Login;
use crate::wire::Guid;

/// File Properties flags of a broadcast.
const LIVE: u32 = 1;
const FILE: u32 = 0;

/// Where the virtual clock begins.
#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
fn base() -> Instant {
    Instant::now()
}

/// Header Object and 50 bytes of the Data Object: sound is stream 1, pictures are stream 2; a file has seven packets, 7 s.
fn asf(packet_size: u32, flags: u32) -> Vec<u8> {
    let packets = if flags == LIVE { 0 } else { 7 };
    [header(&[file_properties(packet_size, flags), audio(1), video(2)]), data_head(packets, packet_size.into())].concat()
}

/// A packet of one payload, and no length but its own.
fn packet(len: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![0x82, 0, 0, 0, 0x5D, 7, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 0];
    packet.resize(len, fill);
    packet
}

/// A frame without a pre-header.
fn bare(kind: u8, body: &[u8]) -> Vec<u8> {
    let [low, high] = u16::try_from(body.len()).unwrap().to_le_bytes();
    [&[b'$', kind, low, high], body].concat()
}

/// A `$D` frame.
fn data(location: u32, packet: &[u8]) -> Vec<u8> {
    let size = u16::try_from(packet.len() + 8).unwrap().to_le_bytes();
    bare(b'D', &[&location.to_le_bytes()[..], &[0, 0], &size, packet].concat())
}

/// A `$H` frame of a whole header.
fn head(header: &[u8]) -> Vec<u8> {
    crate::http::wrap::header_frames(header)
}

fn end(reason: u32) -> Vec<u8> {
    bare(b'E', &reason.to_le_bytes())
}

/// A head of a response, with the fields of a server of version 9 in front of others.
fn ok(fields: &str) -> Vec<u8> {
    format!(
        "HTTP/1.0 200 OK\r\nServer: Cougar/9.5\r\nPragma: no-cache, client-id=77, features=\"broadcast,playlist\", timeout=60000\r\n\
         Supported: com.microsoft.wm.sswitch, com.microsoft.wm.predstrm\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// One client, its connections as text, and its packets.
struct Rig {
    client: Client,
    now: Instant,
    requests: Vec<String>,
    packets: Vec<(u32, Bytes)>,
    headers: Vec<Bytes>,
    ended: Option<ClientEnd>,
    /// Whether connections come about by themselves.
    connects: bool,
}

impl Rig {
    fn new(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let now = base();
        let mut config = ClientConfig::new("h:8080".into(), "/live?k=v".into(), "NSServer/9.0.0.3171".into(), Guid([7; 16]));
        change(&mut config);
        let client = Client::new(now, config);
        let (requests, packets, headers) = (Vec::new(), Vec::new(), Vec::new());
        Self { client, now, requests, packets, headers, ended: None, connects: true }
    }

    /// One that has been told a header, and asks to play.
    fn described(header: &[u8], change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut rig = Self::new(change);
        rig.drain();
        rig.hear(&[ok(""), head(header)].concat());
        rig
    }

    /// One that plays.
    fn playing(header: &[u8], change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut rig = Self::described(header, change);
        assert_eq!(rig.hear(&[ok(""), head(header)].concat()), ["playing"]);
        rig
    }

    fn handle(&mut self, input: ClientInput<'_>) -> Vec<String> {
        self.client.handle(self.now, input);
        self.drain()
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        self.handle(ClientInput::Bytes(bytes))
    }

    /// Pieces of one connection, up to its end; what comes of it later comes to nobody.
    fn hear_one<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut log = Vec::new();
        for piece in pieces {
            log.extend(self.hear(piece));
            if log.iter().any(|event| event == "disconnect") {
                break;
            }
        }
        log
    }

    /// Lets time pass, with every timeout on its own instant.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut log = Vec::new();
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            log.append(&mut self.handle(ClientInput::Timeout));
        }
        self.now = end;
        log
    }

    /// What comes out, by name.
    fn drain(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(output) = self.client.poll_output() {
            log.push(match output {
                ClientOutput::Send(request) => {
                    let request = String::from_utf8(request.to_vec()).unwrap();
                    let name = name_of(&request);
                    self.requests.push(request);
                    name
                }
                ClientOutput::Connect => {
                    if self.connects {
                        self.client.handle(self.now, ClientInput::Connected);
                    }
                    "connect".into()
                }
                ClientOutput::Disconnect => "disconnect".into(),
                ClientOutput::Event(ClientEvent::Opened { live, duration_s, packet_count, .. }) => {
                    format!("opened {} {duration_s} s {packet_count}", if live { "live" } else { "file" })
                }
                ClientOutput::Event(ClientEvent::Header(header)) => {
                    self.headers.push(header);
                    "header".into()
                }
                ClientOutput::Event(ClientEvent::NewHeader(header)) => {
                    self.headers.push(header);
                    "new header".into()
                }
                ClientOutput::Event(ClientEvent::Starting) => "starting".into(),
                ClientOutput::Event(ClientEvent::Playing { .. }) => "playing".into(),
                ClientOutput::Event(ClientEvent::Packet { location, bytes, sequence, settled, .. }) => {
                    assert_eq!((sequence as usize, settled as usize), (self.packets.len(), self.packets.len() + 1));
                    self.packets.push((location, bytes));
                    format!("packet {location}")
                }
                ClientOutput::Event(ClientEvent::Counted { location, send_time_ms }) => {
                    format!("counted {location} {}", send_time_ms.map_or_else(|| "?".into(), |ms| ms.to_string()))
                }
                ClientOutput::Event(ClientEvent::End { hr }) => format!("end {:X}", hr.0),
                ClientOutput::Close(end) => {
                    let text = format!("close: {end}");
                    self.ended = Some(end);
                    text
                }
                output => unreachable!("{output:?}"),
            });
        }
        assert!(self.ended.is_none() || self.client.poll_timeout().is_none());
        log
    }

    fn last_request(&self) -> &str {
        self.requests.last().map_or("", String::as_str)
    }
}

fn name_of(request: &str) -> String {
    assert!(request.contains("\r\nHost: h:8080\r\n") && request.contains("\r\nConnection: close\r\n"), "{request}");
    let has = |what: &str| request.contains(what);
    let name = match request.split(' ').next().unwrap() {
        "GET" if has("xPlayStrm=1") => "play",
        "GET" => "describe",
        _ if has("xKeepAliveInPause=1") => "keep alive",
        _ => "log",
    };
    name.to_owned() + if has("Authorization: ") { " with login" } else { "" }
}

fn login(config: &mut ClientConfig) {
    config.login = Some(Login { user: "cam".into(), password: "secret".into() });
}
