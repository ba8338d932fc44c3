//! TCP ports: a connection alone shows nothing, since firewalls and proxies take connections too. So each is spoken to.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::PATIENCE;
use super::control::{ControlPort, Sealed, is_end};
use crate::mms::connect::{Connect, NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::frame::{Decoder, Item, Message as _, encode};
use crate::probe::{Speaks, TcpSeen};

/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 8 << 10;
/// A player that servers of all ages know.
const PLAYER: &str = "NSPlayer/7.1.0.3055; {5A5B9BD2-9B8E-4C2C-9E1D-776D70726F62}";

/// The server in its own words.
const OURS: &str = "wmrelay/";
/// The same to players of RTSP, to whom it is one of Windows Media: proxies have other words.
const RTSP_SERVER: &str = crate::rtsp::viewer::SERVER;

/// Connects.
///
/// # Errors
/// What became of it where there is no connection.
pub async fn connect(address: SocketAddr) -> Result<TcpStream, TcpSeen> {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => TcpSeen::Refused,
            io::ErrorKind::TimedOut => TcpSeen::Silent,
            io::ErrorKind::PermissionDenied => TcpSeen::Kept(error.to_string()),
            _ => TcpSeen::Unreachable(error.to_string()),
        }),
        Err(_) => Err(TcpSeen::Silent),
    }
}

/// Connects, says the first thing of a protocol, and looks at the answer.
pub(super) async fn exchange(address: SocketAddr, speaks: Speaks, control: &ControlPort) -> TcpSeen {
    let stream = match connect(address).await {
        Ok(stream) => stream,
        Err(seen) => return seen,
    };
    let talk = async {
        match speaks {
            Speaks::Mms | Speaks::Rtsp | Speaks::Http => converse(stream, speaks, &control.host).await,
            Speaks::Rtsps => match Sealed::of(stream, &control.host).await {
                Ok(sealed) => sealed_answer(sealed, speaks, control).await,
                Err(seen) => seen,
            },
            Speaks::Control | Speaks::Console => match Sealed::of(stream, &control.host).await {
                Ok(sealed) if control.certificate.is_some() && sealed.fingerprint() != control.certificate => {
                    TcpSeen::Other("another certificate than at the control port".into())
                }
                Ok(sealed) => sealed_answer(sealed, speaks, control).await,
                Err(seen) => seen,
            },
        }
    };
    timeout(PATIENCE, talk).await.unwrap_or(TcpSeen::Swallowed)
}

/// What is said inside TLS shows who it is only by a certificate that is known to be the server's.
async fn sealed_answer(sealed: Sealed, speaks: Speaks, control: &ControlPort) -> TcpSeen {
    let is_known = control.certificate.is_some() && sealed.fingerprint() == control.certificate;
    match converse(sealed.into_inner(), speaks, &control.host).await {
        TcpSeen::Answered if !is_known => {
            let protocol = if speaks == Speaks::Rtsps { "RTSP in TLS" } else { "HTTPS" };
            TcpSeen::Unsure(format!("{protocol} answers; whose it is, its certificate does not show"))
        }
        seen => seen,
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, speaks: Speaks, host: &str) -> TcpSeen {
    let agent = concat!("wmrelay/", env!("CARGO_PKG_VERSION"));
    let first = match speaks {
        Speaks::Mms => {
            let subscriber = vec![format!("{PLAYER}; Host: {host}")];
            encode(0, &Connect { incarnation: NO_PACKET_PAIR, subscriber }).to_vec()
        }
        Speaks::Rtsp | Speaks::Rtsps => format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: {agent}\r\n\r\n").into_bytes(),
        Speaks::Http | Speaks::Control | Speaks::Console => {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n").into_bytes()
        }
    };
    let mut answer = Vec::new();
    if let Err(error) = stream.write_all(&first).await {
        return ended(&answer, Some(&error));
    }
    loop {
        let mut buffer = [0; 2048];
        let read = match stream.read(&mut buffer).await {
            Ok(0) => return ended(&answer, None),
            Ok(read) => read,
            Err(error) => return ended(&answer, Some(&error)),
        };
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        match judge(speaks, &answer) {
            Some(true) => return TcpSeen::Answered,
            Some(false) => return other(&answer),
            None if answer.len() > ANSWER_MAX => return other(&answer),
            None => {}
        }
    }
}

/// Whether this is how the server answers; `None`: more has to come.
fn judge(speaks: Speaks, answer: &[u8]) -> Option<bool> {
    let begins = |with: &[u8]| {
        let there = answer.len().min(with.len());
        let is_so_far = answer.get(..there) == with.get(..there);
        if !is_so_far { Some(false) } else { (there == with.len()).then_some(true) }
    };
    match speaks {
        Speaks::Mms => {
            let mut decoder = Decoder::from_server();
            decoder.feed(answer);
            match decoder.poll() {
                Ok(Some(Item::Message(frame))) => {
                    Some(frame.mid == ReportConnectedEx::MID && ReportConnectedEx::parse(&frame.message).is_ok())
                }
                Ok(Some(_)) | Err(_) => Some(false),
                // What is no MMS from its first byte on may be taken for the beginning of media.
                Ok(None) => (answer.first() != Some(&1)).then_some(false),
            }
        }
        // Proxies answer too.
        Speaks::Rtsp | Speaks::Rtsps => {
            begins(b"RTSP/1.0 ").and_then(|begins| if begins { is_ours(answer, RTSP_SERVER) } else { Some(false) })
        }
        // Whoever showed the certificate is the server.
        Speaks::Control | Speaks::Console => begins(b"HTTP/1.1 "),
        Speaks::Http => begins(b"HTTP/1.1 ").and_then(|begins| if begins { is_ours(answer, OURS) } else { Some(false) }),
    }
}

/// Whether the `Server` field of a complete head names us, or is this whole.
fn is_ours(answer: &[u8], whole: &str) -> Option<bool> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let server = head.lines().find_map(|line| line.strip_prefix("server:"));
    Some(server.is_some_and(|server| server.contains(OURS) || server.trim().eq_ignore_ascii_case(whole)))
}

