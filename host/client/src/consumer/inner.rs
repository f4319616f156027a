//! The state that all tasks of one consumer share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::RebalanceListener;
use super::config::{ConsumerConfig, IsolationLevel};
use super::decode::Decoder;
use super::group::Group;
use super::state::State;
use crate::edge::ConsumerStages;
use crate::error::Error;
use crate::net::{Cluster, Metadata};
use crate::plugins::{ActiveStages, Following};

/// The shared state of one consumer.
pub(crate) struct Inner {
    pub(super) config: ConsumerConfig,
    pub(super) cluster: Cluster,
    pub(super) decoder: Decoder,
    pub(super) stages: Arc<ActiveStages<ConsumerStages>>,
    pub(super) state: Mutex<State>,
    pub(super) group: Option<Arc<Group>>,
    pub(super) listener: Mutex<Option<Arc<dyn RebalanceListener>>>,
    /// The partition counts of the last assignment, if this member leads its group.
    pub(super) assigned_counts: Mutex<Option<BTreeMap<String, i32>>>,
    /// Wakes all waiting tasks and polls.
    pub(super) changes: watch::Sender<u64>,
    pub(super) polls: AtomicUsize,
    pub(super) refresh_wanted: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) turn: AtomicUsize,
    pub(super) next_auto_commit: Mutex<Instant>,
    /// The task that keeps the stages up to date.
    pub(super) _following: Option<Following>,
}

impl Inner {
    pub(super) fn read_committed(&self) -> bool {
        self.config.isolation_level == IsolationLevel::ReadCommitted
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn in_poll(&self) -> bool {
        self.polls.load(Ordering::SeqCst) > 0
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn want_refresh(&self) {
        self.refresh_wanted.store(true, Ordering::SeqCst);
        self.changed();
    }

    pub(super) fn take_refresh(&self) -> bool {
        self.refresh_wanted.swap(false, Ordering::SeqCst)
    }

    /// Returns the error from the next poll.
    pub(super) fn fail(&self, error: Error) {
        self.state.lock().errors.push_back(error);
        self.changed();
    }

    pub(super) fn fail_if_final(&self, error: &Error) {
        if !error.retriable() {
            self.fail(error.clone());
        }
    }

    pub(super) fn listener(&self) -> Option<Arc<dyn RebalanceListener>> {
        self.listener.lock().clone()
    }

    /// Starts a rebalance if the partition count of an assigned topic has changed.
    pub(super) fn metadata_changed(&self, metadata: &Metadata) {
        let (Some(group), Some(assigned_counts)) = (&self.group, &*self.assigned_counts.lock()) else { return };
        let differs = |(topic, count): (&String, &i32)| {
            metadata.topic(topic).is_some_and(|topic| topic.partitions.len() != *count as usize)
        };
        if assigned_counts.iter().any(differs) {
            group.set_rebalancing(true);
            self.changed();
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.changed();
    }
}

/// Marks a running poll while it lives.
pub(super) struct InPoll<'a>(&'a Inner);

impl<'a> InPoll<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        if let Some(group) = &inner.group {
            *group.last_poll.lock() = Instant::now();
        }
        inner.polls.fetch_add(1, Ordering::SeqCst);
        inner.changed();
        Self(inner)
    }
}

impl Drop for InPoll<'_> {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::SeqCst);
        if let Some(group) = &self.0.group {
            *group.last_poll.lock() = Instant::now();
        }
    }
}
