//! From checked settings to running threads, and back.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant as Clock;

use super::check::{NamedFiles, read_named_files};
use super::command_doors::CommandDoors;
use super::descriptors::Descriptors;
use super::reload::{Reading, Reloader};
use super::sign::unix_s;
use crate::access_log::{AccessLog, WallClock};
use crate::archive::{Archive, ArchiveBounds};
use crate::console;
use crate::control::{self, Control, DrainWish, Faces, Health, LogLevel, Pages, Plane, PlaneParts, systemd};
use crate::hooks::Hooks;
use crate::ingest::Ingest;
use crate::logging::LevelSwitch;
use crate::relay::Relay;
use crate::settings::{Problem, RtspTls, Settings, SettingsError, Sources};
use crate::shard::inherited;
use crate::shard::listen::{self, MmsListener, RtspListener};
use crate::shard::{Certificate, CertificateError, Doors, Gate, Mailboxes, Shards, Surroundings, TlsDoor};
use crate::text::Authenticator;
use crate::wire::Guid;

/// Reloads that wait.
const ORDERS_MAX: usize = 8;

/// How long viewers have to take in the end of the stream when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(8);

/// What systemd is asked for when the end begins, beyond any doubt more than it takes: viewers' farewell, then sources, hooks and child
/// processes. As TimeoutStopSec of the unit.
const STOP_TIME: Duration = Duration::from_secs(20);

/// What systemd is asked for while viewers finish behind SIGTERM, each second anew.
const DRAIN_STEP: Duration = Duration::from_secs(15);

