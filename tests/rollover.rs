//! `mms://host/name` as each player tries it: protocol after protocol, until one plays.
//!
//! The players themselves could not be had: what they send is from MS-RTSP, MS-MMSP and MS-WMSP, their orders from Microsoft's notes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, Launch};
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

fn rtsp_request(address: SocketAddr, agent: &str, line: &str, headers: &str) -> String {
    format!(
        "{line} RTSP/1.0\r\nUser-Agent: {agent}\r\nCSeq: 1\r\n\
         Supported: com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.eosmsg\r\n{headers}\r\n"
    )
    .replace("URL", &format!("rtsp://{address}/demo"))
}

/// Where RTSP is not spoken, RTSPU and RTSPT begin alike, and end.
fn rtsp_is_over_at_once(address: SocketAddr, agent: &str) {
    let begun = now();
    let answer = answer(address, &rtsp_request(address, agent, "DESCRIBE URL", "Accept: application/sdp\r\n"), usize::MAX);
    assert!(!answer.starts_with(b"RTSP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(begun.elapsed() < PATIENCE, "the player would have given up");
}

/// One connection of Windows Media Player over RTSP.
struct Rtsp<'a> {
    link: Pipelined,
    address: SocketAddr,
    agent: &'a str,
    session: String,
}

impl<'a> Rtsp<'a> {
    fn open(address: SocketAddr, agent: &'a str) -> Self {
        let mut rtsp = Self { link: Pipelined::connect(address), address, agent, session: String::new() };
        let description = rtsp.ask("DESCRIBE URL", "Accept: application/sdp\r\n");
        assert!(description.starts_with("RTSP/1.0 200 "), "{description}");
        rtsp
    }

    fn ask(&mut self, line: &str, headers: &str) -> String {
        let request = rtsp_request(self.address, self.agent, line, &format!("{}{headers}", self.session));
        self.link.send(&request);
        let (head, _) = self.link.response();
        if let Some(id) = head.split("\r\nSession: ").nth(1).and_then(|rest| rest.split(';').next()) {
            self.session = format!("Session: {id}\r\n");
        }
        head
    }
}

/// RTSPU: lost packets are to be sent again, a test of the path, then media, all to ports of the player's. Source: MS-RTSP 4.
fn plays_over_rtspu(address: SocketAddr, agent: &str, port: u16) {
    let [resends, media] = [port, port + 2].map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap());
    let mut rtsp = Rtsp::open(address, agent);
    let udp = |ports: String| format!("Transport: RTP/AVP/UDP;unicast;client_port={ports};mode=PLAY\r\n");
    let told = rtsp.ask("SETUP URL/rtx", &udp(format!("{port}-{}", port + 1)));
    assert!(told.starts_with("RTSP/1.0 200 "), "{told}");
    let body = "type: high-entropy-packetpair";
    let headers = format!("Content-Type: application/x-rtsp-udp-packetpair;charset=UTF-8\r\nContent-Length: {}\r\n", body.len());
    let request = rtsp_request(address, agent, "SET_PARAMETER URL", &format!("{}{headers}", rtsp.session));
    rtsp.link.send(&format!("{request}{body}"));
    assert!(rtsp.link.response().0.starts_with("RTSP/1.0 200 "));
    let received = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(MINUTE)).unwrap();
        let mut buffer = [0; 2048];
        let (len, _) = socket.recv_from(&mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    assert_eq!([0; 3].map(|_| received(&resends).len()), [1470, 1471, 1472]);
    for stream in ["audio", "video"] {
        let told = rtsp.ask(&format!("SETUP URL/{stream}"), &udp((port + 2).to_string()));
        assert!(told.contains(&format!(";client_port={};", port + 2)), "{told}");
    }
    let playing = rtsp.ask("PLAY URL", "Range: npt=0.000-\r\n");
    let first: u16 = playing.split(";seq=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    for more in 0..20 {
        let packet = received(&media);
        assert_eq!(u16::from_be_bytes([packet[2], packet[3]]), first.wrapping_add(more), "{playing}");
    }
    assert!(rtsp.ask("TEARDOWN URL", "").starts_with("RTSP/1.0 200 "));
}

