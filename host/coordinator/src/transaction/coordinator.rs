//! The coordinator: all transactional ids of this broker, and the requests for them.
//!
//! An id is a [`Slot`] behind a mutex, in the [`Shard`] of its partition. A request asks the pure state machine under
//! that lock, and appends the record of the new state, in the leader epoch of the shard. The state in memory changes
//! when the record is committed. Until then no other change of the id begins. A task of its own waits for the commit,
//! so that memory follows the log even if the client disconnects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_partition::{ErrorLog, InternalAppend, InternalTopic, PartitionError, now_ms};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::config::TransactionConfig;
use super::host::TransactionHost;
use super::metadata::{Step, TransactionMetadata};
use super::model::{Outcome, Producer, TopicPartition, TransactionError, TransactionState, TransactionVersion};
use super::records::{self, TRANSACTION_STATE};
use super::shard::{Shard, Slot, Transaction};
use crate::settled::{Unsettled, settled};
use crate::shards::Shards;

/// How long a request waits for the commit of its record. The record may still be committed later.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// How long a request that adds partitions waits for the change before it. Clients that get CONCURRENT_TRANSACTIONS
/// pause for longer than the markers of a transaction take.
const CHANGE_WAIT: Duration = Duration::from_millis(250);

/// A request for a producer id.
#[derive(Debug, Clone, Copy)]
pub struct InitRequest {
    /// `transaction.timeout.ms` of the producer.
    pub timeout_ms: i32,
    /// The producer of an instance that goes on after an error.
    pub expected: Option<Producer>,
}

/// The transaction coordinator of this broker.
pub struct TransactionCoordinator {
    pub(super) config: TransactionConfig,
    pub(super) topic: Box<dyn InternalTopic>,
    pub(super) host: Box<dyn TransactionHost>,
    pub(super) shards: Shards<Transaction>,
    stopped: AtomicBool,
    stop: Notify,
    write_errors: ErrorLog,
}

impl std::fmt::Debug for TransactionCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionCoordinator").field("led_partitions", &self.shards.led()).finish_non_exhaustive()
    }
}

/// What a request found under the lock.
enum Attempt<T> {
    Over(Result<T, TransactionError>),
    /// Another change of the id is under way.
    Busy,
    NeedsProducerId,
    /// The record of the new state was appended.
    Appended(TransactionMetadata, InternalAppend),
}

