//! Decides where the filters of a topic run: inline on the thread that serves the socket, or on another thread.
//!
//! Passing a batch to another thread costs two wake-ups, and moves the batch to another core's cache. For a batch of
//! 256 KiB that is more than all other costs of a filter on keys. Filters that take no longer than the broker's own
//! work on the batch therefore run inline. All others, and those that were not measured yet, run on another thread.
//!
//! A filter may turn slow at any batch, on a thread that serves other topics too. The worst case is one deadline of one
//! stage, on as many threads as the topic has permits. (The binary's own stages have no deadline, but are faster even
//! in their worst case.) The next stage of the chain, the search for bad rows and the next batch then run where they
//! may be slow ([`crate::compute_permits::aside`]). So does every later batch until the filters were quick often enough
//! there. Each such lapse requires four times as many quick batches as the one before.
//!
//! A single overrun may be noise (interrupts are charged to the running thread), so only repeated overruns demote a
//! filter. A batch that is slow by the wall clock may have waited for a core. If it took at most 2 ms, the next batches
//! are timed by the thread's own clock before the filter is demoted.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use millstream_stage::thread_time;

/// Quick batches in a row before filters run on the thread that serves the socket.
const PROMOTE_AFTER_BATCHES: u32 = 8;

/// The most quick batches that are required, after several lapses.
const PROMOTE_AFTER_BATCHES_MAX: u32 = PROMOTE_AFTER_BATCHES << 12;

/// The factor for the required quick batches after a lapse.
const LAPSE_FACTOR: u32 = 4;

/// The broker's own cost of a batch, approximately: for its request, and for each KiB.
const COST_PER_BATCH: Duration = Duration::from_micros(20);
const COST_PER_KIB: Duration = Duration::from_nanos(300);

/// Batches that are timed by the thread's own clock after one that was slow by the wall clock.
const CLOSELY_TIMED_BATCHES: u32 = 64;

/// A batch that took longer than this counts as slow, whatever the reason: a socket should not wait for that long.
const PREEMPTED_MAX: Duration = Duration::from_millis(2);

/// A batch is a lapse if it takes this many times longer than allowed.
const LAPSE_TIMES: u32 = 10;

/// The measured speed of one topic's filters. Several batches may be counted at once; a lost count does no harm.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Quick batches, more or less in a row.
    in_a_row: AtomicU32,
    /// The required number of quick batches.
    wanted: AtomicU32,
    /// The number of further batches that are timed by the thread's own clock.
    watched: AtomicU32,
}

impl Pace {
    /// Returns the state before any measurement.
    pub(crate) fn new() -> Self {
        Self { in_a_row: AtomicU32::new(0), wanted: AtomicU32::new(PROMOTE_AFTER_BATCHES), watched: AtomicU32::new(0) }
    }

    /// Returns whether the filters may run on the thread that serves the socket.
    pub(crate) fn is_quick(&self) -> bool {
        self.in_a_row.load(Relaxed) >= self.wanted.load(Relaxed)
    }

    /// Runs filters over `bytes` bytes of records, and counts whether they were quick. `is_sound` returns whether the
    /// filters did not fail.
    pub(crate) fn timed<T>(&self, bytes: usize, filter: impl FnOnce() -> T, is_sound: impl FnOnce(&T) -> bool) -> T {
        let allowed = allowed(bytes);
        // If many threads share the cores, only the thread's own clock shows the cost of the filters. Reading it is a
        // system call, so it is read only after a batch that was slow by the wall clock.
        let watched = self.watched.load(Relaxed);
        let ran = (watched > 0).then(thread_time);
        let begun = Instant::now();
        let answer = filter();
        let by_clock = begun.elapsed();
        match ran {
            Some(ran) => {
                self.watched.store(watched - 1, Relaxed);
                self.note(thread_time() - ran, allowed, is_sound(&answer));
            }
            None if by_clock > allowed && by_clock < PREEMPTED_MAX => {
                self.watched.store(CLOSELY_TIMED_BATCHES, Relaxed)
            }
            None => self.note(by_clock, allowed, is_sound(&answer)),
        }
        answer
    }

