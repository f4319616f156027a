//! Lets another thread see and stop the calls of an instance.
//!
//! The code of a foreign plug-in writes to a page now and then ([`crate::checks`]). [`Watch::stop`] takes the write
//! permission of that page away, and the next write traps. [`Running::end`] gives it back before the instance is
//! used or dropped: its memory returns to the pool, which clears it.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::mm::{MprotectFlags, mprotect};

use crate::limits::{TICK, WASM_PAGE_BYTES};
use crate::thread_time::ThreadClock;
use crate::ticker::Ticker;

/// A call may take this many times its deadline on the clock, if the machine is busy.
const CLOCK_FACTOR: u32 = 10;

/// What the last call of an instance does, in the low bits of [`Watch::state`]. Its number is above them.
mod phase {
    pub(super) const IDLE: u64 = 0;
    pub(super) const RUNS: u64 = 1;
    pub(super) const STOPPED: u64 = 2;
    const BITS: u32 = 2;

    /// Returns what the call of a state does.
    pub(super) fn of(state: u64) -> u64 {
        state & ((1 << BITS) - 1)
    }

    /// Returns the state of the same call in another phase.
    pub(super) fn with(state: u64, phase: u64) -> u64 {
        state >> BITS << BITS | phase
    }

    /// Returns the state of the next call, which runs.
    pub(super) fn next(state: u64) -> u64 {
        with(state, RUNS) + (1 << BITS)
    }
}

/// The state of an instance's calls, as the ticker sees it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The number of the last call and what it does.
    state: AtomicU64,
    limit_nanos: AtomicU64,
    /// The clock of the thread that runs the call.
    clock: AtomicI32,
    /// The pages that the instance writes to, one for each component in it. The lock is held while a call is stopped.
    pages: Mutex<Vec<Page>>,
}

impl Watch {
    /// Marks the start of a call on this thread, and wakes the ticker if it is parked.
    pub(crate) fn begin(&self, limit: Duration, ticker: &Ticker) -> Running<'_> {
        let state = phase::next(self.state.load(Ordering::Relaxed));
        self.limit_nanos.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.clock.store(ThreadClock::this().0, Ordering::Relaxed);
        // Pairs with the ticker, which sets `parked` and then reads this. Here it is written before `parked` is read,
        // so one of the two sees the other.
        self.state.store(state, Ordering::SeqCst);
        ticker.wake();
        Running { watch: self, state }
    }

    /// Adds a page of the instance, before it runs code of the plug-in.
    pub(crate) fn add_page(&self, page: Page) {
        self.pages.lock().push(page);
    }

    /// Looks at the instance at a tick, and stops a call whose time is over. Returns whether calls were made since the
    /// last tick.
    pub(crate) fn tick(&self, seen: &mut Seen) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        let is_other = state != seen.state;
        seen.state = state;
        if phase::of(state) != phase::RUNS {
            return is_other;
        }
        // A call that began since then may have left its own limit and clock here. It has another number, so it is not
        // stopped.
        let limit = Duration::from_nanos(self.limit_nanos.load(Ordering::Relaxed));
        let clock = ThreadClock(self.clock.load(Ordering::Relaxed));
        if let Some(now) = Time::now(clock)
            && seen.deadline(is_other, now).is_over(limit, now)
        {
            self.stop(state);
        }
        true
    }

    /// Stops the call, unless it has ended.
    fn stop(&self, state: u64) {
        let pages = self.pages.lock();
        let stopped = phase::with(state, phase::STOPPED);
        if self.state.compare_exchange(state, stopped, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        // If one fails, the others still stop most of the plug-in. The end of the call makes all of them writable.
        for page in &*pages {
            if let Err(error) = page.set_writable(false) {
                tracing::error!(%error, "a plug-in that passed its deadline may not stop");
            }
        }
    }

    /// Returns whether a call runs.
    pub(crate) fn is_running(&self) -> bool {
        phase::of(self.state.load(Ordering::SeqCst)) == phase::RUNS
    }
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct Running<'w> {
    watch: &'w Watch,
    state: u64,
}

impl Running<'_> {
    /// Marks the end of the call. Returns whether it was stopped.
    pub(crate) fn end(self) -> bool {
        let was_stopped = self.finish();
        std::mem::forget(self);
        was_stopped
    }

    fn finish(&self) -> bool {
        let idle = phase::with(self.state, phase::IDLE);
        let state = &self.watch.state;
        if state.compare_exchange(self.state, idle, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return false;
        }
        // The ticker may just be taking the permission away; it holds the lock until it has.
        let pages = self.watch.pages.lock();
        for page in &*pages {
            // Its range has one permission, before and after, so the system needs nothing new for it.
            page.set_writable(true).expect("a page of this process can be made writable again");
        }
        state.store(idle, Ordering::SeqCst);
        true
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // The call panicked.
        self.finish();
    }
}

