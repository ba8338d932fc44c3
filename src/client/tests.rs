//! `play` over loopback sockets, against a server that is little more than its engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::connection::now;
use super::{PlayError, PlayOptions, PlayReport, play, play_observed};
use crate::mms::media::{HEAD_LEN, Next, Track, stamp, wrap};
use crate::mms::session::{Config, Input, Output, Session, Transport};
use crate::mms::testing::description;
use crate::playing::{ClientEvent, StartAt};
use crate::settings::PortRanges;
use crate::viewing::{Answer, Ask, OpenRefusal};
use crate::wire::Hresult;

const PACKETS: u32 = 300;
const SIZE: usize = 1400;

/// What the server does to its viewer.
#[derive(Clone, Copy, Default)]
struct Manners {
    udp_refused: Option<Hresult>,
    /// Each first sending of a packet whose number is a multiple of this is lost; 0: none.
    lose_every: u32,
    /// No datagram goes out at all.
    firewall: bool,
    /// It closes the connection rather than send a datagram.
    hangs_up: bool,
    /// The broadcast ends after its packets; else the viewer has to leave.
    ends: bool,
}

/// A server for some connections, one behind the other, at an address that is its own.
struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
}

impl Server {
    async fn bind() -> Self {
        loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            // Somebody else may have the UDP port of that number.
            if let Ok(udp) = UdpSocket::bind(address).await {
                return Self { tcp, udp, address };
            }
        }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/live", self.address)
    }

    /// Serves one connection to its end; what the session knew at that time.
    async fn serve(&self, manners: Manners, redirect: Option<String>) -> Session {
        let (stream, peer) = self.tcp.accept().await.unwrap();
        let session = Session::new(now(), Arc::new(Config::default()), 0xC0FFEE);
        let mut viewer = Viewer {
            server: self,
            stream,
            peer,
            session,
            manners,
            redirect,
            track: Track::new(),
            next: Next::default(),
            port: 0,
        };
        viewer.serve().await;
        viewer.session
    }
}

struct Viewer<'a> {
    server: &'a Server,
    stream: TcpStream,
    peer: SocketAddr,
    session: Session,
    manners: Manners,
    redirect: Option<String>,
    track: Track,
    next: Next,
    port: u16,
}

impl Viewer<'_> {
    async fn serve(&mut self) {
        let (mut bytes, mut datagram) = (vec![0; 4096], vec![0; 2048]);
        loop {
            while let Some(output) = self.session.poll_output() {
                match output {
                    Output::Send(bytes) => drop(self.stream.write_all(&bytes).await),
                    Output::Datagram(_) if self.manners.hangs_up => return,
                    Output::Datagram(bytes) => self.send(&bytes).await,
                    Output::Ask(ask) => self.grant(ask).await,
                    Output::Close(_) => return,
                }
            }
            let deadline = self.session.poll_timeout().unwrap();
            tokio::select! {
                read = self.stream.read(&mut bytes) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(n) => self.session.handle(now(), Input::Bytes(&bytes[..n])).unwrap(),
                },
                received = self.server.udp.recv_from(&mut datagram) => {
                    let (n, from) = received.unwrap();
                    assert_eq!(from.ip(), self.peer.ip());
                    self.session.handle(now(), Input::Datagram(&datagram[..n])).unwrap();
                }
                () = tokio::time::sleep_until(deadline.into()) => self.session.handle(now(), Input::Timeout).unwrap(),
            }
        }
    }

    async fn grant(&mut self, ask: Ask) {
        let answer = match ask {
            Ask::Admit(_) => Answer::Admitted(Ok(())),
            Ask::ClaimPort { port, announced } => {
                assert_eq!(announced, Some(self.peer.ip()));
                self.port = port;
                Answer::Funnel(self.manners.udp_refused.map_or(Ok(()), Err))
            }
            Ask::Open { name, .. } => {
                assert_eq!(name, "live");
                Answer::Opened(match self.redirect.take() {
                    Some(location) => Err(OpenRefusal::Redirect(location)),
                    None => Ok(description()),
                })
            }
            Ask::Play { incarnation } => {
                self.track.start(&mut self.next, incarnation);
                self.send_all().await;
                if !self.manners.ends {
                    return;
                }
                Answer::Ended
            }
            Ask::Resend { sequences } => {
                for sequence in sequences {
                    let sent = self.track.lookup(&self.next, sequence).unwrap();
                    let packet = [sent.head(SIZE).bytes().as_slice(), &content(sent.packet)].concat();
                    self.send(&packet).await;
                }
                return;
            }
            Ask::Incarnation { .. } | Ask::ReleasePort | Ask::Stop | Ask::Select(_) | Ask::PlayFile { .. } => return,
            Ask::AwaitsPublisher { .. }
            | Ask::OpenBytes { .. }
            | Ask::SendBytes { .. }
            | Ask::Rest
            | Ask::Lease(_)
            | Ask::Resume { .. } => {
                unreachable!("of other protocols")
            }
        };
        self.session.handle(now(), Input::Answer(answer)).unwrap();
    }

    async fn send_all(&mut self) {
        for number in 0..u64::from(PACKETS) {
            let Next { sequence, incarnation, .. } = self.next;
            let mut image = Vec::new();
            wrap(&content(number), SIZE, [u32::try_from(number).unwrap()], &mut image);
            stamp(&mut image, HEAD_LEN + SIZE, incarnation, sequence);
            self.next.advance(1);
            if self.session.transport() == Some(Transport::Tcp) {
                self.stream.write_all(&image).await.unwrap();
            } else if self.manners.lose_every == 0 || !sequence.is_multiple_of(self.manners.lose_every) {
                self.send(&image).await;
                // The viewer reads on the same thread, and its socket has room for a part of them only.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn send(&self, datagram: &[u8]) {
        if !self.manners.firewall {
            self.server.udp.send_to(datagram, (self.peer.ip(), self.port)).await.unwrap();
        }
    }
}

fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![9; SIZE];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Ports that other tests of this process do not use at the same time.
fn options(url: &str, first_port: u16) -> PlayOptions {
    PlayOptions { ports: PortRanges(vec![first_port..=first_port + 9]), ..PlayOptions::new(url.parse().unwrap()) }
}

/// Plays, checks each packet, and stops when all have come.
async fn watch(options: PlayOptions) -> Result<PlayReport, PlayError> {
    let (all_there, all_seen) = tokio::sync::oneshot::channel::<()>();
    let mut all_there = Some(all_there);
    let stop = async move {
        // Without a sender there is nothing to wait for.
        if all_seen.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    play_observed(options, stop, move |event, stats| {
        if let ClientEvent::Packet { location, bytes, .. } = event {
            assert_eq!(bytes, &Bytes::from(content(u64::from(*location))));
        }
        if stats.packets == u64::from(PACKETS) {
            all_there.take().map(|sender| sender.send(()));
        }
    })
    .await
}

#[tokio::test]
async fn over_tcp_until_we_leave() {
    let server = Server::bind().await;
    let options = options(&server.url("mmst"), 2500);
    let (session, report) = tokio::join!(server.serve(Manners::default(), None), watch(options));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets, report.gaps, report.port), ("tcp", 300, 0, None));
    assert_eq!(report.ended_by, "stopped");
    assert!(report.first_packet_ms.is_some());
    assert_eq!(session.report().log.as_ref().unwrap().packets_received, 300, "we said how it was");
}

