//! Playing a URL to its end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use md5::{Digest as _, Md5};
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time;

use super::connection::{Connection, Ended, Steering, connect, now};
use super::engine::Engine;
use super::landing::Landing;
use super::reach::Reach;
use super::sockets::{bind_lowest, bind_pairs};
use super::url::{StreamUrl, UrlError, masked};
use crate::asf::StreamSet;
use crate::mms::client::{Client, ClientConfig, ClientTransport};
use crate::mms::session::Transport;
use crate::playing::{ClientEnd, ClientEvent, ClientStats, StartAt};
use crate::settings::PortRanges;
use crate::wire::Guid;
use crate::{http, rtsp};

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// Servers of version 9 turn away whoever claims to be version 9 or later over MMS, hoping for RTSP.
const PLAYER: &str = "NSPlayer/7.1.0.3055";
/// Over HTTP encoders give their stream to servers only.
const HTTP_PLAYER: &str = "NSServer/9.0.0.3171";

/// What to play, and how.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// What.
    pub url: StreamUrl,
    /// The data path of MMS and RTSP in place of the one that the scheme names. UDP falls back to TCP where the scheme is `mms` or
    /// `rtsp`.
    pub transport: Option<Transport>,
    /// UDP ports to listen on; the lowest that is free is taken.
    pub ports: PortRanges,
    /// How long to play; `None`: to the end.
    pub duration: Option<Duration>,
    /// Where to begin.
    pub start: StartAt,
    /// The streams to ask for; `None`: all.
    pub streams: Option<StreamSet>,
    /// A seek, so long after the first packet.
    pub seek_after: Option<(Duration, StartAt)>,
    /// Whether there is room for more; while it is false TCP is left unread. Datagrams are taken in all the same, they would be lost.
    pub room: Option<watch::Receiver<bool>>,
    /// What to play, as it changes; in place of `start` and `streams`.
    pub steering: Option<Steering>,
    /// The longest time without media while it plays and there is room; `None`: for ever.
    pub media_time: Option<Duration>,
    /// RTSP: what is no ASF is played too, and its RTP packets counted.
    pub counts_plain: bool,
}

impl PlayOptions {
    /// Plays a URL as it says, from the beginning to the end, on the UDP ports that firewalls let through mostly.
    pub fn new(url: StreamUrl) -> Self {
        let ports = PortRanges(vec![1024..=5000]);
        Self {
            url,
            transport: None,
            ports,
            duration: None,
            start: StartAt::Beginning,
            streams: None,
            seek_after: None,
            room: None,
            steering: None,
            media_time: None,
            counts_plain: false,
        }
    }
}

/// How it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlayReport {
    /// The URL, after redirects.
    pub url: String,
    /// `udp`, `tcp` or `http`; empty where it never played.
    pub transport: &'static str,
    /// The UDP port on which we listened, the first of them.
    pub port: Option<u16>,
    /// Why there was no UDP where it was wanted: refused by the server, no local port, no datagram that came through.
    pub udp_refused: Option<String>,
    /// Whether the server says that the content is live.
    pub live: bool,
    /// How long the content is, as the server says, seconds; 0: it does not know, or it is live.
    pub duration_s: f64,
    /// ASF packets of the content, as the server says; 0 as for `duration_s`.
    pub packet_count: u64,
    /// ASF headers received; more than one: the stream changed.
    pub headers: u32,
    /// ASF packets received; of a stream that is no ASF, RTP packets.
    pub packets: u64,
    /// Bytes of them, as they came.
    pub bytes: u64,
    /// Packets that were missing when later ones came.
    pub gaps: u64,
    /// Requests sent for them.
    pub resend_requests: u64,
    /// Gaps that were filled after all.
    pub recovered: u64,
    /// Those of them that were only late.
    pub reordered: u64,
    /// Gaps that were not filled.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// From the begin of the connection to the first packet, milliseconds.
    pub first_packet_ms: Option<f64>,
    /// Packet number of the first packet since the last start: that of the play, of a seek or of a changed header.
    pub first_location: Option<u32>,
    /// When that packet was to be sent, on the source's clock, milliseconds.
    pub first_send_time_ms: Option<u32>,
    /// When, since that start, the first key frame of the lowest video stream received is shown, or the first payload where no video
    /// is received: milliseconds of content, that is without the preroll.
    pub first_key_presentation_ms: Option<i64>,
    /// From the first packet to the end, seconds.
    pub played_s: f64,
    /// Why it ended.
    pub ended_by: String,
}

