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
use crate::net::Partition;

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
    let metadata = inner.cluster.metadata();
    let known = metadata.topic(&topic.name).map_or(&[][..], |topic| &topic.partitions);
    let partitions = partition_count(topic, known);
    if partitions == 0 {
        let error = Error::broker(
            format!("topic {}", topic.name),
            millstream_wire::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            None,
        );
        return inner.fail_rows(&chunk.receipt, chunk.rows.into_iter().map(|row| (row, error.clone())));
    }
    let stages = inner.stages.now();
    let staged = match stages.see_rows() {
        false => Staged::plain(chunk),
        true => {
            let (name, load) = (topic.name.clone(), load(topic, known));
            edge::run(move || edge::stage_chunk(&stages, &name, partitions as u32, &load, chunk)).await
        }
    };
    let refused = fill_batches(inner, topic, &staged, partitioner, known);
    inner.fail_rows(&staged.chunk.receipt, staged.refused.into_iter().chain(refused));
    inner.dispatch(topic);
}

/// As many as the cluster has, and never fewer than there were: what waits must stay in its place.
fn partition_count(topic: &TopicQueue, known: &[Partition]) -> usize {
    let mut partitions = topic.partitions.lock();
    while partitions.len() < known.len() {
        partitions.push(PartitionQueue::new());
    }
    partitions.len()
}

/// What the contract says of `load`.
fn load(topic: &TopicQueue, known: &[Partition]) -> Vec<u64> {
    let load = |(index, queue): (usize, &PartitionQueue)| match has_leader(known, index) {
        true => queue.waiting_bytes(),
        false => u64::MAX,
    };
    topic.partitions.lock().iter().enumerate().map(load).collect()
}

fn has_leader(known: &[Partition], partition: usize) -> bool {
    known.get(partition).is_some_and(|partition| partition.leader.is_some())
}

/// Appends the rows to their partitions' batches; those that fit nowhere are the answer.
fn fill_batches(
    inner: &Inner,
    topic: &TopicQueue,
    staged: &Staged,
    partitioner: &mut DefaultPartitioner,
    known: &[Partition],
) -> Vec<(ChunkRow, Error)> {
    let records = staged.records();
    let mut refused = Vec::new();
    let mut partitions = topic.partitions.lock();
    let count = partitions.len() as u32;
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
            (_, None) => {
                partitioner.partition(key, size, count, |partition| has_leader(known, partition as usize)) as usize
            }
        };
        let batch = partitions[partition].open(size, &inner.batch_settings, staged.chunk.created);
        let timestamp = records.timestamps[index];
        if let Err(error) = batch.append(&staged.chunk.receipt, *row, timestamp, key, value, headers) {
            refused.push((*row, error));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_of_partitions_without_a_leader() {
        let led = |leader| Partition { leader, leader_epoch: 0, replicas: vec![1, 2], in_sync: vec![1, 2] };
        let known = [led(Some(1)), led(None), led(Some(2))];
        let topic = TopicQueue::new("orders".into());
        assert_eq!(partition_count(&topic, &known), 3);
        assert_eq!(load(&topic, &known), [0, u64::MAX, 0]);
        // What waits stays in its place while the cluster says less.
        assert_eq!(partition_count(&topic, &known[..1]), 3);
        assert_eq!(load(&topic, &known[..1]), [0, u64::MAX, u64::MAX]);
    }
}
