//! What protocols share: targets and their escapes, credentials, the users file, signed URLs. No IO, no clock.

mod auth;
mod digest;
mod login;
mod nonce;
mod profile;
pub mod signed;
mod target;
mod users;

pub use auth::{Authenticator, Verdict};
pub use digest::{Credentials, CredentialsError, DigestResponse};
pub use login::{Challenge, Login};
pub use nonce::{NonceState, Nonces};
pub use profile::{profile_of, query_of, split_query};
pub use target::{TargetError, path_of, percent_decode, percent_encode};
pub use users::{DEFAULT_REALM, Ha1, Users, UsersError};
