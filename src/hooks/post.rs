//! Events posted to a web server: JSON, signed, and again when that fails.
//!
//! A request is a POST on a connection of its own, and of the answer the status is all that counts: httparse, which is there for the
//! media ports, does for that, where an HTTP client would be a dependency of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::sign::{FIELD, signature};
use super::{Event, UnixClock};
use crate::metrics::HOOKS;
use crate::settings::{Target, Webhook};

/// Attempts after the first one.
const RETRIES: u32 = 5;
/// Before the second attempt; twice as long before each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest head of an answer.
const HEAD_MAX: usize = 16 << 10;
/// Fields of it.
const FIELDS_MAX: usize = 64;
/// Where systems keep the certificates of authorities.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Why nothing can be posted at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The settings name no URL that can be posted to.
    #[error("hooks.url: {0}")]
    Url(String),
    /// The certificates of authorities are missing, or none.
    #[error("hooks.ca_file: {} {why}", file.display())]
    Authorities {
        /// Which file.
        file: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0} s")]
    Late(u64),
    #[error("the answer is no HTTP")]
    NoHttp,
    #[error("it answers {0}")]
    Status(u16),
}

impl PostError {
    /// Whether the same again may do better.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => *status >= 500 || matches!(*status, 408 | 425 | 429),
            Self::Io(_) | Self::Late(_) | Self::NoHttp => true,
        }
    }
}

/// Posts events to one URL.
pub(super) struct Poster {
    target: Target,
    secret: String,
    limit: Duration,
    clock: UnixClock,
    run_id: u64,
    tls: Option<TlsConnector>,
}

impl Poster {
    pub(super) fn new(webhook: &Webhook, limit: Duration, clock: UnixClock, run_id: u64) -> Result<Self, WebhookError> {
        let target = Target::parse(&webhook.url).map_err(WebhookError::Url)?;
        let tls = if target.tls { Some(connector(webhook.ca_file.as_deref())?) } else { None };
        Ok(Self { target, secret: webhook.secret.clone(), limit, clock, run_id, tls })
    }

    /// Posts an event until the server takes it, or all attempts have failed.
    pub(super) async fn deliver(&self, event: &Event) {
        let body = self.body(event);
        let mut wait = FIRST_WAIT;
        for attempt in 0..=RETRIES {
            let posted = match timeout(self.limit, self.post(&body)).await {
                Ok(posted) => posted,
                Err(_) => Err(PostError::Late(self.limit.as_secs())),
            };
            let Err(error) = posted else {
                counter!(HOOKS, "kind" => "webhook", "result" => "ok").increment(1);
                return;
            };
            let (point, what, server) = (&*event.point, event.kind.word(), &self.target.authority);
            if attempt == RETRIES || !error.may_pass() {
                counter!(HOOKS, "kind" => "webhook", "result" => "failed").increment(1);
                tracing::warn!(point, event = what, server, %error, "webhook failed, the event is given up");
                return;
            }
            counter!(HOOKS, "kind" => "webhook", "result" => "retried").increment(1);
            tracing::info!(point, event = what, server, %error, retry_s = wait.as_secs(), "webhook failed");
            sleep(wait).await;
            wait *= 2;
        }
    }

    /// What is posted; the same in all attempts, so that who gets it twice knows by its id.
    fn body(&self, event: &Event) -> String {
        serde_json::json!({
            "id": format!("{:016x}-{}", self.run_id, event.number),
            "event": event.kind.word(),
            "point": &*event.point,
            "of": &*event.of,
            "source": event.source,
            "viewers": event.viewers,
            "time": event.unix_s,
        })
        .to_string()
    }

    /// One attempt. Signed anew each time, for old signatures are refused.
    async fn post(&self, body: &str) -> Result<(), PostError> {
        let Target { host, port, authority, path, .. } = &self.target;
        let signature = signature(self.secret.as_bytes(), (self.clock)(), body.as_bytes());
        let version = env!("CARGO_PKG_VERSION");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: wmrelay/{version}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{FIELD}: {signature}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let status = match &self.tls {
            None => exchange(stream, request.as_bytes()).await?,
            Some(connector) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                exchange(connector.connect(name, stream).await?, request.as_bytes()).await?
            }
        };
        if (200..300).contains(&status) { Ok(()) } else { Err(PostError::Status(status)) }
    }
}

/// Sends a request and reads the status of the answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Result<u16, PostError> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        while let Some((status, len)) = status_of(&head)? {
            // What is only a sign of life is followed by the answer.
            if status >= 200 {
                return Ok(status);
            }
            head.drain(..len);
        }
        if head.len() > HEAD_MAX {
            return Err(PostError::NoHttp);
        }
    }
}

/// The status of an answer and the length of its head; `None` where that is not whole yet.
fn status_of(head: &[u8]) -> Result<Option<(u16, usize)>, PostError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(len)) => Ok(response.code.map(|code| (code, len))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(PostError::NoHttp),
    }
}

