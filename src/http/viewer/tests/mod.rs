//! Connections on a virtual clock, with a relay that has a broadcast, `live`, and a file, `film.wmv`.

mod access;
mod downloads;
mod hostile;
mod pipelined;
mod players;
mod sessions;
mod vectors;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::testing::{self, base};
use super::{Config, Connection, Input, Output, Sessions};
use crate::viewing::{Answer, Ask, Challenge, Denial, Description, FileFacts, OpenRefusal, Pass};
use crate::wire::Hresult;

/// What every response begins with.
const SERVER: &str = "Cougar/9.5.6001.18281 wmrelay/0";
/// Of the session that the first connection founds; those of later ones follow.
const CLIENT_ID: u32 = 77;

/// One shard: its clock, its sessions, its relay.
struct Rig {
    sessions: Rc<RefCell<Sessions>>,
    config: Arc<Config>,
    now: Instant,
    admit: Result<(), Hresult>,
    live: Option<Result<Description, OpenRefusal>>,
    connections: u32,
}

/// One connection of it.
struct Link {
    connection: Connection,
    sent: Vec<u8>,
    /// How often it gave its place back, and took one again.
    rests: u32,
    admitted_again: u32,
}

impl Rig {
    fn new() -> Self {
        Self {
            sessions: Rc::default(),
            config: Arc::new(Config { server: SERVER.into(), rtsp_port: Some(8554), ..Config::default() }),
            now: base(),
            admit: Ok(()),
            live: Some(Ok(testing::live())),
            connections: 0,
        }
    }

    /// The next connection; its key is 0, 1, …
    fn connect(&mut self) -> Link {
        self.connect_from([192, 0, 2, 10].into())
    }

    fn connect_from(&mut self, peer: std::net::IpAddr) -> Link {
        let (key, sessions) = (self.connections, Rc::clone(&self.sessions));
        self.connections += 1;
        let local = "198.51.100.20:8080".parse().unwrap();
        let config = Arc::clone(&self.config);
        let connection = Connection::new(self.now, config, sessions, key as usize, peer, local, CLIENT_ID + key);
        Link { connection, sent: Vec::new(), rests: 0, admitted_again: 0 }
    }

    fn hear(&mut self, link: &mut Link, bytes: impl AsRef<[u8]>) -> Vec<String> {
        link.connection.handle(self.now, Input::Bytes(bytes.as_ref()));
        self.drain(link)
    }

    fn tell(&mut self, link: &mut Link, answer: Answer) -> Vec<String> {
        link.connection.handle(self.now, Input::Answer(answer));
        self.drain(link)
    }

