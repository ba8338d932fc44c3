//! Signing in and out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::{Json, RequestPartsExt as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody};
use super::caller::{Anybody, Peer, token};
use crate::control::accounts::Role;
use crate::control::plane::{Plane, SignInRefusal};
use crate::control::throttle::TooMany;
use crate::control::tokens::Caller;

/// Who somebody says they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// Name of the account.
    #[schema(max_length = 64)]
    user: String,
    /// Its password.
    #[schema(max_length = 256)]
    password: String,
}

/// What is shown from then on.
#[derive(Serialize, ToSchema)]
pub(super) struct SignedIn {
    /// Send it as `Authorization: Bearer TOKEN`.
    token: String,
    user: String,
    role: Role,
    /// For so many seconds it is good.
    expires_s: u64,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    user: String,
    role: Role,
}

/// Sign in.
#[utoipa::path(
    post, path = "/v1/sign-in", tag = "access",
    request_body = SignIn,
    responses(
        (status = 200, description = "Signed in", body = SignedIn),
        (status = 400, description = "No such JSON", body = FailureBody),
        (status = 401, description = "Name or password is wrong", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
        (status = 429, description = "Too many wrong ones from this address or for this name, or too many at once", body = FailureBody),
    )
)]
pub(super) async fn sign_in(
    State(plane): State<Arc<Plane>>,
    peer: Option<Extension<Peer>>,
    Body(SignIn { user, password }): Body<SignIn>,
) -> Result<Json<SignedIn>, Failure> {
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Extension(Peer(address))| address);
    let (token, caller, life) = sign_in_from(&plane, peer, &user, &password, "control port").await?;
    Ok(Json(SignedIn { token, user: caller.user, role: caller.role, expires_s: life.as_secs() }))
}

/// A token for whoever knows the password, and for how long it is good; `place` is where they sign in, for the log.
pub(crate) async fn sign_in_from(
    plane: &Arc<Plane>,
    peer: IpAddr,
    user: &str,
    password: &str,
    place: &str,
) -> Result<(String, Caller, Duration), Failure> {
    match plane.sign_in(peer, user.to_owned(), password.to_owned()).await {
        Ok((token, caller, life)) => {
            tracing::info!(user = caller.user, role = %caller.role, %peer, "signed in at the {place}");
            Ok((token, caller, life))
        }
        Err(refusal) => {
            // Those that are not looked at may come by the thousand.
            if refusal == SignInRefusal::Wrong {
                let user = user.chars().take(64).collect::<String>();
                tracing::warn!(user = %user.escape_debug(), %peer, "nobody was signed in at the {place}: name or password is wrong");
            }
            Err(match refusal {
                SignInRefusal::Wrong => Failure::new(StatusCode::UNAUTHORIZED, "wrong_password", "name or password is wrong"),
                SignInRefusal::TooMany(of) => {
                    let why = match of {
                        TooMany::OfAddress => "too many wrong passwords from this address; wait half a minute for each",
                        TooMany::OfName => {
                            "too many wrong passwords for this name from places where it was not signed in before; try again in \
                             half a minute, or from where you signed in before"
                        }
                    };
                    Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_guesses", why)
                }
                SignInRefusal::Busy => {
                    Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many sign in at this moment; try again")
                }
            })
        }
    }
}

/// Sign out: the token is good no longer.
#[utoipa::path(
    post, path = "/v1/sign-out", tag = "access", security(("token" = [])),
    responses((status = 204, description = "Signed out"), (status = 401, description = "Not signed in", body = FailureBody))
)]
pub(super) async fn sign_out(State(plane): State<Arc<Plane>>, request: Request) -> Result<StatusCode, Failure> {
    let (mut parts, _) = request.into_parts();
    parts.extract_with_state::<Anybody, _>(&plane).await?;
    if let Some(token) = token(&parts) {
        plane.sign_out(token);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Who is signed in.
#[utoipa::path(
    get, path = "/v1/me", tag = "access", security(("token" = [])),
    responses((status = 200, description = "Who asks", body = Me), (status = 401, description = "Not signed in", body = FailureBody))
)]
pub(super) async fn me(Anybody(caller): Anybody) -> Json<Me> {
    Json(Me { user: caller.user, role: caller.role })
}
