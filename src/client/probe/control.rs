//! The control port as a probe knows it: whom it believes, who it is signed in as, and its calls.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::api::{self, Call, CallError};
use crate::client::tls::{self, Fingerprint};
use crate::probe::plan::{ChallengeWish, ProbeWish};
use crate::probe::{Challenged, ProbeAnswer, ProbePlan, Report, TcpSeen, Wanted};

/// An answer takes milliseconds, a password some more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where it is.
#[derive(Debug, Clone)]
pub struct ControlPort {
    /// As it was typed.
    pub host: String,
    /// Where that is.
    pub address: SocketAddr,
    /// Our own address on the way there.
    pub local: IpAddr,
    /// The certificate that it has to show; `None`: it is not inside TLS.
    pub certificate: Option<Fingerprint>,
}

/// Why a call is not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connection.
    #[error("the control port cannot be reached any more: {0}")]
    Io(io::Error),
    /// The connection broke.
    #[error("the control port: {0}")]
    Call(CallError),
    /// What answers to HTTP outside TLS speaks something else.
    #[error(
        "what answers at the control port {0} is no HTTP, so it is inside TLS, as it is unless the server was told otherwise: leave out \
         --plain; or it is another port than that, which --control names"
    )]
    NotPlain(SocketAddr),
    /// It takes too long.
    #[error("the control port does not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// It shows another certificate than before.
    #[error("the control port shows another certificate than before: somebody is in between")]
    Certificate,
    /// It says no.
    #[error("the server says: {message}")]
    Refused {
        /// How.
        status: StatusCode,
        /// In its own words.
        message: String,
    },
    /// What it says is not understood.
    #[error("the server's answer is not understood ({0}); is it of another version?")]
    Answer(String),
}

// The sentences name their causes, which would be told again as sources.
impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<CallError> for ControlError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A connection inside TLS that has not been believed yet.
pub struct Sealed(TlsStream<TcpStream>);

impl Sealed {
    /// Shakes hands.
    ///
    /// # Errors
    /// What a port that speaks no TLS has done.
    pub async fn of(stream: TcpStream, host: &str) -> Result<Self, TcpSeen> {
        match timeout(PATIENCE, tls::shake_hands(stream, host)).await {
            Ok(Ok(stream)) => Ok(Self(stream)),
            Ok(Err(error)) if is_end(&error) => Err(TcpSeen::Swallowed),
            Ok(Err(error)) => Err(TcpSeen::Other(format!("no TLS: {error}"))),
            Err(_) => Err(TcpSeen::Swallowed),
        }
    }

    /// The certificate that it shows.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        tls::shown(&self.0)
    }

    /// Whether an authority of this system vouches for it.
    pub fn is_vouched_for(&self, host: &str) -> bool {
        tls::is_vouched_for(&self.0, host)
    }

    pub(super) fn into_inner(self) -> TlsStream<TcpStream> {
        self.0
    }
}

/// The other end is gone.
pub(super) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// The control port, signed in.
#[derive(Debug)]
pub struct Control {
    /// Where it is.
    pub port: ControlPort,
    token: String,
}

impl Control {
    /// Signs in.
    ///
    /// # Errors
    /// Any [`ControlError`].
    pub async fn sign_in(port: ControlPort, user: &str, password: &str) -> Result<Self, ControlError> {
        let wish = json!({ "user": user, "password": password });
        let answer: Value = understood(&port.call(Method::POST, "/v1/sign-in", None, Some(wish)).await?)?;
        let token = answer.get("token").and_then(Value::as_str).ok_or_else(|| ControlError::Answer("no token".into()))?;
        Ok(Self { token: token.to_owned(), port })
    }

    /// Begins a probe.
    ///
    /// # Errors
    /// Any [`ControlError`].
    pub async fn begin(&self, viewers: u16, protocol: Wanted) -> Result<ProbePlan, ControlError> {
        self.post("/v1/probes", &ProbeWish { viewers, protocol }).await
    }

    /// Asks for challenges.
    pub(super) async fn challenge(&self, id: u64, wish: &ChallengeWish) -> Result<Challenged, ControlError> {
        self.post(&format!("/v1/probes/{id}/challenges"), wish).await
    }

    /// Asks what the server got.
    pub(super) async fn heard(&self, id: u64) -> Result<ProbeAnswer, ControlError> {
        understood(&self.port.call(Method::GET, &format!("/v1/probes/{id}"), Some(&self.token), None).await?)
    }

    /// Ends the probe, and signs out.
    ///
    /// # Errors
    /// Any [`ControlError`].
    pub async fn end(&self, id: u64, report: &Report) -> Result<(), ControlError> {
        let report = serde_json::to_value(report).map_err(|error| ControlError::Answer(error.to_string()))?;
        let path = format!("/v1/probes/{id}/report");
        let told = self.port.call(Method::POST, &path, Some(&self.token), Some(report)).await;
        self.port.call(Method::POST, "/v1/sign-out", Some(&self.token), None).await?;
        told.map(drop)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, wish: &impl Serialize) -> Result<T, ControlError> {
        let wish = serde_json::to_value(wish).map_err(|error| ControlError::Answer(error.to_string()))?;
        understood(&self.port.call(Method::POST, path, Some(&self.token), Some(wish)).await?)
    }
}

impl ControlPort {
    /// One call on a connection of its own: the server keeps none that is silent for long.
    async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Result<Vec<u8>, ControlError> {
        let call = Call { method, path, host: &self.host, token, body };
        let talk = async {
            let stream = TcpStream::connect(self.address).await?;
            match &self.certificate {
                None => api::call(stream, call).await.map_err(|error| match error {
                    CallError::Http(error) if error.is_parse() => ControlError::NotPlain(self.address),
                    error => error.into(),
                }),
                Some(certificate) => {
                    let stream = tls::shake_hands(stream, &self.host).await?;
                    if tls::shown(&stream).as_ref() != Some(certificate) {
                        return Err(ControlError::Certificate);
                    }
                    Ok(api::call(stream, call).await?)
                }
            }
        };
        let (status, body) = timeout(PATIENCE, talk).await.map_err(|_| ControlError::Late)??;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(ControlError::Refused { status, message: api::refusal(status, &body) })
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|error| ControlError::Answer(error.to_string()))
}
