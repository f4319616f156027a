//! One sorted set of deadlines for all groups: no task and no timer of its own for a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// When which group wants to be woken. A group stands here at most once.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeSet<(u64, Arc<str>)>>,
    /// Something is due earlier than what the sleeper knows.
    earlier: Notify,
}

impl Timers {
    /// Wakes `group` at `at_ms`, and not at `instead_of_ms` any more.
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

    /// Forgets a group.
    pub(crate) fn clear(&self, group: &Arc<str>, at_ms: u64) {
        self.due.lock().remove(&(at_ms, Arc::clone(group)));
    }

    /// The earliest deadline.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.due.lock().first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes one group out that is due.
    pub(crate) fn take_due(&self, now_ms: u64) -> Option<Arc<str>> {
        let mut due = self.due.lock();
        if due.first()?.0 > now_ms {
            return None;
        }
        due.pop_first().map(|(_, group)| group)
    }

    /// Waits until a deadline was set that comes before all others.
    pub(crate) async fn wait_for_earlier(&self) {
        self.earlier.notified().await;
    }
}
