//! The worker of one topic. It takes finished chunks, runs the serializer and partitioner stages on them, and appends
//! the rows to the batches of their partitions. With one worker per topic the order of sending is kept, and a slow
//! stage of one topic does not delay another topic.

use std::sync::Arc;
use std::time::Instant;

use millstream_record::BatchBuilder;

use super::Inner;
use super::accumulator::{Chunk, ChunkRow, PartitionQueue, TopicAccumulator, batch_size_of};
use super::partitioner::DefaultPartitioner;
use crate::edge::{self, Staged};
use crate::error::Error;
use crate::net::Partition;

/// Runs until the producer is closed and every record has its result.
pub(crate) async fn run(inner: Arc<Inner>, topic: Arc<TopicAccumulator>) {
    let mut partitioner = DefaultPartitioner::new(inner.config.batch_size);
    while let Some(chunk) = next_chunk(&inner, &topic).await {
        process(&inner, &topic, chunk, &mut partitioner).await;
    }
}

async fn next_chunk(inner: &Inner, topic: &TopicAccumulator) -> Option<Chunk> {
    loop {
        let next = topic.chunks.lock().next(Instant::now(), inner.config.linger, inner.in_hurry());
        match next {
            Ok(chunk) => return Some(chunk),
            Err(Some(due)) => {
                // A full chunk or a flush wakes it early.
                let _ = tokio::time::timeout_at(due.into(), topic.arrived.notified()).await;
            }
            Err(None) if inner.finished() => return None,
            Err(None) => topic.arrived.notified().await,
        }
    }
}

async fn process(
    inner: &Arc<Inner>,
    topic: &Arc<TopicAccumulator>,
    chunk: Chunk,
    partitioner: &mut DefaultPartitioner,
) {
    let metadata = inner.cluster.metadata();
    let known = metadata.topic(&topic.name).map_or(&[][..], |topic| &topic.partitions);
    let partitions = partition_count(topic, known);
    if partitions == 0 {
        let error = Error::broker(
            format!("topic {}", topic.name),
            millstream_wire::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            None,
        );
        return inner.fail_rows(&chunk.results, chunk.rows.into_iter().map(|row| (row, error.clone())));
    }
    let stages = inner.stages.current();
    let staged = match stages.see_rows() {
        false => Staged::plain(chunk),
        true => {
            let (name, load) = (topic.name.clone(), load(topic, known));
            edge::run(move || edge::stage_chunk(&stages, &name, partitions as u32, &load, chunk)).await
        }
    };
    let rejected = fill_batches(inner, topic, &staged, partitioner, known);
    inner.fail_rows(&staged.chunk.results, staged.rejected.into_iter().chain(rejected));
    inner.dispatch(topic);
    if inner.transactions.as_ref().is_some_and(|transactions| transactions.doom().is_some()) {
        // The maintenance task fails the rows.
        inner.attention.notify_one();
    }
}

/// Returns the number of partitions. It never falls, because waiting records must keep their partition.
fn partition_count(topic: &TopicAccumulator, known: &[Partition]) -> usize {
    let mut partitions = topic.partitions.lock();
    while partitions.len() < known.len() {
        partitions.push(PartitionQueue::new());
    }
    partitions.len()
}

/// Returns the `load` of the partitioner contract: the waiting bytes of each partition.
fn load(topic: &TopicAccumulator, known: &[Partition]) -> Vec<u64> {
    let load = |(index, queue): (usize, &PartitionQueue)| match has_leader(known, index) {
        true => queue.waiting_bytes(),
        false => u64::MAX,
    };
    topic.partitions.lock().iter().enumerate().map(load).collect()
}

fn has_leader(known: &[Partition], partition: usize) -> bool {
    known.get(partition).is_some_and(|partition| partition.leader.is_some())
}

/// Appends the rows to the batches of their partitions. Returns the rows that are too large.
fn fill_batches(
    inner: &Inner,
    topic: &TopicAccumulator,
    staged: &Staged,
    partitioner: &mut DefaultPartitioner,
    known: &[Partition],
) -> Vec<(ChunkRow, Error)> {
    let records = staged.records();
    let mut rejected = Vec::new();
    let mut partitions = topic.partitions.lock();
    let count = partitions.len() as u32;
    for (index, row) in staged.chunk.rows.iter().enumerate() {
        let key = records.keys.and_then(|column| column.get(index));
        let value = records.values.and_then(|column| column.get(index));
        let headers = edge::row_headers(records.headers, index);
        let size = BatchBuilder::record_size_max(key, value, headers.clone());
        let max = inner.config.max_request_size;
        if batch_size_of(size) > max {
            rejected.push((*row, Error::RecordTooLarge { size, key: "max.request.size", max }));
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
        if let Err(error) = batch.append(&staged.chunk.results, *row, timestamp, key, value, headers) {
            rejected.push((*row, error));
        }
    }
    rejected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_a_leader_has_the_highest_load() {
        let led = |leader| Partition { leader, leader_epoch: 0, replicas: vec![1, 2], in_sync: vec![1, 2] };
        let known = [led(Some(1)), led(None), led(Some(2))];
        let topic = TopicAccumulator::new("orders".into());
        assert_eq!(partition_count(&topic, &known), 3);
        assert_eq!(load(&topic, &known), [0, u64::MAX, 0]);
        // Waiting records keep their partition when the metadata has fewer.
        assert_eq!(partition_count(&topic, &known[..1]), 3);
        assert_eq!(load(&topic, &known[..1]), [0, u64::MAX, u64::MAX]);
    }
}
