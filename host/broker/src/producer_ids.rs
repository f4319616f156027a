//! Ids for idempotent producers: unique over all restarts, given away in blocks so that few of them cost a write.

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;
use crate::metadata::MetadataRecord;

/// Ids of one block, as in Kafka.
const BLOCK: i64 = 1000;

/// The rest of the current block.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    left: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        self.left.lock().next()
    }
}

/// A new producer id.
pub(crate) async fn next(broker: &std::sync::Arc<Broker>) -> Result<i64, ApiError> {
    loop {
        if let Some(id) = broker.producer_ids.take() {
            return Ok(id);
        }
        let changing = controller::changing(broker).await;
        if let Some(id) = broker.producer_ids.take() {
            // Another request has fetched a block meanwhile.
            return Ok(id);
        }
        let start = broker.metadata.image().next_producer_id;
        let record = MetadataRecord::ProducerIdsAllocated { next: start + BLOCK };
        let allocated = controller::carry_out(broker, changing, move |broker| {
            broker.metadata.commit(&[record])?;
            *broker.producer_ids.left.lock() = start..start + BLOCK;
            Ok(())
        });
        allocated.await?;
    }
}
