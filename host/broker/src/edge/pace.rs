//! How quick a topic's filters are, and so where they run.
//!
//! Handing a batch to another thread costs two wake-ups, and finds the batch in another core's cache: on a batch of 256 KiB that
//! is more than all else that a filter on keys costs. Filters that take no longer than the broker's own work on the batch
//! therefore run where the socket is served; all others, and all that were not measured yet, beside it.
//!
//! A filter may turn slow at any batch, on a worker that serves other topics too. The worst of it is one deadline of one
//! stage (those of the binary, which have none, need less at their slowest), on no more workers than the topic has turns: the
//! next stage of the chain, the search for bad rows and the next batch of the request go on where they may take their time
//! ([`crate::turns::aside`]), and so does every later batch, until the filters were quick often enough there. Each such lapse
//! asks for four times as many quick batches as the one before.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Quick batches in a row before filters run where the socket is served.
const FIRST: u32 = 8;

/// The most of them that are asked for, after lapse upon lapse.
const MOST: u32 = FIRST << 12;

/// How much more is asked for after a lapse.
const STEP: u32 = 4;

/// What a batch costs the broker itself, about: for its request, and for each KiB.
const REQUEST: Duration = Duration::from_micros(20);
const KIB: Duration = Duration::from_nanos(300);

/// What is known of the filters of one topic. Several batches may be noted at once; a count that is lost then does no harm.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Quick batches since the last that was not.
    in_a_row: AtomicU32,
    /// How many are asked for.
    wanted: AtomicU32,
}

impl Pace {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self { in_a_row: AtomicU32::new(0), wanted: AtomicU32::new(FIRST) }
    }

    /// Whether the filters may run where the socket is served.
    pub(crate) fn is_quick(&self) -> bool {
        self.in_a_row.load(Relaxed) >= self.wanted.load(Relaxed)
    }

    /// Notes that the filters took `time` of a processor for `bytes` of records, or that they failed.
    pub(crate) fn note(&self, bytes: usize, time: Duration, failed: bool) {
        let (in_a_row, wanted) = (self.in_a_row.load(Relaxed), self.wanted.load(Relaxed));
        let allowed = REQUEST + KIB.saturating_mul(u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
        if failed || time > allowed {
            self.in_a_row.store(0, Relaxed);
            if in_a_row >= wanted {
                self.wanted.store((wanted * STEP).min(MOST), Relaxed);
            }
            return;
        }
        self.in_a_row.store(in_a_row.saturating_add(1), Relaxed);
        // Who was quick for long enough is trusted again as before.
        if wanted > FIRST && in_a_row / STEP >= wanted {
            self.wanted.store(wanted / STEP, Relaxed);
            self.in_a_row.store(wanted / STEP, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 256 << 10;
    const QUICK: Duration = Duration::from_micros(10);
    const SLOW: Duration = Duration::from_micros(500);

    /// How many quick batches it takes.
    fn until_quick(pace: &Pace) -> u32 {
        (0..)
            .find(|_| {
                pace.is_quick() || {
                    pace.note(BATCH, QUICK, false);
                    false
                }
            })
            .expect("found")
    }

    #[test]
    fn what_was_quick_often_enough_is_trusted_and_one_lapse_ends_it() {
        let pace = Pace::new();
        assert_eq!(until_quick(&pace), FIRST);
        pace.note(BATCH, SLOW, false);
        assert!(!pace.is_quick());
        assert_eq!(until_quick(&pace), FIRST * STEP, "a lapse costs trust");
        pace.note(BATCH, QUICK, true);
        assert!(!pace.is_quick(), "so does a failure");
        pace.note(BATCH, QUICK, false);
        pace.note(BATCH, SLOW, false);
        assert_eq!(until_quick(&pace), FIRST * STEP * STEP, "only who was trusted can lose more of it");
    }

    #[test]
    fn trust_is_bounded_and_comes_back() {
        let pace = Pace::new();
        for _ in 0..10 {
            until_quick(&pace);
            pace.note(BATCH, SLOW, false);
        }
        assert_eq!(until_quick(&pace), MOST);
        for _ in 0..2 * STEP * MOST {
            pace.note(BATCH, QUICK, false);
            assert!(pace.is_quick());
        }
        pace.note(BATCH, SLOW, false);
        assert_eq!(until_quick(&pace), FIRST * STEP);
    }

    #[test]
    fn a_large_batch_may_take_longer() {
        let takes = |bytes, micros| {
            let pace = Pace::new();
            (0..FIRST).for_each(|_| pace.note(bytes, Duration::from_micros(micros), false));
            pace.is_quick()
        };
        assert!(takes(100, 20) && !takes(100, 21));
        assert!(takes(BATCH, 90) && !takes(BATCH, 100));
        assert!(takes(usize::MAX, 1_000_000));
    }
}