/// A page that an instance writes to, as an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page(usize);

impl Page {
    /// Names the page at the start of these bytes. They must be a whole memory of one page.
    pub(crate) fn of(bytes: &[u8]) -> Page {
        assert_eq!(bytes.len(), WASM_PAGE_BYTES, "the checks of the deadline announce one page");
        Page(bytes.as_ptr().expose_provenance())
    }

    /// Gives or takes the permission of the whole page. It is a mapping of its own, so it is never split.
    fn set_writable(self, is_writable: bool) -> io::Result<()> {
        let write = if is_writable { MprotectFlags::WRITE } else { MprotectFlags::empty() };
        // SAFETY: the page is a memory of an instance, at an address that the engine never moves. This runs between the
        // start and the end of a call, and the instance lives as long. No reference to the page exists, since the host
        // reads nothing of it. A write of compiled code may fault: it traps.
        #[expect(unsafe_code, reason = "permissions of memory cannot be changed safely")]
        unsafe {
            mprotect(std::ptr::with_exposed_provenance_mut(self.0), WASM_PAGE_BYTES, MprotectFlags::READ | write)?;
        }
        Ok(())
    }
}

/// What the ticker remembers of an instance between two ticks.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    state: u64,
    deadline: Option<Deadline>,
}

impl Seen {
    fn deadline(&mut self, is_other: bool, now: Time) -> &Deadline {
        if is_other {
            self.deadline = None;
        }
        self.deadline.get_or_insert(Deadline { begun: now })
    }
}

/// The two times of a thread.
#[derive(Debug, Clone, Copy)]
struct Time {
    processor: Duration,
    clock: Instant,
}

impl Time {
    fn now(thread: ThreadClock) -> Option<Time> {
        Some(Time { processor: thread.time()?, clock: Instant::now() })
    }
}

/// Measures how long a call has run, in processor time of its thread.
#[derive(Debug)]
struct Deadline {
    /// The first tick of the call.
    begun: Time,
}

impl Deadline {
    /// Returns whether the call must be stopped.
    ///
    /// The first tick comes up to one [`TICK`] after the call began. It counts as a whole one, so that a call is
    /// stopped within a tick of its limit.
    fn is_over(&self, limit: Duration, now: Time) -> bool {
        let ran = now.processor.saturating_sub(self.begun.processor) + TICK;
        let clock = now.clock.duration_since(self.begun.clock);
        ran >= limit || clock >= limit * CLOCK_FACTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread_time::thread_time;

    const LIMIT: Duration = Duration::from_millis(20);

    /// Keeps this thread busy.
    fn work(time: Duration) {
        let begun = thread_time();
        while thread_time() - begun < time {
            std::hint::spin_loop();
        }
    }

    fn now() -> Time {
        Time::now(ThreadClock::this()).unwrap()
    }

    #[test]
    fn a_deadline_counts_the_time_that_the_thread_ran() {
        let deadline = Deadline { begun: now() };
        assert!(!deadline.is_over(LIMIT, now()));
        // The first tick counts as a whole one.
        work(Duration::from_millis(15));
        assert!(deadline.is_over(LIMIT, now()));
    }

    #[test]
    fn a_thread_that_waits_has_ten_times_as_long() {
        let begun = now();
        let deadline = Deadline { begun };
        let later = |clock| Time { processor: begun.processor, clock: begun.clock + clock };
        assert!(!deadline.is_over(LIMIT, later(LIMIT * 10 - Duration::from_nanos(1))));
        assert!(deadline.is_over(LIMIT, later(LIMIT * 10)));
    }

    #[test]
    fn a_tick_stops_only_the_call_that_it_saw() {
        let ticker = Ticker::start().unwrap();
        let (watch, mut seen) = (Watch::default(), Seen::default());
        assert!(!watch.tick(&mut seen), "no call was made");
        let first = watch.begin(LIMIT, &ticker);
        assert!(watch.is_running());
        assert!(watch.tick(&mut seen));
        let state = first.state;
        assert!(!first.end());
        assert!(watch.tick(&mut seen), "a call ended since the last tick");
        assert!(!watch.tick(&mut seen));
        // The call that was seen is over, and another one runs.
        let second = watch.begin(LIMIT, &ticker);
        watch.stop(state);
        assert!(!second.end());
        let third = watch.begin(LIMIT, &ticker);
        assert!(watch.tick(&mut seen));
        work(LIMIT);
        assert!(watch.tick(&mut seen));
        assert!(!watch.is_running());
        assert!(third.end(), "it was stopped");
        assert!(!watch.begin(LIMIT, &ticker).end());
    }
}
