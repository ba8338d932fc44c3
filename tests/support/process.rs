//! Child processes that cannot outlive a test, and whose waits have a limit.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{is_root, wait_for};

/// A child that is killed, by its own id, when dropped.
pub struct Process {
    child: Child,
    name: String,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

/// What a finished child said.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts it; its output is collected from the first byte on, so that it never waits for a reader.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Self { child, name, stdout, stderr }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Its standard input; once.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Writes a line to its standard input; a child that is gone is no error here.
    pub fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.child.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        send_signal(self.id(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < limit, "{} does not end within {limit:?}\n{}{}", self.name, self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        };
        // The collectors end with the pipes; a grandchild could hold these open, so they get a moment and no more.
        wait_for("the end of a child's output", Duration::from_secs(5), || {
            (Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1).then_some(())
        });
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process by its id.
pub fn send_signal(id: u32, signal: &str) {
    // The shell's own kill: there is one wherever there is a shell.
    let _ = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).stderr(Stdio::null()).status();
}

/// The processes whose parent this one is.
pub fn children_of(id: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|child| parent_of(*child) == Some(id)).collect()
}

/// Children that have ended and that nobody has waited for.
pub fn zombies_of(id: u32) -> usize {
    let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
        Some((fields.next()?, fields.next()?))
    });
    stats.filter(|(state, parent)| state == "Z" && *parent == id.to_string()).count()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold blanks and parentheses itself; state and parent follow the last one.
    let behind_name = stat.rsplit_once(')')?.1;
    let mut fields = behind_name.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.next())?.and_then(|parent| parent.parse().ok())
}

/// A command as a user who is not root: VLC refuses to run as root.
pub fn as_nobody(program: &str, home: &std::path::Path) -> Command {
    if !is_root() {
        let mut command = Command::new(program);
        command.env("HOME", home);
        return command;
    }
    // It becomes the program: runuser would stay its parent, and killed leave it behind.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program).env("HOME", home);
    command
}

fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 {
                break;
            }
            into.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    collected
}