/// Why nothing was played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The host has no address.
    #[error("{host}: {error}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// No connection came about.
    #[error("connecting to {host} port {port}: {error}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// All UDP ports are taken.
    #[error("no UDP port is free from {first} to {last}, nor four in a row for RTSP: widen the range, or play over TCP")]
    NoPort {
        /// Lowest port of the ranges.
        first: u16,
        /// Highest port of the ranges.
        last: u16,
    },
    /// A socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The session ended before the first packet.
    #[error("{url}: {end}")]
    Session {
        /// What was to be played.
        url: String,
        /// Why it was not.
        end: ClientEnd,
    },
    /// The server closed the connection before the first packet.
    #[error("{0}: the server closed the connection before the first packet")]
    Closed(String),
    /// It sent us elsewhere once too often, or to where we cannot go.
    #[error("redirected to {location}: {cause}")]
    Redirect {
        /// To where.
        location: String,
        /// Why we do not follow.
        cause: String,
    },
    /// The system gave no random bytes.
    #[error("random bytes: {0}")]
    Random(String),
}

/// Plays a URL.
///
/// # Errors
/// [`PlayError`] where no packet came, for other reasons than that the time was over.
pub async fn play(options: PlayOptions) -> Result<PlayReport, PlayError> {
    play_observed(options, std::future::pending(), |_, _| {}).await
}

/// Plays a URL until it ends, the time is over or `stop` is ready; tells of every event, each ASF packet among them, with what was
/// counted up to then.
///
/// # Errors
/// [`PlayError`] where no packet came, for other reasons than that it was to stop.
pub async fn play_observed(
    options: PlayOptions,
    stop: impl Future<Output = ()>,
    mut on_event: impl FnMut(&ClientEvent, ClientStats),
) -> Result<PlayReport, PlayError> {
    let (stopped, duration) = (AtomicBool::new(false), options.duration);
    let ends = async {
        match duration {
            Some(duration) => tokio::select! {
                () = stop => {}
                () = time::sleep(duration) => {}
            },
            None => stop.await,
        }
        stopped.store(true, Ordering::Relaxed);
    };
    let mut ends = std::pin::pin!(ends);
    let mut attempt = Attempt { options, guid: player_guid()?, no_udp: None, reach: None };
    let mut redirects = 0;
    loop {
        let (report, ended) = attempt.run(ends.as_mut(), &mut on_event).await?;
        if stopped.load(Ordering::Relaxed) {
            return Ok(report.ended(&ClientEnd::Stopped));
        }
        let played = report.packets > 0;
        match ended {
            Ended::Client(ClientEnd::Redirected(location)) => {
                redirects += 1;
                let refuse = |cause: String| PlayError::Redirect { location: masked(&location), cause };
                if redirects > MAX_REDIRECTS {
                    return Err(refuse("too many redirects".into()));
                }
                let mut next: StreamUrl = location.parse().map_err(|error: UrlError| refuse(error.to_string()))?;
                let here = &attempt.options.url;
                if next.login.is_none() && !next.scheme.is_mms() && next.is_same_server(here) {
                    // Nobody else is told.
                    next.login.clone_from(&here.login);
                }
                attempt.options.url = next;
            }
            // Somebody on the way drops datagrams without a word: the one case that shows only now.
            Ended::Client(end @ ClientEnd::HeaderLost) if attempt.may_fall_back() => attempt.no_udp = Some(end.to_string()),
            // Or it rejects them, and the server takes its word for it.
            Ended::Closed | Ended::Broken(_) if !played && report.trusted_udp() && attempt.may_fall_back() => {
                attempt.no_udp = Some("the server closed the connection before anything came by UDP".into());
            }
            Ended::Client(end) if played || end == ClientEnd::Ended => return Ok(report.ended(&end)),
            Ended::Client(end) => return Err(PlayError::Session { url: report.url, end }),
            Ended::Closed if played => return Ok(report.ended(&"the server closed the connection")),
            Ended::Closed => return Err(PlayError::Closed(report.url)),
            Ended::Broken(error) if played => return Ok(report.ended(&error)),
            Ended::Broken(error) => return Err(error.into()),
        }
    }
}

