//! Reads the processor time of threads.

use std::time::Duration;

/// Returns the processor time of this thread. It is a system call of about 0.2 us.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Names the clock of a thread's processor time. Any thread of the process can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadClock(pub(crate) libc::clockid_t);

thread_local! {
    static THIS: ThreadClock = ThreadClock::find();
}

impl ThreadClock {
    /// Returns the clock of this thread.
    pub(crate) fn this() -> ThreadClock {
        THIS.with(|clock| *clock)
    }

    fn find() -> ThreadClock {
        let mut clock = libc::CLOCK_MONOTONIC;
        // SAFETY: the thread is this one, so it lives, and the clock is written to a variable of this function.
        #[expect(unsafe_code, reason = "neither std nor rustix names the clock of another thread")]
        let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        // With the clock that always runs, a call is stopped too early rather than never.
        ThreadClock(if error == 0 { clock } else { libc::CLOCK_MONOTONIC })
    }

    /// Returns the processor time of the thread, or `None` if it has ended.
    pub(crate) fn time(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: any number may be passed for the clock, and the time is written to a variable of this function.
        #[expect(unsafe_code, reason = "as above")]
        let error = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        (error == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn another_thread_reads_the_time_of_this_one() {
        let clock = ThreadClock::this();
        let read = || std::thread::scope(|scope| scope.spawn(|| clock.time().unwrap()).join().unwrap());
        let before = read();
        let begun = thread_time();
        while thread_time() - begun < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        let ran = read() - before;
        assert!(ran >= Duration::from_millis(5), "{ran:?}");
    }

    #[test]
    fn a_thread_that_waits_does_not_run() {
        let (sender, clocks) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            sender.send(ThreadClock::this()).unwrap();
            let _ = wait.recv();
        });
        let clock = clocks.recv().unwrap();
        assert!(clock.time().unwrap() < Duration::from_secs(1));
        drop(end);
        thread.join().unwrap();
    }
}
