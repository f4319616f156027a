//! The clock of the deadlines: a thread that moves the engine's epoch on every [`TICK`], and what a
//! call does when it sees the epoch move.
//!
//! The ticker sleeps for good while nobody calls, so that an idle process is not woken 200 times a
//! second. A call pays one atomic addition and one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::limits::TICK;

/// Ticks without any call after which the ticker parks: two seconds.
const IDLE_TICKS: u32 = 400;

/// A call may take this many times its deadline on the clock, when the machine is busy elsewhere.
const CLOCK_FACTOR: u32 = 10;

/// The thread that ticks; it ends with this value.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// Calls that have begun, ever.
    begun: AtomicU64,
    /// Calls that have ended, ever.
    ended: AtomicU64,
    /// Whether the ticker is parked, or about to be.
    parked: AtomicBool,
    stop: AtomicBool,
}

/// A call in progress: while there is one, the ticker ticks.
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
    /// When the system gives no thread.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let handle = thread::Builder::new().name("stage-ticker".to_owned()).spawn(move || run(&seen, tick))?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Says that a call begins, and wakes the ticker if it is parked.
    pub(crate) fn running(&self) -> Running<'_> {
        // Pairs with `run`: it announces that it parks and then looks at `begun`; this adds to
        // `begun` and then looks at `parked`. In one total order one of the two sees the other.
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

/// How long the call that runs has run, in the time that its thread really had.
///
/// The clock of the thread is a system call, so a call that ends before the first tick, as nearly
/// all do, never reads it.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    limit: Duration,
    /// Read at the first tick of the call: the thread's time, and the clock.
    baseline: Option<(Duration, Instant)>,
}

impl Deadline {
    /// A call begins that may take this long.
    pub(crate) fn restart(&mut self, limit: Duration) {
        self.limit = limit;
        self.baseline = None;
    }

    /// The epoch moved while the call ran. Returns whether the call is to be stopped.
    ///
    /// The first tick comes up to one [`TICK`] after the call began; counting that as a whole one
    /// stops a call within a tick of its limit.
    pub(crate) fn is_over(&mut self) -> bool {
        let now = (thread_time(), Instant::now());
        let (ran_before, clock_before) = *self.baseline.get_or_insert(now);
        let ran = now.0.saturating_sub(ran_before) + TICK;
        let clock = now.1.duration_since(clock_before);
        ran >= self.limit || clock >= self.limit * CLOCK_FACTOR
    }
}

/// The processor time that this thread has had. A system call, about 0.2 us.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call writes, and the clock is a constant that
    // every Unix has.
    #[allow(unsafe_code)]
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the thread's clock is always there");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
