//! The thread at the door: accepts connections, tells their protocol, hands them on; receives resend requests.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn_udp::RecvMeta;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant as Clock, timeout};

use super::command::Accepted;
use super::handoff::{Handed, Speaks};
use super::listen::{MmsListener, RtspListener};
use super::routes::Routed;
use super::sniff::{DECIDING_BYTES, Protocol, Sniffed, sniff};
use super::strays::{Stray, Strays, TELL_EVERY};
use super::tls::Terminator;
use super::udp::UdpPort;
use super::{Context, Doors, HandOff};
use crate::http::{Errand, HeadReader};
use crate::metrics as names;
use crate::mms::resend::Request;
use crate::relay::admission::TokenBucket;
use crate::rtsp::recovery::{Nack, ReceiverReport};
use crate::rtsp::viewer::client_id_of;
use crate::settings::Protocols;
use crate::wire::DecodeError;

/// Resend requests a second that all sessions together are served; each session has a limit of its own.
const RESEND_REQUESTS_PER_S: u32 = 20_000;
/// Receiver reports a second of all sessions together that are looked at. They need not be: the next one says the same.
const REPORTS_PER_S: u32 = 2_000;
/// Longest resend request, bytes (MS-MMSP 2.2.5).
const RESEND_REQUEST_BYTES: usize = 140;
/// The same of RTSP: reports, a name, 32 generic requests of one pair of numbers each (MS-RTSP 2.2.4).
const NACK_BYTES: usize = 1024;
/// Resend requests are 140 bytes at most; the kernel may merge 64 of them.
const DATAGRAM_BYTES: usize = 16 << 10;
const DATAGRAMS: usize = 4;
/// Bytes of a head that are read here at most.
const LONG_HEAD_BYTES: usize = 8 << 10;
/// Bytes of one read of the first line.
const LINE_BYTES: usize = 512;
/// Bytes of one read of a head.
const HEAD_BYTES: usize = 2 << 10;

/// What a listener serves.
#[derive(Clone)]
pub(super) struct Door {
    /// What viewers may speak.
    pub(super) protocols: Protocols,
    /// The UDP port of the same number.
    pub(super) udp: Option<Arc<UdpPort>>,
    /// By RTSP.
    pub(super) takes_publishers: bool,
    /// By HTTP, which is not switched on by switching RTSP on.
    pub(super) takes_http_publishers: bool,
    /// Ends the TLS around what is spoken.
    pub(super) tls: Option<Arc<Terminator>>,
}

/// Runs the doors until told to stop.
pub(super) fn run(context: Arc<Context>, doors: Doors, mut stop: watch::Receiver<bool>) {
    let Doors { mms, http, rtsp, handoff, undecided_max, .. } = doors;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime to accept connections"),
    };
    runtime.block_on(async move {
        let strays = Arc::new(Strays::new(undecided_max));
        let settings = Arc::clone(&context.settings);
        let of_mms = |listener: MmsListener| {
            (
                listener.tcp,
                Door {
                    protocols: settings.mms_protocols,
                    udp: listener.udp,
                    takes_publishers: false,
                    takes_http_publishers: false,
                    tls: None,
                },
            )
        };
        let of_http = |tcp| {
            (
                tcp,
                Door {
                    protocols: settings.http_protocols,
                    udp: None,
                    takes_publishers: true,
                    takes_http_publishers: true,
                    tls: None,
                },
            )
        };
        let of_rtsp = |listener: RtspListener| {
            (
                listener.tcp,
                Door {
                    protocols: settings.rtsp_protocols,
                    udp: None,
                    takes_publishers: true,
                    takes_http_publishers: false,
                    tls: None,
                },
            )
        };
        for ports in &context.rtp_ports {
            tokio::spawn(receive(Arc::clone(&context), Arc::clone(&ports.requests), Requests::Rtsp));
            tokio::spawn(receive(Arc::clone(&context), Arc::clone(&ports.media), Requests::Nothing));
        }
        let doors = mms.into_iter().map(of_mms).chain(http.into_iter().map(of_http)).chain(rtsp.into_iter().map(of_rtsp));
        for (listener, door) in doors {
            if let Some(port) = &door.udp {
                tokio::spawn(receive(Arc::clone(&context), Arc::clone(port), Requests::Mms));
            }
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::spawn(accept(Arc::clone(&context), listener, door, Arc::clone(&handoff), Arc::clone(&strays)));
                }
                Err(error) => tracing::error!(%error, "a listener was lost"),
            }
        }
        let mut telling = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                _ = telling.tick() => strays.tell(),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
    });
}

