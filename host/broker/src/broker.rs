//! The state that all connections share.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use millstream_log::AppendedBatch;
use millstream_record::CheckedBatch;
use millstream_wire::{ErrorCode, Str};

use crate::clock::now_ms;
use crate::compute_permits::ComputePermits;
use crate::config::{BrokerConfig, FlushMode, HostPort};
use crate::controller::Controller;
use crate::edge::Decoders;
use crate::edge::plugins::Plugins;
use crate::error::ApiError;
use crate::fsync_queue::Syncer;
use crate::group::GroupCoordinator;
use crate::metrics::requests::RequestMetrics;
use crate::net::request_memory::RequestMemory;
use crate::net::types::ConnectionInfo;
use crate::partition::Partition;
use crate::producer_ids::ProducerIds;
use crate::topics::TopicTable;
use millstream_metadata::MetadataStore;

/// Everything that a handler can reach.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) data_dir: PathBuf,
    pub(crate) metadata: MetadataStore,
    pub(crate) controller: Controller,
    pub(crate) topics: ArcSwap<TopicTable>,
    pub(crate) syncer: Syncer,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) plugins: Plugins,
    pub(crate) decoders: Decoders,
    pub(crate) request_memory: RequestMemory,
    pub(crate) request_metrics: Arc<RequestMetrics>,
    /// The turns of work that decompresses or recodes records for topics without stages.
    pub(crate) compute: ComputePermits,
    /// For each listener what its clients are told to connect to; `None` is the address that they came to.
    pub(crate) advertised: Vec<Option<HostPort>>,
}

impl Broker {
    /// A partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }

    /// The address that a client of this connection reaches the broker at.
    pub(crate) fn advertised(&self, connection: &ConnectionInfo) -> (Str, i32) {
        match self.advertised.get(connection.listener).and_then(Option::as_ref) {
            Some(address) => (Str::from(&address.host), i32::from(address.port)),
            None => (Str::from(connection.local.ip().to_string()), i32::from(connection.local.port())),
        }
    }

    /// Appends a batch that the broker itself has built (a group's offsets, say), without waiting for stable storage: that
    /// is [`Broker::promise_acks_all`], up to the offset after the last one. The batch has base offset 0; the log assigns
    /// the real one.
    pub(crate) fn append_now(
        &self,
        topic: &str,
        index: i32,
        batch: &Bytes,
    ) -> Result<(Arc<Partition>, AppendedBatch), ApiError> {
        let table = self.topics.load();
        let topic = table.by_name(topic).ok_or_else(ApiError::unknown_topic)?;
        topic.check_takes_records()?;
        let partition = Arc::clone(topic.partition(index).ok_or_else(ApiError::unknown_topic)?);
        let appended = partition.append(&CheckedBatch::of_own(batch)?, now_ms())?;
        Ok((partition, appended.batch()))
    }

    /// Waits until a partition is below `end` as safe as acks=all promises.
    pub(crate) async fn promise_acks_all(&self, partition: &Arc<Partition>, end: i64) -> Result<(), ApiError> {
        match self.config.flush_mode {
            FlushMode::Fsync => self.durable(partition, end).await,
            FlushMode::PageCache => Ok(()),
        }
    }

    /// Reads whole batches of a partition from `offset` on, at least one and about `max_bytes`, into memory. Empty at the
    /// end of the log. Blocks for the disk: call it where that is allowed.
    pub(crate) fn read_internal(
        &self,
        topic: &str,
        index: i32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Bytes, ApiError> {
        let read = self.partition(topic, index)?.read(offset, max_bytes, true)?;
        let Some(slice) = read.slice else { return Ok(Bytes::new()) };
        slice.read_to_bytes().map_err(|error| ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string()))
    }

    /// Waits until a partition is on stable storage below `end`.
    pub(crate) async fn durable(&self, partition: &Arc<Partition>, end: i64) -> Result<(), ApiError> {
        let stopped = || ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker stops");
        self.syncer.wait(partition, end).await.map_err(|_| stopped())?
    }
}
