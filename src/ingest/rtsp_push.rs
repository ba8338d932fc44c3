//! A publisher's connection over RTSP: its socket, its UDP ports, its engine, its feed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::feed::{Ended, Feed, FeedError, Tally};
use super::gate::{self, Denial, Gate};
use super::live_frames::OnAir;
use super::now;
use super::push::{GUESS_TIME, MAX_GUESSES, WRITE_TIME, refusal};
use super::rejected::Announced;
use super::stop::Stop;
use crate::asf::compose::CompositionError;
use crate::http::{PublishRequest, Refusal, Status};
use crate::relay::PublisherId;
use crate::relay::admission::canonical;
use crate::rtsp::publish::{self, Announcement, Answer, Ask, CloseReason, Connection, Input, NotAsf, Output, Publication};
use crate::rtsp::tracks::{Frame, Tracks, TracksError};
use crate::shard::Handed;

/// Bytes read at once. Few, as a source that runs ahead is held back by not reading.
const READ_BYTES: usize = 16 << 10;
/// Longest datagram.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Datagrams read in one turn.
const DATAGRAMS: usize = 64;
/// What the system keeps of datagrams while the feed holds the source back, bytes.
const AHEAD_BYTES: usize = 1 << 20;
/// Shortest RTP packet.
const RTP_HEAD_BYTES: usize = 12;
/// The longest time from the first frame to what viewers can begin with.
const FIRST_KEY_TIME: Duration = Duration::from_secs(30);
/// After so long without media it may come from another port.
const PORT_SILENCE: Duration = Duration::from_secs(2);
/// What an encoder is told whose pictures come in another order; the whole of it fits a status line.
const REORDERED: &str = "its pictures come in another order than they are shown in (B-frames): switch B-frames off in the encoder \
                         (ffmpeg: -bf 0), or let ffmpeg make ASF of it and publish that by HTTP";
/// Longest name, escaped, that a command for a status line has room for beside the longest address; a longer one stands in it as
/// `NAME`.
const NAME_CHARS: usize = 50;
/// Characters of what was announced that an answer repeats.
const KINDS_CHARS: usize = 60;
/// Why a publisher's stream ends with the daemon.
const STOPPED: &str = "the relay is being stopped";
/// And where it sends media of which nothing was taken on.
const NOTHING: &str = "it sends media that it has not announced";
/// Pairs of ports that are tried.
const PAIR_ATTEMPTS: usize = 64;

/// What publishers over RTSP may use, and are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// Whether there is UDP.
    pub(super) udp: bool,
    /// Where HTTP publishers go; nowhere where HTTP is switched off.
    pub(super) http_port: Option<u16>,
}

/// Serves a connection until it is closed.
pub(super) async fn serve(handed: Handed, is_tls: bool, gate: Arc<Gate>, ways: Ways, stop: Stop) {
    let Handed { stream, peer, local, head, .. } = handed;
    let peer = SocketAddr::new(canonical(peer.ip()), peer.port());
    let span = info_span!("publisher", %peer);
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(parent: &span, %error, "connection of a publisher cannot be taken over");
            return;
        }
    };
    let Ok(id) = getrandom::u32() else { return };
    let engine = Connection::new(now(), id, is_tls);
    let push = Push { stream, peer, local, gate, ways, engine, ports: Vec::new(), current: None, authorised: None, guesses: 0 };
    push.run(&head, stop).instrument(span).await;
}

struct Push {
    stream: TcpStream,
    peer: SocketAddr,
    /// The address that it connected to.
    local: SocketAddr,
    gate: Arc<Gate>,
    ways: Ways,
    engine: Connection,
    ports: Vec<Ports>,
    current: Option<Current>,
    /// Who may publish what is announced, which is read then.
    authorised: Option<(PublishRequest, PublisherId)>,
    /// Wrong credentials that came.
    guesses: u8,
}

/// The stream that the connection carries.
struct Current {
    feed: Feed,
    /// Makes ASF of frames, where those come.
    on_air: OnAir,
    /// When the first frame came.
    began: Option<Instant>,
    /// What was announced of the tracks; empty where there are none.
    parameters: String,
    name: String,
    id: PublisherId,
    since: Instant,
}