/// What checks the server's certificate: by the authorities of the file, or by those of the system, which its administrator keeps.
fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, WebhookError> {
    let system = || {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        named.into_iter().chain(BUNDLES.map(PathBuf::from)).find(|file| file.is_file())
    };
    let file = match ca_file.map(Path::to_owned).or_else(system) {
        Some(file) => file,
        None => {
            let why = "is not set, and this system keeps no certificates of authorities; install ca-certificates, or name a file"
                .into();
            return Err(WebhookError::Authorities { file: PathBuf::new(), why });
        }
    };
    let wrong = |why: String| WebhookError::Authorities { file: file.clone(), why };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let (added, _) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if added == 0 {
        return Err(wrong("holds no \"-----BEGIN CERTIFICATE-----\"; it has to be PEM".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("cannot be used: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::tests::event;
    use std::sync::Mutex;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    const SECRET: &str = "0123456789abcdef";

    fn poster(url: &str, ca_file: Option<PathBuf>) -> Poster {
        let webhook = Webhook { url: url.into(), secret: SECRET.into(), ca_file };
        Poster::new(&webhook, Duration::from_secs(10), Arc::new(|| 1_700_000_000), 0xABC).unwrap()
    }

    /// Answers each request with the next of these, and notes when it came and what it was.
    async fn scripted(answers: &'static [&'static str]) -> (String, Arc<Mutex<Vec<(Instant, String)>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.ends_with(b"}") {
                    let count = stream.read(&mut buffer).await.unwrap();
                    request.extend_from_slice(&buffer[..count]);
                }
                noted.lock().unwrap().push((Instant::now(), String::from_utf8(request).unwrap()));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, requests)
    }

    #[tokio::test]
    async fn an_event_is_posted_signed() {
        let (url, requests) = scripted(&["HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"]).await;
        poster(&url, None).deliver(&event(7, "cam \"1\"")).await;
        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), 1);
        let (head, body) = requests[0].1.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        assert_eq!(field("Content-Length").unwrap().parse(), Ok(body.len()));
        assert_eq!(field(FIELD).unwrap(), signature(SECRET.as_bytes(), 1_700_000_000, body.as_bytes()));
        assert!(!requests[0].1.contains(SECRET));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        let wanted = serde_json::json!({
            "id": "0000000000000abc-7", "event": "ready", "point": "cam \"1\"", "of": "cam-*", "source": "exec", "viewers": 3,
            "time": 1_600_000_000,
        });
        assert_eq!(json, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_posted_again_later_and_later() {
        const DOWN: &str = "HTTP/1.1 503 Down\r\n\r\n";
        let (url, requests) =
            scripted(&[DOWN, "nonsense\r\n\r\n", "", "HTTP/1.1 429 Slowly\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]).await;
        poster(&url, None).deliver(&event(1, "a")).await;
        let requests = requests.lock().unwrap();
        let waits: Vec<u64> = requests.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8]);
        assert!(requests.iter().all(|(_, request)| request == &requests[0].1), "the clock stands still here");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_at_last() {
        const DOWN: &str = "HTTP/1.1 500 Down\r\n\r\n";
        let (url, requests) = scripted(&[DOWN; 9]).await;
        let begun = Instant::now();
        poster(&url, None).deliver(&event(1, "a")).await;
        assert_eq!((requests.lock().unwrap().len(), begun.elapsed().as_secs()), (6, 31));
        let (url, requests) = scripted(&["HTTP/1.1 403 No\r\n\r\n"; 9]).await;
        poster(&url, None).deliver(&event(1, "a")).await;
        assert_eq!(requests.lock().unwrap().len(), 1, "the same again would be refused again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let begun = Instant::now();
        poster(&url, None).deliver(&event(1, "a")).await;
        assert_eq!(begun.elapsed().as_secs(), 6 * 10 + 31);
    }

    #[tokio::test]
    async fn certificates_are_checked() {
        use base64::Engine as _;
        use tokio_rustls::TlsAcceptor;
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::PrivateKeyDer;

        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let text = base64::engine::general_purpose::STANDARD.encode(made.cert.der());
        std::fs::write(&ca_file, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            }
        });
        poster(&url, Some(ca_file.clone())).post("{}").await.unwrap();
        // Of a stranger it is not taken.
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(other.cert.der());
        std::fs::write(&ca_file, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
        let error = poster(&url, Some(ca_file.clone())).post("{}").await.unwrap_err();
        assert!(matches!(error, PostError::Io(_)), "{error}");
        std::fs::write(&ca_file, "nothing").unwrap();
        let webhook = Webhook { url, secret: SECRET.into(), ca_file: Some(ca_file) };
        let error = Poster::new(&webhook, Duration::ZERO, Arc::new(|| 0), 0).err().unwrap();
        assert!(error.to_string().contains("BEGIN CERTIFICATE"), "{error}");
    }
}
