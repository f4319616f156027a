//! The state that all tasks of one producer share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use super::accumulator::{BatchSettings, ChunkRow, PartitionQueue, SendRules, TopicAccumulator};
use super::config::ProducerConfig;
use super::delivery::ChunkResults;
use super::sender;
use super::sequence::Identity;
use super::transactions::Transactions;
use crate::edge::ProducerStages;
use crate::error::Error;
use crate::net::Cluster;
use crate::plugins::{ActiveStages, Following};

/// The shared state of one producer.
pub(crate) struct Inner {
    pub(super) config: ProducerConfig,
    pub(super) cluster: Cluster,
    pub(super) stages: Arc<ActiveStages<ProducerStages>>,
    pub(super) batch_settings: BatchSettings,
    pub(super) topics: RwLock<HashMap<Arc<str>, Arc<TopicAccumulator>>>,
    /// `buffer.memory`: one permit per byte.
    pub(super) memory: Semaphore,
    /// The number of running flushes and of `send` calls that wait for memory. While it is above 0 no record lingers.
    pub(super) hurry: AtomicUsize,
    pub(super) pending: Mutex<PendingChunks>,
    /// Notified when chunks are complete.
    pub(super) completed: Notify,
    pub(super) identity: Mutex<Option<Identity>>,
    /// Of a producer with a `transactional.id`.
    pub(super) transactions: Option<Transactions>,
    /// Set once the producer has failed for good, or was closed before all records had a result.
    pub(super) aborted: Mutex<Option<Error>>,
    /// The brokers that have a sender.
    pub(super) senders: Mutex<HashSet<i32>>,
    /// Wakes all senders.
    pub(super) changes: watch::Sender<u64>,
    /// Wakes the maintenance task.
    pub(super) attention: Notify,
    pub(super) refresh_wanted: AtomicBool,
    pub(super) last_unreachable: Mutex<Option<Error>>,
    pub(super) turn: AtomicUsize,
    /// The task that keeps the stages up to date.
    pub(super) _following: Option<Following>,
}

/// The chunks that have rows without a result.
#[derive(Default)]
pub(super) struct PendingChunks {
    pub(super) next: u64,
    pub(super) open: BTreeSet<u64>,
    /// Set when the producer is being closed: no new chunks are opened.
    pub(super) closed: bool,
}

/// Keeps records from lingering while it lives.
pub(super) struct Hurry<'a>(&'a Inner);

