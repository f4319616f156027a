//! Decides that a version is broken: it traps again and again, or fails for most of its records.
//!
//! Only a call that fails takes a lock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::counters::Counters;

/// The value of [`Health::number`] for a version without a number. No store reaches it.
const NO_NUMBER: u32 = u32::MAX;

/// When a version counts as broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpikeLimits {
    /// Traps within `window` (3). Retries to find a bad row do not count.
    pub traps: usize,
    /// The window of time that failures are counted in (60 s).
    pub window: Duration,
    /// The share of bad records within `window` above which a version is broken (0.5). 1.0 disables this check.
    pub error_share: f64,
    /// The least number of records in the window for which a share is computed (1,000).
    pub sample_min: u64,
}

impl Default for SpikeLimits {
    fn default() -> Self {
        SpikeLimits { traps: 3, window: Duration::from_secs(60), error_share: 0.5, sample_min: 1_000 }
    }
}

/// Why a version counts as broken.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SpikeReason {
    /// It trapped too often.
    Traps {
        /// The number of traps.
        traps: usize,
        /// The time in which they happened.
        window: Duration,
    },
    /// It failed for too many records.
    Errors {
        /// The records that failed.
        bad: u64,
        /// All records in the window.
        records: u64,
        /// The time in which they failed.
        window: Duration,
    },
}

impl fmt::Display for SpikeReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpikeReason::Traps { traps, window } => write!(formatter, "{traps} traps in {} s", window.as_secs()),
            SpikeReason::Errors { bad, records, window } => {
                write!(formatter, "{bad} of {records} records failed in {} s", window.as_secs())
            }
        }
    }
}

/// The recent failures of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Traps within the window. No more are counted than make a version broken.
    pub traps: u64,
    /// The records that failed within the window.
    pub bad: u64,
    /// All records within the window. Both are estimated where the last failure is older than the window.
    pub records: u64,
}

impl Failures {
    /// Adds the failures of the same version elsewhere.
    pub fn add(&mut self, other: Failures) {
        self.traps += other.traps;
        self.bad += other.bad;
        self.records += other.records;
    }
}

impl SpikeLimits {
    /// Returns why a version with these failures is broken; `None` if it is not.
    pub fn exceeded_by(&self, failures: Failures) -> Option<SpikeReason> {
        let (SpikeLimits { window, .. }, Failures { bad, records, .. }) = (*self, failures);
        if failures.traps >= self.traps as u64 {
            return Some(SpikeReason::Traps { traps: usize::try_from(failures.traps).unwrap_or(usize::MAX), window });
        }
        let is_over = records >= self.sample_min && bad as f64 > self.error_share * records as f64;
        is_over.then_some(SpikeReason::Errors { bad, records, window })
    }
}

/// Called for each failure, on the thread of the call that failed: with a reason once for each activation of a version
/// that is broken, and without one before that.
pub(crate) type Alarm = Box<dyn Fn(Option<SpikeReason>) + Send + Sync>;

/// What is known of a version besides its code: its number, its counts and whether it is broken.
pub(crate) struct Health {
    pub(crate) counters: Counters,
    /// The version's number in a store, or [`NO_NUMBER`].
    number: AtomicU32,
    limits: SpikeLimits,
    recent: Mutex<Recent>,
    /// Whether the alarm was raised since the version was activated.
    raised: AtomicBool,
    alarm: Option<Alarm>,
}

