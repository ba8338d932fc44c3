//! One viewer: its engine between its sockets.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use super::counts::Counts;
use super::engines::{Path, engine};
use super::inbox::Inbox;
use super::ledger::Ledger;
use super::ports::PortCursors;
use super::skim::Skim;
use super::skim_http::HttpSkim;
use super::sockets;
use super::start::SwarmStart;
use crate::client::engine::Engine;
use crate::client::url::StreamUrl;
use crate::mms::end::{ReportEndOfStream, ReportStreamChange};
use crate::mms::frame::{Decoder, Item, Message as _};
use crate::mms::session::Transport;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput};
use crate::wire::Guid;

/// Time to connect.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Time from the begin of the connection to the first packet.
const JOIN_TIME: Duration = Duration::from_secs(30);
/// Viewers that read on with [`Shared::unread`]: several, so that the figures outlive one that ends.
const READERS: usize = 4;
/// What a connection may leave unsent, bytes: far more than any client has to say.
const MAX_UNSENT: usize = 64 << 10;
/// What an engine of HTTP is given at once, bytes: its buffer does not shrink.
const FEED_LEN: usize = 4 << 10;

/// What all viewers share.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) server: SocketAddr,
    pub(super) url: StreamUrl,
    /// Of this user on this machine; viewers have theirs from it.
    pub(super) identity: Guid,
    pub(super) transport: Transport,
    pub(super) cursors: PortCursors,
    pub(super) gro: bool,
    pub(super) unread: bool,
    pub(super) start: Option<SwarmStart>,
    pub(super) ledger: Ledger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    /// Connected; no packet yet.
    Joining,
    Playing,
    Over,
}

/// What cuts media off, by the protocol.
enum Skims {
    Mms(Skim),
    Http(HttpSkim),
}

impl Skims {
    fn counts(&self) -> Counts {
        let (packets, bytes) = match self {
            Self::Mms(skim) => (skim.packets, skim.bytes),
            Self::Http(skim) => (skim.packets, skim.bytes),
        };
        Counts { packets, bytes, ..Counts::default() }
    }
}

/// One viewer.
pub(super) struct Viewer {
    index: usize,
    stage: Stage,
    /// The address that its connections come from; `None`: the system chooses that of the first one.
    from: Option<IpAddr>,
    stream: Option<TcpStream>,
    /// The stream has not come about yet.
    is_connecting: bool,
    /// What went wrong with it; the engine says what that means.
    broken: Option<String>,
    udp: Option<UdpSocket>,
    /// Where lost packets come, of RTSP.
    resends: Option<UdpSocket>,
    client: Option<Engine>,
    /// What the connection did not take at once.
    unsent: Vec<u8>,
    begun: Instant,
    /// When StartPlaying went out, and the newest packet that anybody had by then.
    started: Option<Instant>,
    floor: Option<u32>,
    /// How long the content is, seconds, as the server said.
    duration_s: f64,
    /// Over TCP with [`Shared::unread`], but of RTSP, whose engine does it itself.
    skim: Option<Skims>,
    /// Looks for the end of the stream with [`Shared::unread`]; `None` for viewers that read on, and over HTTP and RTSP, whose engines are
    /// shown it.
    control: Option<Decoder>,
    /// Media is no longer looked at.
    unread: bool,
}

impl Viewer {
    /// The epoll token of a viewer's connection; those of its UDP sockets are one and two more.
    const fn token(index: usize) -> Token {
        Token(index * 3)
    }

    /// Whose token it is, and whether it is a UDP socket's.
    pub(super) const fn of_token(token: Token) -> (usize, bool) {
        (token.0 / 3, !token.0.is_multiple_of(3))
    }

    /// Begins to connect.
    pub(super) fn connect(index: usize, now: Instant, from: Option<IpAddr>, shared: &mut Shared) -> Self {
        let scheme = shared.url.scheme;
        let skim = match shared.transport {
            Transport::Tcp if shared.unread && scheme.is_http() => Some(Skims::Http(HttpSkim::default())),
            Transport::Tcp if shared.unread && scheme.is_mms() => Some(Skims::Mms(Skim::default())),
            Transport::Tcp | Transport::Udp => None,
        };
        let mut viewer = Self {
            index,
            stage: Stage::Connecting,
            from,
            stream: None,
            is_connecting: false,
            broken: None,
            udp: None,
            resends: None,
            client: None,
            unsent: Vec::new(),
            begun: now,
            started: None,
            floor: None,
            duration_s: 0.0,
            skim,
            control: (shared.unread && scheme.is_mms()).then(Decoder::from_server),
            unread: false,
        };
        shared.ledger.joining += 1;
        if let Err(cause) = viewer.begin_connection(shared) {
            viewer.end(shared, cause);
        }
        viewer
    }

