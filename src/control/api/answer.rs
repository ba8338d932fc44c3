//! Failures, all of one form, and bodies that are read so that their mistakes have it too.

use std::time::Duration;

use axum::Json;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;
use utoipa::ToSchema;

/// A body is short: it has to be whole by then.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureBody {
    /// One word for programs.
    error: &'static str,
    /// A sentence for people.
    message: String,
}

/// A request that is not done.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    body: FailureBody,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: FailureBody { error, message: message.into() } }
    }

    /// Its kind.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says to people.
    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }

    /// There is none of this name or number.
    pub(super) fn none(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wmrelay\""));
        }
        response
    }
}

/// The body of a request: an object of JSON. What is made of one would take a list of its values too.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match timeout(BODY_TIME, Json::<Map<String, Value>>::from_request(request, state)).await {
            Ok(Ok(Json(body))) => serde_json::from_value(Value::Object(body)).map(Self).map_err(|error| {
                Failure::new(StatusCode::BAD_REQUEST, "bad_body", format!("The body is not what this call takes: {error}"))
            }),
            Ok(Err(rejection)) => Err(bad_body(&rejection)),
            Err(_) => {
                let why = format!("the body did not come within {} s", BODY_TIME.as_secs());
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", why))
            }
        }
    }
}

fn bad_body(rejection: &JsonRejection) -> Failure {
    let status = match rejection {
        JsonRejection::MissingJsonContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // Too long, or cut off.
        JsonRejection::BytesRejection(_) => rejection.status(),
        _ => StatusCode::BAD_REQUEST,
    };
    Failure::new(status, "bad_body", rejection.body_text())
}

/// A part of the path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(bad_path(&rejection)),
        }
    }
}

fn bad_path(rejection: &PathRejection) -> Failure {
    let kind = match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => Some(failed.kind()),
        _ => None,
    };
    let message = match kind {
        // Whatever is read from paths and is no text is a number.
        Some(
            ErrorKind::ParseError { value, .. }
            | ErrorKind::ParseErrorAtIndex { value, .. }
            | ErrorKind::ParseErrorAtKey { value, .. },
        ) => format!("{value:?} stands where the path has a number"),
        _ => rejection.body_text(),
    };
    Failure::new(StatusCode::BAD_REQUEST, "bad_path", message)
}
