//! One call of a daemon's API, on a connection of any kind.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of an answer: a hundred thousand sessions.
const ANSWER_MAX: usize = 64 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The path, and what is behind its question mark.
    pub path: &'a str,
    /// The server's name, and its port where that is not HTTP's own.
    pub host: &'a str,
    /// Who asks, where that is asked for.
    pub token: Option<&'a str>,
    /// The body.
    pub body: Option<Value>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection broke, or what came is no HTTP.
    #[error("no answer in HTTP ({0})")]
    Http(hyper::Error),
    /// It cannot be asked.
    #[error("this cannot be asked ({0})")]
    Request(hyper::http::Error),
    /// The answer's body broke off, or is huge.
    #[error("the answer is not whole ({0})")]
    Body(String),
}

// The sentences name their causes, which would be told again as sources.
impl From<hyper::Error> for CallError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl From<hyper::http::Error> for CallError {
    fn from(error: hyper::http::Error) -> Self {
        Self::Request(error)
    }
}

/// Asks, and reads the answer. The connection is done with then.
///
/// # Errors
/// Any [`CallError`]; a refusal of the server is none.
pub async fn call<S>(stream: S, call: Call<'_>) -> Result<(StatusCode, Bytes), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(call.method).uri(call.path).header(header::HOST, call.host);
    if let Some(token) = call.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = match call.body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    connection.abort();
    body.map(|body| (status, body.to_bytes())).map_err(|error| CallError::Body(error.to_string()))
}

/// What a refusal says to people.
pub fn refusal(status: StatusCode, body: &[u8]) -> String {
    let failure: Value = serde_json::from_slice(body).unwrap_or_default();
    failure.get("message").and_then(Value::as_str).map_or_else(|| format!("the daemon refuses ({status})"), str::to_owned)
}
