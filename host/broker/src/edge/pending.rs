//! A batch that has passed the stages, but cannot be appended at once. Something must be durable first: its dead
//! letters, or the record that a plug-in is needed to read it.

use std::sync::Arc;

use bytes::Bytes;
use millstream_log::Verification;
use millstream_partition::{Acks, Partition};
use millstream_record::CheckedBatch;
use millstream_wire::Str;

use super::context::{Edge, MetadataChanges};
use super::dead_letter_records::DeadLetters;
use super::dead_letters;
use super::decoders::NeededDecoder;
use super::topic::{EdgePartition, ServedTopic};
use crate::cluster::BatchTransaction;
use crate::detached::detached;
use crate::error::ApiError;
use crate::produce::append::{Intake, Stored};

/// The result for a batch that passed the stages of its topic.
pub(crate) enum Admitted {
    /// It is in the log.
    Stored(Stored),
    /// It is to be appended after something else.
    Pending(Box<PendingAppend>),
}

/// A batch that waits before it is appended.
pub(crate) struct PendingAppend {
    pub(super) topic: Arc<ServedTopic>,
    pub(super) partition: Arc<Partition>,
    pub(super) acks: Acks,
    pub(super) version: i16,
    pub(super) request_bytes_max: usize,
    pub(super) now_ms: i64,
    pub(super) transactional_id: Option<Str>,
    pub(super) verification: Verification,
    /// The batch as the producer sent it.
    pub(super) sent: Bytes,
    /// The batch as it will be stored.
    pub(super) batch: Bytes,
    /// The plug-in that decompresses it, if no Kafka codec does.
    pub(super) decoder: Option<NeededDecoder>,
    /// Whether the topic has dead letters, so that appends to a partition run one after the other.
    pub(super) takes_turns: bool,
    pub(super) letters: Option<DeadLetters>,
    pub(super) dead_letter_topic: Option<Str>,
}

impl PendingAppend {
    /// Returns the partition of the batch.
    pub(crate) fn partition(&self) -> Arc<Partition> {
        Arc::clone(&self.partition)
    }

    /// Makes everything durable that must come first, and appends the batch. Continues if the returned future is
    /// dropped: a client that disconnects does not stop the append.
    ///
    /// # Errors
    /// The batch is not appended.
    pub(crate) async fn finish(
        self: Box<Self>,
        edge: &Arc<Edge>,
        changes: &Arc<dyn MetadataChanges>,
    ) -> Result<Stored, ApiError> {
        let (edge, changes) = (Arc::clone(edge), Arc::clone(changes));
        detached(async move { self.append(&edge, &*changes).await }).await
    }

    async fn append(mut self: Box<Self>, edge: &Edge, changes: &dyn MetadataChanges) -> Result<Stored, ApiError> {
        if let Some(decoder) = &self.decoder {
            decoder.note(self.topic.id, changes).await?;
        }
        if let Some(letters) = self.letters.take() {
            return dead_letters::store(edge, changes, &self, letters).await;
        }
        let lock = &self.edge_partition()?.dead_letters;
        let _turn = if self.takes_turns { Some(lock.lock().await) } else { None };
        self.intake().store(&CheckedBatch::of_own(&self.batch)?)
    }

    /// Returns the edge's state of the partition.
    pub(super) fn edge_partition(&self) -> Result<&EdgePartition, ApiError> {
        let partition = self.topic.edge.partition(self.partition.index());
        partition.map(|partition| &**partition).ok_or_else(ApiError::unknown_topic)
    }

    /// Returns the transaction of the request, for dead letters of the batch.
    pub(super) fn transaction(&self) -> Option<BatchTransaction> {
        let of = |id: &Str| BatchTransaction {
            id: id.as_str().to_owned(),
            produce_version: self.version,
            source: (self.partition.topic().to_owned(), self.partition.index()),
            leader_epoch: self.partition.leader_epoch(),
        };
        self.transactional_id.as_ref().map(of)
    }

    /// Returns the response for the batch if it was appended before.
    pub(super) fn check_producer(&self) -> Result<Option<Stored>, ApiError> {
        let sent = CheckedBatch::of_own(&self.sent)?;
        self.partition
            .check_producer(&sent, self.intake().origin())?
            .map(|stored| self.intake().stored(stored))
            .transpose()
    }

    /// Appends the batch if the log ends at `base_offset`.
    pub(super) fn store_at(&self, base_offset: i64) -> Result<Option<Stored>, ApiError> {
        let batch = CheckedBatch::of_own(&self.batch)?;
        let appended = self.partition.append_at(base_offset, &batch, self.now_ms, self.intake().origin())?;
        appended.map(|appended| self.intake().stored(appended.batch())).transpose()
    }

    fn intake(&self) -> Intake<'_> {
        Intake {
            request_bytes_max: self.request_bytes_max,
            version: self.version,
            acks: self.acks,
            topic: &self.topic,
            partition: &self.partition,
            now_ms: self.now_ms,
            transactional_id: self.transactional_id.as_ref(),
            verification: self.verification,
        }
    }
}
