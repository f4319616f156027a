//! Blocks of producer ids.

use crate::{MetadataImage, MetadataRecord};

/// The number of ids in one block, as in Kafka.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Takes the next block: the ids below `next` that no block had before.
pub(crate) fn allocate(image: &MetadataImage) -> Vec<MetadataRecord> {
    vec![MetadataRecord::ProducerIdsAllocated { next: image.next_producer_id + PRODUCER_ID_BLOCK }]
}
