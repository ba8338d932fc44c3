//! MMS written by hand, without the crate under test: the bytes of a player, and a reader of the daemon's answers.
//!
//! Layouts: MS-MMSP 2.2.2 to 2.2.4.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

pub const CONNECT: u32 = 0x0003_0001;
pub const FUNNEL_INFO: u32 = 0x0003_0018;
pub const CONNECT_FUNNEL: u32 = 0x0003_0002;
pub const OPEN_FILE: u32 = 0x0003_0005;
pub const READ_BLOCK: u32 = 0x0003_0015;
pub const STREAM_SWITCH: u32 = 0x0003_0033;
pub const START_PLAYING: u32 = 0x0003_0007;
pub const STOP_PLAYING: u32 = 0x0003_0009;
pub const START_STRIDING: u32 = 0x0003_0028;
pub const PONG: u32 = 0x0003_001B;
pub const CLOSE_FILE: u32 = 0x0003_000D;

pub const CONNECTED: u32 = 0x0004_0001;
pub const FUNNEL_REPORT: u32 = 0x0004_0015;
pub const FUNNEL_CONNECTED: u32 = 0x0004_0002;
pub const FUNNEL_REFUSED: u32 = 0x0004_0003;
pub const OPENED: u32 = 0x0004_0006;
pub const BLOCK_READ: u32 = 0x0004_0011;
pub const SWITCHED: u32 = 0x0004_0021;
pub const STARTED: u32 = 0x0004_0005;
pub const STRIDING_STARTED: u32 = 0x0004_000A;
pub const END_OF_STREAM: u32 = 0x0004_001E;
pub const PING: u32 = 0x0004_001B;

/// NS_E_INVALID_PORT: a UDP port outside of the pool.
pub const INVALID_PORT: u32 = 0xC00D_0043;

