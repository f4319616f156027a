//! What one version of a plug-in has done, over all the stages that it serves, and the alarm when it
//! goes wrong too often.
//!
//! A call adds to a few atomic numbers. Only a call that fails takes a lock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Instead of a version's number: it has none. Stores never get that far.
const NO_NUMBER: u32 = u32::MAX;

/// When a version is taken to be broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpikeLimits {
    /// So many traps within `window` (3). What is tried again to find a bad row is not counted twice.
    pub traps: usize,
    /// The time that is looked at (60 s).
    pub window: Duration,
    /// A greater share of bad records than this within `window` (0.5); 1.0 is never passed.
    pub error_share: f64,
    /// Records that a share is first taken of (1,000): one bad record of one is no share to act on.
    pub sample_min: u64,
}

impl Default for SpikeLimits {
    fn default() -> Self {
        SpikeLimits { traps: 3, window: Duration::from_secs(60), error_share: 0.5, sample_min: 1_000 }
    }
}

/// Why a version is taken to be broken.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SpikeReason {
    /// It trapped too often.
    Traps {
        /// How often.
        traps: usize,
        /// Within this time.
        window: Duration,
    },
    /// It failed for too many records.
    Errors {
        /// Records that it failed for.
        bad: u64,
        /// Of so many.
        records: u64,
        /// Within this time.
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

/// Called with the first spike of a version, on the thread of the call that failed.
pub(crate) type Alarm = Box<dyn Fn(SpikeReason) + Send + Sync>;

/// Numbers that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    records: AtomicU64,
    nanos: AtomicU64,
    errors: AtomicU64,
    traps: AtomicU64,
    bad_records: AtomicU64,
    /// What a share of bad records is taken of: records, and calls that have none.
    work: AtomicU64,
}

impl Counters {
    /// A call ended.
    pub(crate) fn called(&self, rows: u64, nanos: u64) {
        self.records.fetch_add(rows, Relaxed);
        self.work.fetch_add(rows.max(1), Relaxed);
        self.called_again(nanos);
    }

    /// A call ended for records that were counted before.
    pub(crate) fn called_again(&self, nanos: u64) {
        self.calls.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// That call failed.
    pub(crate) fn failed(&self, is_trap: bool) {
        self.errors.fetch_add(1, Relaxed);
        self.traps.fetch_add(u64::from(is_trap), Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Relaxed),
            records: self.records.load(Relaxed),
            nanos: self.nanos.load(Relaxed),
            errors: self.errors.load(Relaxed),
            traps: self.traps.load(Relaxed),
            bad_records: self.bad_records.load(Relaxed),
        }
    }
}

/// What is known of one version beside its code: its number, its counts and its alarm.
pub(crate) struct Tally {
    pub(crate) counters: Counters,
    /// The version's number in a store, or [`NO_NUMBER`].
    number: AtomicU32,
    limits: SpikeLimits,
    recent: Mutex<Recent>,
    /// Whether the alarm was raised; once for each time that the version is put to use.
    raised: AtomicBool,
    alarm: Option<Alarm>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls, failed ones too.
    pub calls: u64,
    /// Rows of all calls; each once, however often it is tried.
    pub records: u64,
    /// Time of all calls.
    pub nanos: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because the plug-in misbehaved.
    pub traps: u64,
    /// Rows that it failed for.
    pub bad_records: u64,
}

#[derive(Debug)]
struct Recent {
    traps: VecDeque<Instant>,
    since: Instant,
    /// Units of work, and bad ones, at `since`.
    work: u64,
    bad: u64,
}

