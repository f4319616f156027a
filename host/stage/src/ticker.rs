//! Keeps the clock of the deadlines: a thread looks at every running call each [`TICK`], and stops those whose time is
//! over.
//!
//! The ticker sleeps while no call runs, so that an idle process is not woken 200 times a second. A call pays two
//! atomic writes and one load, all but the load on memory of its own instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::deadline::{Seen, Watch};
use crate::limits::TICK;

/// The ticks without a call after which the ticker parks: two seconds.
const IDLE_TICKS: u32 = 400;

/// Owns the thread that ticks. It ends with this value.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// Every instance of foreign code, and what the last tick saw of it.
    watches: Mutex<Vec<(Arc<Watch>, Seen)>>,
    /// Whether the ticker is parked, or is about to park.
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let handle = thread::Builder::new().name("stage-ticker".to_owned()).spawn(move || seen.run())?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Returns the watch of a new instance. The ticker forgets it when the instance is dropped.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch::default());
        let mut watches = self.shared.watches.lock();
        watches.retain(|(watch, _)| Arc::strong_count(watch) > 1);
        watches.push((Arc::clone(&watch), Seen::default()));
        watch
    }

    /// Wakes the ticker if it is parked, after a call began.
    pub(crate) fn wake(&self) {
        if self.shared.parked.load(Ordering::SeqCst) {
            self.shared.parked.store(false, Ordering::SeqCst);
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Shared {
    fn run(&self) {
        let mut idle_ticks = 0;
        while !self.stop.load(Ordering::SeqCst) {
            // Not `sleep`: an unpark ends it early, so that the thread stops at once with the engine.
            thread::park_timeout(TICK);
            idle_ticks = if self.tick() { 0 } else { idle_ticks + 1 };
            if idle_ticks >= IDLE_TICKS {
                self.park();
                idle_ticks = 0;
            }
        }
    }

    /// Looks at every instance. Returns whether any was called since the last tick.
    fn tick(&self) -> bool {
        let mut watches = self.watches.lock();
        watches.iter_mut().fold(false, |called, (watch, seen)| watch.tick(seen) | called)
    }

    /// Waits for a call.
    fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        let is_running = || self.watches.lock().iter().any(|(watch, _)| watch.is_running());
        let is_woken = || self.stop.load(Ordering::SeqCst) || !self.parked.load(Ordering::SeqCst);
        while !is_running() && !is_woken() {
            thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_millis(20);

    /// Waits until something has happened.
    fn wait_until(what: &str, mut has_happened: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !has_happened() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_past_its_deadline_is_stopped() {
        let ticker = Ticker::start().unwrap();
        let watch = ticker.watch();
        let call = watch.begin(LIMIT, &ticker);
        wait_until("the call is stopped", || !watch.is_running());
        assert!(call.end());
    }

    #[test]
    fn a_parked_ticker_wakes_for_a_call() {
        let ticker = Ticker::start().unwrap();
        let watch = ticker.watch();
        wait_until("the ticker parks", || ticker.shared.parked.load(Ordering::SeqCst));
        let call = watch.begin(LIMIT, &ticker);
        assert!(!ticker.shared.parked.load(Ordering::SeqCst));
        wait_until("the call is stopped", || !watch.is_running());
        assert!(call.end());
    }

    #[test]
    fn dropped_instances_are_forgotten() {
        let ticker = Ticker::start().unwrap();
        let kept = ticker.watch();
        (0..100).for_each(|_| drop(ticker.watch()));
        assert!(ticker.shared.watches.lock().len() <= 2);
        drop(kept);
    }
}
