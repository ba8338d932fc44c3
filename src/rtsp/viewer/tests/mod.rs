//! Whole dialogues with players, as they were seen, and hostile ones.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is a test's report")]

mod dialects;
mod dialogues;
mod hostile;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::asf::Selection;
use crate::asf::fabricate::{audio, data_head, file_properties, header, video};
use crate::viewing::{Content, Cue, Flow, HeadStart, Position, UdpPorts};
use crate::wire::Hresult;

pub(super) const CLIENT_ID: u32 = 0x2F73_682B;
/// `secret` 7, and the client id.
pub(super) const SESSION: &str = "30860863531";

#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
fn base() -> Instant {
    Instant::now()
}

/// A connection with a relay behind it that says yes.
pub(super) struct Rig {
    pub(super) connection: Connection,
    pub(super) now: Instant,
    pub(super) asks: Vec<Ask>,
    pub(super) datagrams: Vec<Bytes>,
    pub(super) closed: Option<CloseReason>,
    /// What came with a publisher that was handed over.
    pub(super) handed: Vec<u8>,
    pub(super) open: Result<Description, OpenRefusal>,
    /// Ports that are leased; others are refused.
    pub(super) pool: std::ops::RangeInclusive<u16>,
    /// Whether a play is cued at once.
    pub(super) cues: bool,
    /// Whether somebody could publish.
    pub(super) awaits: bool,
    cseq: u32,
}

pub(super) fn live() -> Description {
    let children = [file_properties(1400, 1), audio(1), video(2)];
    Description {
        header: [header(&children), data_head(0, 1400)].concat().into(),
        packet_size: 1400,
        bit_rate: 300_000,
        streams: [1, 2].into_iter().collect(),
        content: Content::Live,
        ssrc: 0x90CB_CAAC,
    }
}

pub(super) fn file() -> Description {
    Description { content: Content::File { duration_ms: 60_000, packets: 1000 }, ..live() }
}

impl Rig {
    pub(super) fn new(open: Description) -> Self {
        Self::with(open, &Rc::default())
    }

    /// A connection to a shard that has these sessions.
    pub(super) fn with(open: Description, sessions: &Rc<RefCell<Sessions>>) -> Self {
        let now = base();
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 40_000));
        let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 554));
        let connection = Connection::new(
            now,
            Arc::default(),
            Rc::clone(sessions),
            peer.ip(),
            local,
            Some(5004),
            7 << 32 | u64::from(CLIENT_ID),
        );
        Self {
            connection,
            now,
            asks: Vec::new(),
            datagrams: Vec::new(),
            closed: None,
            handed: Vec::new(),
            open: Ok(open),
            pool: 1024..=5000,
            cues: true,
            awaits: false,
            cseq: 0,
        }
    }

    /// What is sent for these bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> String {
        self.input(Input::Bytes(bytes))
    }

    pub(super) fn input(&mut self, input: Input<'_>) -> String {
        self.connection.handle(self.now, input);
        let mut sent = Vec::new();
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Send(bytes) => sent.extend_from_slice(&bytes),
                Output::Datagram(bytes) => self.datagrams.push(bytes),
                Output::Close(reason) => self.closed = Some(reason),
                Output::HandOver(bytes) => self.handed = bytes,
                Output::Ask(ask) => {
                    let answer = match &ask {
                        Ask::Admit(_) => Some(Answer::Admitted(Ok(()))),
                        Ask::AwaitsPublisher { .. } => Some(Answer::AwaitsPublisher(self.awaits)),
                        Ask::Open { .. } => Some(Answer::Opened(self.open.clone())),
                        Ask::Lease(ports) => {
                            let all = [Some(ports.first), ports.pair.then(|| ports.first + 1), ports.then];
                            let granted = all.into_iter().flatten().all(|port| self.pool.contains(&port));
                            Some(Answer::Leased(if granted { Ok(()) } else { Err(Hresult::INVALID_PORT) }))
                        }
                        Ask::Play { .. } | Ask::PlayFile { .. } | Ask::Resume { .. } if self.cues => {
                            let head_start = self.connection.head_start_ms().map(|ms| HeadStart {
                                media_ms: ms.min(3000),
                                rate: 5,
                                profile: Some("Rate=10".into()),
                            });
                            let head_start = head_start.filter(|_| matches!(ask, Ask::Play { .. })).map(Box::new);
                            Some(Answer::Cued(Cue { sequence: 0x1234, timestamp: 2000, head_start }))
                        }
                        _ => None,
                    };
                    self.asks.push(ask);
                    if let Some(answer) = answer {
                        self.connection.handle(self.now, Input::Answer(answer));
                    }
                }
            }
        }
        String::from_utf8_lossy(&sent).into_owned()
    }

    /// Sends a request with this first line and these headers, as FFmpeg does.
    pub(super) fn ask(&mut self, line: &str, headers: &str) -> String {
        self.ask_as("Lavf59.27.100", line, headers)
    }

    pub(super) fn ask_as(&mut self, agent: &str, line: &str, headers: &str) -> String {
        self.cseq += 1;
        let text = format!("{line} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: {agent}\r\n{headers}\r\n", self.cseq);
        let answer = self.bytes(text.as_bytes());
        if !answer.is_empty() && answer.starts_with("RTSP/1.0") {
            assert!(answer.contains(&format!("\r\nCSeq: {}\r\n", self.cseq)), "{answer}");
        }
        answer
    }

    pub(super) fn wait(&mut self, time: Duration) -> String {
        self.now += time;
        match self.connection.poll_timeout() {
            Some(at) if at <= self.now => self.input(Input::Timeout),
            _ => String::new(),
        }
    }
}

/// The status of an answer.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// A header of an answer.
#[track_caller]
pub(super) fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let found = answer.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {answer}"))
}
