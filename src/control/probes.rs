//! The probes that are under way, what they may have sent, and the reports of those that ended.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::probe::verdict::{LINES_MAX, SENTENCES_MAX, TEXT_MAX};
use crate::probe::{Report, Token};
use crate::relay::admission::limit_key;
use crate::shard::{Heard, Prober};
use crate::wire::TokenBucket;

/// A probe is forgotten then: the slowest takes half of that.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// Reports that are kept.
const REPORTS_MAX: usize = 100;
/// And of one user: nobody drives out those of others.
const REPORTS_OF_USER_MAX: usize = 5;
/// Probes that an address may begin a second, and at once; each may be heard for [`LIFE`].
const BEGINS: (u32, u32) = (1, 10);
/// Challenges that an address may be sent a second, and at once.
const OF_ADDRESS: (u32, u32) = (32, 1024);
/// The same of all addresses together.
const OF_ALL: (u32, u32) = (512, 4096);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;
/// An address that asked for nothing for so long has all of its budget again.
const REST: Duration = Duration::from_secs(60);

/// Probes of one user that are under way.
const PROBES_OF_USER_MAX: usize = 2;
/// Bytes of all texts of a report: a page shows some of them at once, and a true one has a tenth of that.
const TEXTS_BYTES_MAX: usize = 32 << 10;

/// The probes.
pub struct Probes {
    prober: Prober,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    open: Vec<Open>,
    budgets: HashMap<IpAddr, Budget>,
    all: Option<TokenBucket>,
    reports: VecDeque<(Instant, Kept)>,
}

/// One that is under way.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) user: String,
    /// Challenges go there, and nobody from elsewhere hears of it.
    pub(super) address: IpAddr,
    pub(super) token: Token,
    until: Instant,
}

struct Budget {
    begins: TokenBucket,
    challenges: TokenBucket,
    asked: Instant,
}

/// A report as it is kept.
#[derive(Debug, Clone)]
struct Kept {
    id: u64,
    user: String,
    address: IpAddr,
    report: Report,
}

/// A report and where it came from. All texts in it are the client's: nothing vouches for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProbeReport {
    /// Number of the probe.
    pub id: u64,
    /// Who ran it.
    pub user: String,
    /// The address that it came from.
    pub address: String,
    /// So many seconds ago.
    pub ago_s: u64,
    /// What it found.
    pub report: Report,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeRefusal {
    /// One of that address is under way, for at most so many seconds.
    UnderWay(u64),
    /// Too much at once.
    TooMany,
    /// There is none of that number, for that user at that address.
    None,
    /// The report is larger than any that is true.
    TooLarge,
}

impl Probes {
    /// None yet.
    pub fn new(prober: Prober) -> Self {
        Self { prober, inner: Mutex::default() }
    }

    /// What sends challenges.
    pub fn prober(&self) -> &Prober {
        &self.prober
    }

    fn inner(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open.retain(|open| {
            let is_open = open.until > now;
            if !is_open {
                self.prober.forget(&open.token);
            }
            is_open
        });
        inner
    }

    /// Begins one; its echoes are heard from here on.
    pub(super) fn begin(&self, now: Instant, user: &str, address: IpAddr, token: Token) -> Result<Open, ProbeRefusal> {
        let mut inner = self.inner(now);
        if let Some(open) = inner.open.iter().find(|open| limit_key(open.address) == limit_key(address)) {
            return Err(ProbeRefusal::UnderWay(open.until.saturating_duration_since(now).as_secs() + 1));
        }
        if inner.open.iter().filter(|open| open.user == user).count() >= PROBES_OF_USER_MAX {
            return Err(ProbeRefusal::TooMany);
        }
        if !inner.budget(now, address).is_some_and(|budget| budget.begins.take(now)) || !self.prober.listen(token) {
            return Err(ProbeRefusal::TooMany);
        }
        inner.last += 1;
        let open = Open { id: inner.last, user: user.to_owned(), address, token, until: now + LIFE };
        inner.open.push(open.clone());
        Ok(open)
    }

    /// The one of that number, for those who began it.
    pub(super) fn open(&self, now: Instant, id: u64, user: &str, address: IpAddr) -> Result<Open, ProbeRefusal> {
        let inner = self.inner(now);
        let found = inner.open.iter().find(|open| open.id == id && open.user == user && open.address == address);
        found.cloned().ok_or(ProbeRefusal::None)
    }

    /// Takes so many challenges to an address from what may be sent.
    pub(super) fn spend(&self, now: Instant, address: IpAddr, challenges: usize) -> Result<(), ProbeRefusal> {
        let mut inner = self.inner(now);
        let mut all = *inner.all.get_or_insert_with(|| TokenBucket::new(now, OF_ALL.0, OF_ALL.1));
        let budget = inner.budget(now, address).ok_or(ProbeRefusal::TooMany)?;
        // Of copies: what is refused costs nothing.
        let mut own = budget.challenges;
        if !(0..challenges).all(|_| own.take(now) && all.take(now)) {
            return Err(ProbeRefusal::TooMany);
        }
        budget.challenges = own;
        inner.all = Some(all);
        Ok(())
    }

