//! A program that hears of an event: its arguments as the settings have them, the event in its environment.

use std::process::Stdio;
use std::time::Duration;

use metrics::counter;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Event;
use crate::metrics::HOOKS;

/// Of what a program says so much is logged, bytes; the rest is thrown away.
const SAID_BYTES: usize = 4096;
/// Lines of it.
const SAID_LINES: usize = 5;
/// What programs of its own still say after its end is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What is handed on of the daemon's own environment.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

/// Runs it, for so long at most; then its process group is killed.
pub(super) async fn run(event: Event, limit: Duration) {
    let result = match once(&event, limit).await {
        Ok(said) => {
            tracing::debug!(point = %event.point, event = event.kind.word(), "hook run");
            for line in said {
                tracing::info!(point = %event.point, event = event.kind.word(), line, "hook says");
            }
            "ok"
        }
        Err((result, reason)) => {
            let program = event.argv.first().map_or("", String::as_str);
            tracing::warn!(point = %event.point, event = event.kind.word(), program, reason, "hook failed");
            result
        }
    };
    counter!(HOOKS, "kind" => "command", "result" => result).increment(1);
}

async fn once(event: &Event, limit: Duration) -> Result<Vec<String>, (&'static str, String)> {
    let [program, arguments @ ..] = event.argv.as_slice() else { return Ok(Vec::new()) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(variables(event));
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| ("failed", format!("cannot run {program}: {error}")))?;
    let mut group = Group { child };
    let said = (group.child.stdout.take(), group.child.stderr.take());
    let words = tokio::spawn(async move {
        let (out, err) = tokio::join!(heard(said.0), heard(said.1));
        lines(&out).chain(lines(&err)).take(SAID_LINES).collect::<Vec<_>>()
    });
    let status = match timeout(limit, group.child.wait()).await {
        Err(_) => {
            group.kill();
            // Not to be awaited for long: what does not die now is in the kernel.
            let _ = timeout(LAST_WORDS, group.child.wait()).await;
            words.abort();
            return Err(("timeout", format!("it did not end within {} s and was killed", limit.as_secs())));
        }
        Ok(Err(error)) => return Err(("failed", format!("its end is unknown: {error}"))),
        Ok(Ok(status)) => status,
    };
    let abort = words.abort_handle();
    let said = match timeout(LAST_WORDS, words).await {
        Ok(Ok(said)) => said,
        _ => {
            abort.abort();
            Vec::new()
        }
    };
    if status.success() { Ok(said) } else { Err(("failed", format!("{status}; {}", said.join(" | ")))) }
}

/// What an event is, in a program's environment.
fn variables(event: &Event) -> [(&'static str, String); 6] {
    [
        ("WMRELAY_EVENT", event.kind.word().to_owned()),
        ("WMRELAY_POINT", safe(&event.point)),
        ("WMRELAY_OF", safe(&event.of)),
        ("WMRELAY_SOURCE", event.source.to_owned()),
        ("WMRELAY_VIEWERS", event.viewers.to_string()),
        ("WMRELAY_TIME", event.unix_s.to_string()),
    ]
}

/// No environment can hold a NUL, and no name that viewers can open does; to be sure.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The first of what comes; the rest is read too, so that nobody waits for room.
async fn heard(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut heard = Vec::new();
    let Some(mut stream) = stream else { return heard };
    let mut buffer = [0; 1024];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = SAID_BYTES - heard.len();
        heard.extend(buffer.iter().take(count.min(room)));
    }
    heard
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    text.lines().filter(|line| !line.is_empty()).map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().into_iter()
}

/// A child and all of its group: what still runs is killed with it.
struct Group {
    child: Child,
}

impl Group {
    fn kill(&self) {
        // Without a number it has been reaped, and the number may be another's.
        if let Some(group) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::tests::event;
    use std::path::Path;

    const LIMIT: Duration = Duration::from_secs(20);

    fn of(argv: &[&str]) -> Event {
        Event { argv: argv.iter().map(|argument| (*argument).to_owned()).collect(), ..event(7, "cam 1;$(id)") }
    }

    #[tokio::test]
    async fn a_program_finds_the_event_in_its_environment_and_little_else() {
        let said = once(&of(&["env"]), LIMIT).await.unwrap();
        // The first lines; the order is env's own.
        assert_eq!(said.len(), SAID_LINES);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        once(&of(&["sh", "-c", "env > \"$1\"", "sh", file.to_str().unwrap()]), LIMIT).await.unwrap();
        let mut names = Vec::new();
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let (name, value) = line.split_once('=').unwrap();
            names.push(name);
            match name {
                "WMRELAY_EVENT" => assert_eq!(value, "ready"),
                "WMRELAY_POINT" => assert_eq!(value, "cam 1;$(id)"),
                "WMRELAY_VIEWERS" => assert_eq!(value, "3"),
                _ => {}
            }
        }
        // A shell adds some of its own.
        names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_", "PATH", "HOME"].contains(name));
        names.sort_unstable();
        let wanted = ["WMRELAY_EVENT", "WMRELAY_OF", "WMRELAY_POINT", "WMRELAY_SOURCE", "WMRELAY_TIME", "WMRELAY_VIEWERS"];
        assert_eq!(names, wanted);
    }

    #[tokio::test]
    async fn arguments_reach_no_shell() {
        let folder = tempfile::tempdir().unwrap();
        let touched = folder.path().join("x");
        let argument = format!("$(touch {0}) `touch {0}` ; touch {0}", touched.display());
        let said = once(&of(&["/bin/echo", &argument]), LIMIT).await.unwrap();
        assert_eq!(said, [argument]);
        assert!(!touched.exists());
    }

    #[tokio::test]
    async fn what_fails_is_told() {
        let (result, reason) = once(&of(&["no-such-program-here"]), LIMIT).await.unwrap_err();
        assert!(result == "failed" && reason.starts_with("cannot run no-such-program-here: "), "{reason}");
        let (result, reason) = once(&of(&["sh", "-c", "echo a word >&2; exit 3"]), LIMIT).await.unwrap_err();
        assert!(result == "failed" && reason.contains("exit status: 3") && reason.contains("a word"), "{reason}");
        // Endless words fill nothing.
        let said = once(&of(&["sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x; echo"]), LIMIT).await.unwrap();
        assert_eq!(said.iter().map(String::len).sum::<usize>(), SAID_BYTES);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = "trap '' TERM; sleep 1000 & echo $! > \"$1.part\"; mv \"$1.part\" \"$1\"; wait";
        let (result, _) =
            once(&of(&["sh", "-c", script, "sh", file.to_str().unwrap()]), Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(result, "timeout");
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        let gone = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
        };
        for _ in 0..1000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("its child runs on");
    }
}
