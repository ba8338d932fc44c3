//! A running daemon on ports that the system chooses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::process::send_signal;
use super::wait_for;

/// Puts the descriptors of the first argument to 3 and up, says so as systemd does, and becomes the program behind it.
const HAND_OVER: &str = "
import os, sys
for place, descriptor in enumerate(map(int, sys.argv[1].split()), 3):
    os.dup2(descriptor, place)
    os.close(descriptor)
os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
";

/// How a daemon is started.
pub struct Launch {
    settings: String,
    namespace: Option<String>,
    listen: [&'static str; 3],
    rtsp: Option<&'static str>,
    rtsp_server_port: u16,
    protocols: [Option<&'static str>; 3],
    tls: Option<[PathBuf; 2]>,
    control: String,
    console: bool,
    without_programs: bool,
    open_files: Option<u32>,
    sockets: Vec<OwnedFd>,
    control_listen: Option<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// A daemon, ended when dropped; its log is shown when the test fails.
pub struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens, as its ready file says.
    pub mms: SocketAddr,
    /// Where publishers push.
    pub http: SocketAddr,
    /// Where RTSP is spoken.
    pub rtsp: SocketAddr,
    /// Where RTSP is spoken inside TLS; nowhere unless asked for.
    pub rtsps: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    /// The control port.
    pub control: SocketAddr,
    /// The web console; nowhere unless asked for.
    pub console: SocketAddr,
    stopped: bool,
}

impl Launch {
    /// Settings as of `wmrelay.toml`; the listeners are added behind them, so keys without a table go first.
    pub fn new(settings: impl Into<String>) -> Self {
        Self {
            settings: settings.into(),
            namespace: None,
            listen: ["127.0.0.1:0"; 3],
            rtsp: None,
            rtsp_server_port: 0,
            protocols: [None; 3],
            tls: None,
            control: String::new(),
            console: false,
            without_programs: false,
            open_files: None,
            sockets: Vec::new(),
            control_listen: None,
            environment: Vec::new(),
        }
    }

    /// Runs it in a network namespace.
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Listens there instead of on the system's choice: MMS, HTTP, admin.
    pub fn listen(mut self, listen: [&'static str; 3]) -> Self {
        self.listen = listen;
        self
    }

    /// Serves RTSP there instead of beside HTTP on the system's choice.
    pub fn rtsp(mut self, listen: &'static str) -> Self {
        self.rtsp = Some(listen);
        self
    }

    /// Sends media over RTSP from that UDP port; only where nothing else can have it.
    pub fn rtsp_server_port(mut self, port: u16) -> Self {
        self.rtsp_server_port = port;
        self
    }

    /// Serves these protocols, as TOML arrays, on the listeners of MMS, HTTP and RTSP.
    pub fn protocols(mut self, protocols: [&'static str; 3]) -> Self {
        self.protocols = protocols.map(Some);
        self
    }

    /// Serves RTSP inside TLS too, with this certificate and key.
    pub fn tls(mut self, files: [PathBuf; 2]) -> Self {
        self.tls = Some(files);
        self
    }

    /// Keys of `[control]` beside `listen`.
    pub fn control(mut self, keys: impl Into<String>) -> Self {
        self.control = keys.into();
        self
    }

    /// Serves the web console too, where the others are.
    pub fn console(mut self) -> Self {
        self.console = true;
        self
    }

    /// Lets it find no other program, such as ffmpeg.
    pub fn without_programs(mut self) -> Self {
        self.without_programs = true;
        self
    }

    /// Lets it have so many open files and no more.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Hands it these sockets as systemd does; they stay open here. The numbers are free from 3 on in whoever is started, and these are
    /// far above them.
    pub fn sockets<'a>(mut self, sockets: impl IntoIterator<Item = &'a dyn AsFd>) -> Self {
        let above = |socket: &dyn AsFd| rustix::io::fcntl_dupfd_cloexec(socket, 200).unwrap();
        self.sockets = sockets.into_iter().map(above).collect();
        self
    }

    /// Has the control port there instead of on the system's choice.
    pub fn control_listen(mut self, listen: impl Into<String>) -> Self {
        self.control_listen = Some(listen.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn environment(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts it and waits until everything is bound.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let [mms, http, admin] = self.listen;
        // Where HTTP is, at a port of its own; and UDP from whatever is free, since daemons of other tests run beside this one.
        let (host, _) = http.rsplit_once(':').unwrap_or((http, ""));
        let tls = self.tls.map_or_else(String::new, |[certificate, key]| {
            format!("tls_listen = \"{host}:0\"\ncertificate = {certificate:?}\nkey = {key:?}\n")
        });
        let [mms_protocols, http_protocols, rtsp_protocols] =
            self.protocols.map(|protocols| protocols.map(|protocols| format!("protocols = {protocols}\n")).unwrap_or_default());
        let settings = format!(
            "{}\n[mms]\nlisten = \"{mms}\"\n{}[http]\nlisten = \"{http}\"\n{}[rtsp]\nserver_port = {}\n{}listen = \"{}\"\n{tls}[admin]\nlisten = \"{admin}\"\n[control]\nlisten = \"{}\"\n{}\n[console]\nlisten = \"{}\"\n",
            self.settings,
            mms_protocols,
            http_protocols,
            self.rtsp_server_port,
            rtsp_protocols,
            self.rtsp.map_or_else(|| format!("{host}:0"), str::to_owned),
            self.control_listen.unwrap_or_else(|| format!("{host}:0")),
            self.control,
            if self.console { format!("{host}:0") } else { String::new() },
        );
        let config = folder.path().join("wmrelay.toml");
        std::fs::write(&config, settings).unwrap();
        let ready = folder.path().join("ready.json");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();

        let mut command = match &self.namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, env!("CARGO_BIN_EXE_wmrelay")]);
                command
            }
            None => Command::new(env!("CARGO_BIN_EXE_wmrelay")),
        };
        if let Some(limit) = self.open_files {
            // The shell sets both limits, the one in force and the one it may be raised to, and becomes the daemon.
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]);
            limited.arg(command.get_program()).args(command.get_args());
            command = limited;
        }
        if !self.sockets.is_empty() {
            // Python puts them to 3 and up, and becomes the daemon: so its number is the daemon's. Shells keep what they find from 10
            // on for themselves.
            let numbers = self.sockets.iter().map(|socket| socket.as_raw_fd().to_string()).collect::<Vec<_>>().join(" ");
            let mut handing = Command::new("python3");
            handing.args(["-c", HAND_OVER]).arg(numbers);
            handing.arg(command.get_program()).args(command.get_args());
            handing.env("LISTEN_FDS", self.sockets.len().to_string());
            for socket in &self.sockets {
                rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
            }
            command = handing;
        }
        command.arg("serve").arg("--config").arg(&config).arg("--ready-file").arg(&ready);
        command.env("STATE_DIRECTORY", folder.path()).env("RUNTIME_DIRECTORY", folder.path()).envs(self.environment);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if self.without_programs {
            command.env("PATH", folder.path());
        }
        let child = command.spawn().unwrap();

