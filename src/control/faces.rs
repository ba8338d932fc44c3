//! The connections of control port, console and Unix socket: bounded in number and in what they may take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::api::{Face, Peer};
use super::taking::Taking;
use crate::relay::admission::{Slot, Slots};
use crate::shard::Certificate;

/// Connections of one face at once: browsers take six each, programs one.
const CONNECTIONS_MAX: usize = 256;
/// And of one address.
const OF_ADDRESS_MAX: usize = 32;
/// A request's head has to be whole by then, and so has the next one's on a connection that is kept.
const HEAD: Duration = Duration::from_secs(15);
/// A handshake of TLS has to be done by then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// When the daemon stops: time for the answer in hand.
const LAST_ANSWER: Duration = Duration::from_millis(700);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// When a system call fails for want of something: the time until it is tried again.
const BREATH: Duration = Duration::from_millis(100);

/// Serves connections of a TCP listener until `stopped`; `what` is served there, for the log.
pub(super) async fn serve_tcp(
    what: &'static str,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let router = router.layer(Extension(Face::Port));
    // This machine has its own: nobody else takes them, and what stands in front of the port here speaks for many.
    let (places, local) = (Slots::new(CONNECTIONS_MAX, OF_ADDRESS_MAX), Slots::new(CONNECTIONS_MAX, CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of the {what} was lost");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
            () = told(&mut stopped) => break,
        };
        while connections.try_join_next().is_some() {}
        // Beyond that nobody is served; who is told so by a closed connection tries again.
        let address = address_of(peer);
        let Some(place) = (if address.is_loopback() { &local } else { &places }).take(address) else { continue };
        let _ = stream.set_nodelay(true);
        let router = router.clone().layer(Extension(Peer(address)));
        let (certificate, stopped) = (certificate.clone(), stopped.clone());
        connections.spawn(async move {
            let Some(certificate) = certificate else { return converse(stream, router, place, stopped).await };
            let acceptor = TlsAcceptor::from(certificate.config());
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, router, place, stopped).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS at the {what}"),
                Err(_) => tracing::debug!(%peer, "no handshake at the {what} in time"),
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves connections of the Unix socket until `stopped`. The system lets in whom the socket's file mode lets in.
pub(super) async fn serve_unix(listener: UnixListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let router = router.layer(Extension(Face::Socket));
    let places = Slots::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection of the control socket was lost");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
            () = told(&mut stopped) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some(place) = places.take(Ipv4Addr::LOCALHOST.into()) else { continue };
        connections.spawn(converse(stream, router.clone(), place, stopped.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection; when the daemon stops it ends after the answer in hand.
async fn converse<S>(stream: S, router: Router, _place: Slot, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Taking::new(stream)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // What goes wrong on a connection is its peer's to know.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = told(&mut stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Who listens to events would stay for ever.
    let _ = timeout(LAST_ANSWER, connection).await;
}

/// Ends when the daemon stops.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // Without a sender it has stopped as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn address_of(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
