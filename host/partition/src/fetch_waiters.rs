//! Fetches that wait for records in any of their partitions.
//!
//! A fetch makes one [`Arrival`] and registers it with each of its partitions. Then it reads, and waits only if it read
//! less than it asked for. An append adds its bytes to every arrival of the partition. The arrival that reaches its
//! threshold wakes its fetch. Nothing polls, and a partition without waiting fetches pays for one uncontended lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What one fetch waits for.
#[derive(Debug)]
pub struct Arrival {
    /// Bytes still missing. Bytes that came between the registration and the read count twice. That wakes the fetch
    /// early and never late.
    missing: AtomicI64,
    /// Whether the fetch reads only committed transactions.
    is_committed: bool,
    notify: Notify,
}

impl Arrival {
    /// Makes an arrival that is complete after `bytes` bytes in all its partitions together.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        Self::of(bytes, false)
    }

    /// Makes an arrival as [`Self::new`] does. With `is_committed`, only records below the last stable offset count.
    #[must_use]
    pub fn of(bytes: usize, is_committed: bool) -> Arc<Self> {
        let missing = AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        Arc::new(Self { missing, is_committed, notify: Notify::new() })
    }

    /// Counts bytes that the fetch has read, or that were appended.
    pub fn count(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.missing.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.notify.notify_one();
        }
    }

    /// Wakes the fetch although bytes are missing: the partition changed in another way.
    fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until enough bytes came. Returns at once if they came before the call.
    pub async fn enough(&self) {
        self.notify.notified().await;
    }
}

/// The fetches that wait on one partition.
#[derive(Debug, Default)]
pub struct FetchWaiters {
    waiting: Mutex<Vec<Arc<Arrival>>>,
}

impl FetchWaiters {
    /// Adds a fetch.
    pub fn register(&self, arrival: &Arc<Arrival>) {
        self.waiting.lock().push(Arc::clone(arrival));
    }

    /// Removes a fetch that has its response.
    pub fn remove(&self, arrival: &Arc<Arrival>) {
        self.waiting.lock().retain(|waiting| !Arc::ptr_eq(waiting, arrival));
    }

    /// Tells all fetches that bytes were appended.
    pub fn arrived(&self, bytes: usize) {
        for arrival in &*self.waiting.lock() {
            arrival.count(bytes);
        }
    }

    /// Tells the fetches that offsets moved: by how many bytes the high watermark, and by how many the last stable
    /// offset.
    pub(crate) fn moved(&self, bytes: usize, stable_bytes: usize) {
        for arrival in &*self.waiting.lock() {
            match if arrival.is_committed { stable_bytes } else { bytes } {
                0 => {}
                bytes => arrival.count(bytes),
            }
        }
    }

    /// Wakes all fetches, so that they read again: the partition was deleted, or its log starts at another offset.
    pub fn wake_all(&self) {
        for arrival in &*self.waiting.lock() {
            arrival.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready(arrival: &Arrival) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(pin!(arrival.enough()).poll(&mut context), Poll::Ready(()))
    }

    #[test]
    fn wakes_at_the_threshold_over_all_partitions() {
        let (left, right) = (FetchWaiters::default(), FetchWaiters::default());
        let arrival = Arrival::new(100);
        left.register(&arrival);
        right.register(&arrival);
        left.arrived(60);
        assert!(!is_ready(&arrival));
        right.arrived(40);
        assert!(is_ready(&arrival));
    }

    #[test]
    fn readers_of_committed_records_wait_for_the_last_stable_offset() {
        let waiters = FetchWaiters::default();
        let (any, committed) = (Arrival::new(100), Arrival::of(100, true));
        waiters.register(&any);
        waiters.register(&committed);
        waiters.moved(100, 0);
        assert!(is_ready(&any) && !is_ready(&committed));
        waiters.moved(0, 100);
        assert!(!is_ready(&any) && is_ready(&committed));
    }

    #[test]
    fn bytes_before_the_wait_are_not_lost_and_other_changes_wake_too() {
        let waiters = FetchWaiters::default();
        let arrival = Arrival::new(1);
        waiters.register(&arrival);
        waiters.arrived(1);
        assert!(is_ready(&arrival));
        let arrival = Arrival::new(usize::MAX);
        waiters.register(&arrival);
        waiters.wake_all();
        assert!(is_ready(&arrival));
        waiters.remove(&arrival);
        assert_eq!(waiters.waiting.lock().len(), 1);
    }
}
