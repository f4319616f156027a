//! The broker as its transaction coordinator knows it.

use std::sync::{Arc, OnceLock};

use millstream_coordinator::transaction::{
    HostFuture, MarkerResult, Markers, TopicPartition, TransactionHost, TransactionVersion,
};
use millstream_metadata::MetadataStore;

use super::sender::MarkerSender;

/// Asks the controller for a producer id.
pub(crate) type NewProducerId = Box<dyn Fn() -> HostFuture<Option<i64>> + Send + Sync>;

/// What the coordinator needs. It is set once the controller exists, which itself needs the coordinator.
#[derive(Default)]
pub(crate) struct Host {
    parts: OnceLock<(NewProducerId, Arc<MarkerSender>)>,
}

impl Host {
    /// Sets the parts, before the coordinator starts.
    pub(crate) fn set(&self, new_producer_id: NewProducerId, markers: Arc<MarkerSender>) {
        let _ = self.parts.set((new_producer_id, markers));
    }
}

/// A host that the broker and its coordinator share, with the metadata that has the levels of features.
pub(crate) struct SharedHost(pub(crate) Arc<Host>, pub(crate) Arc<MetadataStore>);

impl TransactionHost for SharedHost {
    fn version(&self) -> TransactionVersion {
        TransactionVersion::of_level(self.1.image().transaction_version())
    }

    fn new_producer_id(&self) -> HostFuture<Option<i64>> {
        match self.0.parts.get() {
            Some((new_producer_id, _)) => new_producer_id(),
            None => Box::pin(std::future::ready(None)),
        }
    }

    fn write_markers(&self, markers: Markers) -> HostFuture<Vec<(TopicPartition, MarkerResult)>> {
        let sender = self.0.parts.get().map(|(_, sender)| Arc::clone(sender));
        Box::pin(async move {
            match sender {
                Some(sender) => sender.send(markers).await,
                None => markers.partitions.into_iter().map(|one| (one, MarkerResult::Retry)).collect(),
            }
        })
    }
}
