//! RTSP written by hand, without the crate under test: requests, answers, interleaved frames, RTP of ASF.
//!
//! Layouts: RFC 2326; RFC 3550 5.1; MS-RTSP 2.2.1.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take.
const STEP: Duration = Duration::from_secs(20);

/// An answer, or a request of the server's.
#[derive(Debug, Clone)]
pub struct Message {
    /// Request line or status line.
    pub line: String,
    head: String,
    pub body: String,
}

impl Message {
    /// The status of an answer, 0 of a request.
    pub fn status(&self) -> u16 {
        self.line.strip_prefix("RTSP/1.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// What comes on a connection.
#[derive(Debug)]
pub enum Incoming {
    Message(Message),
    /// Channel and packet.
    Frame(u8, Vec<u8>),
    /// The server closed it.
    End,
}

/// A client's connection.
pub struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    ahead: VecDeque<Incoming>,
    /// Of the whole.
    pub url: String,
    /// What the client calls itself.
    pub agent: String,
    /// Of the session, once there is one.
    pub session: Option<String>,
    cseq: u32,
}

impl Connection {
    /// To play a name.
    #[track_caller]
    pub fn open(address: SocketAddr, name: &str) -> Self {
        let stream = TcpStream::connect_timeout(&address, STEP).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("rtsp://{address}/{name}");
        Self { stream, bytes: Vec::new(), ahead: VecDeque::new(), url, agent: "by-hand/1".into(), session: None, cseq: 0 }
    }

    /// Sends bytes as they are; false where the server no longer takes them.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a request for the whole of it (`stream` empty) or a stream; `more` are header lines, each with its end.
    pub fn send(&mut self, method: &str, stream: &str, more: &str) {
        self.cseq += 1;
        let slash = if stream.is_empty() { "" } else { "/" };
        let session = self.session.as_ref().map(|id| format!("Session: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {}{slash}{stream} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: {}\r\n{session}{more}\r\n",
            self.url, self.cseq, self.agent
        );
        let _ = self.send_raw(request.as_bytes());
    }

    /// The answer to a request; media in front of it is kept for [`Connection::receive`].
    #[track_caller]
    pub fn ask(&mut self, method: &str, stream: &str, more: &str) -> Message {
        self.send(method, stream, more);
        let mut before = VecDeque::new();
        let answer = loop {
            match self.next(STEP) {
                Some(Incoming::Message(message)) if message.status() != 0 => break message,
                Some(Incoming::End) | None => panic!("no answer to {method}"),
                Some(other) => before.push_back(other),
            }
        };
        assert_eq!(answer.header("CSeq"), Some(self.cseq.to_string().as_str()), "{answer:?}");
        before.append(&mut self.ahead);
        self.ahead = before;
        if let Some(session) = answer.header("Session") {
            self.session = Some(session.split(';').next().unwrap().to_owned());
        }
        answer
    }

    /// The same, where the answer is 200.
    #[track_caller]
    pub fn granted(&mut self, method: &str, stream: &str, more: &str) -> Message {
        let answer = self.ask(method, stream, more);
        assert_eq!(answer.status(), 200, "{method} {stream} {more}: {answer:?}");
        answer
    }

    /// Sets both streams of pictures and sound up and plays, all of it behind its description.
    #[track_caller]
    pub fn play(&mut self, transport: &str) -> Message {
        let description = self.granted("DESCRIBE", "", "Accept: application/sdp\r\n").body;
        let controls = description.lines().filter_map(|line| line.strip_prefix("a=control:"));
        let streams: Vec<String> =
            controls.filter(|control| !control.contains(':') && *control != "rtx").map(str::to_owned).collect();
        assert!(!streams.is_empty(), "{description}");
        for stream in streams {
            self.granted("SETUP", &stream, &format!("Transport: {transport}\r\n"));
        }
        self.granted("PLAY", "", "Range: npt=0.000-\r\n")
    }

    /// The next unit, `None` where nothing came in time.
    pub fn receive(&mut self, limit: Duration) -> Option<Incoming> {
        self.ahead.pop_front().or_else(|| self.next(limit))
    }

    fn next(&mut self, limit: Duration) -> Option<Incoming> {
        let begin = Instant::now();
        loop {
            if let Some(unit) = self.take() {
                return Some(unit);
            }
            let left = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero())?;
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(Incoming::End),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(Incoming::End),
            }
        }
    }

    /// A whole unit out of what has come.
    fn take(&mut self) -> Option<Incoming> {
        if self.bytes.first() == Some(&b'$') {
            let head = self.bytes.get(..4)?;
            let end = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (channel, packet) = (head[1], self.bytes.get(4..end)?.to_vec());
            self.bytes.drain(..end);
            return Some(Incoming::Frame(channel, packet));
        }
        let head_end = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&self.bytes[..head_end]).into_owned();
        let (line, head) = text.split_once("\r\n").unwrap();
        let mut message = Message { line: line.into(), head: head.into(), body: String::new() };
        let body_len = message.header("Content-Length").map_or(0, |len| len.parse().unwrap());
        message.body = String::from_utf8_lossy(self.bytes.get(head_end..head_end + body_len)?).into_owned();
        self.bytes.drain(..head_end + body_len);
        Some(Incoming::Message(message))
    }
}

/// Sequence number, timestamp and what follows the RTP header.
pub fn rtp(packet: &[u8]) -> (u16, u32, &[u8]) {
    assert_eq!(packet[0], 0x80, "version 2, nothing optional");
    let sequence = u16::from_be_bytes([packet[2], packet[3]]);
    (sequence, u32::from_be_bytes(packet[4..8].try_into().unwrap()), &packet[12..])
}
