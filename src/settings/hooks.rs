//! Hooks: programs and a web server that hear when sources and viewers come and go.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Check;
use super::points::url_without_secrets;
use super::raw::{RawCommands, RawHooks};

/// A hook that takes longer hangs.
const TIMEOUT_S: u32 = 10;
/// Nothing that is to be waited for takes longer.
const TIMEOUT_S_MAX: u32 = 600;
/// A shorter secret can be guessed.
const SECRET_MIN: usize = 16;

/// Who hears of all publishing points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Programs of those publishing points that do not say their own.
    pub commands: Commands,
    /// A program, or a request, that takes longer is given up.
    pub timeout: Duration,
    /// A web server that hears of everything.
    pub webhook: Option<Webhook>,
}

/// Programs and their arguments, without a shell; an empty list runs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// A source begins to send.
    pub on_ready: Vec<String>,
    /// A source sends no longer.
    pub on_gone: Vec<String>,
    /// Somebody watches what nobody watched.
    pub on_first_viewer: Vec<String>,
    /// Nobody watches any longer.
    pub on_last_viewer: Vec<String>,
}

/// Where events are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `http` or `https`.
    pub url: String,
    /// Signs each request.
    pub secret: String,
    /// Authorities whose certificates are good for `https`, PEM; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = url_without_secrets(&self.url);
        f.debug_struct("Webhook").field("url", &url).field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self { commands: Commands::default(), timeout: Duration::from_secs(TIMEOUT_S.into()), webhook: None }
    }
}

impl Commands {
    /// With the settings' keys.
    pub fn by_key(&self) -> [(&'static str, &[String]); 4] {
        [
            ("on_ready", &self.on_ready),
            ("on_gone", &self.on_gone),
            ("on_first_viewer", &self.on_first_viewer),
            ("on_last_viewer", &self.on_last_viewer),
        ]
    }
}

/// Checks `[hooks]`.
pub(super) fn hooks(check: &mut Check<'_>, raw: &RawHooks) -> Hooks {
    let built_in = Hooks::default();
    let written = RawCommands {
        on_ready: raw.on_ready.clone(),
        on_gone: raw.on_gone.clone(),
        on_first_viewer: raw.on_first_viewer.clone(),
        on_last_viewer: raw.on_last_viewer.clone(),
    };
    let timeout_s = raw.timeout_s.unwrap_or(TIMEOUT_S);
    if !(1..=TIMEOUT_S_MAX).contains(&timeout_s) {
        check.problem("hooks.timeout_s", format!("{timeout_s} is not between 1 and {TIMEOUT_S_MAX} seconds"));
    }
    Hooks {
        commands: commands(check, "hooks", &written, &built_in.commands),
        timeout: Duration::from_secs(timeout_s.into()),
        webhook: webhook(check, raw),
    }
}

/// Checks the programs of a table at `key`; what it does not say is as `otherwise`.
pub(super) fn commands(check: &mut Check<'_>, key: &str, raw: &RawCommands, otherwise: &Commands) -> Commands {
    let mut command = |event: &str, argv: &Option<Vec<String>>, otherwise: &Vec<String>| {
        let Some(argv) = argv else { return otherwise.clone() };
        let key = format!("{key}.{event}");
        match argv.first() {
            Some(program) if program.is_empty() => check.problem(&key, "the program's name is empty".into()),
            Some(program) if argv.len() == 1 && program.contains(' ') => {
                let why = "the program's name contains spaces; there is no shell, so every argument is a string of its own";
                check.warning(&key, why.into());
            }
            _ => {}
        }
        if argv.iter().any(|argument| argument.contains('\0')) {
            check.problem(&key, "an argument contains a NUL character, which no program can be given".into());
        }
        argv.clone()
    };
    Commands {
        on_ready: command("on_ready", &raw.on_ready, &otherwise.on_ready),
        on_gone: command("on_gone", &raw.on_gone, &otherwise.on_gone),
        on_first_viewer: command("on_first_viewer", &raw.on_first_viewer, &otherwise.on_first_viewer),
        on_last_viewer: command("on_last_viewer", &raw.on_last_viewer, &otherwise.on_last_viewer),
    }
}

fn webhook(check: &mut Check<'_>, raw: &RawHooks) -> Option<Webhook> {
    let ca_file = raw.ca_file.as_deref().map(|path| check.existing_file("hooks.ca_file", path));
    let Some(url) = raw.url.clone() else {
        for (key, is_written) in [("hooks.secret", raw.secret.is_some()), ("hooks.ca_file", raw.ca_file.is_some())] {
            if is_written {
                check.warning(key, "has no effect without `url`".into());
            }
        }
        return None;
    };
    if let Err(why) = Target::parse(&url) {
        check.problem("hooks.url", why);
    }
    if ca_file.is_some() && !url.starts_with("https://") {
        check.warning("hooks.ca_file", "has no effect where the URL is not https://".into());
    }
    match &raw.secret {
        Some(secret) if secret.len() < SECRET_MIN => {
            check.problem("hooks.secret", format!("is shorter than {SECRET_MIN} characters, so that it could be guessed"));
        }
        Some(_) => {}
        None => check.problem("hooks.url", "lacks `secret` beside it, which signs what is posted there".into()),
    }
    Some(Webhook { url, secret: raw.secret.clone().unwrap_or_default(), ca_file })
}

/// The URL of a webhook, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether it is `https`.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port, by default that of the scheme.
    pub port: u16,
    /// Host and port as they were written, for the `Host` field.
    pub authority: String,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence that repeats no secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        let shown = url_without_secrets(url);
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{shown:?} does not begin with http:// or https://"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(format!("{shown:?} does not begin with http:// or https://")),
        };
        let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(format!("{shown:?}: requests are signed; user name and password are not sent"));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(format!("{shown:?} names no server"));
        }
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("{shown:?}: the port is not a number from 1 to 65535"))?,
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{shown:?}: spaces and letters beyond ASCII are written as %XX"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host: host.to_owned(), port, authority: authority.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = |url: &str| Target::parse(url).map(|target| (target.tls, target.host, target.port, target.path));
        for (url, tls, host, port, path) in [
            ("http://h", false, "h", 80, "/"),
            ("HTTPS://h.example:8443/a/b?c=d#e", true, "h.example", 8443, "/a/b?c=d"),
            ("http://[::1]:81?x", false, "::1", 81, "/?x"),
        ] {
            assert_eq!(target(url), Ok((tls, host.into(), port, path.into())), "{url}");
        }
        for (url, words) in [
            ("h/x", "does not begin"),
            ("ftp://h", "does not begin"),
            ("http://", "names no server"),
            ("http://a b/", "names no server"),
            ("http://h:0/", "the port"),
            ("http://u:secret@h/", "not sent"),
            ("http://h/ä", "beyond ASCII"),
            ("http://h/a\r\nb", "spaces"),
        ] {
            let why = target(url).unwrap_err();
            assert!(why.contains(words) && !why.contains("secret"), "{url}: {why}");
        }
    }
}
