//! The daemon and its load, as processes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::media::Medium;

/// A number of a report; NaN where it has none.
pub(crate) fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or(f64::NAN)
}

/// A daemon with files in a loop, on ports of the system's choice; ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    mms: String,
    rtsp: String,
    admin: String,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with these settings and a publishing point for each medium.
    pub(crate) fn start(settings: &str, media: &[Medium]) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let mut text = settings.to_owned();
        for medium in media {
            let path = medium.make(folder.path());
            text += &format!(
                "[[publishing_point]]\nname = \"{}\"\nsource = {{ type = \"file\", path = \"{}\" }}\n",
                medium.name,
                path.display()
            );
        }
        let (config, ready) = (folder.path().join("wmrelay.toml"), folder.path().join("ready.json"));
        text += "[rtsp]\nserver_port = 0\n";
        std::fs::write(&config, text).expect("a settings file");
        let any = "127.0.0.1:0";
        let child = Command::new(env!("CARGO_BIN_EXE_wmrelay"))
            .args(["serve", "--mms-listen", any, "--http-listen", "", "--rtsp-listen", any, "--admin-listen", any])
            .args(["--control-listen", "", "--console-listen", "", "--config"])
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            .env("RUNTIME_DIRECTORY", folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let bound = wait_for(&ready);
        let address = |of: &str| bound[of][0].as_str().expect("an address").to_owned();
        Self { child, mms: address("mms"), rtsp: address("rtsp"), admin: address("admin"), folder }
    }

    /// Where its settings and its control socket are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of a medium.
    pub(crate) fn path(&self, medium: &Medium) -> PathBuf {
        self.folder.path().join(format!("{}.asf", medium.name))
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin port");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("an answer");
        page
    }

    /// Where viewers connect.
    pub(crate) fn mms(&self) -> &str {
        &self.mms
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, bytes.
    pub(crate) fn resident_bytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
        kib.expect("Linux tells") * 1024.0
    }

    /// The sum of a metric's series whose line contains `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.metrics();
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Packets that a send to a viewer carried, on average.
    pub(crate) fn packets_a_send(&self, transport: &str) -> f64 {
        self.metric("wmrelay_sent_packets_total", transport) / self.metric("wmrelay_send_calls_total", transport)
    }

    /// Waits until so many viewers play, no more and no fewer.
    pub(crate) fn wait_for_viewers(&self, viewers: usize) {
        let mut playing = f64::NAN;
        for _ in 0..600 {
            playing = self.metric("wmrelay_viewers{", "");
            if playing == viewers as f64 {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{playing} viewers play after 30 s, not {viewers}");
    }

    /// Waits until nobody plays and nothing transcodes.
    pub(crate) fn wait_for_rest(&self) {
        self.wait_for_viewers(0);
        for _ in 0..600 {
            if self.metric("wmrelay_source_up{", "") + self.metric("wmrelay_transcode_children{", "") == 0.0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("its sources run on for 30 s after the last viewer");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(ready: &Path) -> Value {
    for _ in 0..500 {
        if let Ok(text) = std::fs::read_to_string(ready) {
            return serde_json::from_str(&text).expect("JSON");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the daemon is not ready after 5 s");
}

/// A `wmrelay swarm` to be run.
pub(crate) struct Swarm(Command);

impl Swarm {
    /// So many viewers of a medium.
    pub(crate) fn of(daemon: &Daemon, medium: &Medium, viewers: usize) -> Self {
        Self::of_name(daemon, medium.name, viewers)
    }

    /// So many viewers of whatever has this name.
    pub(crate) fn of_name(daemon: &Daemon, name: &str, viewers: usize) -> Self {
        Self::of_url(daemon, &format!("mms://{}/{name}", daemon.mms), viewers)
    }

    /// So many viewers of a medium over HTTP, which the port of MMS takes too.
    pub(crate) fn over_http(daemon: &Daemon, medium: &Medium, viewers: usize) -> Self {
        Self::of_url(daemon, &format!("mmsh://{}/{}", daemon.mms, medium.name), viewers)
    }

    /// So many viewers of a medium over RTSP, by UDP.
    pub(crate) fn over_rtsp(daemon: &Daemon, medium: &Medium, viewers: usize) -> Self {
        Self::of_url(daemon, &format!("rtspu://{}/{}", daemon.rtsp, medium.name), viewers)
    }

    fn of_url(daemon: &Daemon, url: &str, viewers: usize) -> Self {
        Self::of_process(daemon.child.id(), url, viewers)
    }

    /// So many viewers of what any process serves.
    pub(crate) fn of_process(pid: u32, url: &str, viewers: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        command.arg("swarm").arg(url);
        command.args(["--viewers", &viewers.to_string(), "--pid", &pid.to_string(), "--json"]);
        Self(command)
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Over TCP in place of UDP.
    pub(crate) fn tcp(self) -> Self {
        self.with(&["--transport", "tcp"])
    }

    /// From these addresses.
    pub(crate) fn addresses(self, addresses: &str) -> Self {
        self.with(&["--addresses", addresses])
    }

    /// So many connections a second.
    pub(crate) fn ramp(self, per_s: u32) -> Self {
        self.with(&["--ramp", &per_s.to_string()])
    }

    /// Each begins anywhere in the file.
    pub(crate) fn anywhere(self) -> Self {
        self.with(&["--start", "random"])
    }

    /// Media is left unread.
    pub(crate) fn unread(self) -> Self {
        self.with(&["--unread"])
    }

    /// For so long when all have joined.
    pub(crate) fn seconds(self, span: Duration) -> Self {
        self.with(&["--seconds", &span.as_secs().to_string()])
    }

    /// Runs it to its end; the report.
    pub(crate) fn run(mut self) -> Value {
        let output = self.0.stderr(Stdio::inherit()).output().expect("the swarm starts");
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    /// Lets it run; ended when dropped.
    pub(crate) fn start(mut self) -> Running {
        Running(self.0.stdout(Stdio::null()).spawn().expect("the swarm starts"))
    }
}

/// A swarm that runs.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
