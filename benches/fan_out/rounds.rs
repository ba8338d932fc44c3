//! Techniques that run in turn within each round, and the ratios of what they cost.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread since it began.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time that this thread spends on `work`; what other threads do meanwhile does not count.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = cpu_time();
    work();
    cpu_time() - start
}

/// One way to send a batch to all viewers.
pub(crate) struct Technique {
    /// What the tables call it.
    pub(crate) name: &'static str,
    /// Sends that many batches; the CPU time of it.
    send: Box<dyn FnMut(usize) -> Duration>,
}

impl Technique {
    /// A technique of which everything counts that `send` does for one batch.
    pub(crate) fn new(name: &'static str, mut send: impl FnMut() + 'static) -> Self {
        Self::partly_timed(name, move |batches| timed(|| (0..batches).for_each(|_| send())))
    }

    /// A technique that says itself what counts of sending some batches.
    pub(crate) fn partly_timed(name: &'static str, send: impl FnMut(usize) -> Duration + 'static) -> Self {
        Self { name, send: Box::new(send) }
    }
}

/// Some techniques and what each round of them took.
pub(crate) struct Rounds {
    techniques: Vec<Technique>,
    /// Batches of each technique in a round, so that reading the clock does not count where a batch is short.
    batches: usize,
    /// A line a round, in the order of the techniques.
    took: Vec<Vec<Duration>>,
    first: usize,
}

impl Rounds {
    /// Rounds of these techniques, of which none has run.
    pub(crate) fn new(techniques: Vec<Technique>, datagrams: usize) -> Self {
        Self { techniques, batches: (256 / datagrams).max(1), took: Vec::new(), first: 0 }
    }

    /// Runs every technique once, each time beginning with another; their CPU times for one batch.
    pub(crate) fn round(&mut self) -> &[Duration] {
        let count = self.techniques.len();
        let mut took = vec![Duration::ZERO; count];
        for turn in 0..count {
            let index = (self.first + turn) % count;
            took[index] = (self.techniques[index].send)(self.batches) / self.batches as u32;
        }
        self.first += 1;
        self.took.push(took);
        &self.took[self.took.len() - 1]
    }

    /// Runs rounds that do not count, until everything is as it will stay.
    pub(crate) fn warm_up(&mut self, rounds: usize) {
        for _ in 0..rounds.div_ceil(self.batches) {
            self.round();
        }
        self.took.clear();
    }

    /// The names, in the order of [`Self::round`].
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.techniques.iter().map(|technique| technique.name).collect()
    }

    /// How the cost of one technique compares to another's in the same round.
    pub(crate) fn ratio(&self, of: &str, to: &str) -> Option<Ratio> {
        let index = |name: &str| self.techniques.iter().position(|technique| technique.name == name);
        let (of, to) = (index(of)?, index(to)?);
        let mut ratios: Vec<f64> = self.took.iter().map(|took| took[of].as_secs_f64() / took[to].as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let quantile = |share: usize| ratios.get((ratios.len() * share / 100).min(ratios.len().checked_sub(1)?)).copied();
        Some(Ratio { median: quantile(50)?, lower: quantile(25)?, upper: quantile(75)? })
    }

    /// What the median round of a technique took for one batch.
    pub(crate) fn median(&self, of: &str) -> Option<Duration> {
        let index = self.techniques.iter().position(|technique| technique.name == of)?;
        let mut took: Vec<Duration> = self.took.iter().map(|took| took[index]).collect();
        took.sort();
        took.get(took.len() / 2).copied()
    }
}

/// The middle of a ratio over all rounds, and its quartiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    median: f64,
    lower: f64,
    upper: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spread = (self.upper - self.lower) / 2.0 / self.median * 100.0;
        let text = format!("{:.2} ±{spread:.0}%", self.median);
        formatter.pad(&text)
    }
}
