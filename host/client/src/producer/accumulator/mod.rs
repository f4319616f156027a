//! The record accumulator: records that wait to be sent.
//!
//! A record first joins a [`Chunk`] of its topic, the unit that stages are called with. The topic's
//! [`worker`](super::worker) moves the rows of a finished chunk into a [`Batch`] for each partition, the
//! unit that is sent.

mod batches;
mod chunk;

use std::sync::Arc;

use millstream_wire::Str;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use batches::{Batch, BatchSettings, PartitionQueue, SendRules, batch_size_of};
pub(crate) use chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk, ChunkRow, Chunks};

/// The records of one topic that wait to be sent.
pub(crate) struct TopicAccumulator {
    pub(crate) name: Arc<str>,
    pub(crate) wire_name: Str,
    pub(crate) chunks: Mutex<Chunks>,
    /// Wakes the topic's worker.
    pub(crate) arrived: Notify,
    pub(crate) partitions: Mutex<Vec<PartitionQueue>>,
}

impl TopicAccumulator {
    pub(crate) fn new(name: Arc<str>) -> Self {
        let wire_name = Str::from(&*name);
        Self { name, wire_name, chunks: Mutex::default(), arrived: Notify::new(), partitions: Mutex::default() }
    }
}