#[derive(Debug)]
struct Recent {
    traps: VecDeque<Instant>,
    since: Instant,
    /// Units of work, and bad ones, at `since`.
    work: u64,
    bad: u64,
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Health {
    pub(crate) fn new(limits: SpikeLimits, alarm: Option<Alarm>) -> Health {
        Health {
            counters: Counters::default(),
            number: AtomicU32::new(NO_NUMBER),
            limits,
            recent: Mutex::new(Recent { traps: VecDeque::new(), since: Instant::now(), work: 0, bad: 0 }),
            raised: AtomicBool::default(),
            alarm,
        }
    }

    /// Returns the number of the version in a store, if it is known.
    pub(crate) fn number(&self) -> Option<u32> {
        Some(self.number.load(Relaxed)).filter(|number| *number != NO_NUMBER)
    }

    pub(crate) fn set_number(&self, number: u32) {
        self.number.store(number, Relaxed);
    }

    /// Adds the outcome of a failed call: whether the plug-in misbehaved, and the number of rows that failed. Raises
    /// the alarm if the version is broken.
    pub(crate) fn incident(&self, is_trap: bool, bad_rows: u64) {
        self.incident_at(is_trap, bad_rows, Instant::now());
    }

    /// Forgets recent failures, because the version is activated. The counters keep them.
    pub(crate) fn forgive(&self) {
        let mut recent = self.recent.lock();
        recent.traps.clear();
        self.restart(&mut recent, Instant::now());
        self.raised.store(false, Relaxed);
    }

    fn restart(&self, recent: &mut Recent, now: Instant) {
        recent.since = now;
        (recent.work, recent.bad) = self.counters.work_and_bad();
    }

    fn incident_at(&self, is_trap: bool, bad_rows: u64, now: Instant) {
        self.counters.add_bad_records(bad_rows);
        let reason = self.spike(is_trap, now);
        let Some(alarm) = &self.alarm else { return };
        let was_raised = match reason {
            Some(_) => self.raised.swap(true, Relaxed),
            None => self.raised.load(Relaxed),
        };
        if !was_raised {
            alarm(reason);
        }
    }

    /// Returns the failures of the last window.
    pub(crate) fn failures(&self) -> Failures {
        self.failures_at(Instant::now())
    }

    fn failures_at(&self, now: Instant) -> Failures {
        let window = self.limits.window;
        let recent = self.recent.lock();
        let traps = recent.traps.iter().filter(|trap| now.duration_since(**trap) <= window).count() as u64;
        let elapsed = now.duration_since(recent.since);
        let share = if elapsed > window { window.as_secs_f64() / elapsed.as_secs_f64() } else { 1.0 };
        let (work, bad) = self.counters.work_and_bad();
        let of_window = |now: u64, then: u64| (now.saturating_sub(then) as f64 * share) as u64;
        Failures { traps, bad: of_window(bad, recent.bad), records: of_window(work, recent.work) }
    }

    fn spike(&self, is_trap: bool, now: Instant) -> Option<SpikeReason> {
        let SpikeLimits { traps, window, .. } = self.limits;
        let mut recent = self.recent.lock();
        if is_trap {
            recent.traps.push_back(now);
            while recent.traps.len() > traps {
                recent.traps.pop_front();
            }
            let first = *recent.traps.front()?;
            if recent.traps.len() == traps && now.duration_since(first) <= window {
                return Some(SpikeReason::Traps { traps, window });
            }
        }
        if now.duration_since(recent.since) > window {
            self.restart(&mut recent, now);
            return None;
        }
        let (work, bad) = self.counters.work_and_bad();
        let (bad, records) = (bad.saturating_sub(recent.bad), work.saturating_sub(recent.work));
        self.limits.exceeded_by(Failures { traps: 0, bad, records })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a health and the messages of its alarm.
    fn health() -> (Health, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let alarm: Alarm = Box::new(move |reason| heard.lock().extend(reason.map(|reason| reason.to_string())));
        (Health::new(SpikeLimits::default(), Some(alarm)), said)
    }

    #[test]
    fn three_traps_in_a_minute_raise_the_alarm_once() {
        let (health, said) = health();
        let start = Instant::now();
        for second in [0, 30, 61, 90] {
            health.incident_at(true, 0, start + second * SECOND);
        }
        assert_eq!(*said.lock(), ["3 traps in 60 s"]);
        health.incident_at(true, 0, start + 91 * SECOND);
        assert_eq!(said.lock().len(), 1);
        health.forgive();
        for second in [92, 93, 94] {
            health.incident_at(true, 0, start + second * SECOND);
        }
        assert_eq!(said.lock().len(), 2);
    }

    #[test]
    fn traps_that_are_far_apart_do_not_count() {
        let (health, said) = health();
        let start = Instant::now();
        for time in 0..20 {
            health.incident_at(true, 0, start + time * 31 * SECOND);
        }
        assert!(said.lock().is_empty());
    }

    #[test]
    fn too_many_bad_records_raise_the_alarm() {
        let (health, said) = health();
        let start = Instant::now();
        for call in 0..9 {
            health.counters.called(100, 1);
            health.incident_at(false, 90, start + call * SECOND / 10);
        }
        assert!(said.lock().is_empty(), "900 records are too few");
        health.counters.called(100, 1);
        health.incident_at(false, 0, start + SECOND);
        assert_eq!(*said.lock(), ["810 of 1000 records failed in 60 s"]);
        assert_eq!(health.counters.counts().bad_records, 810);
    }

    #[test]
    fn a_failure_rate_is_taken_of_recent_records() {
        let (health, said) = health();
        let start = Instant::now();
        health.counters.called(1_000_000, 1);
        health.incident_at(false, 10, start + SECOND);
        // A minute later everything fails: the million before does not hide it.
        for call in 0..20 {
            health.counters.called(100, 1);
            health.incident_at(false, 100, start + 100 * SECOND + call * SECOND);
        }
        assert_eq!(said.lock().len(), 1);
    }

    #[test]
    fn failures_of_several_brokers_add_up() {
        let start = Instant::now();
        let mut sum = Failures::default();
        for broker in 0..3 {
            let (health, said) = health();
            health.counters.called(400, 1);
            health.incident_at(true, 250, start + broker * SECOND);
            assert!(said.lock().is_empty());
            assert_eq!(SpikeLimits::default().exceeded_by(health.failures_at(start + 3 * SECOND)), None);
            sum.add(health.failures_at(start + 3 * SECOND));
        }
        assert_eq!(sum, Failures { traps: 3, bad: 750, records: 1200 });
        let reason = |failures| SpikeLimits::default().exceeded_by(failures).map(|reason| reason.to_string());
        assert_eq!(reason(sum).as_deref(), Some("3 traps in 60 s"));
        assert_eq!(reason(Failures { traps: 2, ..sum }).as_deref(), Some("750 of 1200 records failed in 60 s"));
        assert_eq!(reason(Failures { traps: 2, bad: 600, ..sum }), None);
    }

    #[test]
    fn failures_before_the_window_do_not_add_up() {
        let (health, _) = health();
        let start = Instant::now();
        health.counters.called(400, 1);
        health.incident_at(true, 300, start + SECOND);
        let later = health.failures_at(start + 121 * SECOND);
        assert_eq!(later.traps, 0);
        // The rate since the count began, over one window.
        assert!((190..=210).contains(&later.records) && (140..=160).contains(&later.bad), "{later:?}");
    }

    #[test]
    fn calls_without_rows_count_too() {
        let (health, said) = health();
        let start = Instant::now();
        for _ in 0..1_000 {
            health.counters.called(0, 1);
            health.incident_at(false, 1, start);
        }
        assert_eq!(said.lock().len(), 1);
    }
}
