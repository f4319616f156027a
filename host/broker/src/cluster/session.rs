//! The session of this broker with the controller, as far as the broker knows.
//!
//! The broker's session begins when a heartbeat is sent, and the controller's when it arrives. So it ends here first:
//! before its end the controller has given no partition of this broker to another one for its silence.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When the last heartbeat with a response was sent.
#[derive(Debug)]
pub(crate) struct Session {
    length: Duration,
    origin: Instant,
    /// The end, in milliseconds since the origin.
    end_ms: AtomicU64,
}

impl Session {
    /// Returns a session that has ended.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, origin: Instant::now(), end_ms: AtomicU64::new(0) }
    }

    /// Begins again with a heartbeat, given when it was sent.
    pub(crate) fn renew(&self, sent: Instant) {
        let end = sent.duration_since(self.origin) + self.length;
        self.end_ms.store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Returns how long the session goes on without another heartbeat; zero if it has ended.
    pub(crate) fn left(&self) -> Duration {
        self.left_at(Instant::now())
    }

    fn left_at(&self, now: Instant) -> Duration {
        Duration::from_millis(self.end_ms.load(Ordering::Acquire)).saturating_sub(now.duration_since(self.origin))
    }

    /// Returns whether the session has ended. Another broker may lead the partitions of this one by now.
    pub(crate) fn has_expired(&self) -> bool {
        self.left().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_without_a_heartbeat() {
        let session = Session::new(Duration::from_secs(2));
        assert!(session.has_expired(), "no heartbeat was sent");
        let sent = session.origin + Duration::from_secs(10);
        session.renew(sent);
        assert_eq!(session.left_at(sent + Duration::from_millis(500)), Duration::from_millis(1_500));
        assert_eq!(session.left_at(sent + Duration::from_millis(1_999)), Duration::from_millis(1));
        assert_eq!(session.left_at(sent + Duration::from_secs(2)), Duration::ZERO);
    }
}
