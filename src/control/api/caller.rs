//! Who asks, and whether that is enough.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};

use super::answer::Failure;
use crate::control::accounts::Role;
use crate::control::plane::Plane;
use crate::control::tokens::Caller;

/// By which way a request came; each connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) enum Face {
    /// A port: a token is asked for.
    Port,
    /// The Unix socket: the system has asked already.
    Socket,
}

/// Where a request came from, for those that came by a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Anybody who has signed in.
pub(super) struct Anybody(pub(super) Caller);

/// Somebody who may see how sources are.
pub(super) struct Publisher;

/// Somebody who may see and change everything.
pub(super) struct Operator(pub(super) Caller);

/// What shows that somebody may still listen.
#[derive(Clone)]
pub(super) struct Standing(Option<String>);

impl Standing {
    /// Whether the token is still good for an operator; who came by the Unix socket has none, and needs none.
    pub(super) fn is_good(&self, plane: &Plane) -> bool {
        let now = tokio::time::Instant::now().into_std();
        self.0.as_ref().is_none_or(|token| plane.caller(now, token).is_some_and(|caller| caller.role >= Role::Operator))
    }
}

impl FromRequestParts<Arc<Plane>> for Standing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Failure> {
        with_role(parts, plane, Role::Operator)?;
        let by_socket = parts.extensions.get::<Face>() == Some(&Face::Socket);
        Ok(Self(token(parts).filter(|_| !by_socket).map(str::to_owned)))
    }
}

/// The token of a request.
pub(super) fn token(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn caller(parts: &Parts, plane: &Plane) -> Result<Caller, Failure> {
    if parts.extensions.get::<Face>() == Some(&Face::Socket) {
        return Ok(Caller { user: "local".into(), role: Role::Operator });
    }
    let now = tokio::time::Instant::now().into_std();
    let known = token(parts).and_then(|token| plane.caller(now, token));
    known.ok_or_else(|| {
        let why = "sign in first: POST /v1/sign-in, then send the token as Authorization: Bearer TOKEN";
        Failure::new(StatusCode::UNAUTHORIZED, "not_signed_in", why)
    })
}

fn with_role(parts: &Parts, plane: &Plane, least: Role) -> Result<Caller, Failure> {
    let caller = caller(parts, plane)?;
    if caller.role < least {
        let why = format!("this is for the role {least}; {} has the role {}", caller.user, caller.role);
        return Err(Failure::new(StatusCode::FORBIDDEN, "not_allowed", why));
    }
    Ok(caller)
}

impl FromRequestParts<Arc<Plane>> for Anybody {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Failure> {
        with_role(parts, plane, Role::Viewer).map(Self)
    }
}

impl FromRequestParts<Arc<Plane>> for Publisher {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Failure> {
        with_role(parts, plane, Role::Publisher).map(|_| Self)
    }
}

impl FromRequestParts<Arc<Plane>> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Failure> {
        with_role(parts, plane, Role::Operator).map(Self)
    }
}