/// Where datagrams come in.
struct Ports {
    rtp: UdpSocket,
    /// The next port.
    reports: UdpSocket,
    /// The port that media comes from, and when it did last.
    from: Option<(u16, Instant)>,
}

impl Push {
    async fn run(mut self, head: &[u8], mut stop: Stop) {
        let mut buffer = vec![0; READ_BYTES];
        self.engine.handle(now(), Input::Bytes(head));
        let ended = loop {
            // The feed waits while its source runs ahead; that must not hold up the daemon's end.
            let done = tokio::select! {
                biased;
                () = stop.requested() => break Ended::wanted(STOPPED),
                done = self.drain() => done,
            };
            if let ControlFlow::Break(reason) = done {
                break reason;
            }
            let filled = self.current.as_ref().and_then(|current| current.on_air.poll_timeout());
            let deadline = [self.engine.poll_timeout(), filled].into_iter().flatten().min().map(Instant::from_std);
            let asleep = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let datagram = poll_fn(|context| {
                let sockets = self.ports.iter().flat_map(|ports| [&ports.rtp, &ports.reports]);
                // All of them are asked, so that each wakes this.
                let ready = sockets.filter(|socket| socket.poll_recv_ready(context).is_ready()).count();
                if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break Ended::failed("connection closed"),
                    Ok(count) => self.engine.handle(now(), Input::Bytes(buffer.get(..count).unwrap_or_default())),
                },
                () = datagram => self.datagrams(),
                () = asleep => {
                    self.engine.handle(now(), Input::Timeout);
                    if let Some(current) = &mut self.current {
                        current.on_air.handle_timeout(now());
                        if let Err(error) = current.send().await {
                            warn!(%error, "publisher's stream cannot go on");
                            break Ended::failed(error.to_string());
                        }
                    }
                }
                () = stop.requested() => break Ended::wanted(STOPPED),
            }
        };
        self.end(&ended);
        let reason = &*ended.reason;
        debug!(reason, "connection of a publisher closed");
    }

