//! What a process used: processor time and memory, from /proc.

use std::fs;
use std::io;

/// A clock tick as /proc tells it, on every architecture (USER_HZ is 100), ns.
const TICK_NS: u64 = 10_000_000;

/// A process at an instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessSample {
    /// Processor time of all threads that are there, ns.
    pub(super) cpu_ns: u64,
    /// Time in user space and in the kernel, clock ticks: their share is of interest, not their length.
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    /// Resident memory, bytes.
    pub(super) resident_bytes: u64,
}

/// What a process used between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessUse {
    pub(super) cpu_ns: u64,
    /// Part of it in user space; as exact as the kernel's clock ticks are.
    pub(super) user_ns: f64,
}

impl ProcessSample {
    /// Looks at a process.
    ///
    /// # Errors
    /// Where there is none of that id, or /proc is not as Linux has it.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let (mut cpu_ns, mut is_known) = (0, false);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between its name and its figures.
            if let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) {
                cpu_ns += first_number(&line).unwrap_or_default();
                is_known = true;
            }
        }
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "/proc is not as Linux has it");
        if !is_known {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel tells no processor time of threads (schedstat)"));
        }
        let (user_ticks, system_ticks) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(unknown)?;
        let resident_bytes = resident(&fs::read_to_string(format!("/proc/{pid}/status"))?).ok_or_else(unknown)?;
        Ok(Self { cpu_ns, user_ticks, system_ticks, resident_bytes })
    }

    /// What was used since an earlier sample.
    pub(super) fn since(self, earlier: Self) -> ProcessUse {
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let all = user + self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        // Ticks are coarse, but count what threads used that ended in between, and took their nanoseconds along.
        let ticks_ns = (self.user_ticks + self.system_ticks).saturating_sub(earlier.user_ticks + earlier.system_ticks);
        let ticks_ns = ticks_ns.saturating_mul(TICK_NS);
        let cpu_ns = self.cpu_ns.saturating_sub(earlier.cpu_ns).max(ticks_ns);
        ProcessUse { cpu_ns, user_ns: if all > 0.0 { cpu_ns as f64 * user / all } else { 0.0 } }
    }
}

fn first_number(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

/// utime and stime, fields 14 and 15; the name in parentheses may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    first_number(line).map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 9 8 7 6 123 45 0 0 20 0 5 0 100 1000 10";
        assert_eq!(ticks(stat), Some((123, 45)));
        assert_eq!(ticks("77 (a) S 1"), None);
        assert_eq!(resident("VmPeak:\t  9 kB\nVmRSS:\t   1024 kB\n"), Some(1 << 20));
        assert_eq!(resident("Name:\tzombie\n"), None);
        assert_eq!(first_number("12345 6 7\n"), Some(12_345));
    }

    #[test]
    fn use_is_the_difference() {
        let earlier = ProcessSample { cpu_ns: 1_000, user_ticks: 10, system_ticks: 10, resident_bytes: 0 };
        let later = ProcessSample { cpu_ns: 9_000_001_000, user_ticks: 11, system_ticks: 13, resident_bytes: 0 };
        assert_eq!(later.since(earlier), ProcessUse { cpu_ns: 9_000_000_000, user_ns: 2_250_000_000.0 });
        let thread_ended = ProcessSample { cpu_ns: 500, user_ticks: 510, ..later };
        assert!(thread_ended.since(earlier).cpu_ns >= 1_000_000_000);
        assert_eq!(earlier.since(earlier), ProcessUse { cpu_ns: 0, user_ns: 0.0 });
    }

    #[test]
    fn this_process_is_there_and_another_is_not() {
        assert!(ProcessSample::of(std::process::id()).unwrap().resident_bytes > 0);
        assert!(ProcessSample::of(u32::MAX).is_err());
    }
}
