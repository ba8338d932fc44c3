//! A camera, or whatever else speaks plain RTSP, whose pictures and sound ASF carries as they are: without a child process.
//!
//! [`crate::rtsp::camera`] holds the conversation and gives frames, [`crate::asf::compose`] makes packets of them. What this file adds
//! is sockets, time, and the decision when there is enough to begin with.

mod ports;

use std::sync::Arc;

use metrics::{Counter, counter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{Instrument as _, error, info, info_span, warn};

use super::back_off::BackOff;
use super::byte_rate::ByteRate;
use super::feed::Feed;
use super::lent::{Failed, Tenure};
use super::live_frames::OnAir;
use super::now;
use super::stop::Stop;
use crate::client::{DEFAULT_RTSP_PORT, StreamUrl};
use crate::metrics::{CAMERA_CONNECTS, CAMERA_LOST_PACKETS, point_label};
use crate::relay::{Loan, Point, PublisherId};
use crate::rtsp::camera::{Camera, CameraConfig, CameraOutput};
use crate::settings::{FOREVER, Start};
use crate::text::Login;
use ports::Ports;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Time for a connection, and for each request to leave.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// While a camera is held back, the relay hears so often that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// The longest time from its first frame to the key frame that viewers can begin with.
const FIRST_KEY_TIME: Duration = Duration::from_secs(30);

/// What to connect to, and when.
pub(super) struct Source {
    pub(super) url: String,
    pub(super) login: Option<Login>,
    pub(super) udp: bool,
    pub(super) start: Start,
    pub(super) linger: Duration,
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// Nobody watches any more.
    Unwatched,
    /// The daemon stops.
    Stopped,
    /// It ended, or could not be had.
    Failed(String),
}

/// Connects, again and again, until the daemon stops.
pub(super) async fn run(point: Arc<Point>, source: Source, stop: Stop) {
    let span = info_span!("camera", point = point.name());
    let tenure = Tenure::new(point, source.start, None);
    begin(tenure, source, stop, None).instrument(span).await;
}

/// The same for a publishing point that is lent, until it has gone back. `failed` hears why a camera brings nothing at all.
pub(super) async fn run_lent(loan: Loan, source: Source, stop: Stop, failed: Failed) {
    let span = info_span!("camera", point = loan.point().name(), name = loan.name());
    let tenure = Tenure::new(Arc::clone(loan.point()), source.start, Some(loan));
    begin(tenure, source, stop, Some(failed)).instrument(span).await;
}

async fn begin(mut tenure: Tenure, mut source: Source, mut stop: Stop, failed: Option<Failed>) {
    let url: StreamUrl = match source.url.parse() {
        Ok(url) => url,
        Err(error) => {
            error!(%error, "cannot be connected; correct `url` in the settings");
            tenure.point().source_failed(now(), &format!("its URL is none: {error}; correct `url` in the settings"));
            if let Some(failed) = failed {
                failed("its URL is none");
                tenure.point().end();
                // Until it has gone back.
                tokio::select! {
                    _ = tenure.rests(FOREVER) => {}
                    () = stop.requested() => {}
                }
            }
            return;
        }
    };
    source.login = source.login.or_else(|| url.login.clone());
    let point = Arc::clone(tenure.point());
    let mut session = Session { tenure, point, url, source, has_played: false, played: Duration::ZERO };
    let mut back_off = BackOff::new();
    loop {
        tokio::select! {
            runs = session.tenure.begins() => if !runs { return },
            () = stop.requested() => return,
        }
        (session.has_played, session.played) = (false, Duration::ZERO);
        let begun = Instant::now();
        let end = session.run_once(&mut stop).await;
        session.count(&end);
        let reason = match end {
            End::Stopped => return,
            End::Unwatched => {
                info!("left, nobody watches");
                back_off = BackOff::new();
                continue;
            }
            End::Failed(reason) => reason,
        };
        back_off.played(session.played);
        let wait = back_off.after(begun.elapsed());
        warn!(url = %session.url, reason, retry_s = wait.as_secs_f32(), "ended");
        session.point.source_failed(now(), &reason);
        // A viewer named it, and may have named what is not: nobody is to wait for it.
        if let Some(failed) = failed.as_ref().filter(|_| session.point.generation().is_none()) {
            failed(&reason);
            session.point.end();
        }
        tokio::select! {
            again = session.tenure.rests(wait) => if !again { return },
            () = stop.requested() => return,
        }
    }
}

struct Session {
    tenure: Tenure,
    point: Arc<Point>,
    url: StreamUrl,
    source: Source,
    /// Something went to viewers.
    has_played: bool,
    /// For how long it did.
    played: Duration,
}

impl Session {
    /// One connection.
    async fn run_once(&mut self, stop: &mut Stop) -> End {
        let publisher = match self.point.publish(now(), PublisherId::BuiltIn) {
            Ok(publisher) => publisher,
            Err(refusal) => return End::Failed(refusal.to_string()),
        };
        let mut feed = Feed::new(publisher);
        // It is on its own time, which is held to ours.
        feed.pace(false);
        let (mut watched, linger) = (self.tenure.watched(), self.source.linger);
        let end = tokio::select! {
            reason = self.converse(&mut feed) => End::Failed(reason),
            () = watched.end(linger) => End::Unwatched,
            () = stop.requested() => End::Stopped,
        };
        if matches!(end, End::Unwatched) {
            feed.end();
        }
        end
    }

    /// Connects and plays; returns why that is over.
    async fn converse(&mut self, feed: &mut Feed) -> String {
        info!(url = %self.url, transport = if self.source.udp { "udp" } else { "tcp" }, "connects");
        let connecting = TcpStream::connect((self.url.host.as_str(), self.url.port));
        let stream = match timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return format!("no connection: {error}"),
            Err(_) => return format!("no connection within {} s", CONNECT_TIME.as_secs()),
        };
        // Requests are small, and each waits for its answer.
        let _ = stream.set_nodelay(true);
        let ports = match (self.source.udp, stream.local_addr(), stream.peer_addr()) {
            (false, ..) => None,
            (true, Ok(local), Ok(peer)) => match Ports::bind(local.ip(), peer.ip()).await {
                Ok(ports) => Some(ports),
                Err(error) => return format!("no ports for its datagrams: {error}"),
            },
            (true, ..) => return "the connection was gone at once".into(),
        };
        let mut salt = [0; 8];
        if getrandom::fill(&mut salt).is_err() {
            return "no random numbers for its login".into();
        }
        let config = CameraConfig {
            url: plain_url(&self.url),
            login: self.source.login.clone(),
            user_agent: concat!("wmrelay/", env!("CARGO_PKG_VERSION")).into(),
            ports: ports.as_ref().map(Ports::numbers),
            salt,
        };
        let camera = Camera::new(now(), config);
        let missing = counter!(CAMERA_LOST_PACKETS, "point" => point_label(self.point.name()));
        let (on_air, byte_rate) = (OnAir::new(), ByteRate::new());
        let mut talk = Talk { stream, ports, camera, on_air, byte_rate, began: None, on_air_since: None, lost: 0, missing };
        let reason = talk.run(feed).await.err().unwrap_or_else(|| "it closed the connection".into());
        self.has_played = talk.on_air.is_on();
        self.played = talk.on_air_since.map_or(Duration::ZERO, |since| since.elapsed());
        reason
    }

    fn count(&self, end: &End) {
        let result = match end {
            End::Failed(_) if !self.has_played => "failed",
            End::Failed(_) | End::Unwatched | End::Stopped => "played",
        };
        counter!(CAMERA_CONNECTS, "point" => point_label(self.point.name()), "result" => result).increment(1);
    }
}