    /// Does what the engine wants done.
    async fn drain(&mut self) -> ControlFlow<Ended> {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send(bytes) => match timeout(WRITE_TIME, self.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return ControlFlow::Break(Ended::failed("connection broke")),
                },
                Output::Ask(Ask::Ports { pair }) => {
                    let port = self.bind(pair);
                    self.engine.handle(now(), Input::Answer(Answer::Port(port)));
                }
                Output::Ask(Ask::Authorise(publication)) => {
                    let decided = self.authorise(*publication);
                    self.tell(decided).await;
                }
                Output::Ask(Ask::Publish(announced)) => {
                    let decided = self.take_on(*announced).await;
                    self.tell(decided).await;
                }
                Output::Packets(packets) => {
                    let Some(current) = &mut self.current else { return ControlFlow::Break(Ended::failed(NOTHING)) };
                    if let Err(error) = current.feed.whole_packets(packets).await {
                        warn!(%error, "publisher's stream cannot go on");
                        return ControlFlow::Break(Ended::failed(error.to_string()));
                    }
                }
                Output::Frame(frame) => {
                    let (Some(current), Some(tracks)) = (&mut self.current, self.engine.tracks()) else {
                        return ControlFlow::Break(Ended::failed(NOTHING));
                    };
                    if let Err(error) = current.frame(tracks, &frame).await {
                        warn!(%error, "publisher's stream cannot go on");
                        return ControlFlow::Break(Ended::failed(error.to_string()));
                    }
                }
                Output::Report { pair, port, bytes } => {
                    if let Some(ports) = self.ports.get(pair) {
                        // What is lost of these is lost.
                        let _ = ports.reports.try_send_to(&bytes, SocketAddr::new(self.peer.ip(), port));
                    }
                }
                Output::Close(CloseReason::Frames(error)) => {
                    warn!(
                        %error,
                        "publisher's frames are of no use: ffmpeg publishes them with -bf 0, or makes ASF of them and publishes that by HTTP"
                    );
                    if let (TracksError::Reordered, Some(current)) = (&error, &self.current) {
                        // Nothing is heard of an answer while media is sent; what it announces next has one.
                        let Current { name: point, id, parameters, .. } = current;
                        let announced = Announced { point, id, peer: self.peer.ip(), parameters };
                        self.gate.reject(now(), &announced, REORDERED.to_owned());
                    }
                    let _ = self.stream.shutdown().await;
                    return ControlFlow::Break(Ended::failed(format!("its frames are of no use: {error}")));
                }
                Output::Close(reason) => {
                    // Fails where the peer is gone.
                    let _ = self.stream.shutdown().await;
                    return ControlFlow::Break(match reason {
                        CloseReason::Left => Ended::wanted("end of stream"),
                        CloseReason::Refused => Ended::failed("refused"),
                        CloseReason::Frames(error) => Ended::failed(error.to_string()),
                        CloseReason::Idle => Ended::failed("nothing heard in time"),
                        CloseReason::Protocol => Ended::failed("not RTSP, or broken RTSP"),
                    });
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Tells the engine what was decided; who guesses passwords has to wait.
    async fn tell(&mut self, decided: Result<(), Denial>) {
        let answer = match decided {
            Ok(()) => Answer::Accept,
            Err(Denial::Other(refusal)) => Answer::Refuse(in_rtsp(refusal, false)),
            Err(Denial::WrongCredentials(refusal)) => {
                self.guesses += 1;
                sleep(GUESS_TIME).await;
                Answer::Refuse(in_rtsp(refusal, self.guesses >= MAX_GUESSES))
            }
        };
        self.engine.handle(now(), Input::Answer(answer));
    }

    /// Finds out who wants to publish. What that one announces nobody has read yet.
    fn authorise(&mut self, publication: Publication) -> Result<(), Denial> {
        let Publication { method, target, name, authorization, via_proxy, user_agent } = publication;
        let third_party = via_proxy.then_some("Via");
        let request = PublishRequest {
            method,
            target,
            name,
            authorization,
            third_party,
            user_agent,
            empty: false,
            push: None,
            push_id: None,
            takes_basic: true,
        };
        let id = self.gate.authorise(now(), self.peer.ip(), &request).inspect_err(|denial| {
            let (Denial::WrongCredentials(refusal) | Denial::Other(refusal)) = denial;
            if request.authorization.is_none() && refusal.status == Status::Unauthorized {
                // The first round of Digest is no refusal that anybody needs to hear of.
                info!(point = request.name, "publisher is asked for credentials");
            } else {
                note(refusal);
            }
        })?;
        self.authorised = Some((request, id));
        Ok(())
    }

    /// Takes a stream on, or another header of it.
    async fn take_on(&mut self, announced: Result<Announcement, NotAsf>) -> Result<(), Denial> {
        let decided = match self.authorised.take() {
            Some((request, id)) => self.begin(&request, id, announced).await,
            None => Err(Refusal::new(Status::Forbidden, "Nobody was authorised.")),
        };
        decided.inspect_err(note).map_err(Denial::from)
    }

    async fn begin(
        &mut self,
        request: &PublishRequest,
        id: PublisherId,
        announced: Result<Announcement, NotAsf>,
    ) -> Result<(), Refusal> {
        let announced = announced.map_err(|why| self.not_asf(&request.name, why))?;
        if let Announcement::Tracks { parameters, .. } = &announced
            && let Some(refusal) =
                self.gate.was_rejected(now(), &Announced { point: &request.name, id: &id, peer: self.peer.ip(), parameters })
        {
            return Err(refusal);
        }
        let goes_on = self.current.as_ref().is_some_and(|current| current.name == request.name && current.id == id);
        if !goes_on {
            // What runs goes on where the other one cannot be had.
            let publisher = self.gate.claim(now(), &request.name, id.clone(), None)?;
            self.end(&Ended::wanted("another stream follows on its connection"));
            let agent = request.user_agent.as_deref().unwrap_or_default();
            info!(point = request.name, id = ?id, agent, protocol = "rtsp", "publisher begins");
            let (feed, name, on_air) = (Feed::new(publisher), request.name.clone(), OnAir::new());
            let (parameters, since) = (String::new(), Instant::now());
            self.current = Some(Current { feed, on_air, began: None, parameters, name, id, since });
        }
        if let Some(current) = self.current.as_mut().filter(|_| goes_on) {
            // What was made of the tracks before is none of these.
            current.on_air = OnAir::new();
            current.began = None;
        }
        let taken = match (&mut self.current, announced) {
            (Some(current), Announcement::Asf(header)) => current.feed.header(header).await,
            (current, Announcement::Tracks { parameters, left_out }) => {
                if let Some(current) = current {
                    current.parameters = parameters;
                }
                if !left_out.is_empty() {
                    warn!(left_out, "a part of what is published is left out");
                }
                Ok(())
            }
            (None, _) => Ok(()),
        };
        taken.map_err(|error: FeedError| {
            let refusal = refusal(&error);
            self.end(&Ended::failed(refusal.text.clone()));
            refusal
        })
    }

    /// Why a description is not taken, and what would be.
    fn not_asf(&self, name: &str, why: NotAsf) -> Refusal {
        let kinds = match why {
            NotAsf::Unsound(text) => return Refusal::new(Status::BadRequest, format!("{text}.")),
            NotAsf::Other(kinds) => kinds,
        };
        let http = self.ways.http_port.map(|port| SocketAddr::new(self.local.ip().to_canonical(), port));
        Refusal::new(Status::UnsupportedMediaType, way_of_others(http, name, &kinds))
    }

    /// The port for RTP of a pair, bound with the next one where the publisher connected to.
    fn bind(&mut self, pair: usize) -> Option<u16> {
        if !self.ways.udp {
            return None;
        }
        if pair == self.ports.len() {
            self.ports.extend((0..PAIR_ATTEMPTS).find_map(|_| Ports::bind(self.local).ok()));
        }
        let local = self.ports.get(pair).and_then(|ports| ports.rtp.local_addr().ok());
        if local.is_none() {
            warn!("no pair of UDP ports is free for a publisher; it may take TCP");
        }
        local.map(|local| local.port())
    }

    /// Takes in what has come to the ports.
    fn datagrams(&mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let records = self.engine.records();
        for (pair, ports) in self.ports.iter_mut().enumerate() {
            for is_rtcp in [true, false] {
                for _ in 0..DATAGRAMS {
                    let socket = if is_rtcp { &ports.reports } else { &ports.rtp };
                    let Ok((bytes, from)) = socket.try_recv_from(&mut buffer) else { break };
                    if canonical(from.ip()) != self.peer.ip() || !records {
                        continue;
                    }
                    let bytes = buffer.get(..bytes).unwrap_or_default();
                    if is_rtcp {
                        self.engine.handle(now(), Input::Datagram { pair, is_rtcp, bytes });
                        continue;
                    }
                    // The first RTP packet says where media comes from; after a silence another may.
                    let is_rtp = bytes.len() >= RTP_HEAD_BYTES && bytes.first().is_some_and(|first| first >> 6 == 2);
                    let heard = ports.from.filter(|(_, at)| at.elapsed() < PORT_SILENCE);
                    if is_rtp && heard.is_none_or(|(port, _)| port == from.port()) {
                        ports.from = Some((from.port(), Instant::now()));
                        self.engine.handle(now(), Input::Datagram { pair, is_rtcp, bytes });
                    }
                }
            }
        }
    }

    /// The stream is over, if there is one.
    fn end(&mut self, ended: &Ended) {
        let Some(Current { feed, name, since, .. }) = self.current.take() else { return };
        ended.note(&feed);
        let reason = &*ended.reason;
        let Tally { bytes, packets, invalid } = feed.tally;
        let (seconds, losses) = (since.elapsed().as_secs(), self.engine.losses());
        info!(point = name, seconds, bytes, packets, invalid, lost = losses.missing, reason, "publisher ended");
    }
}

impl Current {
    /// Takes a frame in; returns when more may follow.
    async fn frame(&mut self, tracks: &Tracks, frame: &Frame) -> Result<(), FrameRefusal> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if !self.on_air.wants(tracks, frame) {
            return if began.elapsed() > FIRST_KEY_TIME { Err(FrameRefusal::NoBegin) } else { Ok(()) };
        }
        if let Some((before, header)) = self.on_air.begin(tracks, frame)? {
            if !before.is_empty() {
                self.feed.whole_packets(before).await?;
            }
            self.feed.header(header).await?;
        }
        self.on_air.push(now(), frame);
        self.send().await
    }

    /// Hands on the packets that are full.
    async fn send(&mut self) -> Result<(), FrameRefusal> {
        let packets = self.on_air.take();
        if !packets.is_empty() {
            self.feed.whole_packets(packets).await?;
        }
        Ok(())
    }
}

/// Why frames do not go on.
#[derive(Debug, thiserror::Error)]
enum FrameRefusal {
    #[error("within 30 s nothing came that viewers could begin with: a key frame, and a frame of each track that was announced")]
    NoBegin,
    #[error(transparent)]
    Composition(#[from] CompositionError),
    #[error(transparent)]
    Feed(#[from] FeedError),
}

impl Ports {
    fn bind(local: SocketAddr) -> io::Result<Self> {
        let bind = |port| -> io::Result<UdpSocket> {
            let mut address = local;
            address.set_port(port);
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(AHEAD_BYTES);
            UdpSocket::from_std(socket)
        };
        let rtp = bind(0)?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 1 {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Self { reports: bind(port + 1)?, rtp, from: None })
    }
}

/// For the metrics and the log.
fn note(refusal: &Refusal) {
    gate::count(refusal);
    warn!(status = refusal.status.code(), reason = refusal.text, "publisher refused");
}

/// A refusal in RTSP's words.
fn in_rtsp(refusal: Refusal, last: bool) -> publish::Refusal {
    let Refusal { status, text, challenges, retry_after, .. } = refusal;
    let status = match status {
        // Somebody else publishes there. Source: RFC 2326 11.3.6.
        Status::Conflict => 455,
        Status::TooManyRequests => 503,
        status => status.code(),
    };
    publish::Refusal { status, text, challenges, retry_after_s: retry_after.map(|time| time.as_secs()), last }
}

/// What publishers of other codecs are told. The first line alone is the status line, which is cut behind 200 characters: the way out
/// stands in front. `http` is where HTTP publishers go.
fn way_of_others(http: Option<SocketAddr>, name: &str, kinds: &str) -> String {
    let mut escaped = kinds.escape_debug();
    let mut kinds: String = escaped.by_ref().take(KINDS_CHARS).collect();
    if escaped.next().is_some() {
        kinds.push_str("...");
    }
    let taken = "RTSP publishes Windows Media streams (x-asf-pf), H.264, JPEG, AAC and G.711 here";
    let Some(host) = http else {
        return format!(
            "Others come as ASF by HTTP, which is switched off here: [http] listen in the server's settings\n{taken}, and this is {kinds}."
        );
    };
    let name =
        Some(crate::text::percent_encode(name)).filter(|name| name.len() <= NAME_CHARS).unwrap_or_else(|| "NAME".to_owned());
    format!(
        "Publish by HTTP: ffmpeg -i SOURCE -c copy -packet_size 1400 -f asf_stream -method POST http://{host}/publish/{name}\n\
         {taken}, and this is {kinds}. ffmpeg makes ASF of it and publishes that by HTTP with the command above (for Windows Media \
         Player, which knows neither H.264 nor AAC before version 12: -c:v wmv2 -c:a wmav2 instead of -c copy)."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_fits_a_status_line_whatever_was_announced() {
        let longest = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let (long, fits) = ("x".repeat(500), "n".repeat(NAME_CHARS));
        for (host, name, kinds, url) in [
            ("127.0.0.1:8080", "cam1", "VP8", "http://127.0.0.1:8080/publish/cam1".to_owned()),
            (longest, fits.as_str(), long.as_str(), format!("http://{longest}/publish/{fits}")),
            (longest, long.as_str(), "a\r\nb", format!("http://{longest}/publish/NAME")),
        ] {
            let text = way_of_others(Some(host.parse().unwrap()), name, kinds);
            let (first, rest) = text.split_once('\n').unwrap();
            assert!(first.len() <= 200 && first.starts_with("Publish by HTTP: ffmpeg "), "{first}");
            assert!(first.ends_with(&format!(" -f asf_stream -method POST {url}")), "{first}");
            assert!(!rest.contains(['\r', '\n']) && text.len() < 800, "{rest}");
        }
        assert!(way_of_others(None, "cam1", "VP8").contains(", and this is VP8."));
        let off = way_of_others(None, "cam1", &long);
        assert!(off.lines().next().is_some_and(|first| first.len() <= 200 && first.contains("[http] listen")), "{off}");
        assert!(off.ends_with("xxx...."), "{off}");
    }

    #[test]
    fn b_frames_fit_a_status_line() {
        assert!(REORDERED.len() < 200, "{}", REORDERED.len());
    }
}
