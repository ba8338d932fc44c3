//! `[control]` and `[console]`: where the daemon is looked at and told what to do.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::Listen;
use super::check::Check;
use super::raw::{List, RawControl};

/// A working day and a little more: people sign in once a day, programs again when they are told to.
const SIGN_IN_S: u32 = 12 * 3600;
const SIGN_IN_S_MAX: u32 = 30 * 24 * 3600;

/// The control port, and its other face for the local command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Listeners; none: no control port. While there is no user, those that other machines can reach are left out.
    pub listen: Listen,
    /// It is inside TLS.
    pub tls: bool,
    /// Without TLS it may be reached from other machines all the same.
    pub plain_anywhere: bool,
    /// File of those who may sign in (`wmrelay passwd --role`), here and at the console; `None`: nobody.
    pub users_file: Option<PathBuf>,
    /// File of the certificate and those between it and its authority, PEM, also for the console; `None`: one is made at the
    /// first start and kept.
    pub certificate: Option<PathBuf>,
    /// File of its private key, PEM; there exactly if the certificate's is.
    pub key: Option<PathBuf>,
    /// Where the local command line connects.
    pub socket: ControlSocket,
    /// How long somebody who has signed in stays so.
    pub sign_in: Duration,
}

/// The Unix socket of the local command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSocket {
    /// `control.sock` in the folder that the system gives services or users for such things.
    Automatic,
    /// None.
    Off,
    /// There.
    At(PathBuf),
}

impl Default for Control {
    fn default() -> Self {
        Self {
            listen: Listen::anywhere(3898),
            tls: true,
            plain_anywhere: false,
            users_file: None,
            certificate: None,
            key: None,
            socket: ControlSocket::Automatic,
            sign_in: Duration::from_secs(SIGN_IN_S.into()),
        }
    }
}

impl Control {
    /// Of these addresses those that are listened on: all once somebody may sign in, else what only this machine can reach.
    pub fn reachable(listen: &Listen, has_users: bool) -> Listen {
        let mut listen = listen.clone();
        if !has_users {
            for address in &mut listen.addresses {
                if address.ip().is_unspecified() {
                    address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
                }
            }
            listen.addresses.retain(|address| address.ip().to_canonical().is_loopback());
        }
        listen
    }
}

/// Checks `[control]`.
pub(super) fn control(check: &mut Check<'_>, raw: &RawControl) -> Control {
    let built_in = Control::default();
    let sign_in = raw.sign_in_s.map_or(built_in.sign_in, |seconds| Duration::from_secs(seconds.into()));
    if let Some(seconds) = raw.sign_in_s.filter(|seconds| !(1..=SIGN_IN_S_MAX).contains(seconds)) {
        check.problem("control.sign_in_s", format!("{seconds} is not between 1 and {SIGN_IN_S_MAX} seconds"));
    }
    let file =
        |check: &mut Check<'_>, key: &str, path: &Option<PathBuf>| path.as_deref().map(|path| check.existing_file(key, path));
    let control = Control {
        listen: check.listen("control.listen", raw.listen.as_ref(), built_in.listen),
        tls: raw.tls.unwrap_or(built_in.tls),
        plain_anywhere: raw.plain_anywhere.unwrap_or(built_in.plain_anywhere),
        users_file: file(check, "control.users_file", &raw.users_file),
        certificate: file(check, "control.certificate", &raw.certificate),
        key: file(check, "control.key", &raw.key),
        socket: match &raw.socket {
            None => built_in.socket,
            Some(path) if path.as_os_str().is_empty() => ControlSocket::Off,
            Some(path) => ControlSocket::At(check.path(path)),
        },
        sign_in,
    };
    let lacking = match (&control.certificate, &control.key) {
        (Some(_), None) => Some(("control.key", "control.certificate")),
        (None, Some(_)) => Some(("control.certificate", "control.key")),
        _ => None,
    };
    if let Some((lacking, there)) = lacking {
        check.problem(lacking, format!("is not set, and `{there}` is; a certificate and its key go together"));
    }
    let open = control.listen.addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    // Built-in addresses are nobody's wish.
    let said = raw.listen.as_ref().is_some_and(|List(items)| !items.is_empty());
    if let Some(open) = open.filter(|_| !control.tls && !control.plain_anywhere) {
        let why = if said { format!("and {open} can be reached from other machines") } else { format!("and {open} is built in") };
        check.problem(
            "control.tls",
            format!(
                "is false, {why}: passwords would pass in clear. Write `listen = \"localhost:3898\"` for this machine alone, or \
                 `plain_anywhere = true` where the network itself is private"
            ),
        );
    }
    if control.users_file.is_none() {
        tell_left_out(check, "control.listen", &control.listen);
    }
    control
}

/// Checks `[console]`; whether there is a file of users is said in `[control]`.
pub(super) fn console(check: &mut Check<'_>, raw: Option<&List>, built_in: Listen, has_users: bool) -> Listen {
    let listen = check.listen("console.listen", raw, built_in);
    if !has_users {
        tell_left_out(check, "console.listen", &listen);
    }
    listen
}

/// "*" is narrowed to this machine while nobody can sign in; what is left out altogether is told.
fn tell_left_out(check: &mut Check<'_>, key: &str, listen: &Listen) {
    let mut named = listen.addresses.iter().filter(|address| !address.ip().is_unspecified());
    if let Some(open) = named.find(|address| !address.ip().to_canonical().is_loopback()) {
        check.warning(
            key,
            format!(
                "{open} is not listened on before there is a `users_file`: nobody could sign in there (wmrelay passwd --role)"
            ),
        );
    }
}
