//! Internal topics on this broker: the partitions that the topic table has under a name.

use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_partition::{InternalAppend, InternalTopic, Partition, PartitionError, Verification, VerificationGuard};
use millstream_record::BatchView;

use crate::cluster::Cluster;
use crate::topics::TopicTable;

/// An internal topic by its name. It may be created, deleted and created again.
pub(crate) struct NamedTopic<E> {
    topics: Arc<ArcSwap<TopicTable<E>>>,
    name: &'static str,
    /// `None` for a broker that is alone.
    cluster: Option<Arc<Cluster>>,
}

impl<E> NamedTopic<E> {
    pub(crate) fn new(
        topics: &Arc<ArcSwap<TopicTable<E>>>,
        name: &'static str,
        cluster: Option<&Arc<Cluster>>,
    ) -> Self {
        Self { topics: Arc::clone(topics), name, cluster: cluster.cloned() }
    }

    fn partition(&self, index: i32) -> Result<Arc<Partition>, PartitionError> {
        self.topics.load().partition(self.name, index).cloned().ok_or(PartitionError::NotHosted)
    }
}

impl<E: Send + Sync + 'static> InternalTopic for NamedTopic<E> {
    fn partitions(&self) -> i32 {
        let topics = self.topics.load();
        topics.by_name(self.name).map_or(0, |topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
    }

    fn led_epoch(&self, partition: i32) -> Option<i32> {
        self.partition(partition).ok()?.led_epoch()
    }

    fn may_have_moved(&self, partition: i32) -> bool {
        let has_expired = self.cluster.as_ref().is_some_and(|cluster| cluster.session.has_expired());
        has_expired && self.partition(partition).is_ok_and(|partition| partition.has_followers())
    }

    fn is_empty(&self, partition: i32) -> bool {
        let partition = self.partition(partition);
        partition
            .is_ok_and(|partition| partition.reader().is_ok_and(|log| log.log_start_offset() == log.log_end_offset()))
    }

    fn begin_verification(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
    ) -> Result<Option<VerificationGuard>, PartitionError> {
        let partition = self.partition(partition)?;
        match partition.leader_epoch() {
            current if current != leader_epoch => {
                Err(PartitionError::LeaderEpochChanged { appended: leader_epoch, current })
            }
            _ => partition.begin_internal_verification(batch),
        }
    }

    fn append_in_transaction(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
        verification: Verification,
    ) -> Result<InternalAppend, PartitionError> {
        self.partition(partition)?.append_internal(leader_epoch, batch, verification)
    }

    fn replay(
        &self,
        partition: i32,
        visit: &mut dyn FnMut(&BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), PartitionError> {
        self.partition(partition)?.replay(visit)
    }
}
