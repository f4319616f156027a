//! Log lines about a failing disk, at most one in ten seconds for each partition.
//!
//! A full disk fails every write. A line for each write would fill the disk further, and hide every other line of the
//! log.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::now_ms;

/// The shortest time between two lines.
const LINE_INTERVAL_MS: i64 = 10_000;

/// Counts the errors of one subject and says which of them to log.
#[derive(Debug)]
pub struct ErrorLog {
    /// When the last line was logged, in wall-clock milliseconds.
    last_ms: AtomicI64,
    /// Errors since then that were not logged.
    omitted: AtomicU64,
}

impl Default for ErrorLog {
    fn default() -> Self {
        Self { last_ms: AtomicI64::new(i64::MIN), omitted: AtomicU64::new(0) }
    }
}

impl ErrorLog {
    /// Counts an error. Returns the number of errors that were omitted since the last line if this one should be
    /// logged.
    pub fn count(&self) -> Option<u64> {
        self.count_at(now_ms())
    }

    fn count_at(&self, now_ms: i64) -> Option<u64> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(last_ms) >= LINE_INTERVAL_MS || now_ms < last_ms;
        // Of two threads that find the line due, one logs it.
        let logs =
            is_due && self.last_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !logs {
            self.omitted.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.omitted.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_counts_the_others() {
        let log = ErrorLog::default();
        assert_eq!(log.count_at(1_000), Some(0));
        assert_eq!(log.count_at(1_001), None);
        assert_eq!(log.count_at(10_999), None);
        assert_eq!(log.count_at(11_000), Some(2));
        assert_eq!(log.count_at(11_001), None);
        // A clock that was set back does not silence the log.
        assert_eq!(log.count_at(500), Some(1));
    }
}
