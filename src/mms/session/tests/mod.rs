//! A session on a virtual clock, with a relay that says yes.

mod access;
mod broadcast;
mod files;
mod limits;
mod players;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Config, Input, Output, PeerError, Session};
use crate::mms::frame::{Message, encode};
use crate::mms::testing::{base, data_name, description, name_of};
use crate::viewing::{Answer, Ask, Description, OpenRefusal};
use crate::wire::Hresult;

/// Client id of all sessions here.
const CLIENT_ID: u32 = 0x5EED_1234;

/// A session, its clock and the answers of its relay.
struct Rig {
    session: Session,
    now: Instant,
    admit: Result<(), Hresult>,
    funnel: Result<(), Hresult>,
    open: Option<Result<Description, OpenRefusal>>,
    /// Every packet that was sent, control and header data.
    packets: Vec<Vec<u8>>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = base();
        Self {
            session: Session::new(now, Arc::new(config), CLIENT_ID),
            now,
            admit: Ok(()),
            funnel: Ok(()),
            open: Some(Ok(description())),
            packets: Vec::new(),
        }
    }

    /// A rig that plays; the log up to there is dropped.
    fn playing(udp: bool) -> Self {
        let mut rig = Self::new();
        rig.play(udp);
        rig
    }

    fn play(&mut self, udp: bool) {
        use crate::mms::play;
        self.open_all(udp);
        let log = self.say(&play::StartPlaying::live(10));
        assert_eq!(log, ["Started", "play 10"]);
    }

    /// Up to the header.
    fn open_all(&mut self, udp: bool) {
        use crate::mms::block;
        self.connect(udp);
        self.open_file();
        self.say(&block::ReadBlock { incarnation: 1 });
        // The header's pace over UDP.
        self.wait(1_000);
    }

    fn connect(&mut self, udp: bool) {
        use crate::mms::{connect, funnel};
        self.say(&connect::Connect { incarnation: connect::NO_PACKET_PAIR, subscriber: vec!["NSPlayer/9.0; {A}".into()] });
        let address = "192.0.2.10".parse().unwrap();
        self.say(&if udp { funnel::ConnectFunnel::udp(address, 2048) } else { funnel::ConnectFunnel::tcp(address, 2048) });
    }

    fn open_file(&mut self) {
        use crate::mms::open;
        self.say(&open::OpenFile { incarnation: 9, name: "live/cam1".into(), token: open::Token::None });
    }

    fn say<M: Message>(&mut self, message: &M) -> Vec<String> {
        let packet = encode(0, message);
        self.hear(&packet)
    }

    /// A message as a foreign client writes it: body without frame.
    fn say_raw(&mut self, mid: u32, body: &[u8]) -> Vec<String> {
        self.hear(&raw(mid, body))
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        self.try_hear(bytes).unwrap()
    }

    fn try_hear(&mut self, bytes: &[u8]) -> Result<Vec<String>, PeerError> {
        self.session.handle(self.now, Input::Bytes(bytes))?;
        Ok(self.drain())
    }

    fn tell(&mut self, answer: Answer) -> Vec<String> {
        self.session.handle(self.now, Input::Answer(answer)).unwrap();
        self.drain()
    }

    fn datagram(&mut self, datagram: &[u8]) -> Vec<String> {
        self.session.handle(self.now, Input::Datagram(datagram)).unwrap();
        self.drain()
    }

    /// Lets time pass, with every timeout on its own instant.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut log = Vec::new();
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle(self.now, Input::Timeout).unwrap();
            log.append(&mut self.drain());
        }
        self.now = end;
        log
    }

    /// Names of what comes out; wishes are granted on the way.
    fn drain(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(output) = self.session.poll_output() {
            let (name, answer) = match output {
                Output::Send(packet) => {
                    let control = packet.get(4..8) == Some(&[0xCE, 0xFA, 0x0B, 0xB0]);
                    let name = if control { name_of(&packet) } else { data_name(&packet) };
                    self.packets.push(packet.to_vec());
                    (name, None)
                }
                Output::Datagram(packet) => {
                    let name = format!("udp {}", data_name(&packet));
                    self.packets.push(packet.to_vec());
                    (name, None)
                }
                Output::Ask(Ask::Admit(_)) => ("admit".into(), Some(Answer::Admitted(self.admit))),
                Output::Ask(Ask::ClaimPort { port, .. }) => (format!("claim {port}"), Some(Answer::Funnel(self.funnel))),
                Output::Ask(Ask::ReleasePort) => ("release".into(), None),
                Output::Ask(Ask::Open { name, pass }) => {
                    let shown = match (pass.key, pass.login) {
                        (None, None) => String::new(),
                        (key, login) => format!(" {key:?} {:?}", login.map(|login| login.authorization)),
                    };
                    (format!("open {name}{shown}"), self.open.clone().map(Answer::Opened))
                }
                Output::Ask(Ask::Play { incarnation }) => (format!("play {incarnation}"), None),
                Output::Ask(Ask::PlayFile { incarnation, from, until, .. }) => {
                    (format!("play file {incarnation} {from:?} {until:?}"), None)
                }
                // Every StreamSwitch brings one; what it says is in the session.
                Output::Ask(Ask::Select(wish)) => {
                    assert_eq!(wish, self.session.selected());
                    continue;
                }
                Output::Ask(Ask::Incarnation { incarnation }) => (format!("incarnation {incarnation}"), None),
                Output::Ask(Ask::Stop) => ("stop".into(), None),
                Output::Ask(Ask::Resend { sequences }) => (format!("resend {sequences:?}"), None),
                Output::Ask(ask) => unreachable!("{ask:?}"),
                Output::Close(reason) => (format!("close {}", reason.label()), None),
            };
            log.push(name);
            if let Some(answer) = answer {
                self.session.handle(self.now, Input::Answer(answer)).unwrap();
            }
        }
        log
    }

    /// The message at `back` from the end of what was sent.
    fn last<M: Message>(&self, back: usize) -> M {
        M::parse(&self.packets[self.packets.len() - 1 - back][32..]).unwrap()
    }
}

/// A control packet with one message of foreign make.
fn raw(mid: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(mid.to_le_bytes());
    message.extend_from_slice(body);
    message.resize(message.len().next_multiple_of(8), 0);
    let chunks = u32::try_from(message.len() / 8).unwrap();
    message[..4].copy_from_slice(&chunks.to_le_bytes());
    let mut packet = vec![1, 0, 0, 0, 0xCE, 0xFA, 0x0B, 0xB0];
    packet.extend((chunks * 8 + 16).to_le_bytes());
    packet.extend(b"MMS ");
    packet.extend((chunks + 2).to_le_bytes());
    packet.extend([0; 12]);
    packet.extend(message);
    packet
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
