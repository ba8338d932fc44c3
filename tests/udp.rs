//! Delivery over UDP as a player sees it: order of answers and datagrams, leases, resends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use support::Need::Program;
use support::asf::Synthetic;
use support::daemon::Daemon;
use support::mms::{self, Control, Data, Incoming, control, result_of};
use support::player::{self, Frame, assert_clip_over_and_over, frames, of_stream};
use support::process::Process;
use support::publisher::{CLIP_FRAME_RATE, Publisher, clip};
use support::viewer::{PLAYER, open_and_start, wait_for_source};
use support::{ready, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
const STREAM: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 100 };
const POINT: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";

/// NS_E_DUPLICATE_ADDRESS: the port is leased, or rests.
const TAKEN: u32 = 0xC00D_0037;

fn published() -> (Daemon, Publisher) {
    let daemon = Daemon::start(POINT);
    let publisher = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam1");
    (daemon, publisher)
}

/// VLC reads one answer too few and waits for ever when the header is there before the answer that announces it.
#[test]
fn the_header_does_not_overtake_the_answer_to_read_block() {
    let (daemon, _publisher) = published();
    for round in 0..20 {
        let mut stream = TcpStream::connect_timeout(&daemon.mms, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let port = 4700 + round;
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        exchange(&mut stream, mms::CONNECT, &mms::connect_body(PLAYER));
        exchange(&mut stream, mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\127.0.0.1\\UDP\\{port}")));
        exchange(&mut stream, mms::OPEN_FILE, &mms::open_body("cam1"));
        stream.write_all(&control(0, mms::READ_BLOCK, &mms::read_block_body())).unwrap();
        socket.recv(&mut [0; 2048]).unwrap();
        // On loopback what was written before the datagram is there before the datagram.
        stream.set_nonblocking(true).unwrap();
        let mut answer = [0; 40];
        assert!(stream.read_exact(&mut answer).is_ok(), "round {round}: the header came first");
        assert_eq!(answer[36..40], mms::BLOCK_READ.to_le_bytes());
    }
}

/// Sends a message and reads one answer.
fn exchange(stream: &mut TcpStream, message: u32, body: &[u8]) -> Vec<u8> {
    stream.write_all(&control(0, message, body)).unwrap();
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    let mut rest = vec![0; u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize];
    stream.read_exact(&mut rest).unwrap();
    rest[24..].to_vec()
}

/// Connects as `player` and asks for a UDP port: the connection, and 0 or the refusal.
fn ask_for_port(daemon: SocketAddr, player: &str, port: u16) -> (Control, u32) {
    let mut control = Control::connect(daemon);
    control.send(mms::CONNECT, &mms::connect_body(player));
    assert_eq!(result_of(&control.expect(mms::CONNECTED, LIMIT)), 0);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\127.0.0.1\\UDP\\{port}")));
    let result = match control.receive(LIMIT) {
        Some(Incoming::Control { body, .. }) => result_of(&body),
        other => panic!("no answer to ConnectFunnel: {other:x?}"),
    };
    (control, result)
}

#[test]
fn a_leased_port_is_refused_to_others_until_it_has_rested() {
    let daemon = Daemon::start(POINT);
    let anna = "NSPlayer/7.1.0.3055; {00000000-0000-0000-0000-00000000000A}";
    let bert = "NSPlayer/7.1.0.3055; {00000000-0000-0000-0000-00000000000B}";
    let (first, granted) = ask_for_port(daemon.mms, anna, 4730);
    assert_eq!(granted, 0);
    assert_eq!(ask_for_port(daemon.mms, bert, 4730).1, TAKEN);
    assert_eq!(ask_for_port(daemon.mms, bert, 5001).1, mms::INVALID_PORT);
    assert_eq!(ask_for_port(daemon.mms, bert, 1023).1, mms::INVALID_PORT);

    drop(first);
    wait_until("the lease's end", LIMIT, || daemon.metric("wmrelay_port_leases", &[("state", "leased")]) == 0.0);
    assert_eq!(ask_for_port(daemon.mms, bert, 4730).1, TAKEN, "the port rests for others");
    let (again, granted) = ask_for_port(daemon.mms, anna, 4730);
    assert_eq!(granted, 0, "not for its last owner");
    drop(again);
    // Five seconds later it is anybody's.
    wait_for("the end of the port's rest", LIMIT, || (ask_for_port(daemon.mms, bert, 4730).1 == 0).then_some(()));
}

#[test]
fn udp_switched_off_is_refused_and_tcp_plays() {
    let daemon = Daemon::start("[udp]\nenabled = false\n");
    let (mut control, refused) = ask_for_port(daemon.mms, PLAYER, 4731);
    assert_eq!(refused, 0xC00D_00D1);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    assert_eq!(result_of(&control.expect(mms::FUNNEL_CONNECTED, LIMIT)), 0);
    open_and_start(&mut control, "demo", None);
}

/// Resends: the same bytes as the first time, to the leased port and only there, for the session's own address only.
#[test]
fn resends_go_to_the_session_that_lost_them() {
    let (daemon, _publisher) = published();
    let mut control = Control::connect(daemon.mms);
    let socket = UdpSocket::bind(("127.0.0.1", 4732)).unwrap();
    control.send(mms::CONNECT, &mms::connect_body(PLAYER));
    control.expect(mms::CONNECTED, LIMIT);
    control.send(mms::FUNNEL_INFO, &[0xEF, 0xF0, 0xF0, 0xF0]);
    let report = control.expect(mms::FUNNEL_REPORT, LIMIT);
    let client_id = u32::from_le_bytes(report[20..24].try_into().unwrap());
    assert_ne!(client_id, 0);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\UDP\\4732"));
    assert_eq!(result_of(&control.expect(mms::FUNNEL_CONNECTED, LIMIT)), 0);
    open_and_start(&mut control, "cam1", Some(&socket));

    let mut first_time = Vec::new();
    while first_time.len() < 20 {
        first_time.push(datagram(&socket).expect("media"));
    }
    // Sequence numbers begin at 0 and fill one byte here.
    assert_eq!(first_time.iter().map(|data| data.flags).collect::<Vec<_>>(), (0..20).collect::<Vec<u8>>());

    // Another port of the same address may ask; the answer goes to the leased port.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    elsewhere.send_to(&request(client_id, &[3, 7, 19]), daemon.mms).unwrap();
    let again: Vec<Data> = wait_for_resends(&socket, 3);
    assert_eq!(again, [&first_time[3], &first_time[7], &first_time[19]].map(Clone::clone));
    assert!(elsewhere.recv(&mut [0; 64]).is_err(), "the asking port was answered");

    // Not for another address, another session's id, nor a number that was never sent (nor any 256 apart from it).
    let other = UdpSocket::bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66)), 0)).unwrap();
    other.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let before = daemon.metric("wmrelay_sent_packets_total", &[]);
    other.send_to(&request(client_id, &[4]), daemon.mms).unwrap();
    elsewhere.send_to(&request(client_id ^ 1, &[5]), daemon.mms).unwrap();
    elsewhere.send_to(&request(client_id, &[(1 << 20) + 200]), daemon.mms).unwrap();
    // Behind them one that is answered: what was asked before it and not come by then will not come.
    elsewhere.send_to(&request(client_id, &[6]), daemon.mms).unwrap();
    assert_eq!(wait_for_resends(&socket, 1), [first_time[6].clone()]);
    assert!(other.recv(&mut [0; 64]).is_err() && elsewhere.recv(&mut [0; 64]).is_err());
    assert!(daemon.metric("wmrelay_sent_packets_total", &[]) >= before);
    let result = |result| daemon.metric("wmrelay_resends_total", &[("result", result)]);
    assert_eq!((result("sent"), result("unknown"), result("stranger")), (4.0, 1.0, 2.0));
    assert_eq!(daemon.metric("wmrelay_resend_requests_total", &[]), 3.0);
}