/// Accepts at one address.
pub(super) async fn accept(
    context: Arc<Context>,
    listener: tokio::net::TcpListener,
    door: Door,
    handoff: HandOff,
    strays: Arc<Strays>,
) {
    let mut told = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let ticket = strays.ticket(peer.ip());
                let (context, door, handoff) = (Arc::clone(&context), door.clone(), Arc::clone(&handoff));
                let (at, at_door) = (Clock::now().into_std(), Arc::clone(&strays));
                let task = tokio::spawn(async move {
                    let local = stream.local_addr();
                    let first = async {
                        let stream = match &door.tls {
                            Some(tls) => tls.terminate(stream).await?,
                            None => stream,
                        };
                        let (head, protocol, errand) = first_bytes(&stream).await?;
                        Ok((stream, head, protocol, errand))
                    };
                    let first = timeout(context.settings.limits.handshake, first).await;
                    at_door.leave(ticket);
                    let stray = match first {
                        Ok(Ok((stream, head, protocol, errand))) => match (local, stream.into_std()) {
                            (Ok(local), Ok(stream)) => {
                                let tls = door.tls.is_some();
                                let takes_publishers = door.takes_publishers;
                                let accepted =
                                    Accepted { stream, peer, local, at, protocol, head, udp: None, tls, takes_publishers };
                                hand_on(&context, &door, &handoff, errand, accepted)
                            }
                            // Gone already.
                            _ => Ok(()),
                        },
                        Ok(Err(stray)) => Err(stray),
                        Err(_) => Err(Stray::Silent),
                    };
                    if let Err(stray) = stray {
                        at_door.note(peer.ip(), stray);
                    }
                });
                if strays.enter(ticket, task.abort_handle()) {
                    tokio::task::yield_now().await;
                }
            }
            // That one connection was lost, nothing else.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted) => {}
            Err(error) => {
                // Out of descriptors: the ones that wait go on waiting, those that are here go on playing.
                let now = Clock::now();
                if told.is_none_or(|told| now - told >= TELL_EVERY) {
                    tracing::warn!(%error, "connections cannot be accepted; is the limit on open files too low?");
                    told = Some(now);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads until the protocol is clear.
///
/// # Errors
/// It is none of ours, or the connection ended before it was clear.
async fn first_bytes(stream: &TcpStream) -> Result<(Vec<u8>, Protocol, Errand), Stray> {
    let mut head = Vec::new();
    loop {
        stream.readable().await.map_err(|_| Stray::Silent)?;
        let mut buffer = [0; LINE_BYTES];
        // What decides is at the begin; only a method that two protocols have needs the line.
        let most = if head.len() < DECIDING_BYTES { DECIDING_BYTES - head.len() } else { LINE_BYTES };
        let room = buffer.get_mut(..most).unwrap_or_default();
        match stream.try_read(room) {
            Ok(0) => return Err(Stray::Silent),
            Ok(read) => head.extend_from_slice(room.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(Stray::Silent),
        }
        match sniff(&head) {
            Sniffed::Is(Protocol::Mms) => return Ok((head, Protocol::Mms, Errand::Watch { client_id: None })),
            Sniffed::Is(Protocol::Http) => return http_errand(stream, head).await,
            Sniffed::Is(Protocol::Rtsp) => return rtsp_errand(stream, head).await,
            Sniffed::Undecided => {}
            Sniffed::Unknown => {
                tracing::debug!(peer = ?stream.peer_addr().ok(), first = %head.escape_ascii(), "speaks nothing that is served here");
                return Err(Stray::UnknownProtocol);
            }
        }
    }
}

/// Reads the head of the first request. One that is broken is for whoever can say so.
async fn http_errand(stream: &TcpStream, mut head: Vec<u8>) -> Result<(Vec<u8>, Protocol, Errand), Stray> {
    let (mut reader, mut read) = (HeadReader::default(), 0);
    loop {
        let errand = match reader.push(head.get(read..).unwrap_or_default()) {
            // Players and publishers say in far less what they want; whoever says more is looked after elsewhere.
            Ok((_, None)) if head.len() > LONG_HEAD_BYTES => Some(Errand::Watch { client_id: None }),
            Ok((_, None)) => None,
            Ok((_, Some(head))) => Some(Errand::of(&head)),
            Err(_) => Some(Errand::Watch { client_id: None }),
        };
        if let Some(errand) = errand {
            return Ok((head, Protocol::Http, errand));
        }
        read = head.len();
        stream.readable().await.map_err(|_| Stray::Silent)?;
        let mut buffer = [0; HEAD_BYTES];
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(Stray::Silent),
            Ok(count) => head.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Stray::Silent),
        }
    }
}

/// Reads the first request's head for the session that it goes on with: that is served where it was before.
async fn rtsp_errand(stream: &TcpStream, mut head: Vec<u8>) -> Result<(Vec<u8>, Protocol, Errand), Stray> {
    loop {
        let is_whole = head.windows(4).any(|part| part == b"\r\n\r\n") || head.windows(2).any(|part| part == b"\n\n");
        if is_whole || head.len() > LONG_HEAD_BYTES {
            let mut lines = head.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
            let id = lines.find_map(|line| {
                let (name, value) = str::from_utf8(line).ok()?.split_once(':')?;
                name.eq_ignore_ascii_case("Session").then(|| value.split(';').next()?.trim().parse().ok())?
            });
            return Ok((head, Protocol::Rtsp, Errand::Watch { client_id: id.map(client_id_of) }));
        }
        stream.readable().await.map_err(|_| Stray::Silent)?;
        let mut buffer = [0; HEAD_BYTES];
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(Stray::Silent),
            Ok(count) => head.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Stray::Silent),
        }
    }
}