    /// Lets time pass, with every timeout on its own instant.
    fn wait(&mut self, link: &mut Link, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut log = Vec::new();
        while let Some(at) = link.connection.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            link.connection.handle(self.now, Input::Timeout);
            log.append(&mut self.drain(link));
        }
        self.now = end;
        log
    }

    /// What comes out besides bytes; questions are answered on the way.
    fn drain(&mut self, link: &mut Link) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(output) = link.connection.poll_output() {
            let ask = match output {
                Output::Send(bytes) => {
                    link.sent.extend_from_slice(&bytes);
                    continue;
                }
                Output::Tell { connection, told } => {
                    log.push(format!("tell {connection} {told:?}"));
                    continue;
                }
                Output::Close(reason) => {
                    log.push(format!("close {}", reason.label()));
                    assert!(link.connection.poll_output().is_none() && link.connection.poll_timeout().is_none());
                    continue;
                }
                Output::Ask(Ask::Rest) => {
                    link.rests += 1;
                    continue;
                }
                Output::Ask(ask) => ask,
            };
            // Once it has rested it is introduced again, which most tests are not about.
            let again = link.rests > 0 && matches!(ask, Ask::Admit(_));
            let (name, answer) = self.grant(ask);
            if again {
                link.admitted_again += 1;
            } else {
                log.push(name);
            }
            if let Some(answer) = answer {
                link.connection.handle(self.now, Input::Answer(answer));
            }
        }
        log
    }

    fn grant(&self, ask: Ask) -> (String, Option<Answer>) {
        let unknown = OpenRefusal::Status(Hresult::FILE_NOT_FOUND);
        match ask {
            Ask::Admit(player) => (format!("admit {:?}", player.version), Some(Answer::Admitted(self.admit))),
            Ask::Open { name, pass } if pass_refusal(&name, &pass).is_some() => {
                (format!("open {name} {pass:?}"), pass_refusal(&name, &pass).map(|refusal| Answer::Opened(Err(refusal))))
            }
            Ask::OpenBytes { name, pass } if pass_refusal(&name, &pass).is_some() => {
                (format!("facts {name} {pass:?}"), pass_refusal(&name, &pass).map(|refusal| Answer::Bytes(Err(refusal))))
            }
            Ask::Open { name, .. } => {
                let opened = match name.as_str() {
                    "live" | "signed" | "secret" => self.live.clone(),
                    "film.wmv" => Some(Ok(testing::file())),
                    _ => Some(Err(unknown)),
                };
                (format!("open {name}"), opened.map(Answer::Opened))
            }
            Ask::OpenBytes { name, .. } => {
                let facts = match name.as_str() {
                    "live" | "signed" | "secret" => Err(OpenRefusal::NotAFile),
                    "film.wmv" => Ok(facts()),
                    _ => Err(unknown),
                };
                (format!("facts {name}"), Some(Answer::Bytes(facts)))
            }
            Ask::SendBytes { first, len } => (format!("bytes {first} {len}"), None),
            Ask::Play { incarnation } => (format!("play {incarnation}"), None),
            Ask::PlayFile { incarnation, from, until, acceleration, .. } => {
                let fast = acceleration.map(|fast| (fast.bandwidth, fast.duration_ms));
                (format!("play file {incarnation} {from:?} {until:?} {fast:?}"), None)
            }
            Ask::Select(wish) => {
                let list = |streams: crate::asf::StreamSet| streams.iter().collect::<Vec<_>>();
                (format!("select {:?} thinned {:?}", list(wish.streams), list(wish.thinned)), None)
            }
            Ask::Stop => ("stop".into(), None),
            ask => unreachable!("{ask:?}"),
        }
    }
}

impl Link {
    /// What was sent since the last call.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// The same as text, up to the first frame; what it is not is shown as such.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.take()).into_owned()
    }

    /// Head and body of the response that was sent.
    fn response(&mut self) -> (String, Vec<u8>) {
        let bytes = self.take();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
    }
}

/// `signed` opens with the key `01ab`, `secret` with these credentials.
fn pass_refusal(name: &str, pass: &Pass) -> Option<OpenRefusal> {
    let authorization = pass.login.as_ref().map(|login| login.authorization.as_str());
    match name.trim_end_matches(".wmv") {
        "signed" => match pass.key.as_deref() {
            Some("01ab") => None,
            Some("0100") => Some(OpenRefusal::Denied(Denial::ExpiredKey)),
            Some(_) => Some(OpenRefusal::Denied(Denial::WrongKey)),
            None => Some(OpenRefusal::Denied(Denial::NoKey)),
        },
        "secret" if authorization == Some("Basic eDp5") => None,
        "secret" => Some(OpenRefusal::Login(Challenge {
            values: vec!["Digest realm=\"r\", nonce=\"n\"".into(), "Basic realm=\"r\"".into()],
            realm: "r".into(),
        })),
        "guessed" => Some(OpenRefusal::Denied(Denial::Guesses)),
        _ => None,
    }
}

/// Of `film.wmv`.
fn facts() -> FileFacts {
    FileFacts { len: 3_200_909, modified: Some(784_111_777), identity: 0xBEEF, content_type: "video/x-ms-wmv" }
}

/// Frames by type and bytes.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let [_, kind, low, high, ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])) + 4;
        let reason = if len == 8 { format!(" {:X}", u32::from_le_bytes(bytes[4..8].try_into().unwrap())) } else { String::new() };
        names.push(format!("{} {len}{reason}", char::from(*kind)));
        bytes = &bytes[len..];
    }
    names
}