impl fmt::Debug for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tally").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Tally {
    pub(crate) fn new(limits: SpikeLimits, alarm: Option<Alarm>) -> Tally {
        Tally {
            counters: Counters::default(),
            number: AtomicU32::new(NO_NUMBER),
            limits,
            recent: Mutex::new(Recent { traps: VecDeque::new(), since: Instant::now(), work: 0, bad: 0 }),
            raised: AtomicBool::default(),
            alarm,
        }
    }

    /// The number of the version in a store, if it is known.
    pub(crate) fn number(&self) -> Option<u32> {
        Some(self.number.load(Relaxed)).filter(|number| *number != NO_NUMBER)
    }

    pub(crate) fn set_number(&self, number: u32) {
        self.number.store(number, Relaxed);
    }

    /// What a failed call comes to, once it is known: whether the plug-in misbehaved, and for how many
    /// rows it failed. Raises the alarm.
    pub(crate) fn incident(&self, is_trap: bool, bad_rows: u64) {
        self.incident_at(is_trap, bad_rows, Instant::now());
    }

    /// The version is put to use: what it did before is forgiven, not forgotten.
    pub(crate) fn forgive(&self) {
        let mut recent = self.recent.lock();
        recent.traps.clear();
        self.restart(&mut recent, Instant::now());
        self.raised.store(false, Relaxed);
    }

    fn restart(&self, recent: &mut Recent, now: Instant) {
        recent.since = now;
        recent.work = self.counters.work.load(Relaxed);
        recent.bad = self.counters.bad_records.load(Relaxed);
    }

    fn incident_at(&self, is_trap: bool, bad_rows: u64, now: Instant) {
        let bad = self.counters.bad_records.fetch_add(bad_rows, Relaxed) + bad_rows;
        let Some(reason) = self.spike(is_trap, bad, now) else { return };
        if let Some(alarm) = &self.alarm
            && !self.raised.swap(true, Relaxed)
        {
            alarm(reason);
        }
    }

    fn spike(&self, is_trap: bool, bad: u64, now: Instant) -> Option<SpikeReason> {
        let SpikeLimits { traps, window, error_share, sample_min } = self.limits;
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
        let (bad, records) =
            (bad.saturating_sub(recent.bad), self.counters.work.load(Relaxed).saturating_sub(recent.work));
        let is_over = records >= sample_min && bad as f64 > error_share * records as f64;
        is_over.then_some(SpikeReason::Errors { bad, records, window })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A tally, and what its alarm has said.
    fn tally() -> (Tally, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let alarm: Alarm = Box::new(move |reason| heard.lock().push(reason.to_string()));
        (Tally::new(SpikeLimits::default(), Some(alarm)), said)
    }

    #[test]
    fn three_traps_in_a_minute_raise_the_alarm_once() {
        let (tally, said) = tally();
        let start = Instant::now();
        for second in [0, 30, 61, 90] {
            tally.incident_at(true, 0, start + second * SECOND);
        }
        assert_eq!(*said.lock(), ["3 traps in 60 s"]);
        tally.incident_at(true, 0, start + 91 * SECOND);
        assert_eq!(said.lock().len(), 1);
        tally.forgive();
        for second in [92, 93, 94] {
            tally.incident_at(true, 0, start + second * SECOND);
        }
        assert_eq!(said.lock().len(), 2);
    }

    #[test]
    fn traps_that_are_far_apart_are_none() {
        let (tally, said) = tally();
        let start = Instant::now();
        for time in 0..20 {
            tally.incident_at(true, 0, start + time * 31 * SECOND);
        }
        assert!(said.lock().is_empty());
    }

    #[test]
    fn too_many_bad_records_raise_the_alarm() {
        let (tally, said) = tally();
        let start = Instant::now();
        for call in 0..9 {
            tally.counters.called(100, 1);
            tally.incident_at(false, 90, start + call * SECOND / 10);
        }
        assert!(said.lock().is_empty(), "900 records are too few");
        tally.counters.called(100, 1);
        tally.incident_at(false, 0, start + SECOND);
        assert_eq!(*said.lock(), ["810 of 1000 records failed in 60 s"]);
        assert_eq!(tally.counters.counts().bad_records, 810);
    }

    #[test]
    fn a_share_is_taken_of_what_is_recent() {
        let (tally, said) = tally();
        let start = Instant::now();
        tally.counters.called(1_000_000, 1);
        tally.incident_at(false, 10, start + SECOND);
        // A minute later everything fails: the million before does not hide it.
        for call in 0..20 {
            tally.counters.called(100, 1);
            tally.incident_at(false, 100, start + 100 * SECOND + call * SECOND);
        }
        assert_eq!(said.lock().len(), 1);
    }

    #[test]
    fn calls_without_rows_count_too() {
        let (tally, said) = tally();
        let start = Instant::now();
        for _ in 0..1_000 {
            tally.counters.called(0, 1);
            tally.incident_at(false, 1, start);
        }
        assert_eq!(said.lock().len(), 1);
    }
}
