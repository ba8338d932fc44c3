//! Where the daemon is told what to do, opened: control port, web console, their certificate, the Unix socket, and who may sign in.

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
    /// The web console.
    pub(super) console: Vec<TcpListener>,
    /// The console is inside TLS with it; there wherever that is listened on.
    pub(super) console_certificate: Option<Arc<Certificate>>,
}

/// One of the two that are ports.
struct Door<'s> {
    key: &'static str,
    name: &'static str,
    /// Where it may be listened on.
    listen: &'s Listen,
    tls: bool,
    /// Somebody asked for it: without it the daemon does not start, unless a socket unit is at fault.
    asked_for: bool,
    /// Somebody may sign in.
    has_users: bool,
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
        if listen != control.listen || Control::reachable(&settings.console, has_users) != settings.console {
            tracing::info!("nobody can sign in (control.users_file), so control port and console are for this machine alone");
        }
        let mut certificate = None;
        let built_in = Settings::default();
        let certified = control.certificate.is_some();
        let ports = Door {
            key: "control.listen",
            name: "control port",
            listen: &listen,
            tls: control.tls,
            asked_for: certified || control.listen != built_in.control.listen,
            has_users,
        }
        .open(settings, &mut certificate)?;
        let console = Door {
            key: "console.listen",
            name: "console",
            listen: &Control::reachable(&settings.console, has_users),
            tls: true,
            asked_for: settings.console != built_in.console,
            has_users,
        }
        .open(settings, &mut certificate)?;
        let console_certificate = certificate.clone();
        let certificate = certificate.filter(|_| control.tls);
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
        Ok(Self { accounts, ports, certificate, socket, console, console_certificate })
    }
}

impl Door<'_> {
    /// The listeners, and the certificate where it is needed and not yet there. What nobody asked for gives way.
    fn open(&self, settings: &Settings, certificate: &mut Option<Arc<Certificate>>) -> anyhow::Result<Vec<TcpListener>> {
        match self.bind(settings, certificate) {
            Err(error) if !self.asked_for => {
                tracing::warn!(error = format!("{error:#}"), "there is no {}; `{}` says where it is to be", self.name, self.key);
                Ok(Vec::new())
            }
            bound => bound,
        }
    }

    fn bind(&self, settings: &Settings, certificate: &mut Option<Arc<Certificate>>) -> anyhow::Result<Vec<TcpListener>> {
        if self.tls && !self.listen.addresses.is_empty() && certificate.is_none() {
            *certificate = Some(certificate_of(settings)?);
        }
        let (bound, told) = listen::bind_command_port(self.key, self.listen)?;
        for told in told {
            // The lines of a socket unit fit one of the two states, and somebody goes from one to the other.
            let alone = if self.has_users {
                String::new()
            } else {
                format!("; before there are users (control.users_file) the {} is for this machine alone", self.name)
            };
            tracing::error!("{told}{alone}");
        }
        Ok(bound)
    }
}

fn problem(key: &str, message: String) -> SettingsError {
    SettingsError { problems: vec![Problem { place: String::new(), key: key.to_owned(), message }] }
}

/// The certificate that the settings name, else the one that is made at the first start.
fn certificate_of(settings: &Settings) -> anyhow::Result<Arc<Certificate>> {
    let Settings { control, console, .. } = settings;
    let [chain, key] = match (&control.certificate, &control.key) {
        (Some(certificate), Some(key)) => [certificate.clone(), key.clone()],
        _ => {
            let addresses = control.listen.addresses.iter().chain(&console.addresses);
            let addresses: Vec<_> = addresses.map(std::net::SocketAddr::ip).collect();
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
    tracing::info!(file = %chain.display(), sha256 = fingerprint, "the certificate of control port and console");
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
