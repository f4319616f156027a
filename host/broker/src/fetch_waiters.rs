//! Long polls: fetches that wait for bytes in any of their partitions.
//!
//! A fetch makes one [`Arrival`], registers it with each of its partitions, reads, and waits only if what it read was too
//! little. An append tells every arrival of its partition how many bytes came; the one that reaches its threshold wakes its
//! fetch. Nothing polls, and a partition without waiters pays one uncontended lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What one fetch waits for.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Bytes still missing. Bytes that came between the registration and the read count twice, which wakes the fetch too
    /// early and never too late.
    missing: AtomicI64,
    notify: Notify,
}

impl Arrival {
    /// Waits for `bytes` bytes in all partitions together.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let missing = AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        Arc::new(Self { missing, notify: Notify::new() })
    }

    /// Counts bytes that are there already.
    pub(crate) fn count(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.missing.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.notify.notify_one();
        }
    }

    /// Wakes the fetch whatever is missing: the partition has changed in another way.
    fn wake(&self) {
        self.notify.notify_one();
    }

    /// Comes back when enough bytes came, also when they did before the call.
    pub(crate) async fn enough(&self) {
        self.notify.notified().await;
    }
}

/// The fetches that wait on one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Vec<Arc<Arrival>>>,
}

impl Waiters {
    pub(crate) fn register(&self, arrival: &Arc<Arrival>) {
        self.waiting.lock().push(Arc::clone(arrival));
    }

    pub(crate) fn remove(&self, arrival: &Arc<Arrival>) {
        self.waiting.lock().retain(|waiting| !Arc::ptr_eq(waiting, arrival));
    }

    /// So many bytes were appended.
    pub(crate) fn arrived(&self, bytes: usize) {
        for arrival in &*self.waiting.lock() {
            arrival.count(bytes);
        }
    }

    /// The partition is gone or has a new beginning: everyone reads again.
    pub(crate) fn wake_all(&self) {
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
        let (left, right) = (Waiters::default(), Waiters::default());
        let arrival = Arrival::new(100);
        left.register(&arrival);
        right.register(&arrival);
        left.arrived(60);
        assert!(!is_ready(&arrival));
        right.arrived(40);
        assert!(is_ready(&arrival));
    }

    #[test]
    fn bytes_before_the_wait_are_not_lost_and_other_changes_wake_too() {
        let waiters = Waiters::default();
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