/// Runs the daemon until SIGTERM or SIGINT. `sources`: where its settings came from, to be read again.
///
/// The bound addresses are written to `ready_file` as JSON once all is bound.
///
/// # Errors
/// Something cannot be bound, read or started; the text says what, and what to do.
pub(super) fn serve(settings: Settings, sources: Sources, ready_file: Option<&Path>, level: LevelSwitch) -> anyhow::Result<()> {
    // There is no second thread yet.
    let sockets =
        inherited::take_over().context("the sockets that systemd hands over cannot be used (LISTEN_FDS, LISTEN_PID)")?;
    let recorder = control::install_recorder().context("metrics cannot be recorded")?;
    let descriptors = Descriptors::raise();
    if let Some(shortage) = descriptors.shortage(&settings) {
        tracing::warn!("{shortage}");
    }
    let settings = Arc::new(settings);
    let files = read_named_files(&settings)?;
    let gate = Arc::new(gate(&files));
    let mms = listen::bind_mms(&settings.mms, &settings.udp)?;
    let http = listen::bind_tcp("http.listen", &settings.http)?;
    let rtsp = listen::bind_rtsp(&settings.rtsp, settings.rtsp_server_port, &settings.udp)?;
    let rtsps = listen::bind_tcp("rtsp.tls_listen", &settings.rtsp_tls.listen)?;
    let certificate = read_certificate(&settings.rtsp_tls)?;
    let admin = listen::bind_tcp("admin.listen", &settings.admin)?;
    let commands = CommandDoors::open(&settings)?;
    for rest in inherited::close_rest() {
        tracing::warn!("{rest}");
    }
    if sockets > 0 {
        tracing::info!(sockets, "sockets were inherited");
    }
    let bound = Bound::new(&mms, &http, &rtsp, &rtsps, &admin, &commands);
    let tls = certificate.map(|certificate| TlsDoor { listeners: rtsps, certificate: Arc::new(certificate) });
    let wall_clock = wall_clock();
    let started = AccessLog::start(&settings.access_log, random_bytes(), Arc::clone(&wall_clock));
    let (access_log, scribe) = started.map_err(|error| no_access_log(&settings, error))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let result = runtime.block_on(async {
        let Signals { mut stop, mut reopen, mut hangup } = Signals::new()?;
        let mailboxes = Mailboxes::new(settings.shards);
        let relay = Relay::new(&settings, Box::new(random_guid), mailboxes.ports());
        let health = Health::new(Clock::now().into_std(), settings.shards.max(1));
        let run_id = u64::from_ne_bytes(random_bytes());
        let handle = tokio::runtime::Handle::current();
        let hooks = Hooks::start(&handle, &settings.hooks, &relay, Arc::new(unix_s), run_id)?;
        let ingest = Ingest::start(&tokio::runtime::Handle::current(), &settings, &relay, files.users.clone())?;
        let beats = Arc::clone(&health);
        let beat = Arc::new(move |shard, now| beats.beat(shard, now));
        let doors = Doors {
            mms,
            http,
            rtsp,
            tls,
            handoff: ingest.push_handoff(),
            undecided_max: descriptors.at_door(),
            gate: Arc::clone(&gate),
        };
        let (reload, mut orders) = tokio::sync::mpsc::channel(ORDERS_MAX);
        let mut reloader = Reloader { sources, relay: Arc::clone(&relay), gate, level: level.clone(), files };
        let archive =
            Archive::start(ArchiveBounds { cache_bytes: settings.on_demand.cache_bytes, readers: settings.on_demand.readers })
                .context("the threads that read files cannot be started")?;
        let surroundings = Surroundings { archive, beat, finder: ingest.finder(), access_log: access_log.clone(), wall_clock };
        let mut shards = Shards::start(Arc::clone(&settings), Arc::clone(&relay), mailboxes, doors, surroundings)
            .context("a thread cannot be started")?;
        let CommandDoors { accounts, ports, certificate, socket, console, console_certificate } = commands;
        let parts = PlaneParts {
            settings: Arc::clone(&settings),
            relay: Arc::clone(&relay),
            roster: shards.roster(),
            drain: shards.drain(),
            health: Arc::clone(&health),
            listeners: bound.by_name(),
            accounts,
            log: Box::new(Log(level)),
            reload,
            started: Clock::now().into_std(),
            prober: shards.prober(),
        };
        let plane = Arc::new(Plane::new(parts));
        let pages = match console_certificate.filter(|_| !console.is_empty()) {
            Some(console_certificate) => {
                let router =
                    console::router(Arc::clone(&plane), certificate.clone()).context("the console has no random numbers")?;
                Some(Pages { ports: console, certificate: console_certificate, router })
            }
            None => None,
        };
        let faces = Faces { plane: Arc::clone(&plane), ports, certificate, socket, pages };
        let control = Control::start(admin, Some(faces), recorder, Arc::clone(&health))
            .context("admin and control port cannot be served")?;

        if let Some(path) = ready_file {
            bound.write(path)?;
        }
        health.set_ready();
        systemd::ready(&bound.status(&relay));
        tracing::info!("{}", bound.status(&relay));

        let (mut told, mut is_told_to_end) = (None, false);
        // One at a time; signals and ticks do not wait for a slow disk.
        let mut reading = None;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                now = second.tick() => {
                    relay.tick(now.into_std());
                    let (viewers, drain) = (relay.admission().viewers(), plane.look_at_drain(now.into_std()));
                    if told.replace((viewers, drain.is_some())) != Some((viewers, drain.is_some())) {
                        let state = if drain.is_some() { "Draining, no new viewers: " } else { "" };
                        systemd::status(&format!("{state}{viewers} sessions. {}", bound.status(&relay)));
                    }
                    match drain {
                        Some(drain) if drain.over && (drain.exit || is_told_to_end) => {
                            tracing::info!(viewers, "drained: stopping");
                            break;
                        }
                        Some(_) if is_told_to_end => systemd::needs(DRAIN_STEP),
                        _ => {}
                    }
                }
                Some(()) = reopen.recv() => {
                    tracing::info!("SIGUSR1: the access log is begun anew");
                    access_log.reopen();
                }
                Some(()) = hangup.recv(), if reading.is_none() => reading = Some(reloader.read_by_signal()),
                Some(order) = orders.recv(), if reading.is_none() => reading = Some(reloader.read_by_order(order)),
                Some(prepared) = Reading::end_of(&mut reading) => reloader.finish(prepared, &ingest, || bound.status(&relay)),
                name = stop.next() => {
                    let drain = &relay.settings().drain;
                    if drain.timeout.is_zero() || std::mem::replace(&mut is_told_to_end, true) {
                        tracing::info!("{name}: stopping; viewers get the end of the stream");
                        break;
                    }
                    let seconds = drain.timeout.as_secs();
                    tracing::info!("{name}: no new viewers; those who watch have {seconds} s. A second signal ends it at once");
                    systemd::needs(DRAIN_STEP);
                    plane.drain_to_end(Clock::now().into_std(), DrainWish::of_stop(drain));
                }
            }
        }
        health.set_stopping();
        systemd::stopping();
        // From here, whatever was left of the last step of a drain.
        systemd::needs(STOP_TIME);
        shards.stop();
        if !shards.join(FAREWELL).await {
            tracing::info!("some viewers did not leave in time; their connections are cut");
        }
        ingest.stop().await;
        hooks.stop().await;
        control.stop();
        scribe.finish();
        Ok(())
    });
    // A look-up of a name may hang for as long as its servers are silent; nobody waits for its answer.
    runtime.shutdown_background();
    result
}

/// The certificate of what is served inside TLS; `None` where nothing is.
///
/// # Errors
/// A file cannot be read or used: a problem of the settings, since they name it.
pub(super) fn read_certificate(tls: &RtspTls) -> Result<Option<Certificate>, SettingsError> {
    let (false, Some(certificate), Some(key)) = (tls.listen.addresses.is_empty(), &tls.certificate, &tls.key) else {
        return Ok(None);
    };
    Certificate::load(certificate, key).map(Some).map_err(|error| {
        let at = match &error {
            CertificateError::Certificate { .. } => "rtsp.certificate",
            CertificateError::Key { .. } => "rtsp.key",
        };
        SettingsError { problems: vec![Problem { place: String::new(), key: at.to_owned(), message: error.to_string() }] }
    })
}