/// Gives a connection to whoever serves its protocol.
///
/// # Errors
/// This port does not.
fn hand_on(context: &Context, door: &Door, handoff: &HandOff, errand: Errand, accepted: Accepted) -> Result<(), Stray> {
    let served = match accepted.protocol {
        Protocol::Mms => door.protocols.mms,
        Protocol::Http => door.protocols.http || (door.takes_http_publishers && errand == Errand::Publish),
        Protocol::Rtsp => door.protocols.rtsp,
    };
    if !served {
        tracing::debug!(peer = %accepted.peer, local = %accepted.local, protocol = ?accepted.protocol, "not served on this port");
        return Err(Stray::WrongPort);
    }
    match errand {
        // Publishers have a port of their own, which not everybody's firewall opens.
        Errand::Publish if door.takes_http_publishers => {
            let Accepted { stream, peer, local, head, .. } = accepted;
            handoff(Handed { stream, peer, local, head, speaks: Speaks::Http });
        }
        Errand::Watch { client_id: Some(client_id) } => {
            let home = context.routes.home(client_id, accepted.peer.ip());
            let udp = door.udp.clone().filter(|_| accepted.protocol != Protocol::Rtsp);
            context.assign_to(home, Accepted { udp, ..accepted });
        }
        Errand::Publish | Errand::Watch { client_id: None } => {
            let udp = door.udp.clone().filter(|_| accepted.protocol != Protocol::Rtsp);
            context.assign(Accepted { udp, ..accepted });
        }
    }
    Ok(())
}

/// A socket whose readiness for reading, and nothing else, is waited for.
#[allow(unsafe_code, reason = "tokio cannot see that a descriptor stays open")]
fn readable(socket: UdpSocket) -> std::io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the AsyncFd owns the socket, which gives no other descriptor out and is closed with it.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}