fn ended(answer: &[u8], error: Option<&io::Error>) -> TcpSeen {
    match error {
        Some(error) if answer.is_empty() && !is_end(error) => TcpSeen::Other(error.to_string()),
        _ if answer.is_empty() => TcpSeen::Swallowed,
        _ => other(answer),
    }
}

/// The first line of what came, as far as a person can read it.
fn other(answer: &[u8]) -> TcpSeen {
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    TcpSeen::Other(line.get(..40).unwrap_or(line).escape_ascii().to_string())
}

/// Our address on the way to another one: what the system would choose. Nothing is sent.
pub(super) async fn local_for(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(address).await.ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    fn control() -> ControlPort {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        ControlPort { host: "localhost".into(), address: (here, 1).into(), local: here, certificate: None }
    }

    /// A server that takes a connection, reads something, says this and closes.
    async fn says(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        });
        address
    }

    #[tokio::test]
    async fn what_answers_something_else_is_not_open() {
        const ALL: [Speaks; 6] = [Speaks::Mms, Speaks::Rtsp, Speaks::Rtsps, Speaks::Http, Speaks::Control, Speaks::Console];
        for speaks in ALL {
            assert_eq!(exchange(says(b"").await, speaks, &control()).await, TcpSeen::Swallowed, "{speaks:?}");
            for wrong in [
                &b"HTTP/1.0 403 Forbidden\r\nServer: proxy\r\n\r\n"[..],
                b"SSH-2.0-x\r\n",
                b"\0",
                b"\x01\0\0\0\xce\xfa\x0b\xb0xxxxxxxx",
            ] {
                let seen = exchange(says(wrong).await, speaks, &control()).await;
                assert!(matches!(seen, TcpSeen::Other(_) | TcpSeen::Swallowed), "{speaks:?} {seen:?}");
            }
        }
        // In the right protocol, and of somebody else.
        let seen = exchange(says(b"HTTP/1.1 200 OK\r\nServer: proxy\r\n\r\n").await, Speaks::Http, &control()).await;
        assert_eq!(seen, TcpSeen::Other("HTTP/1.1 200 OK".into()));
        let ours = says(b"HTTP/1.1 404 Not Found\r\nServer: Cougar/9.5 wmrelay/0.1.0\r\n\r\n").await;
        assert_eq!(exchange(ours, Speaks::Http, &control()).await, TcpSeen::Answered);
        let rtsp = exchange(says(b"RTSP/1.0 200 OK\r\nServer: proxy\r\n\r\n").await, Speaks::Rtsp, &control()).await;
        assert_eq!(rtsp, TcpSeen::Other("RTSP/1.0 200 OK".into()));
        for ours in [
            &b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nServer: wmrelay/0.1.0\r\n\r\n"[..],
            b"RTSP/1.0 200 OK\r\nServer: WMServer/9.5.6001.18000\r\n\r\n",
        ] {
            assert_eq!(exchange(says(ours).await, Speaks::Rtsp, &control()).await, TcpSeen::Answered);
        }
    }

    #[tokio::test]
    async fn where_nobody_listens_it_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(exchange(address, Speaks::Mms, &control()).await, TcpSeen::Refused);
        assert_eq!(local_for(address).await, Some(Ipv4Addr::LOCALHOST.into()));
    }
}
