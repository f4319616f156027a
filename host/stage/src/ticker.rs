//! Keeps the clock of the deadlines: a thread advances the engine's epoch every [`TICK`], and a running call then
//! checks its deadline.
//!
//! The ticker sleeps while no call runs, so that an idle process is not woken 200 times a second. A call pays one
//! atomic addition and one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::limits::TICK;

/// The ticks without a call after which the ticker parks: two seconds.
const IDLE_TICKS: u32 = 400;

/// A call may take this many times its deadline on the clock, if the machine is busy.
const CLOCK_FACTOR: u32 = 10;

/// Owns the thread that ticks. It ends with this value.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// All calls that began.
    begun: AtomicU64,
    /// All calls that ended.
    ended: AtomicU64,
    /// Whether the ticker is parked, or is about to park.
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Marks a call in progress. While there is one, the ticker ticks.
#[derive(Debug)]
pub(crate) struct Running<'t>(&'t Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

impl Ticker {
    /// Starts the thread; `tick` is called every [`TICK`] while calls run.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let handle = thread::Builder::new().name("stage-ticker".to_owned()).spawn(move || run(&seen, tick))?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Marks the start of a call, and wakes the ticker if it is parked.
    pub(crate) fn running(&self) -> Running<'_> {
        // Pairs with `run`: it sets `parked` and then reads `begun`; this adds to `begun` and then reads `parked`. In
        // one total order, one of the two sees the other.
        self.shared.begun.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.shared.parked.store(false, Ordering::SeqCst);
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut seen = 0;
    let mut idle_ticks = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        // Not `sleep`: an unpark ends it early, so that the thread stops at once with the engine.
        thread::park_timeout(TICK);
        tick();
        let ended = shared.ended.load(Ordering::Acquire);
        let begun = shared.begun.load(Ordering::SeqCst);
        if begun != seen || ended != begun {
            seen = begun;
            idle_ticks = 0;
            continue;
        }
        idle_ticks += 1;
        if idle_ticks < IDLE_TICKS {
            continue;
        }
        shared.parked.store(true, Ordering::SeqCst);
        let still_idle = || {
            shared.begun.load(Ordering::SeqCst) == seen
                && shared.parked.load(Ordering::SeqCst)
                && !shared.stop.load(Ordering::SeqCst)
        };
        while still_idle() {
            thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}

/// Measures how long a call has run, in processor time of its thread.
///
/// Reading that clock is a system call. Nearly all calls end before the first tick and never read it.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    limit: Duration,
    /// The thread's time and the clock, read at the first tick of the call.
    baseline: Option<(Duration, Instant)>,
}

impl Deadline {
    /// Starts a call that may take this long.
    pub(crate) fn restart(&mut self, limit: Duration) {
        self.limit = limit;
        self.baseline = None;
    }

    /// Returns whether the call must be stopped, after the epoch advanced.
    ///
    /// The first tick comes up to one [`TICK`] after the call began. It counts as a whole one, so that a call is
    /// stopped within a tick of its limit.
    pub(crate) fn is_over(&mut self) -> bool {
        let now = (thread_time(), Instant::now());
        let (ran_before, clock_before) = *self.baseline.get_or_insert(now);
        let ran = now.0.saturating_sub(ran_before) + TICK;
        let clock = now.1.duration_since(clock_before);
        ran >= self.limit || clock >= self.limit * CLOCK_FACTOR
    }
}

/// Returns the processor time of this thread. It is a system call of about 0.2 us.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn ticks_while_a_call_runs_and_ends_with_the_ticker() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || sender.send(()).unwrap_or(())).unwrap();
        let running = ticker.running();
        for _ in 0..5 {
            ticks.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(running);
        drop(ticker);
        let ended = loop {
            match ticks.recv_timeout(Duration::from_secs(10)) {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        assert_eq!(ended, mpsc::RecvTimeoutError::Disconnected);
    }

    #[test]
    fn a_parked_ticker_wakes_for_a_call() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || sender.send(()).unwrap_or(())).unwrap();
        let parked = || ticker.shared.parked.load(Ordering::SeqCst);
        // Its last tick comes before it says that it parks, so there may be none to wait for.
        while !parked() {
            let _ = ticks.recv_timeout(TICK);
        }
        while ticks.try_recv().is_ok() {}
        let running = ticker.running();
        assert!(!parked());
        ticks.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(running);
    }

    #[test]
    fn a_deadline_counts_the_time_that_the_thread_ran() {
        let limit = Duration::from_millis(20);
        let mut deadline = Deadline::default();
        deadline.restart(limit);
        assert!(!deadline.is_over());
        let begun = thread_time();
        while thread_time() - begun < Duration::from_millis(15) {
            std::hint::spin_loop();
        }
        assert!(deadline.is_over());
        deadline.restart(limit);
        assert!(!deadline.is_over());
    }
}