impl TransactionCoordinator {
    /// Makes a coordinator without transactional ids. [`TransactionCoordinator::start`] loads those of the topic.
    #[must_use]
    pub fn new(config: TransactionConfig, topic: Box<dyn InternalTopic>, host: Box<dyn TransactionHost>) -> Arc<Self> {
        Arc::new(Self {
            config,
            topic,
            host,
            shards: Shards::default(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
            write_errors: ErrorLog::default(),
        })
    }

    /// Handles an InitProducerId with a transactional id.
    ///
    /// # Errors
    /// [`TransactionError::ConcurrentTransactions`] tells the client to retry: the transaction that was open is aborted
    /// first.
    pub async fn init(self: &Arc<Self>, id: &str, request: InitRequest) -> Result<Producer, TransactionError> {
        let InitRequest { timeout_ms, expected } = request;
        if id.is_empty() {
            return Err(TransactionError::InvalidTransactionalId);
        }
        if !(1..=self.config.max_timeout_ms).contains(&timeout_ms) {
            return Err(TransactionError::InvalidTimeout);
        }
        let shard = self.shard(id)?;
        let mut new_id = None;
        loop {
            let transaction = match (shard.find(id)?, new_id) {
                (Some(found), _) => found,
                (None, Some(producer_id)) => {
                    let new = TransactionMetadata::new(producer_id, timeout_ms, now_ms());
                    let add = |id: &Arc<str>| Ok::<_, TransactionError>(Transaction::new(Arc::clone(id), new));
                    shard.find_or_add(id, add)?.1
                }
                (None, None) => {
                    new_id = Some(self.new_producer_id().await?);
                    continue;
                }
            };
            let attempt = self.attempt(&shard, &transaction, |metadata, now_ms| {
                metadata.init(timeout_ms, expected, new_id, self.host.version(), now_ms)
            });
            match attempt {
                Attempt::Over(result) => return result,
                Attempt::Busy => return Err(TransactionError::ConcurrentTransactions),
                Attempt::NeedsProducerId => new_id = Some(self.new_producer_id().await?),
                Attempt::Appended(next, appended) => {
                    let (producer, state) = (next.producer, next.state);
                    self.committed(&shard, &transaction, next, appended).await?;
                    return match state {
                        TransactionState::Empty => Ok(producer),
                        // The producer that had a transaction open is fenced. The epoch for this one is the next.
                        _ => Err(TransactionError::ConcurrentTransactions),
                    };
                }
            }
        }
    }

    /// Adds partitions to a transaction. Returns when that is committed.
    ///
    /// # Errors
    /// The producer is not the current one; the transaction before is not complete.
    pub async fn add_partitions(
        self: &Arc<Self>,
        id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<(), TransactionError> {
        self.add_partitions_beside(id, producer, &[], partitions, version).await
    }

    /// Adds partitions to the transaction that has the `required` ones already. Returns when that is committed.
    ///
    /// # Errors
    /// As [`Self::add_partitions`]; [`TransactionError::Abortable`] if a required partition is not in the transaction.
    pub async fn add_partitions_beside(
        self: &Arc<Self>,
        id: &str,
        producer: Producer,
        required: &[TopicPartition],
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<(), TransactionError> {
        let (shard, transaction) = self.find(id)?;
        let deadline = Instant::now() + CHANGE_WAIT;
        loop {
            let changed = transaction.changed.notified();
            let attempt = self.attempt(&shard, &transaction, |metadata, now_ms| {
                metadata.verify(producer, required)?.into_iter().collect::<Result<(), _>>()?;
                metadata.add_partitions(producer, partitions, version, now_ms)
            });
            match attempt {
                Attempt::Over(Err(TransactionError::ConcurrentTransactions)) | Attempt::Busy => {
                    let is_over = timeout_at(deadline, changed).await.is_err();
                    shard.check()?;
                    if is_over {
                        return Err(TransactionError::ConcurrentTransactions);
                    }
                }
                Attempt::Over(result) => return result.map(|_| ()),
                Attempt::NeedsProducerId => return Err(TransactionError::NotAvailable),
                Attempt::Appended(next, appended) => {
                    return self.committed(&shard, &transaction, next, appended).await;
                }
            }
        }
    }

    /// Returns for each partition whether it is in the transaction.
    ///
    /// # Errors
    /// As [`Self::add_partitions`].
    pub fn verify_partitions(
        &self,
        id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let (_, transaction) = self.find(id)?;
        let slot = transaction.slot.lock();
        if slot.removed {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        // A change that is under way is not looked at: the append of the records checks again.
        slot.metadata.verify(producer, partitions)
    }

    /// Ends a transaction. Returns when the outcome is committed; the markers follow. The result is the producer of the
    /// next transaction.
    ///
    /// # Errors
    /// The producer is not the current one; no transaction is open; the transaction before is not complete.
    pub async fn end(
        self: &Arc<Self>,
        id: &str,
        producer: Producer,
        outcome: Outcome,
        version: TransactionVersion,
    ) -> Result<Producer, TransactionError> {
        let (shard, transaction) = self.find(id)?;
        let deadline = Instant::now() + CHANGE_WAIT;
        let mut new_id = None;
        loop {
            let changed = transaction.changed.notified();
            let attempt = self.attempt(&shard, &transaction, |metadata, now_ms| {
                metadata.end(producer, outcome, version, new_id, now_ms)
            });
            match attempt {
                Attempt::Over(result) => return result,
                Attempt::NeedsProducerId => new_id = Some(self.new_producer_id().await?),
                // Most likely a partition is being added.
                Attempt::Busy => {
                    let is_over = timeout_at(deadline, changed).await.is_err();
                    shard.check()?;
                    if is_over {
                        return Err(TransactionError::ConcurrentTransactions);
                    }
                }
                Attempt::Appended(next, appended) => {
                    let after = next.producer_after();
                    self.committed(&shard, &transaction, next, appended).await?;
                    return Ok(after);
                }
            }
        }
    }

    /// Asks the state machine under the lock, and appends the record of a new state.
    fn attempt(
        &self,
        shard: &Shard,
        transaction: &Transaction,
        decide: impl FnOnce(&TransactionMetadata, i64) -> Result<Step, TransactionError>,
    ) -> Attempt<Producer> {
        let mut slot = transaction.slot.lock();
        if slot.removed {
            // It has expired just now.
            return Attempt::Over(Err(TransactionError::InvalidProducerIdMapping));
        }
        if slot.is_changing {
            return Attempt::Busy;
        }
        match decide(&slot.metadata, now_ms()) {
            Err(error) => Attempt::Over(Err(error)),
            Ok(Step::Done(producer)) => Attempt::Over(Ok(producer)),
            Ok(Step::NeedsProducerId) => Attempt::NeedsProducerId,
            Ok(Step::Write(next)) => match self.append(shard, &transaction.id, &mut slot, Some(&next)) {
                Ok(appended) => Attempt::Appended(*next, appended),
                Err(error) => Attempt::Over(Err(error)),
            },
        }
    }

    /// Appends the record of a state, or a tombstone, and notes that the id is changing.
    pub(super) fn append(
        &self,
        shard: &Shard,
        id: &Arc<str>,
        slot: &mut Slot,
        next: Option<&TransactionMetadata>,
    ) -> Result<InternalAppend, TransactionError> {
        let appended = records::batch(id, next, self.host.version(), now_ms()).and_then(|batch| {
            let appended = self.topic.append(shard.partition, shard.leader_epoch, &batch);
            appended.map_err(|error| self.write_error(id, &error))
        });
        match &appended {
            Ok(_) => slot.is_changing = true,
            // Nothing of a new id is in the log.
            Err(_) if slot.metadata.producer.epoch < 0 => slot.remove_from(shard, id),
            Err(_) => {}
        }
        appended
    }

    /// Waits for the commit of a new state, which then changes the memory, and writes the markers if the outcome is
    /// decided.
    async fn committed(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        transaction: &Arc<Transaction>,
        next: TransactionMetadata,
        appended: InternalAppend,
    ) -> Result<(), TransactionError> {
        let (coordinator, shard, transaction) = (Arc::clone(self), Arc::clone(shard), Arc::clone(transaction));
        let then = move |outcome| {
            coordinator.apply(&transaction, next, outcome)?;
            if transaction.slot.lock().metadata.state.is_prepared() {
                tokio::spawn(coordinator.complete(shard, transaction));
            }
            Ok(())
        };
        settled(appended, COMMIT_WAIT, then).await.unwrap_or_else(|unsettled| match unsettled {
            Unsettled::Late => Err(TransactionError::NotAvailable),
            Unsettled::Suspended => Err(TransactionError::NotCoordinator),
        })
    }

    /// Changes the memory once the record of a new state is committed.
    ///
    /// # Errors
    /// It is not known whether the record is committed, and another epoch has begun. So the log is loaded again.
    pub(super) fn apply(
        &self,
        transaction: &Transaction,
        next: TransactionMetadata,
        outcome: Result<(), PartitionError>,
    ) -> Result<(), TransactionError> {
        outcome.map_err(|error| self.write_error(&transaction.id, &error))?;
        let mut slot = transaction.slot.lock();
        slot.metadata = next;
        slot.is_changing = false;
        drop(slot);
        transaction.changed.notify_waiters();
        Ok(())
    }

    async fn new_producer_id(&self) -> Result<i64, TransactionError> {
        self.host.new_producer_id().await.ok_or(TransactionError::NotAvailable)
    }

    /// Returns whether `__transaction_state` exists, as far as the coordinator knows.
    #[must_use]
    pub fn has_topic(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Returns the shard of a transactional id.
    ///
    /// # Errors
    /// The id is empty or too long; another broker leads the partition or may lead it by now, or the topic does not
    /// exist.
    pub(super) fn shard(&self, id: &str) -> Result<Arc<Shard>, TransactionError> {
        if id.is_empty() || id.len() > i16::MAX as usize {
            return Err(TransactionError::InvalidTransactionalId);
        }
        if self.is_stopped() {
            return Err(TransactionError::NotCoordinator);
        }
        let shard = self.shards.of_id(id).ok_or(TransactionError::NotCoordinator)?;
        // Some responses need no write: a retried end, the check of a partition, a description.
        if self.topic.may_have_moved(shard.partition) { Err(TransactionError::NotCoordinator) } else { Ok(shard) }
    }

    /// Returns a transactional id that exists.
    fn find(&self, id: &str) -> Result<(Arc<Shard>, Arc<Transaction>), TransactionError> {
        let shard = self.shard(id)?;
        let found = shard.find(id)?.ok_or(TransactionError::InvalidProducerIdMapping)?;
        Ok((shard, found))
    }

    /// Logs a failed write, at most one line in ten seconds, and converts the error.
    pub(super) fn write_error(&self, id: &str, error: &PartitionError) -> TransactionError {
        use PartitionError as E;
        if error.is_too_large() {
            return TransactionError::RecordTooLarge;
        }
        match error {
            E::NotHosted
            | E::LeaderEpochChanged { .. }
            | E::NotLeader { .. }
            | E::Elsewhere
            | E::Suspended
            | E::ShuttingDown => {
                return TransactionError::NotCoordinator;
            }
            // Other brokers are down: not a fault of this one.
            E::NotEnoughReplicas { .. } => return TransactionError::NotAvailable,
            _ => {}
        }
        if let Some(omitted) = self.write_errors.count() {
            tracing::error!(transactional_id = id, omitted, "cannot write to {TRANSACTION_STATE}: {error}");
        }
        TransactionError::NotAvailable
    }

    /// Ends the scans and rejects later requests. Clients find their coordinator again once the broker is back.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits for [`TransactionCoordinator::stop`].
    pub(super) async fn wait_for_stop(&self) {
        let notified = self.stop.notified();
        if !self.is_stopped() {
            notified.await;
        }
    }
}