#[tokio::test]
async fn over_udp_with_resends_until_the_end() {
    let server = Server::bind().await;
    let options = options(&server.url("mmsu"), 2510);
    let manners = Manners { lose_every: 10, ends: true, ..Manners::default() };
    let (_, report) = tokio::join!(server.serve(manners, None), watch(options));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets, report.lost), ("udp", 300, 0), "{report:?}");
    assert!(report.gaps >= 30 && report.recovered == report.gaps && report.resend_requests > 0, "{report:?}");
    assert!(report.port.is_some_and(|port| (2510..2520).contains(&port)));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["packets"], &json["transport"]), (&300.into(), &"udp".into()));
}

/// As servers do that are told by ICMP that nobody gets what they send.
#[tokio::test]
async fn a_close_before_the_first_packet_is_an_end_of_udp() {
    let server = Server::bind().await;
    let hangs_up = Manners { hangs_up: true, ..Manners::default() };
    let serves = async {
        server.serve(hangs_up, None).await;
        server.serve(Manners { ends: true, ..Manners::default() }, None).await
    };
    let (_, report) = tokio::join!(serves, watch(options(&server.url("mms"), 2680)));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets), ("tcp", 300));
    assert!(report.udp_refused.as_deref().is_some_and(|why| why.contains("before anything came by UDP")), "{report:?}");
    // Who wants UDP alone is told.
    let (_, report) = tokio::join!(server.serve(hangs_up, None), watch(options(&server.url("mmsu"), 2680)));
    assert!(report.is_err(), "{report:?}");
}

