//! Viewers that play without decoding and note what comes: numbers that are missing, pauses, the end.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::asf::{number_in, send_time_in};
use super::daemon::Daemon;
use super::mms::{self, Control, Data, Incoming, result_of};
use super::wait_until;

/// How long one step of the conversation may take.
const STEP: Duration = Duration::from_secs(10);

/// The play incarnation of [`mms::start_body`], the mark of media packets.
const MEDIA: u8 = 10;

/// The daemon's identity for these viewers.
pub const PLAYER: &str = "NSPlayer/7.1.0.3055; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}";

/// What a viewer saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Media packets.
    pub packets: u64,
    /// The number (LocationId) of the first.
    pub first: Option<u32>,
    /// The number of the last.
    pub last: Option<u32>,
    /// Numbers that never came.
    pub missing: u64,
    /// Packets whose number was not above the last one's.
    pub backward: u64,
    /// Packets whose send time was before the last one's.
    pub time_backward: u64,
    /// Longest time between two packets.
    pub longest_pause: Duration,
    /// The send time of the last, ms.
    pub send_time_ms: u32,
    /// The number that a [`super::asf::Synthetic`] stream put into the last.
    pub number: Option<u32>,
    /// Why it is over, if it is.
    pub ended: Option<String>,
    last_at: Option<Instant>,
}

impl Seen {
    fn note(&mut self, data: &Data) {
        if data.incarnation != MEDIA {
            return;
        }
        let now = Instant::now();
        if let (Some(last), Some(at)) = (self.last, self.last_at) {
            match data.location.wrapping_sub(last) {
                0 => self.backward += 1,
                step if step < 1 << 31 => self.missing += u64::from(step - 1),
                _ => self.backward += 1,
            }
            self.longest_pause = self.longest_pause.max(now - at);
        }
        let send_time_ms = send_time_in(&data.payload).unwrap_or_default();
        self.time_backward += u64::from(send_time_ms < self.send_time_ms);
        self.send_time_ms = send_time_ms;
        self.number = number_in(&data.payload);
        self.packets += 1;
        self.first.get_or_insert(data.location);
        self.last = Some(data.location);
        self.last_at = Some(now);
    }
}

/// A viewer on threads of its own.
pub struct Viewer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Viewer {
    /// Plays over TCP.
    #[track_caller]
    pub fn tcp(daemon: SocketAddr, name: &str) -> Self {
        let mut control = Control::connect(daemon);
        let funnel = format!("\\\\{}\\TCP\\1037", control.local());
        open(&mut control, name, &funnel, None);
        Self::watch(control, None)
    }

    /// Plays over UDP on this port of the connection's own address, and announces `announced` as that address.
    #[track_caller]
    pub fn udp(daemon: SocketAddr, name: &str, port: u16, announced: Option<IpAddr>) -> Self {
        let mut control = Control::connect(daemon);
        let socket = UdpSocket::bind((control.local(), port)).unwrap();
        let announced = announced.unwrap_or(control.local());
        open(&mut control, name, &format!("\\\\{announced}\\UDP\\{port}"), Some(&socket));
        Self::watch(control, Some(socket))
    }

