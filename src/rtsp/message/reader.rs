//! Units out of bytes as they come, under bounds.

use bytes::{Buf, BytesMut};

use super::headers::decimal;
use super::method::is_token_byte;
use super::{Headers, MessageError, Method, Request, Response, Unit};

/// How much of one unit is taken, in bytes if nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first line, without its end.
    pub first_line: usize,
    /// All lines after it, with their ends and the empty one.
    pub header_block: usize,
    /// Headers, in number.
    pub headers: usize,
    /// Session descriptions.
    pub sdp: usize,
    /// Logs and events.
    pub report: usize,
    /// Bodies that switch streams.
    pub stream_switch: usize,
    /// Bodies that ask for a packet pair, or are one.
    pub packet_pair: usize,
    /// Bodies that ask for content information.
    pub content_info: usize,
    /// All other bodies.
    pub other: usize,
    /// What becomes of interleaved frames.
    pub frames: Frames,
}

/// What becomes of interleaved frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// They are given as units.
    Give,
    /// Their payloads are passed over as they come, and counted: see [`Reader::skipped`].
    Skip,
}

/// Frames that were passed over since the reader began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// How many.
    pub frames: u64,
    /// Their bytes, with their four-byte heads.
    pub bytes: u64,
}

impl Bounds {
    /// For the connection of a viewer: its frames are RTCP that nobody needs.
    pub const VIEWER: Self = Self {
        first_line: 4096,
        header_block: 16 << 10,
        headers: 64,
        sdp: 64 << 10,
        report: 64 << 10,
        stream_switch: 8 << 10,
        packet_pair: 128,
        content_info: 1,
        other: 4096,
        frames: Frames::Skip,
    };
    /// For the connection of a publisher: its frames are what it came for.
    pub const PUBLISHER: Self = Self { frames: Frames::Give, ..Self::VIEWER };
    /// For our connection to a server, whose descriptions may carry longer ASF headers than ours.
    pub const CLIENT: Self = Self { sdp: 512 << 10, packet_pair: 4096, ..Self::PUBLISHER };

    /// The longest body behind such a head.
    fn body(&self, start: &Start, headers: &Headers) -> usize {
        // A response does not tell which method it answers; its type alone has to do.
        let of = |methods: &[Method]| match start {
            Start::Request { method, .. } => methods.contains(method),
            Start::Response { .. } | Start::OtherVersion => true,
        };
        let kind = |name: &str| headers.is_type(name);
        if of(&[Method::Announce]) && (kind("application/sdp") || matches!(start, Start::Request { .. })) {
            self.sdp
        } else if of(&[Method::SetParameter])
            && (kind("application/x-wms-Logconnectstats")
                || kind("application/x-wms-Logplaystats")
                || kind("application/x-wms-sendevent"))
        {
            self.report
        } else if of(&[Method::Setup, Method::SetParameter, Method::Teardown]) && kind("application/x-wms-streamswitch") {
            self.stream_switch
        } else if kind("application/x-rtsp-packetpair") || kind("application/x-rtsp-udp-packetpair") {
            self.packet_pair
        } else if kind("application/x-wms-getcontentinfo") {
            self.content_info
        } else {
            self.other
        }
    }
}

/// Takes bytes as they come and gives complete units.
///
/// CR, LF and NUL between units are passed over, lines may end in a bare LF, folded headers are joined: clients need all of it. What
/// the reader holds once [`Reader::next`] gave `None` is one incomplete unit at most; before that, also what was pushed since.
#[derive(Debug)]
pub struct Reader {
    bounds: Bounds,
    bytes: BytesMut,
    /// Bytes of the line that is coming, known to hold no line end.
    scanned: usize,
    state: State,
    expects_echo: bool,
    skipped: Skipped,
}

#[derive(Debug)]
enum State {
    Between,
    Head(Head),
    Body {
        start: Start,
        headers: Headers,
        length: usize,
    },
    /// Bytes to pass over.
    Skip(usize),
    /// It is unknown where the next unit begins.
    Lost,
}

#[derive(Debug, Default)]
struct Head {
    start: Option<Start>,
    headers: Headers,
    /// Bytes of the header block so far.
    block: usize,
}

#[derive(Debug)]
enum Start {
    Request { method: Method, target: String },
    Response { status: u16, reason: String },
    OtherVersion,
}

impl Reader {
    /// A reader at the start of a connection.
    pub fn new(bounds: Bounds) -> Self {
        let (bytes, skipped) = (BytesMut::new(), Skipped::default());
        Self { bounds, bytes, scanned: 0, state: State::Between, expects_echo: false, skipped }
    }

    /// Whether an end-of-stream of ours is without answer.
    ///
    /// GStreamer answers it by sending our `SET_PARAMETER` back with headers of its own among ours: two `Content-Length` that differ,
    /// of which the last counts. Anywhere else such a message is refused.
    pub fn expects_echo(&mut self, expected: bool) {
        self.expects_echo = expected;
    }

