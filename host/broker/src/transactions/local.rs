//! The partitions of this broker, as the sender of markers knows them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_coordinator::group::GroupCoordinator;
use millstream_coordinator::transaction::HostFuture;
use millstream_log::TransactionEnd;
use millstream_wire::{ErrorCode, Str};

use super::markers::write_markers;
use super::sender::LocalMarkers;
use crate::edge::ServedTopics;

/// The partitions of this broker, and the group coordinator, which follows the markers of `__consumer_offsets`.
pub(crate) struct LocalPartitions {
    topics: Arc<ArcSwap<ServedTopics>>,
    groups: Arc<GroupCoordinator>,
}

impl LocalPartitions {
    pub(crate) fn new(topics: Arc<ArcSwap<ServedTopics>>, groups: Arc<GroupCoordinator>) -> Self {
        Self { topics, groups }
    }
}

impl LocalMarkers for LocalPartitions {
    fn write(&self, end: TransactionEnd, partitions: Vec<(Str, i32)>) -> HostFuture<Vec<ErrorCode>> {
        let (topics, groups) = (Arc::clone(&self.topics), Arc::clone(&self.groups));
        Box::pin(async move {
            let written = write_markers(&topics, &groups, &end, &partitions).await;
            written.into_iter().map(|written| written.map_or_else(|error| error.code, |()| ErrorCode::NONE)).collect()
        })
    }
}
