//! Times: waiting for the moment at which something is due, and what many of them add up to.

use std::thread;
use std::time::{Duration, Instant};

/// How long before its time a sender wakes up: a sleep takes longer than it should.
const OVERSHOOT: Duration = Duration::from_micros(300);

/// Waits until this moment, to the microsecond.
pub(crate) fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()).saturating_sub(OVERSHOOT));
    while Instant::now() < due {
        thread::yield_now();
    }
}

/// Returns the time below which this share of them lies.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}

/// Returns a time in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
