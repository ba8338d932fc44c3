//! `mms://host/name` as each player tries it: protocol after protocol, until one plays.
//!
//! The players themselves could not be had: what they send is from MS-RTSP, MS-MMSP and MS-WMSP, their orders from Microsoft's notes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::mms::{self, Control};
use support::viewer::{Viewer, open_and_start};

const MINUTE: Duration = Duration::from_secs(60);
/// A player that hears nothing waits for so long before it tries the next protocol, or longer.
const PATIENCE: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "a test that bounds a wait")]
fn now() -> Instant {
    Instant::now()
}

/// All that comes before the connection is closed.
fn answer(address: SocketAddr, request: &str, bytes: usize) -> Vec<u8> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(MINUTE)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < bytes {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    answer
}

/// RTSPU and RTSPT begin alike.
fn rtsp_is_over_at_once(address: SocketAddr, agent: &str) {
    let begun = now();
    let request = format!(
        "DESCRIBE rtsp://{address}/demo RTSP/1.0\r\nUser-Agent: {agent}\r\nAccept: application/sdp\r\nCSeq: 1\r\n\
         Supported: com.microsoft.wm.srvppair, com.microsoft.wm.sswitch\r\n\r\n"
    );
    let answer = answer(address, &request, usize::MAX);
    assert!(!answer.starts_with(b"RTSP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(begun.elapsed() < PATIENCE, "the player would have given up");
}

/// Windows Media's streaming protocol: Describe, then Play with the session that it told.
fn plays_over_http(address: SocketAddr, agent: &str) {
    let head = |tokens: &str| {
        format!(
            "GET /demo HTTP/1.0\r\nAccept: */*\r\nUser-Agent: {agent}\r\nHost: {address}\r\n\
             Pragma: no-cache,rate=1.000,stream-time=0,stream-offset=0:0,packet-num=4294967295,max-duration=0{tokens}\r\n\r\n"
        )
    };
    let described = answer(address, &head(""), usize::MAX);
    let text = String::from_utf8_lossy(&described);
    assert!(text.contains(" 200 OK\r\n") && text.contains("application/vnd.ms.wms-hdr.asfv1"), "{text:.600}");
    let client_id = text.split("client-id=").nth(1).unwrap().split([',', '\r']).next().unwrap();
    let played = answer(address, &head(&format!(",xPlayStrm=1,client-id={client_id}")), 30_000);
    let body = played.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let frames = &played[body..];
    assert!(frames.windows(2).filter(|two| two == b"$D").count() >= 5, "{:?}", String::from_utf8_lossy(&played[..body]));
}

/// Windows Media Player 6.4 to 8: MMSU, MMST, HTTP.
#[test]
fn the_oldest_players() {
    let daemon = Daemon::start("[udp]\nclient_ports = \"4901\"\n");
    let viewer = Viewer::udp(daemon.mms, "demo", 4901, None);
    viewer.wait_for_packets(5, MINUTE);
    drop(viewer);
    // Another port is refused, and the player takes TCP on the same connection.
    let mut control = Control::connect(daemon.mms);
    let udp = UdpSocket::bind((control.local(), 0)).unwrap();
    let port = udp.local_addr().unwrap().port();
    control.send(mms::CONNECT, &mms::connect_body("NSPlayer/4.1.0.3928"));
    control.expect(mms::CONNECTED, MINUTE);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\{}\\UDP\\{port}", control.local())));
    control.expect(mms::FUNNEL_REFUSED, MINUTE);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\{}\\TCP\\{port}", control.local())));
    control.expect(mms::FUNNEL_CONNECTED, MINUTE);
    open_and_start(&mut control, "demo", None);
    for address in [daemon.http, daemon.mms] {
        plays_over_http(address, "NSPlayer/4.1.0.3928");
    }
}

/// Windows Media Player 9 and 10: RTSPU, RTSPT, MMSU, MMST, HTTP.
#[test]
fn players_that_know_rtsp_and_mms() {
    let daemon = Daemon::start("");
    let agent = "WMPlayer/9.0.0.2980 guid/3300AD50-2C39-46C0-AE0A-70B64F321A80";
    for address in [daemon.mms, daemon.http] {
        rtsp_is_over_at_once(address, agent);
    }
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(5, MINUTE);
    // Where a proxy lets nothing but HTTP through.
    for address in [daemon.http, daemon.mms] {
        plays_over_http(address, "NSPlayer/9.0.0.2980 WMFSDK/9.0");
    }
}

/// Windows Media Player 11 and 12, Media Foundation: RTSP, then HTTP.
#[test]
fn players_that_have_forgotten_mms() {
    let daemon = Daemon::start("");
    for address in [daemon.mms, daemon.http] {
        rtsp_is_over_at_once(address, "WMPlayer/12.0.7601.17514");
        plays_over_http(address, "NSPlayer/12.00.7601.17514 WMFSDK/12.00.7601.17514");
    }
}