    /// Begins to connect, in place of the connection that is there.
    fn begin_connection(&mut self, shared: &Shared) -> Result<(), String> {
        let (index, from) = (self.index, self.from);
        (self.stream, self.broken) = (None, None);
        self.unsent.clear();
        if let Some(Skims::Http(skim)) = &mut self.skim {
            skim.restart();
        }
        let connected = sockets::connect(shared.server, from).and_then(|mut stream| {
            shared.registry.register(&mut stream, Self::token(index), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        (self.stream, self.is_connecting) = (Some(connected.map_err(|error| not_begun(&error, from))?), true);
        Ok(())
    }

    /// When [`Viewer::on_deadline`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let engine = self.client.as_ref().and_then(Engine::poll_timeout);
        match self.stage {
            Stage::Connecting => Some(self.begun + CONNECT_TIME),
            Stage::Joining => [engine, Some(self.begun + JOIN_TIME)].into_iter().flatten().min(),
            // An engine of MMS would miss the media that it is not shown; the others know.
            Stage::Playing if self.unread && matches!(self.client, Some(Engine::Mms(_))) => None,
            Stage::Playing => engine,
            Stage::Over => None,
        }
    }

    /// Whether datagrams may have brought the deadline nearer: not where packets just come one after the other.
    pub(super) fn is_restless(&self) -> bool {
        self.stage != Stage::Playing
            || self.client.as_ref().is_some_and(|client| {
                let stats = client.stats();
                stats.gaps != stats.recovered + stats.lost
            })
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// What it has counted so far; nothing where it is over, because the ledger has it.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.client.as_ref().map(|client| Counts::from(client.stats())).unwrap_or_default();
        if let Some(skim) = self.skim.as_ref().filter(|_| self.client.is_some()) {
            counts += skim.counts();
        }
        counts
    }

    /// Where it takes datagrams.
    pub(super) fn udp_address(&self) -> Option<SocketAddr> {
        self.udp.as_ref()?.local_addr().ok()
    }

    /// The connection is ready for something.
    pub(super) fn on_stream(&mut self, now: Instant, event: &mio::event::Event, buffer: &mut [u8], shared: &mut Shared) {
        if self.is_connecting {
            match self.connected(now, shared) {
                Ok(true) => {}
                Ok(false) => return,
                Err(cause) => return self.lose(now, Some(cause), shared),
            }
        }
        if event.is_writable()
            && !self.unsent.is_empty()
            && let Err(error) = self.write_unsent()
        {
            return self.lose(now, Some(error.to_string()), shared);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(now, event.is_read_closed() || event.is_error(), buffer, shared);
        }
    }

    /// Reads the UDP sockets dry.
    pub(super) fn on_datagrams(&mut self, now: Instant, inbox: &mut Inbox, shared: &mut Shared) {
        if self.resends.is_some() {
            self.read_datagrams(now, true, inbox, shared);
        }
        self.read_datagrams(now, false, inbox, shared);
    }

    fn read_datagrams(&mut self, now: Instant, resends: bool, inbox: &mut Inbox, shared: &mut Shared) {
        let server = shared.server.ip();
        loop {
            let socket = if resends { &self.resends } else { &self.udp };
            let (Some(udp), Some(client)) = (socket, &mut self.client) else { return };
            let more = inbox.receive(udp, server, |datagram| client.handle(now, ClientInput::Datagram(datagram)));
            self.carry_out(now, shared);
            match more {
                Ok(true) if !self.unread => {}
                Ok(_) => return,
                Err(error) => return self.end(shared, format!("receiving datagrams: {error}")),
            }
        }
    }

    /// The time may be up for something.
    pub(super) fn on_deadline(&mut self, now: Instant, shared: &mut Shared) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        if self.stage == Stage::Connecting {
            return self.end(shared, format!("connecting: no answer within {} s", CONNECT_TIME.as_secs()));
        }
        if self.stage == Stage::Joining && now >= self.begun + JOIN_TIME {
            return self.end(shared, format!("no media within {} s", JOIN_TIME.as_secs()));
        }
        if let Some(client) = &mut self.client {
            client.handle(now, ClientInput::Timeout);
            self.carry_out(now, shared);
        }
    }

    /// Says goodbye.
    pub(super) fn stop(&mut self, now: Instant, shared: &mut Shared) {
        match &mut self.client {
            Some(client) => {
                client.handle(now, ClientInput::Stop);
                self.carry_out(now, shared);
            }
            None if self.stage == Stage::Connecting => self.end(shared, "stopped".into()),
            None => {}
        }
    }

    /// Whether the connection has come about; the engine begins with the first one.
    fn connected(&mut self, now: Instant, shared: &mut Shared) -> Result<bool, String> {
        let Some(stream) = &self.stream else { return Ok(false) };
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            return Err(not_connected(&error));
        }
        if stream.peer_addr().is_err() {
            return Ok(false);
        }
        self.is_connecting = false;
        if let Some(client) = &mut self.client {
            client.handle(now, ClientInput::Connected);
            self.carry_out(now, shared);
            return Ok(self.stream.is_some());
        }
        let local = stream.local_addr().map_err(|error| not_connected(&error))?;
        let address = local.ip();
        self.from = Some(address);
        let path = match shared.transport {
            Transport::Tcp => Path::Tcp,
            Transport::Udp => {
                let (socket, port) = self.bind_udp(address, 1, shared)?;
                self.udp = Some(socket);
                let mut resends = None;
                if shared.url.scheme.is_rtsp() {
                    let (socket, port) = self.bind_udp(address, 2, shared)?;
                    (self.resends, resends) = (Some(socket), Some(port));
                }
                Path::Udp { address, port, resends }
            }
        };
        let local = match path {
            Path::Udp { address, port, .. } => (address, port).into(),
            Path::Tcp => local,
        };
        self.client = Some(engine(now, shared, local, path).map_err(|error| error.to_string())?);
        self.stage = Stage::Joining;
        self.carry_out(now, shared);
        Ok(true)
    }

