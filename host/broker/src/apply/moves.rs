//! The end of a move of a replica to another data folder.

use std::sync::Arc;
use std::time::Duration;

use millstream_metadata::{MetadataImage, TopicImage};
use millstream_partition::{FutureLog, MoveError, Partition, PartitionSpec, TakenOver};
use uuid::Uuid;

use super::{Node, topics};
use crate::edge::view::link;
use crate::edge::{ServedTopics, plugins};
use crate::log_dirs::LogDir;
use crate::partition_dirs;

/// A copy that has taken the place of a log, and the partition to make of it.
pub(crate) struct Moved {
    taken: TakenOver,
    topic: Arc<TopicImage>,
    index: usize,
    spec: PartitionSpec,
}

/// Lets a copy of a replica in another data folder take its place. The caller holds the lock of changes. Blocks for the
/// disk.
///
/// # Errors
/// The replica stays where it is.
pub(crate) fn take_over(
    node: &Node,
    image: &MetadataImage,
    topic: Uuid,
    partition: &Arc<Partition>,
    dir: &LogDir,
    future: &mut FutureLog,
) -> Result<Moved, MoveError> {
    let stored = image.topic_by_id(topic).cloned().ok_or(MoveError::Outdated)?;
    let index = usize::try_from(partition.index()).map_err(|_| MoveError::Outdated)?;
    if index >= stored.partitions.len() {
        return Err(MoveError::Outdated);
    }
    let mut spec = topics::spec_of(node, &stored, index);
    spec.data_dir = Some(Arc::clone(dir.path()));
    let commit = || node.placement.moved(partition.topic(), partition.index(), topic, dir);
    // A follower that goes on with its old log is fetched for again.
    let fetch_again = |_: &MoveError| node.roles.send_modify(|changes| *changes += 1);
    let taken = future.take_over(partition, commit).inspect_err(fetch_again)?;
    Ok(Moved { taken, topic: stored, index, spec })
}

/// Serves a partition from the copy that has taken over, and removes the old log. Blocks for the disk.
pub(crate) fn finish_move(node: &Node, old: &Arc<Partition>, moved: Moved, future: FutureLog) {
    let Moved { taken, topic, index, spec } = moved;
    let partition = future.into_partition(&taken, spec, &topics::partition_config_of(node, &topic), &node.fsync_queue);
    if partition.topic() == plugins::TOPIC {
        node.edge.plugins.open(&partition);
    }
    let mut table = ServedTopics::clone(&node.topics.load());
    topics::replace_partition(node, &mut table, &topic, index, partition);
    link::link(&mut table);
    node.topics.store(Arc::new(table));
    node.roles_changed();
    // The next start finds the checkpoints of the log beside it.
    let table = node.topics.load();
    let written = partition_dirs::write_recovery_points(&node.dirs, &table)
        .and_then(|()| partition_dirs::write_high_watermarks(&node.dirs, &table))
        .and_then(|()| partition_dirs::write_log_starts(&node.dirs, &table));
    if let Err(error) = written {
        tracing::error!("cannot write the checkpoints after a move: {error}");
    }
    let folders = partition_dirs::set_aside_partitions(std::slice::from_ref(old));
    partition_dirs::remove_later(folders, Duration::ZERO);
}
