//! A consumer of committed records over raw requests.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_record::{BatchView, EndMarker, batches};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use tokio::time::{Instant, sleep};

use super::connection::{Key, Nodes};
use crate::faults::PATIENCE;

/// The pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// Which records a request sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    Uncommitted = 0,
    Committed = 1,
}

/// Reads committed records of one partition from an offset on, those of one fetch. Returns each with its offset, and
/// where to go on; `None` if the leader does not respond with records.
pub(super) async fn fetch(
    nodes: &mut Nodes,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Option<(Vec<(i64, String)>, i64)> {
    let (leader, _) = nodes.leader(topic, partition).await?;
    let wanted = FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        isolation_level: Isolation::Committed as i8,
        topics: vec![FetchTopic { topic: topic.into(), partitions: vec![wanted], ..Default::default() }],
        ..Default::default()
    };
    let response = nodes.call(&leader, 11, &request).await?;
    let data = response.responses.into_iter().next()?.partitions.into_iter().next()?;
    if !data.error_code.is_ok() {
        return None;
    }
    let mut aborted = data.aborted_transactions.unwrap_or_default();
    aborted.sort_unstable_by_key(|aborted| aborted.first_offset);
    let (mut later, mut open) = (aborted.into_iter().peekable(), BTreeSet::new());
    let (mut records, mut next) = (Vec::new(), offset);
    for batch in batches(&data.records.as_bytes().cloned().unwrap_or_default()) {
        // The last one may be cut.
        let Ok(batch) = batch else { break };
        let batch: BatchView<'_> = batch;
        while let Some(begun) = later.next_if(|aborted| aborted.first_offset <= batch.base_offset()) {
            open.insert(begun.producer_id);
        }
        next = batch.next_offset();
        if batch.is_control() {
            if EndMarker::of(&batch).is_some_and(|marker| !marker.is_commit) {
                open.remove(&batch.producer_id());
            }
        } else if !(batch.is_transactional() && open.contains(&batch.producer_id())) {
            for record in batch.records(1 << 24).expect("records").iter() {
                let record = record.expect("a record");
                if record.offset >= offset {
                    let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
                    records.push((record.offset, value));
                }
            }
        }
    }
    Some((records, next))
}

/// Returns the end of a partition, as readers see it.
pub(super) async fn end(nodes: &mut Nodes, topic: &str, partition: i32, isolation: Isolation) -> Option<i64> {
    let (leader, _) = nodes.leader(topic, partition).await?;
    let wanted = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp: -1 };
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation as i8,
        topics: vec![ListOffsetsTopic { name: topic.into(), partitions: vec![wanted] }],
        ..Default::default()
    };
    let mut response = nodes.call(&leader, 7, &request).await?;
    let found = response.topics.pop()?.partitions.pop()?;
    found.error_code.is_ok().then_some(found.offset)
}

/// Returns the committed offset of a group, once no open transaction may change it; 0 if there is none.
pub(super) async fn committed(nodes: &mut Nodes, group: &str, topic: &str, partition: i32) -> i64 {
    let begun = Instant::now();
    let topics =
        vec![OffsetFetchRequestTopics { name: topic.into(), partition_indexes: vec![partition], ..Default::default() }];
    let groups = vec![OffsetFetchRequestGroup { group_id: group.into(), topics: Some(topics), ..Default::default() }];
    let request = OffsetFetchRequest { groups, require_stable: true, ..Default::default() };
    loop {
        if let Some(address) = nodes.coordinator(group, Key::Group).await
            && let Some(mut response) = nodes.call(&address, 8, &request).await
            && let Some(group) = response.groups.pop()
            && group.error_code.is_ok()
            && let Some(found) = group.topics.first().and_then(|topic| topic.partitions.first())
            && found.error_code == ErrorCode::NONE
        {
            return found.committed_offset.max(0);
        }
        assert!(begun.elapsed() < PATIENCE, "the offset of {group} stays unstable");
        sleep(PAUSE).await;
    }
}

/// Reads all committed records of a partition, up to its end.
pub(super) async fn read_all(nodes: &mut Nodes, topic: &str, partition: i32) -> Vec<(i64, String)> {
    let begun = Instant::now();
    let (mut all, mut offset, mut last) = (Vec::new(), 0, None);
    while last.is_none_or(|last| offset < last) {
        if last.is_none() {
            last = end(nodes, topic, partition, Isolation::Committed).await;
        }
        if let Some((records, next)) = fetch(nodes, topic, partition, offset).await {
            all.extend(records);
            offset = next;
        }
        assert!(begun.elapsed() < PATIENCE, "{topic}-{partition} is not read to its end {last:?}: {offset}");
    }
    all
}