/// One connection to be made.
struct Attempt {
    options: PlayOptions,
    guid: Guid,
    /// Why UDP, which was tried, did not work.
    no_udp: Option<String>,
    /// Where the server is that was asked for: others that it names are not to be nearer to us.
    reach: Option<Reach>,
}

impl Attempt {
    fn wants_udp(&self) -> bool {
        let PlayOptions { url, transport, .. } = &self.options;
        let by_url = !url.scheme.is_tcp_alone();
        !url.scheme.is_http() && self.no_udp.is_none() && transport.map_or(by_url, |transport| transport == Transport::Udp)
    }

    fn may_fall_back(&self) -> bool {
        self.options.url.scheme.falls_back() && self.wants_udp()
    }

    async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        on_event: &mut impl FnMut(&ClientEvent, ClientStats),
    ) -> Result<(PlayReport, Ended), PlayError> {
        let begin = now();
        let url = &self.options.url;
        let mut report = PlayReport { url: url.to_string(), udp_refused: self.no_udp.clone(), ..PlayReport::default() };
        let stream = tokio::select! {
            stream = self.connect() => stream?,
            () = &mut stop => return Ok((report, Ended::Client(ClientEnd::Stopped))),
        };
        let server = stream.peer_addr()?;
        self.reach.get_or_insert(Reach::of(server.ip()));
        let PlayOptions { url, ports, .. } = &self.options;
        let address = stream.local_addr()?.ip();
        let udp = if self.wants_udp() {
            let sockets = if url.scheme.is_rtsp() {
                bind_pairs(address, ports).await?.map_or_else(Vec::new, Vec::from)
            } else {
                Vec::from_iter(bind_lowest(address, ports).await?)
            };
            if sockets.is_empty() {
                let port = |end: Option<u16>| end.unwrap_or_default();
                let error = PlayError::NoPort { first: port(ports.iter().next()), last: port(ports.iter().last()) };
                if !self.may_fall_back() {
                    return Err(error);
                }
                report.udp_refused = Some(error.to_string());
            }
            sockets
        } else {
            Vec::new()
        };
        let port = udp.first().map(|socket| socket.local_addr().map(|address| address.port())).transpose()?;
        let engine = if url.scheme.is_http() {
            Engine::Http(Box::new(http::client::Client::new(now(), self.http_config()?)))
        } else if url.scheme.is_rtsp() {
            Engine::Rtsp(Box::new(rtsp::client::Client::new(now(), self.rtsp_config(port)?)))
        } else {
            let transport = port.map_or(ClientTransport::Tcp, |port| ClientTransport::Udp { address, port });
            Engine::Mms(Box::new(Client::new(now(), self.mms_config(transport))))
        };
        report.port = port;
        let (mut first_packet, mut landing) = (None, Landing::default());
        let mut connection = Connection::new(engine, stream, udp, server);
        connection.seek_after(self.options.seek_after);
        connection.read_while(self.options.room.clone());
        connection.steer(self.options.steering.clone());
        let ended = connection
            .run(stop, |event, stats| {
                match &event {
                    ClientEvent::Packet { location, sequence, bytes, .. } => {
                        first_packet.get_or_insert_with(now);
                        landing.packet(*location, *sequence, bytes);
                    }
                    ClientEvent::Header(header) | ClientEvent::NewHeader(header) => {
                        report.headers += 1;
                        landing.header(header);
                    }
                    ClientEvent::Opened { live, duration_s, packet_count, .. } => {
                        report.live = *live;
                        (report.duration_s, report.packet_count) = (*duration_s, *packet_count);
                    }
                    ClientEvent::Starting => landing.restart(),
                    ClientEvent::FunnelRefused(hr) => report.udp_refused = Some(hr.to_string()),
                    ClientEvent::UdpRefused { reason } => report.udp_refused = Some((*reason).to_owned()),
                    ClientEvent::Playing { path } => report.transport = path.label(),
                    ClientEvent::Counted { .. } => {
                        first_packet.get_or_insert_with(now);
                    }
                    ClientEvent::GivenUp { .. } | ClientEvent::End { .. } => {}
                }
                on_event(&event, stats);
            })
            .await;
        if let Some(first) = first_packet {
            report.first_packet_ms = Some((first - begin).as_secs_f64() * 1000.0);
            report.played_s = (now() - first).as_secs_f64();
        }
        let stats = connection.client.stats();
        let report = PlayReport {
            packets: stats.packets,
            bytes: stats.bytes,
            gaps: stats.gaps,
            resend_requests: stats.resend_requests,
            recovered: stats.recovered,
            reordered: stats.reordered,
            lost: stats.lost,
            duplicates: stats.duplicates,
            first_location: landing.first().map(|first| first.location),
            first_send_time_ms: landing.first().and_then(|first| first.send_time_ms),
            first_key_presentation_ms: landing.presentation_ms(),
            ..report
        };
        Ok((report, ended))
    }

    fn mms_config(&self, transport: ClientTransport) -> ClientConfig {
        let PlayOptions { url, start, streams, media_time, .. } = &self.options;
        let player = format!("{PLAYER}; {{{}}}", self.guid);
        ClientConfig {
            fall_back: self.may_fall_back(),
            start: *start,
            streams: *streams,
            media_time: *media_time,
            ..ClientConfig::new(url.host.clone(), url.name.clone(), transport, player)
        }
    }

    fn http_config(&self) -> Result<http::client::ClientConfig, PlayError> {
        let PlayOptions { url, start, streams, media_time, .. } = &self.options;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| PlayError::Random(error.to_string()))?;
        Ok(http::client::ClientConfig {
            login: url.login.clone(),
            salt,
            start: *start,
            streams: *streams,
            media_time: *media_time,
            ..http::client::ClientConfig::new(url.host_field(), url.target.clone(), HTTP_PLAYER.into(), self.guid)
        })
    }

    /// `port`: the first of four UDP ports.
    fn rtsp_config(&self, port: Option<u16>) -> Result<rtsp::client::ClientConfig, PlayError> {
        let PlayOptions { url, start, streams, media_time, counts_plain, .. } = &self.options;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| PlayError::Random(error.to_string()))?;
        let pair = |first: u16| (first, Some(first.saturating_add(1)));
        let transport = port.map_or(rtsp::client::ClientTransport::Tcp, |port| rtsp::client::ClientTransport::Udp {
            media: pair(port),
            resends: pair(port.saturating_add(2)),
        });
        Ok(rtsp::client::ClientConfig {
            fall_back: self.may_fall_back(),
            login: url.login.clone(),
            salt,
            start: *start,
            streams: *streams,
            media_time: *media_time,
            counts_plain: *counts_plain,
            player: format!("{} guid/{}", rtsp::client::PULLING_SERVER, self.guid),
            ..rtsp::client::ClientConfig::new(url.rtsp_url(), transport)
        })
    }

    async fn connect(&self) -> Result<TcpStream, PlayError> {
        let (host, port) = (&self.options.url.host, self.options.url.port);
        let addresses =
            lookup_host((host.as_str(), port)).await.map_err(|error| PlayError::Resolve { host: host.clone(), error })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            if self.reach.is_some_and(|reach| Reach::of(address.ip()) > reach) {
                let text = format!("{} is in a network of ours, and the server that names it is not", address.ip());
                last = io::Error::new(io::ErrorKind::PermissionDenied, text);
                continue;
            }
            match connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(PlayError::Connect { host: host.clone(), port, error: last })
    }
}

impl PlayReport {
    /// Whether it was to get its media by UDP, and the server had not refused that.
    const fn trusted_udp(&self) -> bool {
        self.port.is_some() && self.udp_refused.is_none()
    }

    fn ended(self, by: &impl ToString) -> Self {
        Self { ended_by: by.to_string(), ..self }
    }
}

/// The identity of this user's player on this machine, as Windows players have one; random where the machine has none.
///
/// A server that lets a freed port rest gives it back to its last owner at once: so the same player must be known again.
pub(super) fn player_guid() -> Result<Guid, PlayError> {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    if machine.len() >= 32 {
        let mut digest = Md5::new();
        digest.update(b"wmrelay play");
        digest.update(&machine);
        digest.update(rustix::process::getuid().as_raw().to_le_bytes());
        return Ok(Guid(digest.finalize().into()));
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| PlayError::Random(error.to_string()))?;
    Ok(Guid(bytes))
}