/// What is asked for at a UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requests {
    /// Lost packets, as MMS asks for them.
    Mms,
    /// Lost packets, as RTSP asks for them, and reports of what was received.
    Rtsp,
    /// Nothing: players send there so that what stands between opens.
    Nothing,
}

/// What has come at one.
enum Came {
    /// A request of the session of this id.
    Request(u32),
    /// What a player says of packets that it received; it names no session.
    Report(ReceiverReport),
}

impl Requests {
    /// What a datagram is; nothing where nobody asks for or says anything.
    ///
    /// # Errors
    /// It is nothing that belongs here.
    fn read(self, datagram: &[u8]) -> Result<Option<Came>, DecodeError> {
        match self {
            Self::Mms => Request::parse(datagram).map(|request| Some(Came::Request(request.client_id))),
            Self::Rtsp => Ok(match Nack::parse(datagram)? {
                Some(nack) => Some(Came::Request(nack.v_ssrc)),
                None => ReceiverReport::parse(datagram).map(Came::Report),
            }),
            Self::Nothing => Ok(None),
        }
    }

    /// Longest request, bytes.
    const fn longest(self) -> usize {
        match self {
            Self::Mms => RESEND_REQUEST_BYTES,
            Self::Rtsp | Self::Nothing => NACK_BYTES,
        }
    }
}

/// Receives resend requests on one UDP port.
async fn receive(context: Arc<Context>, port: Arc<UdpPort>, of: Requests) {
    // Not tokio's own UDP socket: that would be told of room for sending too, and the shards send here. It would wake this thread
    // with nearly every datagram.
    let socket = match port.another_handle().and_then(readable) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(local = %port.local(), %error, "resend requests cannot be received"),
    };
    let requests = metrics::counter!(names::RESEND_REQUESTS);
    let mut budget = TokenBucket::new(RESEND_REQUESTS_PER_S, RESEND_REQUESTS_PER_S);
    let mut reports = TokenBucket::new(REPORTS_PER_S, REPORTS_PER_S);
    let mut storage = vec![[0_u8; DATAGRAM_BYTES]; DATAGRAMS];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let mut buffers: Vec<IoSliceMut<'_>> = storage.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut metas = [RecvMeta::default(); DATAGRAMS];
        match ready.try_io(|_| port.receive(&mut buffers, &mut metas)) {
            // Nothing is left.
            Err(_) => {}
            Ok(Ok(count)) => {
                let now = Clock::now().into_std();
                for (buffer, meta) in buffers.iter().zip(&metas).take(count) {
                    let bytes = buffer.get(..meta.len).unwrap_or_default();
                    for datagram in bytes.chunks(meta.stride.max(1)) {
                        let datagram = datagram.get(..of.longest()).unwrap_or(datagram);
                        if context.echoes.take(datagram, port.local().port(), meta.addr) {
                            continue;
                        }
                        let result = match of.read(datagram) {
                            Ok(Some(Came::Report(report))) => {
                                context
                                    .routes
                                    .report(meta.addr, report, || reports.as_mut().is_none_or(|budget| budget.take(now)));
                                continue;
                            }
                            Ok(Some(Came::Request(client_id))) => {
                                match context.routes.datagram(client_id, meta.addr.ip(), datagram, || {
                                    budget.as_mut().is_none_or(|budget| budget.take(now))
                                }) {
                                    Routed::Taken => {
                                        requests.increment(1);
                                        continue;
                                    }
                                    Routed::Stranger => "stranger",
                                    Routed::Flood => "limited",
                                }
                            }
                            Ok(None) => continue,
                            Err(_) => "stranger",
                        };
                        metrics::counter!(names::RESENDS, "result" => result).increment(1);
                    }
                }
                // A flood of datagrams must not keep connections from being accepted.
                tokio::task::yield_now().await;
            }
            Ok(Err(_)) => {
                // An ICMP error of an earlier send; the queue names whose it was.
                context.drain_errors(&port, Clock::now().into_std());
            }
        }
    }
}