    /// A socket on the next free port, and that port; `place`: its token, counted from that of the connection.
    fn bind_udp(&self, address: IpAddr, place: usize, shared: &mut Shared) -> Result<(UdpSocket, u16), String> {
        let gro = shared.gro;
        let bound = shared.cursors.bind(address, |local| sockets::bind_udp(local, gro));
        let bound = bound.map_err(|error| format!("binding a UDP port on {address}: {error}"))?;
        let (mut socket, port) = bound.ok_or_else(|| format!("no UDP port of {address} is free"))?;
        let Token(token) = Self::token(self.index);
        let registered = shared.registry.register(&mut socket, Token(token + place), Interest::READABLE);
        registered.map_err(|error| error.to_string())?;
        Ok((socket, port))
    }

    fn read(&mut self, now: Instant, to_the_end: bool, buffer: &mut [u8], shared: &mut Shared) {
        loop {
            // What came of one connection may have led to another one.
            let (Some(stream), Some(client), false) = (&mut self.stream, &mut self.client, self.is_connecting) else { return };
            let count = match stream.read(buffer) {
                Ok(0) => return self.lose(now, None, shared),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lose(now, Some(error.to_string()), shared),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let (is_mms, control) = (matches!(client, Engine::Mms(_)), &mut self.control);
            let mut take = |piece: &[u8]| {
                client.handle(now, ClientInput::Bytes(piece));
                if let Some(control) = control {
                    control.feed(piece);
                }
            };
            match &mut self.skim {
                Some(Skims::Mms(skim)) => skim.feed(bytes, !self.unread, take),
                Some(Skims::Http(skim)) => skim.feed(bytes, !self.unread, take),
                None if is_mms => take(bytes),
                None => bytes.chunks(FEED_LEN).for_each(take),
            }
            self.carry_out(now, shared);
            let goes_on = shared.start.is_some();
            let is_over = self.control.as_mut().is_some_and(|control| tells_of_an_end(control, goes_on));
            if is_over && self.unread {
                // Its engine would wait for a header among the media that it is not shown.
                return self
                    .end(shared, "the stream ended or changed, and a viewer that leaves it unread does not follow".into());
            }
            // Less than there was room for: it was read dry, and epoll will tell of more.
            if count < buffer.len() && !to_the_end {
                return;
            }
        }
    }

    /// The connection is gone, or did not come about. Over MMS that is the end; other engines know what it is.
    fn lose(&mut self, now: Instant, cause: Option<String>, shared: &mut Shared) {
        (self.stream, self.is_connecting) = (None, false);
        match &mut self.client {
            Some(client) if !client.is_one_connection() => {
                self.broken = cause.or_else(|| self.broken.take());
                client.handle(now, ClientInput::Closed);
                self.carry_out(now, shared);
            }
            _ => self.end(shared, cause.unwrap_or_else(|| ClientEnd::Closed.to_string())),
        }
    }

    /// Does what the engine wants.
    fn carry_out(&mut self, now: Instant, shared: &mut Shared) {
        // Where the choice of a place makes the engine begin anew at once, one connection is enough.
        let mut wants_connection = false;
        while let Some(output) = self.client.as_mut().and_then(Engine::poll_output) {
            match output {
                ClientOutput::Send(message) => {
                    self.unsent.extend_from_slice(&message);
                    match self.write_unsent() {
                        Ok(()) => {}
                        // It may have been answered all the same; reading shows.
                        Err(error) if !self.client.as_ref().is_none_or(Engine::is_one_connection) => {
                            self.broken = Some(error.to_string());
                        }
                        Err(error) => return self.end(shared, error.to_string()),
                    }
                    if self.unsent.len() > MAX_UNSENT {
                        return self.end(shared, "the server takes no bytes".into());
                    }
                }
                ClientOutput::Datagram(request) => {
                    if let Some(udp) = &self.udp {
                        // A request that does not go out is as good as one that is lost: it is repeated.
                        let _ = udp.send_to(&request, shared.server);
                    }
                }
                ClientOutput::DatagramTo { from, to, bytes } => {
                    let is_from = |udp: &&UdpSocket| udp.local_addr().is_ok_and(|address| address.port() == from);
                    if let Some(udp) = [&self.udp, &self.resends].into_iter().flatten().find(is_from) {
                        let _ = udp.send_to(&bytes, (shared.server.ip(), to).into());
                    }
                }
                ClientOutput::Event(ClientEvent::Counted { location, send_time_ms }) => {
                    let send_time_ms = send_time_ms.filter(|_| shared.start.is_none());
                    shared.ledger.packet(now, location, send_time_ms, self.floor);
                    if self.stage == Stage::Joining {
                        self.joined(now, shared);
                    }
                }
                ClientOutput::Event(ClientEvent::Starting) => {
                    self.started = Some(now);
                    self.floor = shared.ledger.newest;
                }
                ClientOutput::Event(ClientEvent::Opened { duration_s, .. }) => {
                    self.duration_s = duration_s;
                    if let Err(error) = self.begin(now, shared) {
                        return self.end(shared, error.to_string());
                    }
                }
                ClientOutput::Event(ClientEvent::End { .. }) if shared.start.is_some() => {
                    shared.ledger.restarts += 1;
                    if let Err(error) = self.begin(now, shared) {
                        return self.end(shared, error.to_string());
                    }
                }
                ClientOutput::Event(_) => {}
                ClientOutput::Connect => {
                    (self.stream, self.is_connecting, wants_connection) = (None, false, true);
                }
                ClientOutput::Disconnect => {
                    (self.stream, self.is_connecting, wants_connection) = (None, false, false);
                }
                ClientOutput::Close(ClientEnd::Redirected(url)) => {
                    shared.ledger.redirected.get_or_insert(url);
                    return self.end(shared, "redirected".into());
                }
                ClientOutput::Close(end) => {
                    let broken = self.broken.take().filter(|_| end == ClientEnd::Closed);
                    return self.end(shared, broken.unwrap_or_else(|| end.to_string()));
                }
            }
        }
        if wants_connection && let Err(cause) = self.begin_connection(shared) {
            self.lose(now, Some(cause), shared);
        }
    }

    /// Chooses the place where the next play begins.
    fn begin(&mut self, now: Instant, shared: &Shared) -> io::Result<()> {
        if let (Some(start), Some(client)) = (shared.start, &mut self.client) {
            client.handle(now, ClientInput::Seek(start.place(self.duration_s)?));
        }
        Ok(())
    }

    /// The first packet came.
    fn joined(&mut self, now: Instant, shared: &mut Shared) {
        self.stage = Stage::Playing;
        shared.ledger.joined(now, self.begun, self.started);
        if !shared.unread {
            return;
        }
        if shared.ledger.readers.len() < READERS {
            shared.ledger.readers.push(self.index);
            self.control = None;
            return;
        }
        self.unread = true;
        match &mut self.client {
            // So that they miss nothing.
            Some(client @ Engine::Http(_)) => client.handle(now, ClientInput::Room(false)),
            Some(Engine::Rtsp(client)) => {
                client.skip_media();
                client.handle(now, ClientInput::Room(false));
            }
            Some(Engine::Mms(_)) | None => {}
        }
        for udp in [&mut self.udp, &mut self.resends].into_iter().flatten() {
            // Not registered any more is all it takes; what does not fit into the socket is dropped by the kernel.
            let _ = shared.registry.deregister(udp);
            sockets::shrink(udp);
        }
    }

    fn write_unsent(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(count) => {
                    self.unsent.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end(&mut self, shared: &mut Shared, cause: String) {
        if self.stage == Stage::Over {
            return;
        }
        shared.ledger.readers.retain(|reader| *reader != self.index);
        shared.ledger.ended(self.stage == Stage::Playing, self.counts(), cause);
        self.stage = Stage::Over;
        (self.stream, self.udp, self.resends) = (None, None, None);
        (self.client, self.skim, self.control) = (None, None, None);
        self.is_connecting = false;
        self.unsent = Vec::new();
    }
}

/// Whether what came in holds the end of a stream, one that goes on included, or with `goes_on` its change alone. What is no MMS is
/// the engine's to judge.
fn tells_of_an_end(control: &mut Decoder, goes_on: bool) -> bool {
    let ends: &[u32] = if goes_on { &[ReportStreamChange::MID] } else { &[ReportEndOfStream::MID, ReportStreamChange::MID] };
    let mut told = false;
    while let Ok(Some(item)) = control.poll() {
        told |= matches!(item, Item::Message(frame) if ends.contains(&frame.mid));
    }
    told
}

/// Some errors are of the local address, and say so of none.
fn not_begun(error: &io::Error, from: Option<IpAddr>) -> String {
    match (from, error.kind()) {
        (Some(from), io::ErrorKind::AddrNotAvailable) => format!(
            "connecting from {from}: {error}: either it is no address of this machine, or all its ports are in use: see --addresses"
        ),
        (None, io::ErrorKind::AddrNotAvailable) => {
            format!("connecting: {error}: all local ports may be in use: give more addresses by --addresses")
        }
        _ => not_connected(error),
    }
}

fn not_connected(error: &io::Error) -> String {
    format!("connecting: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mms::frame::encode;
    use crate::mms::ping::Ping;
    use crate::wire::Hresult;

    #[test]
    fn the_end_of_a_stream_is_seen_between_pings_however_it_is_cut() {
        let ping = encode(0, &Ping);
        let change = encode(1, &ReportEndOfStream { hr: Hresult::MORE, incarnation: 1 });
        for (stream, expected) in [([&ping[..], &ping].concat(), false), ([&ping[..], &change, &ping].concat(), true)] {
            for cut in [1, 13, stream.len()] {
                let mut control = Decoder::from_server();
                let mut told = false;
                for piece in stream.chunks(cut) {
                    control.feed(piece);
                    told |= tells_of_an_end(&mut control, false);
                }
                assert_eq!(told, expected, "{cut}");
                let mut control = Decoder::from_server();
                control.feed(&stream);
                assert!(!tells_of_an_end(&mut control, true), "no end for who begins once more");
            }
        }
    }

    #[test]
    fn tokens_tell_viewer_and_socket() {
        let Token(stream) = Viewer::token(5);
        let of = |place| Viewer::of_token(Token(stream + place));
        assert_eq!([of(0), of(1), of(2), of(3)], [(5, false), (5, true), (5, true), (6, false)]);
    }
}