/// A conversation that is under way.
struct Talk {
    stream: TcpStream,
    ports: Option<Ports>,
    camera: Camera,
    on_air: OnAir,
    byte_rate: ByteRate,
    /// When the first frame came.
    began: Option<Instant>,
    /// When the first one went to viewers.
    on_air_since: Option<Instant>,
    /// RTP packets that never came, as far as they are counted.
    lost: u64,
    missing: Counter,
}

impl Talk {
    /// Until the camera closes the connection.
    async fn run(&mut self, feed: &mut Feed) -> Result<(), String> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            self.settle(feed).await?;
            let due = self.camera.poll_timeout();
            let due = self.on_air.poll_timeout().map_or(due, |flush| flush.min(due));
            let received = tokio::select! {
                read = self.stream.read(&mut bytes) => match read {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        self.camera.bytes(now(), bytes.get(..count).unwrap_or_default()).map_err(|error| error.to_string())?;
                        count
                    }
                    Err(error) => return Err(format!("the connection broke: {error}")),
                },
                () = ports::readable(self.ports.as_ref()) => self.datagrams().map_err(|error| error.to_string())?,
                () = sleep_until(due.into()) => {
                    self.camera.handle_timeout(now()).map_err(|error| error.to_string())?;
                    self.on_air.handle_timeout(now());
                    0
                }
            };
            let wait = self.byte_rate.take(now(), received);
            self.hold(feed, wait).await?;
        }
    }

    /// Takes in the datagrams that wait; returns their bytes.
    fn datagrams(&mut self) -> Result<usize, crate::rtsp::camera::CameraError> {
        let Self { ports: Some(ports), camera, .. } = self else { return Ok(0) };
        let mut bytes = 0;
        let mut result = Ok(());
        ports.receive(|track, is_rtcp, datagram| {
            bytes += datagram.len();
            if result.is_ok() {
                result = camera.datagram(now(), track, is_rtcp, datagram);
            }
        });
        result.map(|()| bytes)
    }

    /// Does what the engine wants, and sends its frames on.
    async fn settle(&mut self, feed: &mut Feed) -> Result<(), String> {
        while let Some(output) = self.camera.poll_output() {
            match output {
                CameraOutput::Send(bytes) => match timeout(CONNECT_TIME, self.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(format!("the connection broke: {error}")),
                    Err(_) => return Err("it takes no requests".into()),
                },
                CameraOutput::Datagram { track, is_rtcp, to, bytes } => {
                    if let Some(ports) = &self.ports {
                        ports.send(track, is_rtcp, to, &bytes);
                    }
                }
                CameraOutput::LeftOut { media, why } => warn!(media, %why, "left out"),
                CameraOutput::Playing => info!("plays"),
                CameraOutput::Frame(frame) => {
                    let began = *self.began.get_or_insert_with(Instant::now);
                    let (tracks, wanted) = (self.camera.tracks(), self.on_air.wants(self.camera.tracks(), &frame));
                    let begun = if wanted { self.on_air.begin(tracks, &frame) } else { Ok(None) };
                    if let Some((before, header)) = begun.map_err(|error| error.to_string())? {
                        self.byte_rate.set_bit_rate(header.bit_rate());
                        if !before.is_empty() {
                            feed.whole_packets(before).await.map_err(|error| error.to_string())?;
                        }
                        feed.header(header).await.map_err(|error| error.to_string())?;
                    }
                    if wanted {
                        self.on_air_since.get_or_insert_with(Instant::now);
                        self.on_air.push(now(), &frame);
                    } else if began.elapsed() > FIRST_KEY_TIME {
                        return Err(format!("no key frame within {} s that viewers could begin with", FIRST_KEY_TIME.as_secs()));
                    }
                }
            }
        }
        let lost = self.camera.tracks().lost();
        self.missing.increment(lost - std::mem::replace(&mut self.lost, lost));
        self.forward(feed).await
    }

    /// Full packets go to the relay.
    async fn forward(&mut self, feed: &mut Feed) -> Result<(), String> {
        let packets = self.on_air.take();
        if packets.is_empty() {
            return if feed.is_current() { Ok(()) } else { Err("another source took over".into()) };
        }
        feed.whole_packets(packets).await.map_err(|error| error.to_string())
    }

    /// Lets a camera wait that sends too much.
    async fn hold(&self, feed: &Feed, wait: Duration) -> Result<(), String> {
        if wait.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + wait;
        while timeout(SIGN_OF_LIFE, sleep_until(until)).await.is_err() {
            if !feed.is_current() {
                return Err("another source took over".into());
            }
        }
        Ok(())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // Cut off at any point: the camera frees its session at once where this still fits into the socket's buffer.
        if let Some(bytes) = self.camera.leave() {
            let _ = self.stream.try_write(&bytes);
        }
    }
}

/// The URL as it stands in requests, without login.
fn plain_url(url: &StreamUrl) -> String {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let port = if url.port == DEFAULT_RTSP_PORT { String::new() } else { format!(":{}", url.port) };
    format!("rtsp://{host}{port}{}", url.target)
}