    /// What came of one.
    pub(super) fn heard(&self, open: &Open) -> Vec<Heard> {
        self.prober.heard(&open.token)
    }

    /// Ends one with what it found.
    pub(super) fn end(&self, now: Instant, open: &Open, report: Report) -> Result<(), ProbeRefusal> {
        if !is_bounded(&report) {
            return Err(ProbeRefusal::TooLarge);
        }
        let mut inner = self.inner(now);
        let before = inner.open.len();
        inner.open.retain(|other| other.id != open.id);
        if inner.open.len() == before {
            return Err(ProbeRefusal::None);
        }
        self.prober.forget(&open.token);
        let Open { id, user, address, .. } = open.clone();
        let of_user = inner.reports.iter().filter(|(_, kept)| kept.user == user).count();
        if of_user >= REPORTS_OF_USER_MAX
            && let Some(oldest) = inner.reports.iter().position(|(_, kept)| kept.user == user)
        {
            inner.reports.remove(oldest);
        } else if inner.reports.len() >= REPORTS_MAX {
            inner.reports.pop_front();
        }
        inner.reports.push_back((now, Kept { id, user, address, report }));
        Ok(())
    }

    /// Reports that are kept: of the last hundred, of one user the last five.
    pub fn reports(&self, now: Instant) -> usize {
        self.inner(now).reports.len()
    }

    /// Those of these places, the latest first.
    pub fn list(&self, now: Instant, places: Range<usize>) -> Vec<ProbeReport> {
        let inner = self.inner(now);
        let some = inner.reports.iter().rev().skip(places.start).take(places.len());
        let told = some.map(|(at, kept)| ProbeReport {
            id: kept.id,
            user: kept.user.clone(),
            address: kept.address.to_string(),
            ago_s: now.saturating_duration_since(*at).as_secs(),
            report: kept.report.clone(),
        });
        told.collect()
    }
}