fn datagram(socket: &UdpSocket) -> Option<Data> {
    let mut bytes = [0; 2048];
    let count = socket.recv(&mut bytes).ok()?;
    Data::parse(&bytes[..count])
}

/// The next datagrams that are not the next of the live stream.
fn wait_for_resends(socket: &UdpSocket, count: usize) -> Vec<Data> {
    let mut last = None;
    let mut resent = Vec::new();
    wait_for("resent packets", LIMIT, || {
        let data = datagram(socket)?;
        // Live ones count up from 20.
        if data.location < *last.get_or_insert(data.location) || data.flags < 20 {
            resent.push(data);
        } else {
            last = Some(data.location);
        }
        (resent.len() == count).then_some(())
    });
    resent
}

/// A RequestPacketListResend.
fn request(client_id: u32, sequences: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0x0D, 0xF0, 0xEF, 0xBE];
    bytes.extend_from_slice(&client_id.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(sequences.len()).unwrap().to_le_bytes());
    sequences.iter().for_each(|sequence| bytes.extend_from_slice(&sequence.to_le_bytes()));
    bytes
}

/// What a viewer of pictures and sound got.
struct Got {
    /// Header Object and the head of the Data Object.
    header: Vec<u8>,
    /// Media packets by their numbers.
    packets: BTreeMap<u32, Vec<u8>>,
    /// The longest datagram, 0 over TCP.
    longest: usize,
    /// Whether all datagrams came from the MMS port: fragments come from another.
    from_mms: bool,
}

