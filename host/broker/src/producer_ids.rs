//! Ids for idempotent producers. They are unique over all restarts, and allocated in blocks so that few of them cost a
//! write.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;
use millstream_metadata::MetadataRecord;
use millstream_metadata::controller::{PRODUCER_ID_BLOCK, Request};

/// The current block of ids.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    left: Mutex<Range<i64>>,
    /// Held while the next block is allocated, so that concurrent requests share one.
    allocating: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        self.left.lock().next()
    }
}

/// Returns a new producer id.
pub(crate) async fn next(broker: &Arc<Broker>) -> Result<i64, ApiError> {
    let ids = &broker.producer_ids;
    loop {
        if let Some(id) = ids.take() {
            return Ok(id);
        }
        let _allocating = ids.allocating.lock().await;
        if let Some(id) = ids.take() {
            // Another request has allocated a block meanwhile.
            return Ok(id);
        }
        let records = controller::submit_one(broker, Request::AllocateProducerIds, false).await?;
        for record in records {
            if let MetadataRecord::ProducerIdsAllocated { next } = record {
                *ids.left.lock() = next - PRODUCER_ID_BLOCK..next;
            }
        }
    }
}
