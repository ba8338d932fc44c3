//! Delivery over UDP as a player sees it: order of answers and datagrams, leases, resends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use support::asf::Synthetic;
use support::daemon::Daemon;
use support::mms::{self, Control, Data, control, result_of};
use support::publisher::Publisher;
use support::viewer::{PLAYER, open_and_start, wait_for_source};
use support::{wait_for, wait_until};

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
        Some(mms::Incoming::Control { body, .. }) => result_of(&body),
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