    fn watch(mut control: Control, socket: Option<UdpSocket>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        if let Some(socket) = socket {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            threads.push(std::thread::spawn(move || {
                let mut datagram = [0; 64 << 10];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(count) = socket.recv(&mut datagram) else { continue };
                    if let Some(data) = Data::parse(&datagram[..count]) {
                        seen.lock().unwrap().note(&data);
                    }
                }
            }));
        }
        let (noted, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        threads.push(std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match control.receive(Duration::from_millis(100)) {
                    None => {}
                    Some(Incoming::Data(data)) => noted.lock().unwrap().note(&data),
                    Some(Incoming::Control { message: mms::END_OF_STREAM, body }) => {
                        noted.lock().unwrap().ended = Some(format!("end of stream, {:#x}", result_of(&body)));
                    }
                    Some(Incoming::Control { .. }) => {}
                    Some(Incoming::End) => {
                        noted.lock().unwrap().ended.get_or_insert("the connection was closed".into());
                        return;
                    }
                }
            }
        }));
        Self { seen, stop, threads }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until that many more packets have come.
    #[track_caller]
    pub fn wait_for_packets(&self, more: u64, limit: Duration) {
        let begin = self.seen().packets;
        wait_until(&format!("{more} more packets"), limit, || self.seen().packets >= begin + more);
    }

    /// Plays on, over TCP: nothing missing, nothing late, not ended.
    #[track_caller]
    pub fn assert_undisturbed(&self) {
        self.wait_for_packets(50, Duration::from_secs(60));
        let seen = self.seen();
        assert_eq!((seen.missing, seen.backward, &seen.ended), (0, 0, &None), "{seen:?}");
    }

    /// Plays on, over TCP or a network that loses nothing: nothing missing or out of order since the begin, not ended.
    #[track_caller]
    pub fn assert_unbroken(&self, limit: Duration) {
        self.wait_for_packets(20, limit);
        let seen = self.seen();
        assert_eq!((seen.missing, seen.backward, seen.time_backward, &seen.ended), (0, 0, 0, &None), "{seen:?}");
    }

    /// Fifty viewers of a publishing point, five of them over UDP to ports from this one on.
    #[track_caller]
    pub fn fifty(daemon: &Daemon, name: &str, first_port: u16) -> Vec<Self> {
        let tcp = (0..45).map(|_| Self::tcp(daemon.mms, name));
        tcp.chain((0..5).map(|port| Self::udp(daemon.mms, name, first_port + port, None))).collect()
    }

    /// Whether the daemon has ended it or gone away.
    pub fn ended(&self) -> Option<String> {
        self.seen().ended
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The conversation from Connect to the first media packet. The header is awaited on `socket`, or on the
/// connection where there is none.
#[track_caller]
pub fn open(control: &mut Control, name: &str, funnel: &str, socket: Option<&UdpSocket>) {
    control.send(mms::CONNECT, &mms::connect_body(PLAYER));
    assert_eq!(result_of(&control.expect(mms::CONNECTED, STEP)), 0, "the answer to Connect");
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(funnel));
    assert_eq!(result_of(&control.expect(mms::FUNNEL_CONNECTED, STEP)), 0, "the answer to ConnectFunnel {funnel}");
    open_and_start(control, name, socket);
}

/// The rest of [`open`], behind the funnel.
#[track_caller]
pub fn open_and_start(control: &mut Control, name: &str, socket: Option<&UdpSocket>) {
    control.send(mms::OPEN_FILE, &mms::open_body(name));
    assert_eq!(result_of(&control.expect(mms::OPENED, STEP)), 0, "the answer to OpenFile {name}");
    control.send(mms::READ_BLOCK, &mms::read_block_body());
    assert_eq!(result_of(&control.expect(mms::BLOCK_READ, STEP)), 0, "the answer to ReadBlock");
    match socket {
        Some(socket) => header_over_udp(socket),
        None => header_over_tcp(control),
    }
    control.send(mms::STREAM_SWITCH, &mms::switch_body());
    assert_eq!(result_of(&control.expect(mms::SWITCHED, STEP)), 0, "the answer to StreamSwitch");
    control.send(mms::START_PLAYING, &mms::start_body());
    assert_eq!(result_of(&control.expect(mms::STARTED, STEP)), 0, "the answer to StartPlaying");
}

#[track_caller]
fn header_over_tcp(control: &mut Control) {
    loop {
        match control.receive(STEP) {
            Some(Incoming::Data(data)) if data.incarnation == 1 && data.flags == 0x0C => return,
            Some(Incoming::Data(data)) if data.incarnation == 1 && data.flags == 0x04 => {}
            other => panic!("wanted the header, got {other:x?}"),
        }
    }
}

#[track_caller]
fn header_over_udp(socket: &UdpSocket) {
    socket.set_read_timeout(Some(STEP)).unwrap();
    let mut datagram = [0; 64 << 10];
    loop {
        let count = socket.recv(&mut datagram).expect("a header datagram");
        let data = Data::parse(&datagram[..count]).expect("a data packet in the datagram");
        assert_eq!(data.incarnation, 1, "wanted the header");
        if data.flags == 0x0C {
            return;
        }
    }
}

/// Waits until a publishing point's source sends.
#[track_caller]
pub fn wait_for_source(daemon: &Daemon, name: &str) {
    wait_until(&format!("the source of {name}"), Duration::from_secs(20), || {
        daemon.metric("wmrelay_source_up", &[("point", name)]) == 1.0
    });
}