    fn note(&self, took: Duration, allowed: Duration, is_sound: bool) {
        let (in_a_row, wanted) = (self.in_a_row.load(Relaxed), self.wanted.load(Relaxed));
        if took > allowed * LAPSE_TIMES {
            self.in_a_row.store(0, Relaxed);
            if in_a_row >= wanted {
                self.wanted.store((wanted * LAPSE_FACTOR).min(PROMOTE_AFTER_BATCHES_MAX), Relaxed);
            }
        } else if took > allowed || !is_sound {
            self.in_a_row.store(in_a_row / 2, Relaxed);
        } else if wanted > PROMOTE_AFTER_BATCHES && in_a_row / LAPSE_FACTOR >= wanted {
            // After enough quick batches, fewer are required again.
            self.wanted.store(wanted / LAPSE_FACTOR, Relaxed);
            self.in_a_row.store(wanted / LAPSE_FACTOR, Relaxed);
        } else {
            self.in_a_row.store(in_a_row.saturating_add(1), Relaxed);
        }
    }
}

/// Returns the time that filters may take for `bytes` bytes of records.
fn allowed(bytes: usize) -> Duration {
    COST_PER_BATCH + COST_PER_KIB.saturating_mul(u32::try_from(bytes >> 10).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_micros(100);
    const QUICK: Duration = Duration::from_micros(100);
    const LONG: Duration = Duration::from_micros(900);
    const SLOW: Duration = Duration::from_micros(1100);

    fn note(pace: &Pace, took: Duration) {
        pace.note(took, ALLOWED, true);
    }

    /// Returns the number of batches until the filters count as quick.
    fn until_quick(pace: &Pace) -> u32 {
        let mut batches = 0;
        while !pace.is_quick() {
            note(pace, QUICK);
            batches += 1;
        }
        batches
    }

    #[test]
    fn filters_count_as_quick_after_enough_quick_batches_and_until_a_lapse() {
        let pace = Pace::new();
        assert_eq!(until_quick(&pace), PROMOTE_AFTER_BATCHES);
        note(&pace, SLOW);
        assert!(!pace.is_quick());
        assert_eq!(until_quick(&pace), PROMOTE_AFTER_BATCHES * LAPSE_FACTOR, "a lapse raises the requirement");
        note(&pace, SLOW);
        note(&pace, SLOW);
        assert_eq!(
            until_quick(&pace),
            PROMOTE_AFTER_BATCHES * LAPSE_FACTOR * LAPSE_FACTOR,
            "further lapses count only after a promotion"
        );
    }

    #[test]
    fn one_long_or_failed_batch_among_many_does_not_demote() {
        for (took, is_sound) in [(LONG, true), (QUICK, false)] {
            let pace = Pace::new();
            for batch in 0..1_000 {
                pace.note(if batch % 20 == 0 { took } else { QUICK }, ALLOWED, batch % 20 != 0 || is_sound);
                assert!(batch < 20 || pace.is_quick(), "{batch}");
            }
            (0..10).for_each(|_| pace.note(took, ALLOWED, is_sound));
            assert!(!pace.is_quick());
            assert_eq!(until_quick(&pace), PROMOTE_AFTER_BATCHES, "no batch was delayed");
        }
    }

    #[test]
    fn the_required_quick_batches_are_limited_and_fall_again() {
        let pace = Pace::new();
        for _ in 0..10 {
            until_quick(&pace);
            note(&pace, SLOW);
        }
        assert_eq!(until_quick(&pace), PROMOTE_AFTER_BATCHES_MAX);
        for _ in 0..2 * LAPSE_FACTOR * PROMOTE_AFTER_BATCHES_MAX {
            note(&pace, QUICK);
            assert!(pace.is_quick());
        }
        note(&pace, SLOW);
        assert_eq!(until_quick(&pace), PROMOTE_AFTER_BATCHES * LAPSE_FACTOR);
    }

    #[test]
    fn a_large_batch_is_allowed_more_time() {
        assert_eq!(allowed(100), COST_PER_BATCH);
        assert_eq!(allowed(256 << 10).as_micros(), 96);
        assert!(allowed(usize::MAX) > Duration::from_secs(1_000));
    }

    #[test]
    fn a_batch_that_computes_for_too_long_is_a_lapse() {
        let pace = Pace::new();
        pace.in_a_row.store(PROMOTE_AFTER_BATCHES, Relaxed);
        let spin = || {
            let begun = thread_time();
            while thread_time() - begun <= LAPSE_TIMES * COST_PER_BATCH {
                std::hint::spin_loop();
            }
        };
        // The first batch that is slow by the wall clock does not count yet.
        pace.timed(0, spin, |()| true);
        assert!(pace.is_quick() || pace.wanted.load(Relaxed) > PROMOTE_AFTER_BATCHES);
        pace.timed(0, spin, |()| true);
        assert_eq!((pace.is_quick(), pace.wanted.load(Relaxed)), (false, PROMOTE_AFTER_BATCHES * LAPSE_FACTOR));
    }
}
