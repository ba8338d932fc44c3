//! What probes of viewers' networks have reported.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Reports that are kept, the latest.
const KEPT: usize = 32;
/// Lines of a report that are kept.
const LINES_MAX: usize = 128;
/// Characters of each of its texts.
const TEXT_MAX: usize = 300;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// When it was reported.
    pub at: SystemTime,
    /// From where.
    pub address: IpAddr,
    /// By whom.
    pub user: String,
    /// In the order in which they are told.
    pub lines: Vec<ProbeLine>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeLine {
    /// A port and its direction.
    pub what: String,
    /// Open, blocked, unknown.
    pub result: String,
    /// At which side, and what to ask for.
    pub words: String,
}

/// The latest reports.
#[derive(Debug, Default)]
pub struct Probes(Mutex<VecDeque<ProbeReport>>);

impl Probes {
    /// Keeps a report; what is too long in it is cut, and the oldest one goes where there are too many.
    pub fn add(&self, mut report: ProbeReport) {
        let cut = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
            }
        };
        report.lines.truncate(LINES_MAX);
        for line in &mut report.lines {
            [&mut line.what, &mut line.result, &mut line.words].into_iter().for_each(cut);
        }
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() >= KEPT {
            reports.pop_back();
        }
        reports.push_front(report);
    }

    /// The latest first.
    pub fn list(&self) -> Vec<ProbeReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_bounded() {
        let probes = Probes::default();
        for n in 0..40 {
            let line = ProbeLine { what: "é".repeat(1000), result: "open".into(), words: n.to_string() };
            let address = IpAddr::from([192, 0, 2, 1]);
            probes.add(ProbeReport { at: SystemTime::UNIX_EPOCH, address, user: "anna".into(), lines: vec![line; 500] });
        }
        let kept = probes.list();
        assert_eq!((kept.len(), kept[0].lines.len(), kept[0].lines[0].words.as_str()), (32, 128, "39"));
        assert_eq!(kept[0].lines[0].what.chars().count(), 300);
    }
}
