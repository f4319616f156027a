//! How fast a client has to be while it holds memory that others wait for.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time without any progress.
const STALL_MAX: Duration = Duration::from_secs(5);

/// The slowest acceptable client.
pub(crate) const BYTES_PER_SECOND_MIN: usize = 16 << 10;

/// The progress of a client that sends a request or takes a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// When it began.
    pub(crate) since: Instant,
    /// When it last moved.
    pub(crate) last: Instant,
    /// The bytes since it began.
    pub(crate) bytes: usize,
}

impl Pace {
    /// Returns the pace of a client that begins now.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { since: now, last: now, bytes: 0 }
    }

    /// Adds bytes that moved.
    pub(crate) fn add(&mut self, bytes: usize, now: Instant) {
        self.last = now;
        self.bytes += bytes;
    }

    /// Returns when the client is too slow for others that wait.
    pub(crate) fn deadline(&self) -> Instant {
        let earned = Duration::from_secs((self.bytes / BYTES_PER_SECOND_MIN) as u64);
        (self.last + STALL_MAX).min(self.since + STALL_MAX + earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_too_slow_if_it_stops_or_drips() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let near = |deadline: Instant, seconds: u64| {
            deadline.duration_since(start).abs_diff(Duration::from_secs(seconds)) < Duration::from_secs(1)
        };
        assert!(near(pace.deadline(), 5), "it never began");
        pace.add(1, start + Duration::from_secs(4));
        assert!(near(pace.deadline(), 5), "a byte earns nothing");
        pace.add(20 * BYTES_PER_SECOND_MIN, start + Duration::from_secs(4));
        assert!(near(pace.deadline(), 9), "it stops");
        pace.add(1, start + Duration::from_secs(24));
        assert!(near(pace.deadline(), 25), "it drips");
    }
}