/// A TCP control packet with one message.
pub fn control(sequence: u16, message: u32, body: &[u8]) -> Vec<u8> {
    let padded = (8 + body.len()).next_multiple_of(8);
    let mut bytes = vec![1, 0, 0, 0, 0xCE, 0xFA, 0x0B, 0xB0];
    bytes.extend_from_slice(&(padded as u32 + 16).to_le_bytes());
    bytes.extend_from_slice(b"MMS ");
    bytes.extend_from_slice(&((padded as u32 + 16) / 8).to_le_bytes());
    bytes.extend_from_slice(&u32::from(sequence).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&(padded as u32 / 8).to_le_bytes());
    bytes.extend_from_slice(&message.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(32 + padded, 0);
    bytes
}

/// The body of Connect.
pub fn connect_body(player: &str) -> Vec<u8> {
    [words(&[0xF0F0_F0EF, 0x0004_000B, 0x0003_001C]), utf16(player)].concat()
}

/// The body of ConnectFunnel.
pub fn funnel_body(funnel: &str) -> Vec<u8> {
    [words(&[0, 0xFFFF_FFFF, 0, 0x0098_9680, 2]), utf16(funnel)].concat()
}

/// The body of OpenFile, play incarnation 9.
pub fn open_body(name: &str) -> Vec<u8> {
    [words(&[9, 0, 0, 0]), utf16(name)].concat()
}

/// The body of ReadBlock, play incarnation 1.
pub fn read_block_body() -> Vec<u8> {
    [words(&[1, 0, 0, 0x8000, 0xFFFF_FFFF, 0]), 0.0_f64.to_le_bytes().to_vec(), 3600.0_f64.to_le_bytes().to_vec(), words(&[1, 0])]
        .concat()
}

/// The body of StreamSwitch that selects stream 1.
pub fn switch_body() -> Vec<u8> {
    [words(&[1]), vec![0xFF, 0xFF, 1, 0, 0, 0]].concat()
}

/// The body of StartPlaying, play incarnation 10.
pub fn start_body() -> Vec<u8> {
    [words(&[1, 0]), 0.0_f64.to_le_bytes().to_vec(), words(&[0xFFFF_FFFF, 0xFFFF_FFFF, 0, 10])].concat()
}

/// The body of StartPlaying that begins at a time of a file, seconds, and may name an end.
pub fn start_at_body(incarnation: u32, seconds: f64, frame_offset: u32) -> Vec<u8> {
    [words(&[1, 0]), seconds.to_le_bytes().to_vec(), words(&[0xFFFF_FFFF, 0xFFFF_FFFF, frame_offset, incarnation])].concat()
}

/// The body of StopPlaying.
pub fn stop_body(incarnation: u32) -> Vec<u8> {
    words(&[1, incarnation])
}

/// The body of StartStriding from the beginning.
pub fn stride_body(incarnation: u32, rate: f64) -> Vec<u8> {
    [start_at_body(incarnation, 0.0, 0), rate.to_le_bytes().to_vec()].concat()
}

/// What the daemon says to the wish to open a name, over TCP: 0, or why not.
#[track_caller]
pub fn open_result(daemon: SocketAddr, name: &str) -> u32 {
    let limit = Duration::from_secs(10);
    let mut control = Control::connect(daemon);
    control.send(CONNECT, &connect_body(super::viewer::PLAYER));
    control.expect(CONNECTED, limit);
    control.send(CONNECT_FUNNEL, &funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    control.expect(FUNNEL_CONNECTED, limit);
    control.send(OPEN_FILE, &open_body(name));
    result_of(&control.expect(OPENED, limit))
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// What the daemon sends on a control connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A control message: its id, and its body from behind the id.
    Control { message: u32, body: Vec<u8> },
    /// A data packet.
    Data(Data),
    /// The connection is at its end.
    End,
}

/// A data packet, as on TCP and in a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub location: u32,
    pub incarnation: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Data {
    /// Reads a whole datagram.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let size = usize::from(u16::from_le_bytes(bytes.get(6..8)?.try_into().unwrap()));
        (size == bytes.len()).then(|| Self {
            location: u32::from_le_bytes(bytes[..4].try_into().unwrap()),
            incarnation: bytes[4],
            flags: bytes[5],
            payload: bytes[8..].to_vec(),
        })
    }
}

/// The HRESULT in front of an answer's body.
pub fn result_of(body: &[u8]) -> u32 {
    body.get(..4).map_or(u32::MAX, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
}

/// Where the bytes of a control connection go and come from.
enum Link {
    Tcp(TcpStream),
    /// A connection that a child process holds, in a network namespace.
    Child {
        child: Child,
        stdin: Option<ChildStdin>,
    },
}

/// A control connection to the daemon.
pub struct Control {
    link: Link,
    chunks: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    sequence: u16,
}

/// Bytes that one read of the connection takes. Two such chunks are read ahead, so a test that stops calling
/// [`Control::receive`] stops reading the socket but for these.
const CHUNK: usize = 4 << 10;

impl Control {
    /// Connects over TCP.
    #[track_caller]
    pub fn connect(daemon: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&daemon, Duration::from_secs(5)).unwrap();
        Self::over(stream)
    }

    /// Uses a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let chunks = read_ahead(stream.try_clone().unwrap());
        Self { link: Link::Tcp(stream), chunks, buffer: Vec::new(), sequence: 0 }
    }

    /// Uses a child process that copies its standard input to the connection and the connection to its output.
    pub fn over_child(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let chunks = read_ahead(child.stdout.take().unwrap());
        Self { link: Link::Child { child, stdin }, chunks, buffer: Vec::new(), sequence: 0 }
    }

    /// This end's address.
    pub fn local(&self) -> IpAddr {
        match &self.link {
            Link::Tcp(stream) => stream.local_addr().unwrap().ip(),
            Link::Child { .. } => IpAddr::from([0, 0, 0, 0]),
        }
    }

    /// Sends bytes as they are; whether the connection took them.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        match &mut self.link {
            Link::Tcp(stream) => stream.write_all(bytes).is_ok(),
            Link::Child { stdin, .. } => {
                stdin.as_mut().is_some_and(|stdin| stdin.write_all(bytes).and_then(|()| stdin.flush()).is_ok())
            }
        }
    }

    /// Sends a message.
    pub fn send(&mut self, message: u32, body: &[u8]) -> bool {
        let bytes = control(self.sequence, message, body);
        self.sequence = self.sequence.wrapping_add(1);
        self.send_raw(&bytes)
    }

    /// The next message or packet; `None` where there is none within the limit. Pings are answered, not returned.
    pub fn receive(&mut self, limit: Duration) -> Option<Incoming> {
        let deadline = Instant::now() + limit;
        loop {
            match self.take() {
                Some(Incoming::Control { message: PING, .. }) => {
                    self.send(PONG, &[0; 8]);
                    continue;
                }
                Some(incoming) => return Some(incoming),
                None => {}
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.buffer.extend(chunk),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(Incoming::End),
            }
        }
    }

    /// Waits for one message; data packets before it are dropped.
    #[track_caller]
    pub fn expect(&mut self, wanted: u32, limit: Duration) -> Vec<u8> {
        let deadline = Instant::now() + limit;
        loop {
            match self.receive(deadline.saturating_duration_since(Instant::now())) {
                Some(Incoming::Control { message, body }) if message == wanted => return body,
                Some(Incoming::Data(_)) => {}
                other => panic!("wanted message {wanted:#010x}, got {other:x?}"),
            }
        }
    }

    /// Takes a whole message or packet out of the buffer.
    fn take(&mut self) -> Option<Incoming> {
        let head = self.buffer.get(..8)?;
        if head[4..8] == [0xCE, 0xFA, 0x0B, 0xB0] {
            let length = self.buffer.get(8..12)?;
            let whole = 16 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
            assert!((48..64 << 10).contains(&whole), "a control packet of {whole} bytes");
            let packet: Vec<u8> = self.buffer.get(..whole)?.to_vec();
            self.buffer.drain(..whole);
            let message = u32::from_le_bytes(packet[36..40].try_into().unwrap());
            return Some(Incoming::Control { message, body: packet[40..].to_vec() });
        }
        let whole = usize::from(u16::from_le_bytes(head[6..8].try_into().unwrap()));
        assert!(whole >= 8, "a data packet of {whole} bytes");
        let data = Data::parse(self.buffer.get(..whole)?).unwrap();
        self.buffer.drain(..whole);
        Some(Incoming::Data(data))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        match &mut self.link {
            // The reading thread holds the socket too and would keep it open.
            Link::Tcp(stream) => drop(stream.shutdown(Shutdown::Both)),
            Link::Child { child, stdin } => {
                // The end of its input ends it; killed, it would leave its own child behind.
                drop(stdin.take());
                let limit = Instant::now() + Duration::from_secs(2);
                while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < limit {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn read_ahead(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, chunks) = sync_channel(1);
    std::thread::spawn(move || {
        let mut buffer = [0; CHUNK];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    chunks
}
