//! The worker of one topic: takes chunks from the intake, has the stages serialise and partition
//! them, and puts the rows into their partitions' batches. One worker a topic keeps the order of
//! sending, and a slow stage of one topic holds up no other.

use std::sync::Arc;
use std::time::Instant;

use millstream_record::BatchBuilder;

use super::Inner;
use super::intake::{Chunk, ChunkRow};
use super::partitioner::DefaultPartitioner;
use super::queue::{PartitionQueue, TopicQueue, batch_size_of};
use crate::edge::{self, Staged};
use crate::error::Error;

/// Runs until the producer is closed and has nothing left.
pub(crate) async fn run(inner: Arc<Inner>, topic: Arc<TopicQueue>) {
    let mut partitioner = DefaultPartitioner::new(inner.config.batch_size);
    while let Some(chunk) = next_chunk(&inner, &topic).await {
        process(&inner, &topic, chunk, &mut partitioner).await;
    }
}

async fn next_chunk(inner: &Inner, topic: &TopicQueue) -> Option<Chunk> {
    loop {
        let next = topic.intake.lock().next(Instant::now(), inner.config.linger, inner.in_hurry());
        match next {
            Ok(chunk) => return Some(chunk),
            Err(Some(due)) => {
                // Woken early by a full chunk or a flush.
                let _ = tokio::time::timeout_at(due.into(), topic.arrived.notified()).await;
            }
            Err(None) if inner.finished() => return None,
            Err(None) => topic.arrived.notified().await,
        }
    }
}

async fn process(inner: &Arc<Inner>, topic: &Arc<TopicQueue>, chunk: Chunk, partitioner: &mut DefaultPartitioner) {
    let partitions = partition_count(inner, topic);
    if partitions == 0 {
        let error = Error::broker(
            format!("topic {}", topic.name),
            millstream_wire::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            None,
        );
        return inner.fail_rows(&chunk.receipt, chunk.rows.into_iter().map(|row| (row, error.clone())));
    }
    let staged = match inner.stages.see_rows() {
        false => Staged::plain(chunk),
        true => {
            let (stages, name) = (inner.stages.clone(), topic.name.clone());
            let load = load(topic);
            edge::run(move || edge::stage_chunk(&stages, &name, partitions as u32, &load, chunk)).await
        }
    };
    let refused = fill_batches(inner, topic, &staged, partitioner, partitions);
    inner.fail_rows(&staged.chunk.receipt, staged.refused.into_iter().chain(refused));
    inner.dispatch(topic);
}

/// As many as the cluster has, and never fewer than there were: what waits must stay in its place.
fn partition_count(inner: &Inner, topic: &TopicQueue) -> usize {
    let known = inner.cluster.metadata().topic(&topic.name).map_or(0, |topic| topic.partitions.len());
    let mut partitions = topic.partitions.lock();
    while partitions.len() < known {
        partitions.push(PartitionQueue::new());
    }
    partitions.len()
}

fn load(topic: &TopicQueue) -> Vec<u64> {
    topic.partitions.lock().iter().map(PartitionQueue::waiting_bytes).collect()
}

/// Appends the rows to their partitions' batches; those that fit nowhere are the answer.
fn fill_batches(
    inner: &Inner,
    topic: &TopicQueue,
    staged: &Staged,
    partitioner: &mut DefaultPartitioner,
    count: usize,
) -> Vec<(ChunkRow, Error)> {
    let records = staged.records();
    let mut refused = Vec::new();
    let mut partitions = topic.partitions.lock();
    for (index, row) in staged.chunk.rows.iter().enumerate() {
        let key = records.keys.and_then(|column| column.get(index));
        let value = records.values.and_then(|column| column.get(index));
        let headers = edge::row_headers(records.headers, index);
        let size = BatchBuilder::record_size_max(key, value, headers.clone());
        let max = inner.config.max_request_size;
        if batch_size_of(size) > max {
            refused.push((*row, Error::RecordTooLarge { size, key: "max.request.size", max }));
            continue;
        }
        let partition = match (row.partition, &staged.partitions) {
            (chosen @ 0.., _) => chosen as usize,
            (_, Some(chosen)) => chosen[index] as usize,
            (_, None) => partitioner.partition(key, size, count as u32) as usize,
        };
        let batch = partitions[partition].open(size, &inner.batch_settings, staged.chunk.created);
        let timestamp = records.timestamps[index];
        if let Err(error) = batch.append(&staged.chunk.receipt, *row, timestamp, key, value, headers) {
            refused.push((*row, error));
        }
    }
    refused
}