    /// Changes what becomes of the frames that begin from now on: a connection shows late whether it publishes.
    pub fn set_frames(&mut self, frames: Frames) {
        self.bounds.frames = frames;
    }

    /// Frames passed over so far.
    pub const fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Bytes that were pushed and belong to no unit given so far. One who leaves units in the reader stops reading by this.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of no unit given so far, for another reader; between two units only.
    pub fn take_held(&mut self) -> BytesMut {
        std::mem::take(&mut self.bytes)
    }

    /// Takes bytes; they are dropped after an error that ends the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        match &mut self.state {
            State::Lost => return,
            State::Skip(left) if self.bytes.is_empty() => {
                let passed = bytes.len().min(*left);
                *left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
            }
            _ => {}
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete unit; `None` until more bytes come.
    ///
    /// # Errors
    /// [`MessageError`]; the reader gives nothing more then, unless the error says that it goes on.
    #[expect(clippy::should_implement_trait, reason = "an iterator that ends would not go on after more bytes")]
    pub fn next(&mut self) -> Result<Option<Unit>, MessageError> {
        loop {
            let (state, step) = match std::mem::replace(&mut self.state, State::Lost) {
                State::Between => self.begin()?,
                State::Head(head) => self.head(head)?,
                State::Body { start, headers, length } => self.body(start, headers, length),
                State::Skip(left) => {
                    let passed = left.min(self.bytes.len());
                    self.bytes.advance(passed);
                    if passed == left { (State::Between, Step::Again) } else { (State::Skip(left - passed), Step::Wait) }
                }
                State::Lost => {
                    self.bytes = BytesMut::new();
                    return Ok(None);
                }
            };
            self.state = state;
            match step {
                Step::Again => {}
                Step::Give(unit) => return Ok(Some(unit)),
                Step::Refuse(error) => return Err(error),
                Step::Wait => {
                    // Thousands of connections are idle for minutes: none of them keeps the room of its last message.
                    if self.bytes.is_empty() {
                        self.bytes = BytesMut::new();
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn begin(&mut self) -> Result<(State, Step), MessageError> {
        let strays = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | 0)).count();
        self.bytes.advance(strays);
        match (self.bytes.first(), self.bytes.get(1..4)) {
            (None, _) | (Some(b'$'), None) => Ok((State::Between, Step::Wait)),
            (Some(b'$'), Some(&[channel, high, low])) => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                match self.bounds.frames {
                    Frames::Skip => {
                        self.bytes.advance(4);
                        self.skipped.frames += 1;
                        self.skipped.bytes += 4 + length as u64;
                        Ok((State::Skip(length), Step::Again))
                    }
                    Frames::Give if self.bytes.len() < 4 + length => Ok((State::Between, Step::Wait)),
                    Frames::Give => {
                        self.bytes.advance(4);
                        let payload = self.bytes.split_to(length).freeze();
                        Ok((State::Between, Step::Give(Unit::Frame { channel, payload })))
                    }
                }
            }
            (Some(byte), _) if is_token_byte(*byte) => Ok((State::Head(Head::default()), Step::Again)),
            _ => Err(self.lost(400, &Headers::default(), "what begins here is no request, no response and no frame")),
        }
    }

    fn head(&mut self, mut head: Head) -> Result<(State, Step), MessageError> {
        loop {
            let coming = self.bytes.get(self.scanned..).unwrap_or_default();
            let end = coming.iter().position(|byte| *byte == b'\n').map(|at| self.scanned + at);
            let length = end.map_or(self.bytes.len(), |at| at + 1);
            if head.start.is_some() {
                if head.block + length > self.bounds.header_block {
                    return Err(self.lost(400, &head.headers, "the headers are longer than the bound, 16 KiB"));
                }
            } else {
                // A CR that is the last byte so far may belong to the line's end.
                let text = self.bytes.get(..end.unwrap_or(length)).unwrap_or_default();
                if text.strip_suffix(b"\r").unwrap_or(text).len() > self.bounds.first_line {
                    return Err(if text.starts_with(b"RTSP/") {
                        self.lost(400, &head.headers, "the status line is longer than the bound, 4 KiB")
                    } else {
                        self.lost(414, &head.headers, "the request line is longer than the bound, 4 KiB")
                    });
                }
            }
            if end.is_none() {
                self.scanned = self.bytes.len();
                return Ok((State::Head(head), Step::Wait));
            }
            self.scanned = 0;
            let line = self.bytes.split_to(length);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().any(|byte| byte.is_ascii_control() && (*byte != b'\t' || head.start.is_none())) {
                return Err(self.lost(400, &head.headers, "there is a control character in a head"));
            }
            let Some(start) = head.start.take() else {
                head.start = Some(Start::parse(line).map_err(|text| self.lost(400, &head.headers, text))?);
                continue;
            };
            if line.is_empty() {
                return self.head_end(start, head.headers);
            }
            head.start = Some(start);
            head.block += length;
            if let Err(text) = add_line(&mut head.headers, line, self.bounds.headers) {
                return Err(self.lost(400, &head.headers, text));
            }
        }
    }

    fn head_end(&mut self, start: Start, headers: Headers) -> Result<(State, Step), MessageError> {
        let echo = self.expects_echo && matches!(start, Start::Request { method: Method::SetParameter, .. });
        let length = content_length(&headers, echo).map_err(|text| self.lost(400, &headers, text))?;
        if length > self.bounds.body(&start, &headers) as u64 {
            return Err(self.lost(413, &headers, "the body is longer than such a message may have"));
        }
        // It is below a bound that is a usize.
        let length = usize::try_from(length).unwrap_or(0);
        if matches!(start, Start::OtherVersion) {
            let cseq = headers.number("CSeq");
            let error = MessageError { status: 505, cseq, text: "only RTSP/1.0 is spoken here", goes_on: true };
            return Ok((State::Skip(length), Step::Refuse(error)));
        }
        Ok((State::Body { start, headers, length }, Step::Again))
    }

    fn body(&mut self, start: Start, headers: Headers, length: usize) -> (State, Step) {
        if self.bytes.len() < length {
            return (State::Body { start, headers, length }, Step::Wait);
        }
        let body = self.bytes.split_to(length).freeze();
        let step = match start {
            Start::Request { method, target } => Step::Give(Unit::Request(Request { method, target, headers, body })),
            Start::Response { status, reason } => Step::Give(Unit::Response(Response { status, reason, headers, body })),
            Start::OtherVersion => Step::Again,
        };
        (State::Between, step)
    }

    /// The state is [`State::Lost`] already.
    fn lost(&mut self, status: u16, headers: &Headers, text: &'static str) -> MessageError {
        self.bytes = BytesMut::new();
        MessageError { status, cseq: headers.number("CSeq"), text, goes_on: false }
    }
}

enum Step {
    Again,
    Wait,
    Give(Unit),
    Refuse(MessageError),
}

impl Start {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let line = str::from_utf8(line).map_err(|_| "the first line is not UTF-8")?;
        if let Some(rest) = line.strip_prefix("RTSP/") {
            let (version, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let status = decimal(status).filter(|status| (100..=999).contains(status));
            return match (version, status) {
                ("1.0", Some(status)) => Ok(Self::Response { status, reason: reason.trim().to_owned() }),
                (other, Some(_)) if is_version(other) => Ok(Self::OtherVersion),
                _ => Err("the first line is not RTSP/1.0 STATUS REASON"),
            };
        }
        let parts = line.split_once(' ').and_then(|(method, rest)| Some((method, rest.trim_end().rsplit_once(' ')?)));
        let Some((method, (target, version))) = parts else { return Err("the first line is not METHOD URL RTSP/1.0") };
        // Blanks inside of it stay: some clients do not escape them.
        let target = target.trim();
        let Some(method) = Method::of(method).filter(|_| !target.is_empty()) else {
            return Err("the first line is not METHOD URL RTSP/1.0");
        };
        match version.strip_prefix("RTSP/") {
            Some("1.0") => Ok(Self::Request { method, target: target.to_owned() }),
            Some(other) if is_version(other) => Ok(Self::OtherVersion),
            // HTTP among others: what follows may be the work of a third party, so the stream does not go on.
            _ => Err("the first line is not METHOD URL RTSP/1.0"),
        }
    }
}

fn is_version(text: &str) -> bool {
    text.split_once('.').is_some_and(|(major, minor)| decimal::<u8>(major).is_some() && decimal::<u8>(minor).is_some())
}

/// Adds a line of the header block, or joins it to the one before.
fn add_line(headers: &mut Headers, line: &[u8], bound: usize) -> Result<(), &'static str> {
    let line = String::from_utf8_lossy(line);
    if line.starts_with([' ', '\t']) {
        return if headers.fold(line.trim()) { Ok(()) } else { Err("the first header begins with a blank") };
    }
    let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
    if !super::method::is_token(name) {
        return Err("the name of a header is not a token");
    }
    if headers.count() == bound {
        return Err("there are more headers than the bound, 64");
    }
    headers.push(name, value.trim().to_owned());
    Ok(())
}

/// The length of the body. `last_counts` where the headers may differ.
fn content_length(headers: &Headers, last_counts: bool) -> Result<u64, &'static str> {
    let mut length = None;
    for value in headers.all("Content-Length") {
        let value: u64 = decimal(value).ok_or("Content-Length is not a decimal number")?;
        if !last_counts && length.is_some_and(|other| other != value) {
            return Err("there are two Content-Length that differ");
        }
        length = Some(value);
    }
    Ok(length.unwrap_or(0))
}
