//! TLS around connections: a thread of its own ends it and copies between the peer and the shard.
//!
//! A shard writes past the runtime, and the same bytes to many; inside TLS each viewer's bytes are its own, and making them takes
//! time. So the shard is given one end of a pair of local sockets, which it treats as any connection, and nobody waits for anybody.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::front::{Door, accept};
use super::strays::{Stray, Strays, TELL_EVERY};
use super::{Context, HandOff, TlsDoor};
use crate::metrics as names;
use crate::settings::Protocols;

/// Handshakes at once. Each may hold some tens of kilobytes; who completes one does so in a second.
const MOST_HANDSHAKES: usize = 1024;
/// How often the files of the certificate are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a shard may have written that is not encrypted yet, bytes: as much as it leaves unsent on other connections.
const AHEAD_BYTES: usize = 128 << 10;
/// Bytes of one record towards the peer: the most that TLS has.
const RECORD_BYTES: usize = 16 << 10;
/// Bytes of one read from the peer.
const READ_BYTES: usize = 4 << 10;
/// Time for one record to leave. A shard gives a viewer up that takes nothing for a minute; then nobody is left to wait.
const STALLED: Duration = Duration::from_secs(70);
/// When one direction is over: time for the other.
const LINGER: Duration = Duration::from_secs(2);
/// When the daemon stops: how often it is looked whether the last one has gone.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Ends TLS for the connections of one listener.
pub(super) struct Terminator {
    certificate: Arc<Certificate>,
    /// Connections at once; `None`: any number.
    most: Option<usize>,
    /// Is held by each connection, and by the thread.
    live: Weak<()>,
    gauge: Gauge,
}

/// One connection inside TLS.
struct Live {
    _live: Option<Arc<()>>,
    gauge: Gauge,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

/// Serves what is inside TLS until told to stop and nobody is left.
pub(super) fn run(context: Arc<Context>, door: TlsDoor, handoff: HandOff, undecided_max: usize, mut stop: watch::Receiver<bool>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for TLS"),
    };
    runtime.block_on(async move {
        let TlsDoor { listeners, certificate } = door;
        let most = usize::try_from(context.settings.limits.tls_connections).ok().filter(|most| *most > 0);
        let live = Arc::new(());
        let terminator = Arc::new(Terminator {
            certificate: Arc::clone(&certificate),
            most,
            live: Arc::downgrade(&live),
            gauge: metrics::gauge!(names::TLS_CONNECTIONS),
        });
        // Those who say nothing make room for others before they fill all places.
        let undecided = most.map_or(MOST_HANDSHAKES, |most| (most / 2).max(1)).min(MOST_HANDSHAKES);
        let strays = Arc::new(Strays::new(undecided_max.min(undecided)));
        let mut accepting = Vec::new();
        for listener in listeners {
            let door = Door {
                protocols: Protocols { mms: false, http: false, rtsp: true },
                udp: None,
                takes_publishers: true,
                takes_http_publishers: false,
                tls: Some(Arc::clone(&terminator)),
            };
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let accept = accept(Arc::clone(&context), listener, door, Arc::clone(&handoff), Arc::clone(&strays));
                    accepting.push(tokio::spawn(accept));
                }
                Err(error) => tracing::error!(%error, "a listener was lost"),
            }
        }
        let (mut telling, mut looking) = (tokio::time::interval(TELL_EVERY), tokio::time::interval(LOOK_EVERY));
        loop {
            tokio::select! {
                _ = telling.tick() => strays.tell(),
                _ = looking.tick() => {
                    let certificate = Arc::clone(&certificate);
                    // A disk may be slow, and viewers do not wait for it.
                    let _ = tokio::task::spawn_blocking(move || certificate.refresh()).await;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        accepting.into_iter().for_each(|accepting| accepting.abort());
        // The end of the stream still has to get through.
        while Arc::strong_count(&live) > 1 {
            tokio::time::sleep(LAST_LOOK).await;
        }
    });
}

impl Terminator {
    /// Shakes hands; the connection that a shard then serves in the peer's stead.
    ///
    /// # Errors
    /// The peer speaks no TLS that is good enough, or there are too many.
    pub(super) async fn terminate(&self, stream: tokio::net::TcpStream) -> Result<tokio::net::TcpStream, Stray> {
        if self.is_full() {
            return Err(Stray::TlsLimit);
        }
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(u32::try_from(AHEAD_BYTES).unwrap_or(u32::MAX));
        let acceptor = TlsAcceptor::from(self.certificate.config());
        let encrypted = acceptor.accept(stream).await.map_err(|error| {
            tracing::debug!(%error, "no TLS handshake");
            Stray::Handshake
        })?;
        if self.is_full() {
            return Err(Stray::TlsLimit);
        }
        let (ours, shard) = pair().map_err(|error| {
            tracing::warn!(%error, "a connection inside TLS was lost; is the limit on open files too low?");
            Stray::TlsLimit
        })?;
        self.gauge.increment(1.0);
        let live = Live { _live: self.live.upgrade(), gauge: self.gauge.clone() };
        tokio::spawn(async move {
            relay(encrypted, ours).await;
            drop(live);
        });
        Ok(shard)
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.live.strong_count() > most)
    }
}

/// Two ends of a local connection: ours, and one that is used as if the peer itself were at its other end.
fn pair() -> io::Result<(UnixStream, tokio::net::TcpStream)> {
    let (ours, shard) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    shard.set_nonblocking(true)?;
    let _ = socket2::SockRef::from(&shard).set_send_buffer_size(AHEAD_BYTES);
    // Reading, writing and closing are the same for both kinds of socket; addresses, which are not, came with the peer.
    let shard = tokio::net::TcpStream::from_std(TcpStream::from(OwnedFd::from(shard)))?;
    Ok((UnixStream::from_std(ours)?, shard))
}

/// Copies both ways until one side has ended and the other has had time to.
async fn relay(encrypted: impl AsyncRead + AsyncWrite, shard: UnixStream) {
    let (from_peer, to_peer) = tokio::io::split(encrypted);
    let (from_shard, to_shard) = shard.into_split();
    let mut inward = std::pin::pin!(copy::<READ_BYTES>(from_peer, to_shard));
    let mut outward = std::pin::pin!(copy::<RECORD_BYTES>(from_shard, to_peer));
    let _ = tokio::select! {
        () = inward.as_mut() => timeout(LINGER, outward).await,
        () = outward.as_mut() => timeout(LINGER, inward).await,
    };
}

/// Copies until the end, which is passed on, or until nothing leaves any more.
async fn copy<const CHUNK: usize>(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let chunk = buffer.get(..read).unwrap_or_default();
        let sent = timeout(STALLED, async {
            to.write_all(chunk).await?;
            // What is encrypted but did not fit waits for this.
            to.flush().await
        });
        if !matches!(sent.await, Ok(Ok(()))) {
            break;
        }
    }
    let _ = timeout(LINGER, to.shutdown()).await;
}