impl Got {
    /// Plays until that many media packets have come; over UDP where there is a port.
    #[track_caller]
    fn play(daemon: &Daemon, port: Option<u16>, count: usize) -> Self {
        let mut control = Control::connect(daemon.mms);
        let socket = port.map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap());
        if let Some(socket) = &socket {
            socket.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let transport = port.map_or("TCP\\1037".to_owned(), |port| format!("UDP\\{port}"));
        let both_streams = [2_u32.to_le_bytes().as_slice(), &[0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 2, 0, 0, 0]].concat();
        ask(&mut control, mms::CONNECT, &mms::connect_body(PLAYER), mms::CONNECTED);
        ask(&mut control, mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\127.0.0.1\\{transport}")), mms::FUNNEL_CONNECTED);
        ask(&mut control, mms::OPEN_FILE, &mms::open_body("cam1"), mms::OPENED);
        ask(&mut control, mms::READ_BLOCK, &mms::read_block_body(), mms::BLOCK_READ);
        let mut got = Self { header: Vec::new(), packets: BTreeMap::new(), longest: 0, from_mms: true };
        loop {
            let data = got.next(daemon, &mut control, socket.as_ref());
            got.header.extend(data.payload);
            if data.flags == 0x0C {
                break;
            }
        }
        ask(&mut control, mms::STREAM_SWITCH, &both_streams, mms::SWITCHED);
        ask(&mut control, mms::START_PLAYING, &mms::start_body(), mms::STARTED);
        while got.packets.len() < count {
            let data = got.next(daemon, &mut control, socket.as_ref());
            got.packets.insert(data.location, data.payload);
        }
        got
    }

    /// The next data packet.
    fn next(&mut self, daemon: &Daemon, control: &mut Control, socket: Option<&UdpSocket>) -> Data {
        let Some(socket) = socket else {
            return wait_for("a data packet", LIMIT, || match control.receive(LIMIT) {
                Some(Incoming::Data(data)) => Some(data),
                Some(Incoming::Control { .. }) => None,
                other => panic!("wanted data, got {other:?}"),
            });
        };
        let mut bytes = vec![0; 64 << 10];
        let (len, from) = socket.recv_from(&mut bytes).expect("a datagram");
        self.longest = self.longest.max(len);
        self.from_mms &= from.port() == daemon.mms.port();
        Data::parse(&bytes[..len]).expect("a data packet")
    }

    /// The numbers of the first and the last packet.
    fn ends(&self) -> (u32, u32) {
        (*self.packets.first_key_value().unwrap().0, *self.packets.last_key_value().unwrap().0)
    }

    /// What a decoder makes of the packets from `first` to `last`.
    #[track_caller]
    fn decode(&self, daemon: &Daemon, first: u32, last: u32) -> Vec<Frame> {
        let file = daemon.folder().join(format!("got-{}.asf", self.longest));
        let packets: Vec<u8> = self.packets.range(first..=last).flat_map(|(_, packet)| packet.clone()).collect();
        std::fs::write(&file, [self.header.clone(), packets].concat()).unwrap();
        let decoded = player::ffmpeg(file.to_str().unwrap(), 0).finish(LIMIT);
        assert!(decoded.status.success(), "{}", decoded.stderr);
        frames(&decoded.stdout)
    }
}

/// Sends a message, and waits for the answer that grants it.
#[track_caller]
fn ask(control: &mut Control, message: u32, body: &[u8], answer: u32) {
    control.send(message, body);
    assert_eq!(result_of(&control.expect(answer, LIMIT)), 0, "the answer to {message:#x}");
}

/// An ffmpeg that publishes the clip for ever in packets of its own choice, 3200 bytes.
#[track_caller]
fn push_large(daemon: &Daemon) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "warning", "-re", "-stream_loop", "-1", "-i"]).arg(clip());
    command.args(["-c", "copy", "-f", "asf_stream", "-method", "POST", &daemon.publish_url("", "cam1")]);
    let publisher = Process::start(command);
    wait_for_source(daemon, "cam1");
    publisher
}

