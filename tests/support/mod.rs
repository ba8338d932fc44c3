//! What the integration tests share: a running daemon, real players, publishers, hand-written viewers, a lossy
//! forwarder, network namespaces, files on demand.
//!
//! Every wait has a limit and looks for its condition; nothing sleeps in the hope that it will be enough.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "each test binary uses a part of this; a panic is its report; and it runs on the real clock"
)]

pub mod accounts;
pub mod archive;
pub mod asf;
pub mod browser;
pub mod camera;
pub mod daemon;
pub mod forwarder;
pub mod gstreamer;
pub mod inputs;
pub mod media;
pub mod mms;
pub mod namespace;
pub mod player;
pub mod process;
pub mod publisher;
pub mod rtsp;
pub mod tls;
pub mod viewer;
pub mod web;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Looks every 20 ms until there is something to return.
///
/// # Panics
/// At the limit, with the words that say what did not come.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < limit, "not within {} s: {what}", limit.as_secs_f32());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`wait_for`] a condition.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Holds for a while, and fails as soon as the condition does not.
#[track_caller]
pub fn stays(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(condition(), "no longer after {:.1} s: {what}", begin.elapsed().as_secs_f32());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a test needs of the machine.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A command that is found in PATH or an sbin folder.
    Program(&'static str),
    /// A part of GStreamer, which comes in several packages.
    Element(&'static str),
    /// Leave to make network namespaces.
    Root,
}

/// Whether all needs are met; where not, says loudly that the test did not run, or fails it when
/// `WMRELAY_TESTS_REQUIRE` is set (`1`: everything; `programs`: everything but root).
pub fn ready(test: &str, needs: &[Need]) -> bool {
    let required = std::env::var("WMRELAY_TESTS_REQUIRE").unwrap_or_default();
    for need in needs {
        let (met, missing) = match need {
            Need::Program(program) => (program_path(program).is_some(), format!("{program} is not installed")),
            Need::Element(element) => (has_element(element), format!("GStreamer has no {element}")),
            Need::Root => (is_root(), "it needs root".into()),
        };
        if met {
            continue;
        }
        let must = match need {
            Need::Program(_) | Need::Element(_) => !matches!(required.as_str(), "" | "0"),
            Need::Root => !matches!(required.as_str(), "" | "0" | "programs"),
        };
        assert!(!must, "{test}: {missing}, and WMRELAY_TESTS_REQUIRE asks for it");
        // Not eprintln: the test runner would swallow it, because the test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {missing}");
        return false;
    }
    true
}

/// Where a command is.
pub fn program_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether GStreamer is there and has an element. The tool knows by its own list, which it makes anew when a package comes.
fn has_element(element: &str) -> bool {
    let mut command = std::process::Command::new("gst-inspect-1.0");
    command.args(["--exists", element]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether this process has the effective user id 0.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_whitespace().nth(1) == Some("0")
}

/// Repeatable pseudo-random numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// True once in a while: `per_mille` times of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// That many arbitrary bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
