//! Topics in which the broker keeps its own state: the offsets of consumer groups, plug-ins, and later transactions.
//!
//! The state in memory is the result of replaying the log. A coordinator therefore appends first, and responds when its
//! record is committed at the leader epoch of the append. If another epoch began in between, another broker may have
//! led the partition, and the record may be lost.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use millstream_log::{AppendError, AppendOrigin, Appended, Verification, VerificationGuard};
use millstream_record::{BatchHeader, BatchView, CheckedBatch};

use crate::clock::now_ms;
use crate::commit::{Acks, WriteEnd};
use crate::error::PartitionError;
use crate::partition::{Partition, Role};

/// The most bytes that one batch of an internal topic may decompress to. The writer's `max.message.bytes` limits a
/// batch that was written here; nothing limits one in a folder that was copied from elsewhere.
pub const UNPACKED_BATCH_BYTES_MAX: usize = 256 << 20;

/// The commit of an internal record. The sync starts when the future is first polled.
///
/// It ends with [`PartitionError::Suspended`] when it is not known for a while whether this broker still leads. Polled
/// again, it waits on: the record is in the log, and may be committed in its epoch.
pub type CommittedAtEpoch = Pin<Box<dyn Future<Output = Result<(), PartitionError>> + Send>>;

/// A batch that was appended to an internal topic and is not committed yet.
pub struct InternalAppend {
    /// The offset of the first record.
    pub base_offset: i64,
    /// Completes when the records are committed at the leader epoch of their append.
    pub committed: CommittedAtEpoch,
}

impl InternalAppend {
    /// Waits until the records are committed, or it is known that they never will be in their epoch.
    ///
    /// # Errors
    /// Another epoch has begun, or the log has failed.
    pub async fn settle(mut self) -> Result<(), PartitionError> {
        loop {
            match self.committed.as_mut().await {
                Err(PartitionError::Suspended) => {}
                outcome => return outcome,
            }
        }
    }
}

/// The partitions of an internal topic.
pub trait InternalTopic: Send + Sync + 'static {
    /// Returns the number of partitions; 0 while the topic does not exist.
    fn partitions(&self) -> i32;

    /// Returns the leader epoch in which this broker leads a partition; `None` if it does not.
    fn led_epoch(&self, partition: i32) -> Option<i32>;

    /// Returns whether another broker may lead a partition by now although this one has not learned so. What is in
    /// memory may then be older than what the other one has acknowledged.
    fn may_have_moved(&self, partition: i32) -> bool;

    /// Returns whether a partition has no records, so that a replay would find nothing.
    fn is_empty(&self, partition: i32) -> bool;

    /// Appends one batch with base offset 0 to a partition that this broker leads in `leader_epoch`. The log assigns
    /// the real offsets.
    ///
    /// Callers hold a lock over the call, so it waits for nothing but the page cache.
    ///
    /// # Errors
    /// Nothing was appended.
    fn append(&self, partition: i32, leader_epoch: i32, batch: &[u8]) -> Result<InternalAppend, PartitionError> {
        self.append_in_transaction(partition, leader_epoch, batch, Verification::Unknown)
    }

    /// Begins the verification of a transaction before its first batch is appended; see
    /// [`Partition::begin_verification`]. Returns `None` if the transaction is open in the log.
    ///
    /// # Errors
    /// The batch cannot be appended.
    fn begin_verification(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
    ) -> Result<Option<VerificationGuard>, PartitionError>;

    /// Appends one batch of a transaction as [`Self::append`] does, with what is known of the transaction.
    ///
    /// # Errors
    /// Nothing was appended.
    fn append_in_transaction(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
        verification: Verification,
    ) -> Result<InternalAppend, PartitionError>;

    /// Passes each batch of a partition to `visit`, from the log start to the log end, until `visit` breaks. Blocks for
    /// the disk.
    ///
    /// # Errors
    /// The partition cannot be read to its end.
    fn replay(
        &self,
        partition: i32,
        visit: &mut dyn FnMut(&BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), PartitionError>;
}

impl Partition {
    /// Returns the leader epoch in which this broker leads; `None` if it does not.
    #[must_use]
    pub fn led_epoch(&self) -> Option<i32> {
        match &self.state.lock().role {
            Role::Leader(leader) => Some(leader.epoch()),
            Role::Follower { .. } => None,
        }
    }

    /// Appends one batch of an internal topic, see [`InternalTopic::append`].
    ///
    /// # Errors
    /// As [`InternalTopic::append`].
    pub fn append_internal(
        self: &Arc<Self>,
        leader_epoch: i32,
        batch: &[u8],
        verification: Verification,
    ) -> Result<InternalAppend, PartitionError> {
        let batch = CheckedBatch::of_own(batch).map_err(|error| AppendError::Corrupt(error.to_string()))?;
        let appended = self.append_in_epoch(leader_epoch, &batch, verification)?.batch();
        let (partition, write) = (Arc::clone(self), WriteEnd::of(&appended));
        let mut wait = None;
        let committed = poll_fn(move |context| {
            let waiting = wait.get_or_insert_with(|| partition.committed(write, Acks::All));
            let outcome = ready!(Pin::new(waiting).poll(context));
            wait = None;
            Poll::Ready(outcome.and_then(|()| partition.check_append_epoch(write.leader_epoch)))
        });
        Ok(InternalAppend { base_offset: appended.base_offset, committed: Box::pin(committed) })
    }

    /// Begins the verification of a transaction, see [`InternalTopic::begin_verification`].
    ///
    /// # Errors
    /// As [`InternalTopic::begin_verification`].
    pub fn begin_internal_verification(&self, batch: &[u8]) -> Result<Option<VerificationGuard>, PartitionError> {
        let batch = BatchHeader::parse(batch).map_err(|error| AppendError::Corrupt(error.to_string()))?;
        self.begin_verification(&batch, false)
    }

    /// Appends a batch if this broker leads in `leader_epoch`, and enough replicas are in sync for a commit. In a later
    /// epoch the log may have records that the writer does not know.
    fn append_in_epoch(
        &self,
        leader_epoch: i32,
        batch: &CheckedBatch<'_>,
        verification: Verification,
    ) -> Result<Appended, PartitionError> {
        let mut state = self.state.lock();
        let (log, leader) = state.leader_log()?;
        let current = leader.epoch();
        if current != leader_epoch {
            return Err(PartitionError::LeaderEpochChanged { appended: leader_epoch, current });
        }
        if leader.is_under_min_isr() {
            return Err(PartitionError::NotEnoughReplicas { in_sync: leader.isr().len() });
        }
        let origin = AppendOrigin::Broker(verification);
        let appended = log.append_of(batch, current, now_ms(), origin)?;
        self.appended(state, appended, batch.size());
        Ok(appended)
    }

    /// Checks that this broker is still in the epoch in which it has appended a record.
    fn check_append_epoch(&self, appended: i32) -> Result<(), PartitionError> {
        let current = self.leader_epoch();
        if current == appended { Ok(()) } else { Err(PartitionError::LeaderEpochChanged { appended, current }) }
    }

    /// Passes each batch to `visit`, from the log start to the log end, until `visit` breaks. Blocks for the disk.
    ///
    /// # Errors
    /// The log cannot be read to its end.
    pub fn replay(&self, visit: impl FnMut(&BatchView<'_>) -> ControlFlow<()>) -> Result<(), PartitionError> {
        let reader = self.reader()?;
        // Records above the high watermark count too: this broker leads, so they will be committed or it stops leading.
        reader.replay(0..reader.log_end_offset(), visit)?;
        Ok(())
    }
}
