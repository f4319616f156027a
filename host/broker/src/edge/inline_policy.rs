//! How quick a topic's filters are, and so where they run.
//!
//! Handing a batch to another thread costs two wake-ups, and finds the batch in another core's cache: on a batch of 256 KiB that
//! is more than all else that a filter on keys costs. Filters that take no longer than the broker's own work on the batch
//! therefore run where the socket is served; all others, and all that were not measured yet, beside it.
//!
//! A filter may turn slow at any batch, on a worker that serves other topics too. The worst of it is one deadline of one
//! stage (those of the binary, which have none, need less at their slowest), on no more workers than the topic has turns: the
//! next stage of the chain, the search for bad rows and the next batch of the request go on where they may take their time
//! ([`crate::compute_permits::aside`]), and so does every later batch, until the filters were quick often enough there. Each such lapse
//! asks for four times as many quick batches as the one before. What is merely longer than it should be may be the machine's
//! doing (a thread pays for the interrupts that it happens to serve): only who is so again and again loses its place. And what is
//! long by the clock may have waited for a core: up to 2 ms, the next batches are timed more closely before it is believed.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use millstream_stage::thread_time;

/// Quick batches in a row before filters run where the socket is served.
const FIRST: u32 = 8;

/// The most of them that are asked for, after lapse upon lapse.
const MOST: u32 = FIRST << 12;

/// How much more is asked for after a lapse.
const STEP: u32 = 4;

/// What a batch costs the broker itself, about: for its request, and for each KiB.
const REQUEST: Duration = Duration::from_micros(20);
const KIB: Duration = Duration::from_nanos(300);

/// Batches that are watched after one that was long by the clock.
const WATCHED: u32 = 64;

/// Whatever the reason, a socket that waits so long is better served beside filters.
const HELD_UP: Duration = Duration::from_millis(2);

/// So many times longer than allowed is a lapse.
const LAPSE: u32 = 10;

/// What is known of the filters of one topic. Several batches may be noted at once; a count that is lost then does no harm.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Quick batches, more or less in a row.
    in_a_row: AtomicU32,
    /// How many are asked for.
    wanted: AtomicU32,
    /// So many of the next batches are timed by the thread's own clock.
    watched: AtomicU32,
}

impl Pace {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self { in_a_row: AtomicU32::new(0), wanted: AtomicU32::new(FIRST), watched: AtomicU32::new(0) }
    }

    /// Whether the filters may run where the socket is served.
    pub(crate) fn is_quick(&self) -> bool {
        self.in_a_row.load(Relaxed) >= self.wanted.load(Relaxed)
    }

    /// Runs filters over so many bytes of records, and notes how long they took. `is_sound` says of their answer whether
    /// they did not fail.
    pub(crate) fn timed<T>(&self, bytes: usize, filter: impl FnOnce() -> T, is_sound: impl FnOnce(&T) -> bool) -> T {
        let allowed = allowed(bytes);
        // The time of the thread alone says what the filters took where many threads share the cores, but it takes a
        // call of the kernel to have it: only whoever was long by the clock is watched so closely.
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
            None if by_clock > allowed && by_clock < HELD_UP => self.watched.store(WATCHED, Relaxed),
            None => self.note(by_clock, allowed, is_sound(&answer)),
        }
        answer
    }

    fn note(&self, took: Duration, allowed: Duration, is_sound: bool) {
        let (in_a_row, wanted) = (self.in_a_row.load(Relaxed), self.wanted.load(Relaxed));
        if took > allowed * LAPSE {
            self.in_a_row.store(0, Relaxed);
            if in_a_row >= wanted {
                self.wanted.store((wanted * STEP).min(MOST), Relaxed);
            }
        } else if took > allowed || !is_sound {
            self.in_a_row.store(in_a_row / 2, Relaxed);
        } else if wanted > FIRST && in_a_row / STEP >= wanted {
            // Who was quick for long enough is trusted again as before.
            self.wanted.store(wanted / STEP, Relaxed);
            self.in_a_row.store(wanted / STEP, Relaxed);
        } else {
            self.in_a_row.store(in_a_row.saturating_add(1), Relaxed);
        }
    }
}

/// What filters may take for so many bytes of records.
fn allowed(bytes: usize) -> Duration {
    REQUEST + KIB.saturating_mul(u32::try_from(bytes >> 10).unwrap_or(u32::MAX))
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

    /// How many quick batches it takes.
    fn until_quick(pace: &Pace) -> u32 {
        let mut batches = 0;
        while !pace.is_quick() {
            note(pace, QUICK);
            batches += 1;
        }
        batches
    }

    #[test]
    fn what_was_quick_often_enough_is_trusted_and_one_lapse_ends_it() {
        let pace = Pace::new();
        assert_eq!(until_quick(&pace), FIRST);
        note(&pace, SLOW);
        assert!(!pace.is_quick());
        assert_eq!(until_quick(&pace), FIRST * STEP, "a lapse costs trust");
        note(&pace, SLOW);
        note(&pace, SLOW);
        assert_eq!(until_quick(&pace), FIRST * STEP * STEP, "only who was trusted can lose more of it");
    }

    #[test]
    fn a_batch_that_takes_long_or_fails_is_forgiven_if_it_is_one_of_many() {
        for (took, is_sound) in [(LONG, true), (QUICK, false)] {
            let pace = Pace::new();
            for batch in 0..1_000 {
                pace.note(if batch % 20 == 0 { took } else { QUICK }, ALLOWED, batch % 20 != 0 || is_sound);
                assert!(batch < 20 || pace.is_quick(), "{batch}");
            }
            (0..10).for_each(|_| pace.note(took, ALLOWED, is_sound));
            assert!(!pace.is_quick());
            assert_eq!(until_quick(&pace), FIRST, "nobody was held up");
        }
    }

    #[test]
    fn trust_is_bounded_and_comes_back() {
        let pace = Pace::new();
        for _ in 0..10 {
            until_quick(&pace);
            note(&pace, SLOW);
        }
        assert_eq!(until_quick(&pace), MOST);
        for _ in 0..2 * STEP * MOST {
            note(&pace, QUICK);
            assert!(pace.is_quick());
        }
        note(&pace, SLOW);
        assert_eq!(until_quick(&pace), FIRST * STEP);
    }

    #[test]
    fn a_large_batch_may_take_longer() {
        assert_eq!(allowed(100), REQUEST);
        assert_eq!(allowed(256 << 10).as_micros(), 96);
        assert!(allowed(usize::MAX) > Duration::from_secs(1_000));
    }

    #[test]
    fn what_computes_for_too_long_is_noted() {
        let pace = Pace::new();
        pace.in_a_row.store(FIRST, Relaxed);
        let spin = || {
            let begun = thread_time();
            while thread_time() - begun <= LAPSE * REQUEST {
                std::hint::spin_loop();
            }
        };
        // The first that is long by the clock is not believed yet.
        pace.timed(0, spin, |()| true);
        assert!(pace.is_quick() || pace.wanted.load(Relaxed) > FIRST);
        pace.timed(0, spin, |()| true);
        assert_eq!((pace.is_quick(), pace.wanted.load(Relaxed)), (false, FIRST * STEP));
    }
}
