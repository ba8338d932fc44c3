//! Sources of type "camera".

use std::fmt;

use super::Source;
use super::check::Check;
use super::points::{port_of, url_without_secrets, when};
use super::raw::{RawSource, RawTransport};

/// Who asks a camera.
#[derive(Clone, PartialEq, Eq)]
pub struct CameraLogin {
    /// The user.
    pub user: String,
    /// The password, in the clear.
    pub password: String,
}

/// It stays out of logs.
impl fmt::Debug for CameraLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CameraLogin(…)")
    }
}

pub(super) fn camera(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let Some(url) = raw.url.clone() else {
        check.problem(key, "lacks `url`, such as \"rtsp://192.0.2.1/stream1\"".into());
        return None;
    };
    let key_of_url = format!("{key}.url");
    // Passwords and access keys are not repeated.
    let shown = url_without_secrets(&url);
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    if scheme.eq_ignore_ascii_case("rtsps") {
        check.problem(
            &key_of_url,
            format!("{shown:?}: cameras are not reached inside TLS; write rtsp://, or use \"exec\" with ffmpeg"),
        );
    } else if !scheme.eq_ignore_ascii_case("rtsp") {
        check.problem(&key_of_url, format!("{shown:?} does not begin with rtsp://"));
    } else if port_of(host).is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        check.problem(&key_of_url, format!("{shown:?}: the port is not a number from 1 to 65535"));
    } else if host.is_empty() || host.starts_with(':') {
        check.problem(&key_of_url, format!("{shown:?} names no camera"));
    }
    if login.is_some() && raw.user.is_some() {
        check.warning(&format!("{key}.user"), "stands in the URL too; this one counts".into());
    }
    let login = match (&raw.user, &raw.password) {
        (Some(user), password) => Some(CameraLogin { user: user.clone(), password: password.clone().unwrap_or_default() }),
        (None, Some(_)) => {
            check.problem(&format!("{key}.password"), "lacks its `user`".into());
            None
        }
        (None, None) => None,
    };
    let udp = raw.transport == Some(RawTransport::Udp);
    let (start, linger) = when(check, key, raw);
    Some(Source::Camera { url, login, udp, start, linger })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let login = CameraLogin { user: "admin".into(), password: "secret".into() };
        assert_eq!(format!("{login:?}"), "CameraLogin(…)");
    }
}
