//! Where the daemon is told what to do, opened: control port, its certificate, the Unix socket, and who may sign in.

use std::env;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::control::accounts::AccountsFile;
use crate::control::{certificate, socket};
use crate::settings::{Control, ControlSocket, Listen, Problem, Settings, SettingsError};
use crate::shard::{Certificate, CertificateError, listen};

/// What is open.
pub(super) struct CommandDoors {
    /// Who may sign in; `None`: nobody.
    pub(super) accounts: Option<AccountsFile>,
    /// The control port.
    pub(super) ports: Vec<TcpListener>,
    /// The control port is inside TLS with it.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// For the local command line.
    pub(super) socket: Option<UnixListener>,
}

impl CommandDoors {
    /// Opens what the settings say.
    ///
    /// # Errors
    /// A file cannot be used, or an address cannot be had.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let control = &settings.control;
        let accounts = match control.users_file.as_deref().map(AccountsFile::open).transpose() {
            Ok(accounts) => accounts,
            Err(error) => return Err(problem("control.users_file", error.to_string()).into()),
        };
        let has_users = accounts.as_ref().is_some_and(|accounts| !accounts.current().is_empty());
        let listen = Control::reachable(&control.listen, has_users);
        if listen != control.listen {
            tracing::info!("nobody can sign in (control.users_file), so the control port is for this machine alone");
        }
        let opened = open_ports(control, &listen);
        let (certificate, ports) = match opened {
            Ok(opened) => opened,
            // Nobody asked for it: the daemon does without, as before there was such a port.
            Err(error) if control.listen == Control::default().listen && control.certificate.is_none() => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "there is no control port; `[control] listen` says where it is to be"
                );
                (None, Vec::new())
            }
            Err(error) => return Err(error),
        };
        let path = socket::path_of(&control.socket);
        let socket = match path.as_deref().map(|path| (path, socket::bind(path))) {
            None => None,
            Some((_, Ok(Some(listener)))) => Some(listener),
            Some((path, Ok(None))) => {
                tracing::warn!(socket = %path.display(), "another daemon has the control socket: commands such as `wmrelay status` reach that one");
                None
            }
            Some((_, Err(error))) if matches!(control.socket, ControlSocket::Automatic) => {
                // Nobody asked for it.
                tracing::warn!(error = format!("{error:#}"), "commands such as `wmrelay status` do not reach this daemon");
                None
            }
            Some((_, Err(error))) => return Err(error),
        };
        Ok(Self { accounts, ports, certificate, socket })
    }
}

/// The certificate, where one is needed, and the listeners.
fn open_ports(control: &Control, listen: &Listen) -> anyhow::Result<(Option<Arc<Certificate>>, Vec<TcpListener>)> {
    let certificate = if control.tls && !listen.addresses.is_empty() { Some(certificate_of(control)?) } else { None };
    Ok((certificate, listen::bind_tcp("control.listen", listen)?))
}

fn problem(key: &str, message: String) -> SettingsError {
    SettingsError { problems: vec![Problem { place: String::new(), key: key.to_owned(), message }] }
}

/// The certificate that the settings name, else the one that is made at the first start.
fn certificate_of(control: &Control) -> anyhow::Result<Arc<Certificate>> {
    let [chain, key] = match (&control.certificate, &control.key) {
        (Some(certificate), Some(key)) => [certificate.clone(), key.clone()],
        _ => {
            let addresses: Vec<_> = control.listen.addresses.iter().map(std::net::SocketAddr::ip).collect();
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            certificate::own_certificate(&state_folder()?, Some(&host), &addresses)?
        }
    };
    let loaded = Certificate::load(&chain, &key).map_err(|error| {
        let at = match &error {
            CertificateError::Certificate { .. } => "control.certificate",
            CertificateError::Key { .. } => "control.key",
        };
        problem(at, error.to_string())
    })?;
    let fingerprint = certificate::fingerprint(&chain)?;
    tracing::info!(file = %chain.display(), sha256 = fingerprint, "the certificate of the control port");
    Ok(Arc::new(loaded))
}

/// Where the daemon keeps what it makes: the folder that systemd gives the service, else that of the user.
fn state_folder() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|folder| !folder.is_empty());
    if let Some(folders) = folder("STATE_DIRECTORY") {
        // Of several folders, which colons part, the first is the service's own.
        let folders = folders.to_string_lossy().into_owned();
        return Ok(folders.split(':').next().map(PathBuf::from).unwrap_or_default());
    }
    let of_user = folder("XDG_STATE_HOME").map(PathBuf::from);
    let of_user = of_user.or_else(|| Some(Path::new(&folder("HOME")?).join(".local/state")));
    let of_user = of_user.context(
        "the certificate of the control port cannot be kept: this user has no HOME. Name one by `control.certificate` and \
         `control.key`, or switch the port off: `[control] listen = \"\"`",
    )?;
    Ok(of_user.join("wmrelay"))
}
