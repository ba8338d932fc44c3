//! One play of a client: its engine between TCP connections, one at a time, and a UDP socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time;

use super::engine::Engine;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, ClientStats, Course, StartAt};

/// Time to connect.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A control message fits into any socket buffer; a server that takes none for so long is gone.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Largest datagram there is, and what one read of the connection takes.
const READ_LEN: usize = 64 * 1024;

/// A course that somebody else sets while a connection plays.
#[derive(Debug, Clone)]
pub struct Steering {
    /// What is wanted.
    pub course: watch::Receiver<Course>,
    /// The play that was asked for last at the server; what comes behind [`ClientEvent::Starting`] is of it.
    pub applied: Arc<AtomicU32>,
    /// A play that goes on here rather than at its begin: an earlier connection has brought it so far.
    pub resumed: Option<(u32, StartAt)>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The engine was done.
    Client(ClientEnd),
    /// The server closed the connection without a word.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

/// An engine with its sockets. UDP is for MMS, which has one socket, and RTSP; more connections than the first one for HTTP and RTSP.
pub(super) struct Connection {
    pub(super) client: Engine,
    stream: Option<TcpStream>,
    /// A connection that is on its way.
    connecting: Option<Connecting>,
    /// What went wrong with the last one.
    broken: Option<io::Error>,
    udp: Vec<UdpSocket>,
    /// The server as TCP knows it: datagrams come from its address, requests go to the port of the same number.
    server: SocketAddr,
    /// A seek, so long after the first packet, and when that is.
    seek: Option<(Duration, StartAt)>,
    /// Whether more may be read of TCP, and what of that the engine knows.
    room: Option<watch::Receiver<bool>>,
    has_room: bool,
    seek_due: Option<Instant>,
    steering: Option<Steering>,
    /// What was carried out of its course.
    steered: Course,
}

/// What the next turn of the loop is about.
enum Turn {
    Read(io::Result<usize>),
    Connected(io::Result<TcpStream>),
    Datagram(io::Result<(usize, SocketAddr)>),
    Timeout,
    Seek,
    Steer,
    Room,
    Stop,
}

impl Connection {
    pub(super) fn new(client: Engine, stream: TcpStream, udp: Vec<UdpSocket>, server: SocketAddr) -> Self {
        Self {
            client,
            stream: Some(stream),
            connecting: None,
            broken: None,
            udp,
            server,
            seek: None,
            room: None,
            has_room: true,
            seek_due: None,
            steering: None,
            steered: Course::default(),
        }
    }

    /// Seeks once, so long after the first packet.
    pub(super) fn seek_after(&mut self, seek: Option<(Duration, StartAt)>) {
        self.seek = seek;
    }

    /// Leaves TCP unread while this is false.
    pub(super) fn read_while(&mut self, room: Option<watch::Receiver<bool>>) {
        self.room = room;
    }

    /// Looks whether there is room, and tells the engine of a change.
    fn look_for_room(&mut self) {
        let has_room = self.room.as_mut().is_none_or(|room| *room.borrow_and_update());
        if has_room != self.has_room {
            self.has_room = has_room;
            self.client.handle(now(), ClientInput::Room(has_room));
        }
    }

    /// Follows a course; nothing is played before that says so.
    pub(super) fn steer(&mut self, steering: Option<Steering>) {
        self.steering = steering;
        if self.steering.is_some() {
            self.client.handle(now(), ClientInput::Pause);
            self.follow();
        }
    }

    /// Carries out what has changed of the course.
    fn follow(&mut self) {
        let Some(steering) = &mut self.steering else { return };
        let (new, old, now) = (*steering.course.borrow_and_update(), self.steered, now());
        self.steered = new;
        if let Some(streams) = new.streams.filter(|_| new.streams != old.streams) {
            self.client.handle(now, ClientInput::Select(streams));
        }
        match new.from {
            None if old.from.is_some() => self.client.handle(now, ClientInput::Pause),
            Some(from) if old.from.is_none() || new.play != old.play => {
                steering.applied.store(new.play, Ordering::Relaxed);
                let resumed = steering.resumed.filter(|(play, _)| *play == new.play);
                self.client.handle(now, ClientInput::Seek(resumed.map_or(from, |(_, at)| at)));
                self.client.handle(now, ClientInput::Resume);
            }
            _ => {}
        }
    }