impl Inner {
    /// What an address may still ask for; `None` where too many others ask.
    fn budget(&mut self, now: Instant, address: IpAddr) -> Option<&mut Budget> {
        let key = limit_key(address);
        if self.budgets.len() >= ADDRESSES_MAX && !self.budgets.contains_key(&key) {
            self.budgets.retain(|_, budget| now.saturating_duration_since(budget.asked) < REST);
            if self.budgets.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        let budget = self.budgets.entry(key).or_insert_with(|| Budget {
            begins: TokenBucket::new(now, BEGINS.0, BEGINS.1),
            challenges: TokenBucket::new(now, OF_ADDRESS.0, OF_ADDRESS.1),
            asked: now,
        });
        budget.asked = now;
        Some(budget)
    }
}

fn is_bounded(report: &Report) -> bool {
    let Report { host, server, client, seen_as, lines, nat, asks, notes, .. } = report;
    let sentences = [nat, asks, notes];
    let texts = [host, server, client].into_iter().chain(seen_as).chain(sentences.into_iter().flatten());
    let of_lines = lines.iter().flat_map(|line| [&line.ports, &line.what, &line.words]);
    let mut bytes = 0;
    lines.len() <= LINES_MAX
        && sentences.iter().all(|sentences| sentences.len() <= SENTENCES_MAX)
        && texts.chain(of_lines).all(|text| {
            bytes += text.len();
            bytes <= TEXTS_BYTES_MAX && text.chars().count() <= TEXT_MAX
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::verdict::Outcome;

    #[expect(clippy::disallowed_methods, reason = "one base for the virtual clock")]
    fn start() -> Instant {
        Instant::now()
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn report() -> Report {
        Report {
            host: "h".into(),
            server: "198.51.100.1".into(),
            client: "192.0.2.1".into(),
            seen_as: None,
            viewers: 1,
            outcome: Outcome::Open,
            lines: Vec::new(),
            nat: Vec::new(),
            asks: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn one_of_an_address_at_a_time_and_nobody_elses() {
        let (probes, now) = (Probes::new(Prober::default()), start());
        let open = probes.begin(now, "anna", address(1), [1; 16]).unwrap();
        assert_eq!(probes.begin(now, "anna", address(1), [2; 16]).unwrap_err(), ProbeRefusal::UnderWay(61));
        let other = probes.begin(now, "anna", address(2), [2; 16]).unwrap();
        assert_ne!(open.id, other.id);
        assert!(probes.open(now, open.id, "anna", address(1)).is_ok());
        for (id, user, from) in [(open.id, "anna", address(2)), (open.id, "bert", address(1)), (99, "anna", address(1))] {
            assert_eq!(probes.open(now, id, user, from).unwrap_err(), ProbeRefusal::None);
        }
        // Forgotten in time, and then another one may begin.
        let later = now + LIFE;
        assert_eq!(probes.open(later, open.id, "anna", address(1)).unwrap_err(), ProbeRefusal::None);
        assert!(probes.begin(later, "anna", address(1), [3; 16]).is_ok());
    }

    #[test]
    fn two_of_a_user_and_what_is_refused_costs_nothing() {
        let (probes, now) = (Probes::new(Prober::default()), start());
        for last in [1, 2] {
            probes.begin(now, "anna", address(last), [last; 16]).unwrap();
        }
        assert_eq!(probes.begin(now, "anna", address(3), [3; 16]).unwrap_err(), ProbeRefusal::TooMany);
        assert!(probes.begin(now, "bert", address(3), [3; 16]).is_ok());
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(probes.begin(now, "carl", v6("2001:db8::1"), [4; 16]).is_ok());
        let neighbour = probes.begin(now, "carl", v6("2001:db8::2"), [5; 16]).unwrap_err();
        assert!(matches!(neighbour, ProbeRefusal::UnderWay(_)), "one of a /64");

        assert!(probes.spend(now, address(1), 1000).is_ok());
        assert_eq!(probes.spend(now, address(1), 25), Err(ProbeRefusal::TooMany));
        assert!(probes.spend(now, address(1), 24).is_ok(), "the refused request took none of the rest");
    }

    #[test]
    fn challenges_and_begins_are_limited_for_each_address_and_for_all() {
        let (probes, now) = (Probes::new(Prober::default()), start());
        let mut begun = 0;
        while let Ok(open) = probes.begin(now, "anna", address(1), [1; 16]) {
            probes.end(now, &open, report()).unwrap();
            begun += 1;
            assert!(begun <= 10);
        }
        assert_eq!(begun, 10);
        assert!(probes.begin(now + Duration::from_secs(1), "anna", address(1), [1; 16]).is_ok());

        let left = |from: u8| (0..100).take_while(|_| probes.spend(now, address(from), 64).is_ok()).count();
        assert_eq!((left(1), left(2), left(3), left(4)), (16, 16, 16, 16));
        assert_eq!(left(5), 0, "all have had enough");
        let later = now + Duration::from_secs(2);
        assert!(probes.spend(later, address(1), 64).is_ok());
        assert_eq!(probes.spend(later, address(1), 64), Err(ProbeRefusal::TooMany));
    }

    /// One after the other, so that no address has had enough; the number of viewers tells them apart.
    fn report_of(probes: &Probes, now: &mut Instant, user: &str, viewers: u16) {
        *now += Duration::from_secs(2);
        let open = probes.begin(*now, user, address(1), [1; 16]).unwrap();
        let huge = Report { notes: vec!["x".repeat(TEXT_MAX + 1)], ..report() };
        assert_eq!(probes.end(*now, &open, huge), Err(ProbeRefusal::TooLarge));
        let much = Report { notes: vec!["x".repeat(TEXT_MAX); 64], asks: vec!["x".repeat(TEXT_MAX); 1], ..report() };
        assert_eq!(probes.end(*now, &open, much), Err(ProbeRefusal::TooLarge), "more than 32 KiB in all");
        let true_to_life = Report { viewers, notes: vec!["x".repeat(TEXT_MAX); 31], ..report() };
        probes.end(*now, &open, true_to_life).unwrap();
        assert_eq!(probes.end(*now, &open, report()), Err(ProbeRefusal::None), "it has ended");
    }

    #[test]
    fn the_last_hundred_reports_are_kept_and_none_that_is_huge() {
        let (probes, mut now) = (Probes::new(Prober::default()), start());
        for number in 0..=REPORTS_MAX {
            report_of(&probes, &mut now, &format!("user{}", number / REPORTS_OF_USER_MAX), u16::try_from(number).unwrap());
        }
        let list = probes.list(now + Duration::from_secs(5), 0..1000);
        assert_eq!((list.len(), list[0].report.viewers, list[99].report.viewers, list[0].ago_s), (100, 100, 1, 5));
        assert_eq!((list[0].user.as_str(), list[0].address.as_str()), ("user20", "192.0.2.1"));
        let some: Vec<_> = probes.list(now, 10..12).iter().map(|report| report.report.viewers).collect();
        assert_eq!((probes.reports(now), some), (100, vec![90, 89]));
        assert!(probes.list(now, 100..110).is_empty());
    }

    #[test]
    fn nobody_drives_out_the_reports_of_others() {
        let (probes, mut now) = (Probes::new(Prober::default()), start());
        report_of(&probes, &mut now, "bert", 50);
        for viewers in 0..=REPORTS_OF_USER_MAX {
            report_of(&probes, &mut now, "anna", u16::try_from(viewers).unwrap());
        }
        let list = probes.list(now, 0..100);
        let kept: Vec<_> = list.iter().map(|report| (report.user.as_str(), report.report.viewers)).collect();
        assert_eq!(kept, [("anna", 5), ("anna", 4), ("anna", 3), ("anna", 2), ("anna", 1), ("bert", 50)]);
    }
}
