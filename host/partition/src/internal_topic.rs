//! Topics in which the broker keeps its own state: the offsets of consumer groups, plug-ins, and later transactions.
//!
//! The state in memory is the result of replaying the log. A coordinator therefore appends first, and responds when its
//! record is committed at the leader epoch of the append. If another epoch began in between, another broker may have
//! led the partition, and the record may be lost.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use millstream_log::AppendError;
use millstream_record::{BatchView, CheckedBatch};

use crate::clock::now_ms;
use crate::commit::{Acks, WriteEnd};
use crate::error::PartitionError;
use crate::partition::Partition;

/// The most bytes that one batch of an internal topic may decompress to. The writer's `max.message.bytes` limits a
/// batch that was written here; nothing limits one in a folder that was copied from elsewhere.
pub const UNPACKED_BATCH_BYTES_MAX: usize = 256 << 20;

/// The commit of an internal record. The sync starts when the future is first polled.
pub type CommittedAtEpoch = Pin<Box<dyn Future<Output = Result<(), PartitionError>> + Send>>;

/// A batch that was appended to an internal topic and is not committed yet.
pub struct InternalAppend {
    /// The offset of the first record.
    pub base_offset: i64,
    /// Completes when the records are committed at the leader epoch of their append.
    pub committed: CommittedAtEpoch,
}

/// The partitions of an internal topic.
pub trait InternalTopic: Send + Sync + 'static {
    /// Returns the number of partitions; 0 while the topic does not exist.
    fn partitions(&self) -> i32;

    /// Appends one batch with base offset 0 to a partition that this broker leads. The log assigns the real offsets.
    ///
    /// Callers hold a lock over the call, so it waits for nothing but the page cache.
    ///
    /// # Errors
    /// Nothing was appended.
    fn append(&self, partition: i32, batch: &[u8]) -> Result<InternalAppend, PartitionError>;

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
    /// Appends one batch of an internal topic, see [`InternalTopic::append`].
    ///
    /// # Errors
    /// As [`InternalTopic::append`].
    pub fn append_internal(self: &Arc<Self>, batch: &[u8]) -> Result<InternalAppend, PartitionError> {
        let batch = CheckedBatch::of_own(batch).map_err(|error| AppendError::Corrupt(error.to_string()))?;
        let appended = self.append(&batch, now_ms())?.batch();
        let (partition, write) = (Arc::clone(self), WriteEnd::of(&appended));
        let committed = Box::pin(async move {
            partition.committed(write, Acks::All).await?;
            partition.check_still_leads(write.leader_epoch)
        });
        Ok(InternalAppend { base_offset: appended.base_offset, committed })
    }

    fn check_still_leads(&self, appended: i32) -> Result<(), PartitionError> {
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