impl<'a> Hurry<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        inner.hurry.fetch_add(1, Ordering::SeqCst);
        inner.wake_all();
        Self(inner)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurry.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    pub(super) fn topics(&self) -> Vec<Arc<TopicAccumulator>> {
        self.topics.read().values().cloned().collect()
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn in_hurry(&self) -> bool {
        self.hurry.load(Ordering::SeqCst) > 0
    }

    pub(super) fn rules(&self) -> SendRules {
        SendRules {
            batch_size: self.config.batch_size,
            linger: self.config.linger,
            hurry: self.in_hurry(),
            idempotent: self.config.idempotent(),
            in_flight_max: if self.config.max_in_flight_requests == 1 { 1 } else { usize::MAX },
        }
    }

    /// Returns whether the producer is closed and every record has its result.
    pub(super) fn finished(&self) -> bool {
        let pending = self.pending.lock();
        pending.closed && pending.open.is_empty()
    }

    /// Returns whether every record has its result.
    pub(super) fn idle(&self) -> bool {
        self.pending.lock().open.is_empty()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn wake_all(&self) {
        self.topics().iter().for_each(|topic| topic.arrived.notify_one());
        self.attention.notify_one();
        if let Some(transactions) = &self.transactions {
            transactions.wake();
        }
        self.changed();
    }

    pub(super) fn want_refresh(&self) {
        self.refresh_wanted.store(true, Ordering::SeqCst);
        self.attention.notify_one();
    }

    pub(super) fn take_refresh(&self) -> bool {
        self.refresh_wanted.swap(false, Ordering::SeqCst)
    }

    pub(super) fn unreachable(&self, error: Error) {
        *self.last_unreachable.lock() = Some(error);
        self.want_refresh();
    }

    pub(super) fn last_unreachable(&self) -> Option<Error> {
        self.last_unreachable.lock().clone()
    }

    /// Returns whether to request a producer id. A transactional producer does so in its own calls.
    pub(super) fn needs_identity(&self) -> bool {
        self.config.idempotent() && self.transactions.is_none() && self.identity.lock().is_none()
    }

    /// Returns the producer id and epoch that `init_transactions` got.
    pub(super) fn known_identity(&self) -> Result<Identity, Error> {
        self.identity.lock().ok_or(Error::State("the producer has no id; call init_transactions first"))
    }

    pub(super) fn set_identity(&self, identity: Identity) {
        tracing::debug!(identity.producer_id, identity.epoch, "the producer has a new id");
        *self.identity.lock() = Some(identity);
        self.changed();
    }

    /// Returns whether batches of the partition may be sent: it has the producer's identity, and is in the transaction.
    pub(super) fn admits(&self, topic: &TopicAccumulator, partition: usize, queue: &mut PartitionQueue) -> bool {
        if !self.config.idempotent() {
            return true;
        }
        match &self.transactions {
            None => self.identify(queue),
            Some(transactions) => {
                let Some(identity) = *self.identity.lock() else { return false };
                // The end of a transaction raises the epoch.
                queue.identify(identity, |_| None) && transactions.admits(&topic.name, partition)
            }
        }
    }

    /// Switches a partition to the producer's identity. Returns false while there is none.
    fn identify(&self, queue: &mut PartitionQueue) -> bool {
        let mut current = self.identity.lock();
        let Some(identity) = *current else { return false };
        let raised = queue.identify(identity, |identity| {
            // A producer without transactions raises its epoch itself (KIP-360). When the epochs are used up, the
            // maintenance task gets a new producer id.
            *current = identity.epoch.checked_add(1).map(|epoch| Identity { epoch, ..identity });
            *current
        });
        if !raised {
            self.attention.notify_one();
        }
        raised
    }

    /// Returns why waiting records must fail: the producer has failed, or its transaction is aborted.
    pub(super) fn doom(&self) -> Option<Error> {
        self.aborted.lock().clone().or_else(|| self.transactions.as_ref()?.doom())
    }

    /// Notes that a record was not stored. Returns the error for its caller.
    pub(super) fn fail(&self, error: Error) -> Error {
        let Some(transactions) = &self.transactions else { return error };
        let error = transactions.fail(&error);
        // The other records of the transaction fail too.
        self.attention.notify_one();
        error
    }

    /// Fails all waiting records, and every `send` from now on.
    pub(super) fn abort(&self, error: &Error) {
        self.aborted.lock().get_or_insert_with(|| error.clone());
        for topic in self.topics() {
            let chunks = std::mem::take(&mut topic.chunks.lock().queue);
            for chunk in chunks {
                self.fail_rows(&chunk.results, chunk.rows.into_iter().map(|row| (row, error.clone())));
            }
        }
        self.wake_all();
    }

    /// Starts a sender for each leader of the topic that has none, and wakes all senders.
    pub(super) fn dispatch(self: &Arc<Self>, topic: &TopicAccumulator) {
        let metadata = self.cluster.metadata();
        let leaders = metadata.topic(&topic.name).map_or(&[][..], |topic| &topic.partitions);
        if leaders.is_empty() || leaders.iter().any(|partition| partition.leader.is_none()) {
            self.attention.notify_one();
        }
        let mut senders = self.senders.lock();
        for leader in leaders.iter().filter_map(|partition| partition.leader) {
            if senders.insert(leader) {
                tokio::spawn(sender::run(self.clone(), leader));
            }
        }
        drop(senders);
        self.changed();
    }

    /// Fails rows that are in no batch.
    pub(super) fn fail_rows(&self, results: &ChunkResults, rows: impl IntoIterator<Item = (ChunkRow, Error)>) {
        let (mut memory, mut complete) = (0, Vec::new());
        for (row, error) in rows {
            memory += row.memory as usize;
            if results.finish(row.index, Err(self.fail(error))) {
                complete.push(results.number);
            }
        }
        self.release(memory, complete);
    }

    /// Releases memory, and removes chunks that are complete.
    pub(super) fn release(&self, memory: usize, complete: Vec<u64>) {
        self.memory.add_permits(memory);
        if complete.is_empty() {
            return;
        }
        let mut pending = self.pending.lock();
        for number in &complete {
            pending.open.remove(number);
        }
        let finished = pending.closed && pending.open.is_empty();
        drop(pending);
        self.completed.notify_waiters();
        if finished {
            self.wake_all();
        }
    }

    pub(super) fn open_chunk(&self, topic: &Arc<str>) -> Result<Arc<ChunkResults>, Error> {
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(Error::Closed);
        }
        let number = pending.next;
        pending.next += 1;
        pending.open.insert(number);
        drop(pending);
        self.attention.notify_one();
        Ok(Arc::new(ChunkResults::new(number, topic.clone())))
    }

    /// Waits until every record that was sent before has its result.
    pub(super) async fn completed(&self) {
        let last = self.pending.lock().next;
        loop {
            let notified = self.completed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.pending.lock().open.first().is_none_or(|first| *first >= last) {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn start_closing(&self) {
        self.pending.lock().closed = true;
        // Never decreased: no record lingers any more.
        self.hurry.fetch_add(1, Ordering::SeqCst);
        self.wake_all();
    }
}