#[test]
fn packets_that_do_not_fit_a_datagram_are_cut_anew_for_all_viewers() {
    if !ready("packets_that_do_not_fit_a_datagram_are_cut_anew_for_all_viewers", &[Program("ffmpeg")]) {
        return;
    }
    let daemon = Daemon::start(POINT);
    let _publisher = push_large(&daemon);
    let (by_udp, by_tcp) = std::thread::scope(|scope| {
        let by_udp = scope.spawn(|| Got::play(&daemon, Some(4733), 120));
        let by_tcp = Got::play(&daemon, None, 120);
        (by_udp.join().unwrap(), by_tcp)
    });
    assert!((1..=1408).contains(&by_udp.longest) && by_udp.from_mms, "a datagram of {} bytes", by_udp.longest);
    assert!(by_udp.packets.values().chain(by_tcp.packets.values()).all(|packet| packet.len() == 1400));
    assert_eq!(by_udp.header, by_tcp.header);

    // What both have had, without a gap.
    assert_eq!(by_udp.ends().1 - by_udp.ends().0, 119, "lost on the loopback");
    let (first, last) = (by_udp.ends().0.max(by_tcp.ends().0), by_udp.ends().1.min(by_tcp.ends().1));
    let frames = by_udp.decode(&daemon, first, last);
    assert!(frames == by_tcp.decode(&daemon, first, last), "UDP and TCP decode to different frames");
    let pictures = of_stream(&frames, 0);
    assert!(pictures.len() > 2 * CLIP_FRAME_RATE as usize && frames.len() > pictures.len(), "{} pictures", pictures.len());
    // The last one is not whole.
    let whole = &pictures[..pictures.len() - 1];
    assert_clip_over_and_over(whole.iter().map(|picture| picture.md5.as_str()));

    let log = daemon.log();
    assert_eq!((log.matches("are cut anew").count(), log.matches("IP fragments").count()), (1, 0), "{log}");
    let published = daemon.metric("wmrelay_source_packets_total", &[("point", "cam1")]);
    assert!(published > 0.0 && daemon.metric("wmrelay_source_invalid_packets_total", &[("point", "cam1")]) == 0.0);
}

#[test]
fn oversize_packets_go_out_as_they_are_where_the_settings_say_so() {
    if !ready("oversize_packets_go_out_as_they_are_where_the_settings_say_so", &[Program("ffmpeg")]) {
        return;
    }
    let daemon = Daemon::start(format!("[udp]\noversize = \"fragment\"\n{POINT}"));
    let _publisher = push_large(&daemon);
    let got = Got::play(&daemon, Some(4734), 20);
    assert!(got.longest == 3208 && !got.from_mms, "datagrams of {} bytes", got.longest);
    let log = daemon.log();
    assert_eq!((log.matches("are cut anew").count(), log.matches("IP fragments").count()), (0, 1), "{log}");
}