/// What is logged, for the control plane.
struct Log(LevelSwitch);

impl LogLevel for Log {
    fn level(&self) -> String {
        self.0.level()
    }

    fn set(&self, level: &str) -> Result<(), String> {
        self.0.set(level)
    }
}

/// In the words of what is wrong.
fn no_access_log(settings: &Settings, error: std::io::Error) -> anyhow::Error {
    let file = settings.access_log.file.as_deref().unwrap_or_else(|| Path::new("")).display();
    let why = match error.kind() {
        ErrorKind::NotFound => "its folder is not there; make it",
        ErrorKind::PermissionDenied => "this user may not write it; give it and its folder to this user",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "there is no room for it; make some, or name a file elsewhere",
        ErrorKind::ReadOnlyFilesystem => "it is on a file system that is read-only; name a file elsewhere",
        _ => "it must be a file that can be written",
    };
    anyhow::Error::new(error).context(format!("access_log.file: {file} cannot be written: {why}"))
}

/// The addresses that are bound, port numbers included.
struct Bound {
    mms: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    rtsp: Vec<SocketAddr>,
    rtsps: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    control: Vec<SocketAddr>,
    console: Vec<SocketAddr>,
}

impl Bound {
    fn new(
        mms: &[MmsListener],
        http: &[TcpListener],
        rtsp: &[RtspListener],
        rtsps: &[TcpListener],
        admin: &[TcpListener],
        commands: &CommandDoors,
    ) -> Self {
        let local = |listener: &TcpListener| listener.local_addr().ok();
        Self {
            mms: mms.iter().filter_map(|listener| local(&listener.tcp)).collect(),
            http: http.iter().filter_map(local).collect(),
            rtsp: rtsp.iter().filter_map(|listener| local(&listener.tcp)).collect(),
            rtsps: rtsps.iter().filter_map(local).collect(),
            admin: admin.iter().filter_map(local).collect(),
            control: commands.ports.iter().filter_map(local).collect(),
            console: commands.console.iter().filter_map(local).collect(),
        }
    }

    /// Writes the ready file in one step: whoever sees it sees it whole.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::json!(self.by_name());
        let part = path.with_extension("part");
        std::fs::write(&part, format!("{json}\n"))
            .and_then(|()| std::fs::rename(&part, path))
            .with_context(|| format!("the ready file {} cannot be written", path.display()))
    }

    /// By what is served there.
    fn by_name(&self) -> BTreeMap<&'static str, Vec<SocketAddr>> {
        let Self { mms, http, rtsp, rtsps, admin, control, console } = self;
        [
            ("mms", mms),
            ("http", http),
            ("rtsp", rtsp),
            ("rtsps", rtsps),
            ("admin", admin),
            ("control", control),
            ("console", console),
        ]
        .map(|(name, addresses)| (name, addresses.clone()))
        .into()
    }

    /// One line for the log and for `systemctl status`.
    fn status(&self, relay: &Relay) -> String {
        let list = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let points: Vec<String> = relay.points().iter().map(|point| point.name().to_owned()).collect();
        let port = self.mms.first().map_or(1755, SocketAddr::port);
        let at = if port == 1755 { String::new() } else { format!(":{port}") };
        let first = points.first().map_or("", String::as_str);
        let tls = if self.rtsps.is_empty() { String::new() } else { format!(" (inside TLS on {})", list(&self.rtsps)) };
        format!(
            "Serving {} (mms://localhost{at}/{first}): MMS on {}, HTTP on {}, RTSP on {}{tls}, admin on {}, control on {}, console on {}",
            points.join(", "),
            list(&self.mms),
            list(&self.http),
            list(&self.rtsp),
            list(&self.admin),
            list(&self.control),
            list(&self.console)
        )
    }
}

struct Signals {
    stop: StopSignals,
    /// The access log was moved away.
    reopen: Signal,
    /// The settings are to be read again.
    hangup: Signal,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let open = |kind| signal(kind).context("signals cannot be received");
        let stop = StopSignals { terminate: open(SignalKind::terminate())?, interrupt: open(SignalKind::interrupt())? };
        Ok(Self { stop, reopen: open(SignalKind::user_defined1())?, hangup: open(SignalKind::hangup())? })
    }
}

impl StopSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the daemon's own clock on the wall; all others are handed it")]
fn wall_clock() -> WallClock {
    Arc::new(SystemTime::now)
}

fn random_guid() -> Guid {
    Guid(random_bytes())
}

pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// What lets viewers in.
fn gate(files: &NamedFiles) -> Gate {
    let users = files.watchers().cloned();
    let users = users.map(|users| Authenticator::new(Clock::now().into_std(), users, random_bytes()));
    Gate::new(files.secrets.clone(), users, Arc::new(unix_s))
}