#[tokio::test]
async fn refused_udp_falls_back_on_the_same_connection() {
    let server = Server::bind().await;
    let manners = Manners { udp_refused: Some(Hresult::INVALID_PORT), ends: true, ..Manners::default() };
    let (session, report) = tokio::join!(server.serve(manners, None), watch(options(&server.url("mms"), 2520)));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets), ("tcp", 300));
    assert_eq!(report.udp_refused.as_deref(), Some("0xC00D0043 (UDP port not allowed)"));
    assert_eq!(session.report().refused_funnels, 1);
    assert_eq!(report.ended_by, "the stream ended");
    // Who asks for UDP, but not by the URL, would rather have TCP than nothing.
    let with = |scheme, transport| PlayOptions { transport: Some(transport), ..options(&server.url(scheme), 2520) };
    let (_, report) = tokio::join!(server.serve(manners, None), watch(with("mms", Transport::Udp)));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets), ("tcp", 300));
    assert_eq!(report.udp_refused.as_deref(), Some("0xC00D0043 (UDP port not allowed)"));
    // Who asks for TCP is never asked for a port.
    let (session, report) = tokio::join!(server.serve(manners, None), watch(with("mms", Transport::Tcp)));
    assert_eq!((report.unwrap().transport, session.report().refused_funnels), ("tcp", 0));
    // Who insists on UDP gets none.
    for options in [options(&server.url("mmsu"), 2520), with("mmsu", Transport::Udp)] {
        let (_, report) = tokio::join!(server.serve(manners, None), watch(options));
        assert!(report.unwrap_err().to_string().contains("the data path refused: 0xC00D0043"));
    }
}

#[tokio::test]
async fn dropped_datagrams_fall_back_on_a_new_connection() {
    let server = Server::bind().await;
    let manners = Manners { firewall: true, ends: true, ..Manners::default() };
    let serve = async {
        server.serve(manners, None).await;
        server.serve(manners, None).await
    };
    let (_, report) = tokio::join!(serve, watch(options(&server.url("mms"), 2530)));
    let report = report.unwrap();
    assert_eq!((report.transport, report.packets), ("tcp", 300));
    assert!(report.udp_refused.is_some(), "{report:?}");
}

#[tokio::test]
async fn taken_ports() {
    let server = Server::bind().await;
    let held = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let with = |scheme| PlayOptions { ports: PortRanges(vec![port..=port]), ..options(&server.url(scheme), 1) };
    let manners = Manners { ends: true, ..Manners::default() };
    let (_, report) = tokio::join!(server.serve(manners, None), watch(with("mmsu")));
    assert!(matches!(report, Err(PlayError::NoPort { first, last }) if (first, last) == (port, port)));
    let (_, report) = tokio::join!(server.serve(manners, None), watch(with("mms")));
    assert_eq!(report.unwrap().transport, "tcp", "plays all the same where the URL leaves the choice");
}

#[tokio::test]
async fn redirects_are_followed() {
    let (first, second) = (Server::bind().await, Server::bind().await);
    let manners = Manners { ends: true, ..Manners::default() };
    let (there, options) = (second.url("mmst"), options(&first.url("mmst"), 2560));
    let (_, _, report) =
        tokio::join!(first.serve(manners, Some(there.clone())), second.serve(manners, None), watch(options.clone()));
    assert_eq!(report.unwrap().url, there);
    let (_, report) = tokio::join!(first.serve(manners, Some("https://a/b".into())), watch(options));
    assert!(matches!(report, Err(PlayError::Redirect { .. })));
}

#[tokio::test]
async fn time_is_up() {
    let server = Server::bind().await;
    let options = PlayOptions {
        duration: Some(Duration::from_millis(300)),
        transport: Some(Transport::Udp),
        ..options(&server.url("mms"), 2570)
    };
    let (_, report) = tokio::join!(server.serve(Manners::default(), None), play(options));
    let report = report.unwrap();
    assert_eq!((report.transport, report.ended_by.as_str()), ("udp", "stopped"));
}

#[tokio::test]
async fn nobody_there_and_silent_closers() {
    let server = Server::bind().await;
    let options = options(&server.url("mmst"), 2580);
    let accept = async { drop(server.tcp.accept().await.unwrap()) };
    let ((), report) = tokio::join!(accept, play(options.clone()));
    let text = report.unwrap_err().to_string();
    assert!(text.contains("closed the connection") || text.contains("socket"), "{text}");
    drop(server);
    let text = play(options).await.unwrap_err().to_string();
    assert!(text.starts_with("connecting to 127.0.0.1 port"), "{text}");
}

#[tokio::test]
async fn a_seek_while_it_plays() {
    let server = Server::bind().await;
    let options =
        PlayOptions { seek_after: Some((Duration::ZERO, StartAt::Time { s: 5.0 })), ..options(&server.url("mmst"), 2590) };
    let (there, is_there) = tokio::sync::oneshot::channel::<()>();
    let (mut there, mut starts, mut before) = (Some(there), 0, 0);
    let watch = play_observed(options, async { is_there.await.unwrap() }, |event, stats| match event {
        ClientEvent::Starting => (starts, before) = (starts + 1, stats.packets),
        ClientEvent::Packet { .. } if starts == 2 && stats.packets > before => drop(there.take().map(|there| there.send(()))),
        _ => {}
    });
    let (_, report) = tokio::join!(server.serve(Manners::default(), None), watch);
    let report = report.unwrap();
    assert_eq!((starts, report.live, report.duration_s, report.first_location), (2, true, 0.0, Some(0)), "{report:?}");
    assert_eq!(report.ended_by, "stopped");
}
