//! TxnOffsetCommit, and what the markers of transactions do to the offsets in them.
//!
//! The records of a transaction's offsets are in the log before their transaction is decided. They are kept aside until
//! its marker comes. Of two commits the later record wins, as everywhere.

use std::sync::Arc;

use millstream_partition::seeded_bug::{self, Bug};
use millstream_partition::{AppendError, PartitionError, Verification, VerificationGuard};
use millstream_wire::ErrorCode;

use super::commits::{OffsetToCommit, commit_at};
use super::coordinator::{GroupCoordinator, Missing};
use super::log::{Batch, CONSUMER_OFFSETS};
use super::model::{Caller, GroupError};
use super::offsets::CommittedOffset;
use super::shard::Shard;
use crate::transaction::{Producer, TopicPartition};

/// A TxnOffsetCommit that is not written yet.
pub struct TransactionalCommit {
    shard: Arc<Shard>,
    group_id: Arc<str>,
    producer: Producer,
    offsets: Vec<(Arc<str>, i32, CommittedOffset)>,
    batch: bytes::Bytes,
    guard: Option<VerificationGuard>,
}

impl std::fmt::Debug for TransactionalCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (group, producer) = (&self.group_id, self.producer);
        f.debug_struct("TransactionalCommit").field("group", group).field("producer", &producer).finish_non_exhaustive()
    }
}

impl TransactionalCommit {
    /// Returns the partition that has to be in the transaction; `None` if the log shows that it is.
    #[must_use]
    pub fn to_verify(&self) -> Option<TopicPartition> {
        self.guard.map(|_| (Arc::from(CONSUMER_OFFSETS), self.shard.partition))
    }
}

/// A transaction whose marker may be appended to a partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct EndingTransaction {
    coordinator: Arc<GroupCoordinator>,
    shard: Arc<Shard>,
}

impl GroupCoordinator {
    /// Begins a TxnOffsetCommit. If [`TransactionalCommit::to_verify`] names a partition, the caller asks the
    /// coordinator of the transaction for it, and calls [`Self::commit_in_transaction`] then.
    ///
    /// # Errors
    /// The group is not served here, or not yet; the offsets do not fit a batch.
    pub fn begin_commit_in_transaction(
        self: &Arc<Self>,
        group_id: &str,
        producer: Producer,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<TransactionalCommit, GroupError> {
        let shard = self.shard(group_id)?;
        shard.check()?;
        let now = self.now();
        let mut batch = Batch::in_transaction(now.wall_ms, producer);
        let mut committed = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let (topic, index) = (Arc::clone(&offset.topic), offset.partition);
            let offset = commit_at(offset, None, now);
            batch.offset(group_id, &topic, index, &offset)?;
            committed.push((topic, index, offset));
        }
        let batch = batch.build()?;
        let guard = self.topic.begin_verification(shard.partition, shard.leader_epoch, &batch);
        let guard = guard.map_err(|error| self.transactional_error(group_id, &error))?;
        Ok(TransactionalCommit { shard, group_id: Arc::from(group_id), producer, offsets: committed, batch, guard })
    }

    /// Returns whether what was verified for a commit still stands. Otherwise a marker has come meanwhile, and the
    /// caller asks the coordinator of the transaction again.
    ///
    /// # Errors
    /// As [`Self::begin_commit_in_transaction`].
    pub fn renew_commit_in_transaction(&self, commit: &mut TransactionalCommit) -> Result<bool, GroupError> {
        let TransactionalCommit { shard, group_id, batch, guard, .. } = commit;
        let renewed = self.topic.begin_verification(shard.partition, shard.leader_epoch, batch);
        let renewed = renewed.map_err(|error| self.transactional_error(group_id, &error))?;
        let stands = renewed.is_none() || renewed == *guard;
        *guard = renewed;
        Ok(stands)
    }

    /// Writes the offsets of a TxnOffsetCommit, whose partition is in the transaction. Returns when that is committed.
    ///
    /// # Errors
    /// The caller may not commit; the transaction has ended meanwhile; the offsets could not be written.
    pub async fn commit_in_transaction(
        self: &Arc<Self>,
        commit: TransactionalCommit,
        caller: Caller<'_>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let TransactionalCommit { shard, group_id, producer, offsets, batch, guard } = commit;
        let missing = match generation < 0 && caller.member_id.is_empty() {
            true => Missing::Create,
            false => Missing::Reject(GroupError::GroupIdNotFound),
        };
        let verification = guard.map_or(Verification::Unknown, Verification::Confirmed);
        let appended = self.with_group(&shard, &group_id, missing, |slot, _, _| {
            slot.group.may_commit_in_transaction(caller, generation)?;
            let mut open = shard.common.open_transactions.lock();
            let appended = self.topic.append_in_transaction(shard.partition, shard.leader_epoch, &batch, verification);
            let appended = appended.map_err(|error| self.transactional_error(&group_id, &error))?;
            for ((topic, partition, offset), log_offset) in offsets.into_iter().zip(appended.base_offset..) {
                let offset = CommittedOffset { log_offset, ..offset };
                slot.offsets.add_pending(producer.id, &topic, partition, offset);
            }
            open.entry(producer.id).or_default().insert(Arc::clone(&group_id));
            Ok::<_, GroupError>(appended)
        })??;
        self.settled(&group_id, appended, |outcome| outcome).await
    }

    fn transactional_error(&self, group_id: &str, error: &PartitionError) -> GroupError {
        let PartitionError::Append(append) = error else { return self.write_error(group_id, error) };
        match &**append {
            AppendError::InvalidProducerEpoch { .. } => GroupError::NotInTransaction(ErrorCode::INVALID_PRODUCER_EPOCH),
            AppendError::NoTransaction { .. } => GroupError::NotInTransaction(ErrorCode::INVALID_TXN_STATE),
            _ => self.write_error(group_id, error),
        }
    }

    /// Prepares for the marker of a transaction in a partition of `__consumer_offsets`. The marker has to be appended
    /// in the leader epoch of the result.
    ///
    /// # Errors
    /// The groups of the partition are not served here, or not yet. A marker would not be noticed.
    pub fn ending_transaction(self: &Arc<Self>, partition: i32) -> Result<EndingTransaction, GroupError> {
        let shard = self.shards.of_partition(partition).ok_or(GroupError::NotCoordinator)?;
        shard.check()?;
        Ok(EndingTransaction { coordinator: Arc::clone(self), shard })
    }
}

impl EndingTransaction {
    /// Returns the leader epoch in which the groups are served.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.shard.leader_epoch
    }

    /// Applies a marker at `log_offset` that is committed.
    pub fn ended(self, producer_id: i64, is_commit: bool, log_offset: i64) {
        let Self { coordinator, shard } = self;
        let groups = shard.common.open_transactions.lock().remove(&producer_id).unwrap_or_default();
        for group in groups {
            let missing = Missing::Reject(GroupError::GroupIdNotFound);
            // A group that was deleted meanwhile has no offsets.
            let _ = coordinator.with_group(&shard, &group, missing, |slot, _, _| {
                let is_commit = is_commit || seeded_bug::is(Bug::OffsetsByThemselves);
                slot.offsets.end_transaction(producer_id, is_commit, log_offset);
                if slot.offsets.has_pending(producer_id) {
                    // The next transaction of the producer has begun.
                    let mut open = shard.common.open_transactions.lock();
                    open.entry(producer_id).or_default().insert(Arc::clone(&group));
                }
                tracing::debug!(group = &*group, producer_id, is_commit, "a transaction has ended");
            });
        }
    }
}