    /// Runs until the end; `stop` makes the client say goodbye.
    pub(super) async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        mut on_event: impl FnMut(ClientEvent, ClientStats),
    ) -> Ended {
        let mut stop = std::pin::pin!(stop);
        let mut stopping = false;
        let mut read = BytesMut::new();
        let mut datagram = vec![0; if self.udp.is_empty() { 0 } else { READ_LEN }];
        loop {
            match self.carry_out(&mut on_event).await {
                Ok(None) => {}
                Ok(Some(ClientEnd::Closed)) => return self.broken.take().map_or(Ended::Closed, Ended::Broken),
                Ok(Some(end)) => return Ended::Client(end),
                Err(error) => return Ended::Broken(error),
            }
            self.look_for_room();
            let deadline = self.client.poll_timeout();
            read.clear();
            read.reserve(READ_LEN);
            let turn = tokio::select! {
                result = read_some(self.stream.as_mut(), &mut read), if self.has_room => Turn::Read(result),
                result = connected(self.connecting.as_mut()) => Turn::Connected(result),
                result = receive(&self.udp, &mut datagram) => Turn::Datagram(result),
                () = sleep_until(deadline) => Turn::Timeout,
                () = sleep_until(self.seek_due) => Turn::Seek,
                () = changed(self.steering.as_mut()) => Turn::Steer,
                is_there = room_changed(self.room.as_mut()) => {
                    if !is_there {
                        // Where nobody is left who could tell, there is room.
                        self.room = None;
                    }
                    Turn::Room
                }
                () = &mut stop, if !stopping => Turn::Stop,
            };
            let now = now();
            match turn {
                Turn::Read(Ok(0)) if self.client.is_one_connection() => return Ended::Closed,
                Turn::Read(Ok(0)) => self.lose(None),
                Turn::Read(Ok(_)) => self.client.handle(now, ClientInput::Bytes(&read)),
                Turn::Read(Err(error)) if self.client.is_one_connection() => return Ended::Broken(error),
                Turn::Read(Err(error)) => self.lose(Some(error)),
                Turn::Connected(result) => {
                    self.connecting = None;
                    match result {
                        Ok(stream) => {
                            self.stream = Some(stream);
                            self.client.handle(now, ClientInput::Connected);
                        }
                        Err(error) => self.lose(Some(error)),
                    }
                }
                Turn::Datagram(Ok((len, from))) => {
                    if from.ip() == self.server.ip() {
                        self.client.handle(now, ClientInput::Datagram(datagram.get(..len).unwrap_or_default()));
                    }
                }
                // An ICMP for a resend request that found no listener; media may come all the same.
                Turn::Datagram(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Turn::Datagram(Err(error)) => return Ended::Broken(error),
                Turn::Timeout => self.client.handle(now, ClientInput::Timeout),
                Turn::Seek => {
                    self.seek_due = None;
                    if let Some((_, at)) = self.seek.take() {
                        self.client.handle(now, ClientInput::Seek(at));
                    }
                }
                Turn::Steer => self.follow(),
                // Looked at above.
                Turn::Room => {}
                Turn::Stop => {
                    stopping = true;
                    self.client.handle(now, ClientInput::Stop);
                }
            }
        }
    }

    /// The connection is gone, or did not come about; the engine knows what that means.
    fn lose(&mut self, error: Option<io::Error>) {
        self.stream = None;
        self.broken = error.or_else(|| self.broken.take());
        self.client.handle(now(), ClientInput::Closed);
    }

    /// Does what the engine wants; `Some` where it is done.
    async fn carry_out(&mut self, on_event: &mut impl FnMut(ClientEvent, ClientStats)) -> io::Result<Option<ClientEnd>> {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send(message) => {
                    let Some(stream) = &mut self.stream else { continue };
                    let written = match time::timeout(WRITE_TIME, stream.write_all(&message)).await {
                        Ok(result) => result,
                        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server takes no bytes")),
                    };
                    match written {
                        Err(error) if self.client.is_one_connection() => return Err(error),
                        // Half a message stands there now, and no other one makes sense behind it.
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => self.lose(Some(error)),
                        // It may have been answered all the same; reading shows.
                        Err(error) => self.broken = Some(error),
                        Ok(()) => {}
                    }
                }
                ClientOutput::Datagram(request) => {
                    if let Some(udp) = self.udp.first() {
                        // A request that does not go out is as good as one that is lost: it is repeated.
                        let _ = udp.send_to(&request, self.server).await;
                    }
                }
                ClientOutput::DatagramTo { from, to, bytes } => {
                    let is_from = |udp: &&UdpSocket| udp.local_addr().is_ok_and(|address| address.port() == from);
                    if let Some(udp) = self.udp.iter().find(is_from) {
                        let _ = udp.send_to(&bytes, (self.server.ip(), to)).await;
                    }
                }
                ClientOutput::Event(event) => {
                    if let (ClientEvent::Packet { .. }, Some((wait, _)), None) = (&event, self.seek, self.seek_due) {
                        self.seek_due = Some(now() + wait);
                    }
                    on_event(event, self.client.stats());
                }
                ClientOutput::Connect => {
                    (self.stream, self.broken) = (None, None);
                    self.connecting = Some(Box::pin(connect(self.server)));
                }
                ClientOutput::Disconnect => (self.stream, self.connecting, self.broken) = (None, None, None),
                ClientOutput::Close(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }
}

/// A connection on its way.
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Connects within [`CONNECT_TIME`].
pub(super) async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    match time::timeout(CONNECT_TIME, TcpStream::connect(server)).await {
        Ok(result) => {
            let stream = result?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

async fn connected(connecting: Option<&mut Connecting>) -> io::Result<TcpStream> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

async fn read_some(stream: Option<&mut TcpStream>, into: &mut BytesMut) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read_buf(into).await,
        None => std::future::pending().await,
    }
}

/// Returns when there is another amount of room; false: nobody tells any more.
async fn room_changed(room: Option<&mut watch::Receiver<bool>>) -> bool {
    match room {
        Some(room) => room.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// A datagram of any of the sockets; never returns where there is none.
async fn receive(udp: &[UdpSocket], datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    std::future::poll_fn(|context| {
        for udp in udp {
            let mut into = ReadBuf::new(datagram);
            if let Poll::Ready(result) = udp.poll_recv_from(context, &mut into) {
                return Poll::Ready(result.map(|from| (into.filled().len(), from)));
            }
        }
        Poll::Pending
    })
    .await
}

async fn changed(steering: Option<&mut Steering>) {
    if let Some(steering) = steering
        && steering.course.changed().await.is_ok()
    {
        return;
    }
    // Nobody is there who could change it.
    std::future::pending().await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Now, by tokio's clock, which tests may stop.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}