/// RTSPT: media between the responses.
fn plays_over_rtspt(address: SocketAddr, agent: &str) {
    let mut rtsp = Rtsp::open(address, agent);
    for stream in ["audio", "video"] {
        let told = rtsp.ask(&format!("SETUP URL/{stream}"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=PLAY\r\n");
        assert!(told.starts_with("RTSP/1.0 200 "), "{told}");
    }
    assert!(rtsp.ask("PLAY URL", "Range: npt=0.000-\r\n").starts_with("RTSP/1.0 200 "));
    for _ in 0..20 {
        let head = rtsp.link.take(4);
        assert_eq!(head[..2], *b"$\0");
        rtsp.link.take(usize::from(u16::from_be_bytes([head[2], head[3]])));
    }
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
    let agent = "WMPlayer/9.0.0.2980 guid/3300AD50-2C39-46C0-AE0A-70B64F321A80";
    let daemon = Daemon::start("");
    for (address, port) in [(daemon.rtsp, 3236), (daemon.mms, 3244)] {
        plays_over_rtspu(address, agent, port);
        plays_over_rtspt(address, agent);
    }
    // Where it is switched off, the next protocol has its turn.
    let quiet = Launch::new("").protocols(["[\"mms\"]", "[\"http\"]", "[\"rtsp\"]"]).start();
    for address in [quiet.mms, quiet.http] {
        rtsp_is_over_at_once(address, agent);
    }
    // Where the firewall opens too few ports, UDP is refused, and the player comes again.
    let narrow = Daemon::start("[udp]\nclient_ports = \"4000\"\n");
    let told = Rtsp::open(narrow.mms, agent).ask("SETUP URL/rtx", "Transport: RTP/AVP/UDP;unicast;client_port=3236-3237\r\n");
    assert!(told.starts_with("RTSP/1.0 461 "), "{told}");
    plays_over_rtspt(narrow.mms, agent);
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
        plays_over_rtspt(address, "WMPlayer/12.0.7601.17514");
        plays_over_http(address, "NSPlayer/12.00.7601.17514 WMFSDK/12.00.7601.17514");
    }
}

/// One connection of a player that sends requests behind each other, read response by response.
struct Pipelined {
    connection: TcpStream,
    unread: Vec<u8>,
}

impl Pipelined {
    fn connect(address: SocketAddr) -> Self {
        let connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(MINUTE)).unwrap();
        Self { connection, unread: Vec::new() }
    }

    fn send(&mut self, requests: &str) {
        self.connection.write_all(requests.as_bytes()).unwrap();
    }

    fn fill(&mut self) {
        let mut buffer = [0; 16 << 10];
        let count = self.connection.read(&mut buffer).unwrap();
        assert!(count > 0, "closed behind {:?}", String::from_utf8_lossy(&self.unread));
        self.unread.extend_from_slice(&buffer[..count]);
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.fill();
        }
        self.unread.drain(..count).collect()
    }

    /// A line with its end.
    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                return String::from_utf8(self.take(at + 2)).unwrap();
            }
            self.fill();
        }
    }

    /// The head of a response, and its body where that has a length.
    fn response(&mut self) -> (String, Vec<u8>) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &self.line();
        }
        let len = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let body = self.take(len.unwrap_or(0));
        (head, body)
    }

    /// A chunk; empty: the last one.
    fn chunk(&mut self) -> Vec<u8> {
        let line = self.line();
        let len = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let chunk = self.take(len);
        assert_eq!(self.take(2), b"\r\n");
        chunk
    }
}

/// Windows Media Player 12 over HTTP on one connection: Describe, the test of pipelining, Play, Log and Stop behind media, and Play
/// once more. Source: MS-WMSP 4.
#[test]
fn a_session_on_one_connection() {
    let daemon = Daemon::start("");
    let mut link = Pipelined::connect(daemon.http);
    let agent = "User-Agent: NSPlayer/12.00.7601.17514 WMFSDK/12.00.7601.17514\r\nHost: h\r\n\
                 Supported: com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.predstrm, com.microsoft.wm.startupprofile\r\n";
    let get = |tokens: &str| {
        format!("GET /demo HTTP/1.1\r\n{agent}Pragma: no-cache,rate=1.000,stream-time=0,stream-offset=0:0,{tokens}\r\n\r\n")
    };
    link.send(&get("version11-enabled=1,pipeline-experiment=1,packet-pair-experiment=1"));
    let (head, body) = link.response();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("pipeline-experiment=1"), "{head}");
    assert!(body.starts_with(b"$M") && body.windows(2).any(|two| two == b"$H"));
    let id = head.split("client-id=").nth(1).unwrap().split([',', '\r']).next().unwrap().to_owned();

    link.send(&get(&format!("pipeline-request=1,client-id={id}")).repeat(2));
    assert!(link.response().0.contains("Transfer-Encoding: chunked"));
    assert_eq!((link.chunk(), link.chunk()), (b"$T\0\0".to_vec(), Vec::new()));
    let (head, _) = link.response();
    assert!(head.starts_with("HTTP/1.1 204 ") && head.contains("pipeline-result=1"), "{head}");

    let play = get(&format!("xPlayStrm=1,version11-enabled=1,client-id={id},LinkBW=2147483647"));
    let post = |fields: &str, body: &str| {
        format!("POST /demo HTTP/1.1\r\n{agent}Pragma: client-id={id}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    for _ in 0..2 {
        link.send(&play);
        let (head, _) = link.response();
        assert!(head.contains("Transfer-Encoding: chunked") && head.contains("x-mms-framed"), "{head}");
        assert!(link.chunk().starts_with(b"$M"));
        assert!(link.chunk().starts_with(b"$H"));
        let mut last = None;
        for _ in 0..10 {
            let frame = link.chunk();
            assert_eq!(&frame[..2], b"$D", "one frame a chunk");
            let number = u32::from_le_bytes(frame[4..8].try_into().unwrap());
            assert!(last.is_none_or(|last| number == last + 1), "{last:?} {number}");
            last = Some(number);
        }
        // All of these are answered behind the media that runs, in their order.
        link.send(&post("Content-Type: application/x-wms-LogStats;charset=UTF-8\r\n", "<XML><Summary>x</Summary></XML>"));
        link.send(&format!("OPTIONS * HTTP/1.1\r\n{agent}Pragma: client-id={id}\r\n\r\n"));
        link.send(&post("Content-Type: application/x-wms-sendevent\r\n", "1\r\n1,28,0\r\n"));
        link.send(&post("Pragma: xStopStrm=1\r\n", ""));
        while !link.chunk().is_empty() {}
        let statuses: Vec<String> = (0..4).map(|_| link.response().0[9..12].to_owned()).collect();
        assert_eq!(statuses, ["204", "200", "200", "200"]);
    }
}
