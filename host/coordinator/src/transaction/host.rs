//! What the coordinator needs of its broker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::model::{Outcome, Producer, TopicPartition, TransactionVersion};

/// A future behind a trait object.
pub type HostFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The broker of a coordinator.
pub trait TransactionHost: Send + Sync + 'static {
    /// Returns the protocol of the transactions that the coordinator ends by itself, and of its records: the level of
    /// `transaction.version` that the cluster has now.
    fn version(&self) -> TransactionVersion;

    /// Returns a producer id that was never used; `None` if none can be had now.
    fn new_producer_id(&self) -> HostFuture<Option<i64>>;

    /// Writes the markers of a transaction at the leaders of its partitions, each once. Returns when they are
    /// committed, or when it is known that some of them are not.
    fn write_markers(&self, markers: Markers) -> HostFuture<Vec<(TopicPartition, MarkerResult)>>;
}

/// The markers that end a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// The transaction's id, for the log of the broker.
    pub transactional_id: Arc<str>,
    /// The producer whose transaction ends.
    pub producer: Producer,
    /// How it ends.
    pub outcome: Outcome,
    /// The leader epoch of the partition of `__transaction_state`.
    pub coordinator_epoch: i32,
    /// The protocol by which the transaction ends.
    pub version: TransactionVersion,
    /// Where the markers are missing.
    pub partitions: Vec<TopicPartition>,
}

/// What became of one marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerResult {
    /// It is committed, or it is not needed any more: the topic was deleted, or the partition has seen a later epoch of
    /// the producer.
    Written,
    /// It has to be sent again, perhaps to another leader.
    Retry,
    /// The partition knows a newer coordinator, so this one has no say.
    CoordinatorFenced,
}
