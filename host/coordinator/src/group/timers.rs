//! One sorted set of deadlines for all groups, so that a member needs neither a task nor a timer.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The next deadline of each group. A group is in the set at most once.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeSet<(u64, Arc<str>)>>,
    /// A deadline was set that is earlier than all others.
    earlier: Notify,
}

impl Timers {
    /// Sets a group's deadline, in place of `instead_of_ms`.
    pub(crate) fn set(&self, group: &Arc<str>, at_ms: u64, instead_of_ms: Option<u64>) {
        let mut due = self.due.lock();
        if let Some(old_ms) = instead_of_ms {
            due.remove(&(old_ms, Arc::clone(group)));
        }
        let is_first = due.first().is_none_or(|(first_ms, _)| at_ms < *first_ms);
        due.insert((at_ms, Arc::clone(group)));
        drop(due);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Removes a group's deadline.
    pub(crate) fn clear(&self, group: &Arc<str>, at_ms: u64) {
        self.due.lock().remove(&(at_ms, Arc::clone(group)));
    }

    /// Returns the earliest deadline.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.due.lock().first().map(|(at_ms, _)| *at_ms)
    }

    /// Removes and returns a group whose deadline is over.
    pub(crate) fn take_due(&self, now_ms: u64) -> Option<Arc<str>> {
        let mut due = self.due.lock();
        if due.first()?.0 > now_ms {
            return None;
        }
        due.pop_first().map(|(_, group)| group)
    }

    /// Waits until a deadline is set that is earlier than all others.
    pub(crate) async fn wait_for_earlier(&self) {
        self.earlier.notified().await;
    }
}