        // A guard from here on: a daemon that never gets ready is ended, and its log shown, as any other.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon = Daemon {
            child,
            folder,
            mms: nowhere,
            http: nowhere,
            rtsp: nowhere,
            rtsps: nowhere,
            admin: nowhere,
            control: nowhere,
            console: nowhere,
            stopped: false,
        };
        let bound: serde_json::Value = wait_for("the daemon's ready file", Duration::from_secs(20), || {
            assert!(daemon.runs(), "the daemon ended before it was ready");
            serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()
        });
        let first = |part: &str| -> SocketAddr {
            let address = bound[part][0].as_str().and_then(|text| text.parse().ok());
            address.unwrap_or_else(|| panic!("no address of {part} in the ready file: {bound}"))
        };
        (daemon.mms, daemon.http, daemon.admin) = (first("mms"), first("http"), first("admin"));
        daemon.rtsp = first("rtsp");
        // Not listened on beyond loopback while nobody may sign in.
        if bound["control"][0].is_string() {
            daemon.control = first("control");
        }
        if bound["console"][0].is_string() {
            daemon.console = first("console");
        }
        if !tls.is_empty() {
            daemon.rtsps = first("rtsps");
        }
        daemon
    }
}

impl Daemon {
    /// A daemon with these settings, on loopback.
    #[track_caller]
    pub fn start(settings: impl Into<String>) -> Self {
        Launch::new(settings).start()
    }

    /// `mmst://127.0.0.1:PORT/NAME`.
    pub fn url(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}/{name}", self.mms)
    }

    /// `rtsp://127.0.0.1:PORT/NAME`; for GStreamer the scheme also tells the transport.
    pub fn rtsp_url(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}/{name}", self.rtsp)
    }

    /// Where a publisher posts to.
    pub fn publish_url(&self, user: &str, name: &str) -> String {
        format!("http://{user}{}/publish/{name}", self.http)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A folder that lives as long as the daemon.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a command of ours against it, by its control socket; what it prints, and its exit code.
    pub fn command(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        let output = command.args(arguments).arg("--socket").arg(self.folder().join("control.sock")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Open files.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// All metrics as text.
    #[track_caller]
    pub fn metrics(&self) -> String {
        http_get(self.admin, "/metrics").1
    }

    /// The sum of the series of a metric that carry all these labels; 0 where there is none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum_of(&self.metrics(), name, labels)
    }

    /// Whether a fallback stands in for the source of a publishing point, and how often one has.
    #[track_caller]
    pub fn on_fallback(&self, point: &str) -> (bool, f64) {
        let metrics = self.metrics();
        let of = |name| sum_of(&metrics, name, &[("point", point)]);
        (of("wmrelay_source_fallback") > 0.0, of("wmrelay_source_fallbacks_total"))
    }

    /// Ends it as a service manager does.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        send_signal(self.id(), "TERM");
        let status = wait_for("the daemon's end after SIGTERM", Duration::from_secs(20), || self.child.try_wait().unwrap());
        self.stopped = true;
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.stopped && self.runs() {
            send_signal(self.id(), "TERM");
            let limit = std::time::Instant::now() + Duration::from_secs(5);
            while self.runs() && std::time::Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(60);
            eprintln!("--- the daemon's log, last lines of {}\n{}\n---", lines.len(), lines[tail..].join("\n"));
        }
    }
}

/// The sum of the series of a metric, in Prometheus' text format, that carry all these labels.
pub fn sum_of(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let series = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        let whole_name = rest.is_some_and(|rest| rest.starts_with(['{', ' ']));
        whole_name && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    });
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// A plain GET: status and body.
#[track_caller]
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    parse_answer(&answer)
}

/// Status and body of an HTTP answer that ends with its connection.
pub fn parse_answer(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}
