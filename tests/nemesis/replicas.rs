//! Compares the replicas of a topic, by the files of their logs.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_record::BatchHeader;
use millstream_tests::Cluster;
use tokio::time::sleep;

use crate::checker::{Broken, Promise};

/// The time for all replicas to have the same end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A batch in the log of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    base_offset: i64,
    next_offset: i64,
    leader_epoch: i32,
    /// Of all its bytes, the leader epoch included.
    hash: u64,
}

/// The batches of a replica, in the order of its log.
type Replica = Vec<Batch>;

/// Compares the logs of all nodes, batch by batch. Returns the differences.
///
/// Nothing is produced any more. A replica may still lack the last batches, so the logs are read again until they have
/// the same end.
pub(crate) async fn compare_replicas(cluster: &Cluster, topic: &str) -> Vec<Broken> {
    let begun = Instant::now();
    loop {
        let replicas = read(cluster, topic);
        assert!(!replicas.is_empty(), "no node has a log of {topic}");
        let (mut differences, mut lagging) = (Vec::new(), Vec::new());
        for (partition, of_nodes) in &replicas {
            differences.extend(different_content(partition, of_nodes));
            lagging.extend(different_ends(partition, of_nodes));
        }
        if lagging.is_empty() || !differences.is_empty() || begun.elapsed() > PATIENCE {
            differences.extend(lagging);
            return differences;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads the logs of a topic, by the name of the partition's folder and the id of the node.
fn read(cluster: &Cluster, topic: &str) -> BTreeMap<String, Vec<(i32, Replica)>> {
    let mut replicas: BTreeMap<String, Vec<(i32, Replica)>> = BTreeMap::new();
    for id in (1..).take(cluster.len()) {
        for folder in fs::read_dir(cluster.folder(id)).expect("a data folder").map(|entry| entry.expect("an entry")) {
            let name = folder.file_name().into_string().expect("text");
            let index = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
            // A log that was set aside has another name.
            if index.is_some_and(|index| index.parse::<u32>().is_ok()) {
                replicas.entry(name).or_default().push((id, read_log(&folder.path())));
            }
        }
    }
    replicas
}

/// Returns the content of each segment of a partition. One that compaction removes at this moment is left out.
pub(crate) fn logs(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder of a partition").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    segments.sort();
    segments.iter().filter_map(|segment| fs::read(segment).ok()).collect()
}

fn read_log(folder: &Path) -> Replica {
    let mut batches = Replica::new();
    for bytes in logs(folder) {
        let mut rest = &bytes[..];
        // The last batch may be half written at this moment.
        while let Some(header) = BatchHeader::parse(rest).ok().filter(|header| header.size() <= rest.len()) {
            let mut hasher = DefaultHasher::new();
            rest[..header.size()].hash(&mut hasher);
            batches.push(Batch {
                base_offset: header.base_offset(),
                next_offset: header.next_offset(),
                leader_epoch: header.leader_epoch(),
                hash: hasher.finish(),
            });
            rest = &rest[header.size()..];
        }
    }
    batches
}

/// Returns where two logs first differ, for the first replica and each other one.
fn different_content(partition: &str, replicas: &[(i32, Replica)]) -> Vec<Broken> {
    let Some(((first_id, first), others)) = replicas.split_first() else { return Vec::new() };
    let differs = |(id, other): &(i32, Replica)| {
        let (one, other) = first.iter().zip(other).find(|(one, other)| one != other)?;
        let what = format!("{partition} differs: node {first_id} has {one:?}, and node {id} has {other:?}");
        Some(Broken::new(Promise::SameContent, what))
    };
    others.iter().filter_map(differs).collect()
}

fn different_ends(partition: &str, replicas: &[(i32, Replica)]) -> Option<Broken> {
    let end = |(id, log): &(i32, Replica)| (*id, log.last().map_or(0, |batch| batch.next_offset));
    let ends: Vec<(i32, i64)> = replicas.iter().map(end).collect();
    let is_same = ends.iter().all(|(_, end)| *end == ends[0].1);
    let what = || format!("{partition} ends differently on (node, end) {ends:?}");
    (!is_same).then(|| Broken::new(Promise::SameContent, what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_differ_are_found() {
        let batch =
            |offset: i64, leader_epoch| Batch { base_offset: offset, next_offset: offset + 1, leader_epoch, hash: 7 };
        let long = vec![batch(0, 1), batch(1, 1), batch(2, 3)];
        let same = [(1, long.clone()), (2, long.clone())];
        assert!(different_content("t-0", &same).is_empty() && different_ends("t-0", &same).is_none());
        let lags = [(1, long.clone()), (2, long[..2].to_vec())];
        assert!(different_content("t-0", &lags).is_empty() && different_ends("t-0", &lags).is_some());
        let other = [(1, long.clone()), (2, long), (3, vec![batch(0, 1), batch(1, 2), batch(2, 3)])];
        assert_eq!(different_content("t-0", &other).len(), 1);
    }
}
