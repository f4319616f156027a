//! The partitions of a coordinator's topic that this broker leads. They follow its leaders.

use std::sync::Arc;

use millstream_partition::InternalTopic;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::partition_of::partition_of;
use crate::shard::{Entry, Shard, ShardState};

/// Shards by partition; `None` for one that this broker does not lead.
type ByPartition<T, C> = Vec<Option<Arc<Shard<T, C>>>>;

/// An entry with its shard.
type Placed<T, C> = (Arc<Shard<T, C>>, Entry<T>);

/// The shards of the partitions, each with entries `T` and `C`, which belongs to all of them.
#[derive(Debug)]
pub(crate) struct Shards<T, C = ()> {
    /// Empty until the topic exists.
    by_partition: RwLock<ByPartition<T, C>>,
    /// Held while the shards follow a change of the leaders.
    role_change: Mutex<()>,
    /// A load has ended.
    pub(crate) load_ended: Notify,
}

/// What a change of the leaders does to the shards.
pub(crate) struct Changed<T, C> {
    /// They are not found any more, and have to be closed.
    pub(crate) closed: Vec<Arc<Shard<T, C>>>,
    /// They have to be loaded.
    pub(crate) to_load: Vec<Arc<Shard<T, C>>>,
}

impl<T, C> Default for Shards<T, C> {
    fn default() -> Self {
        Self { by_partition: RwLock::default(), role_change: Mutex::default(), load_ended: Notify::new() }
    }
}

impl<T, C: Default> Shards<T, C> {
    /// Follows the leaders of the partitions: makes shards for those that this broker leads in a new epoch, and takes
    /// away those that it no longer leads. Calls `act` with both before another change is followed.
    pub(crate) fn follow(&self, topic: &dyn InternalTopic, act: impl FnOnce(Changed<T, C>)) {
        let _one_at_a_time = self.role_change.lock();
        let count = topic.partitions();
        let led: Vec<_> = (0..count).map(|partition| topic.led_epoch(partition)).collect();
        let (mut closed, mut to_load) = (Vec::new(), Vec::new());
        {
            let mut shards = self.by_partition.write();
            if shards.len() != led.len() {
                // Ids map to other partitions now.
                closed.extend(std::mem::take(&mut *shards).into_iter().flatten());
                shards.resize_with(led.len(), || None);
            }
            for ((partition, shard), leader_epoch) in (0..count).zip(&mut *shards).zip(led) {
                if shard.as_ref().map(|shard| shard.leader_epoch) == leader_epoch {
                    continue;
                }
                let new = leader_epoch.map(|leader_epoch| {
                    // A partition without records, as in a new topic, needs no load.
                    let state = if topic.is_empty(partition) { ShardState::Active } else { ShardState::Loading };
                    Arc::new(Shard::new(partition, leader_epoch, state))
                });
                to_load.extend(new.iter().filter(|shard| shard.state() == ShardState::Loading).cloned());
                closed.extend(std::mem::replace(shard, new));
            }
        }
        act(Changed { closed, to_load });
    }
}

impl<T, C> Shards<T, C> {
    /// Returns whether the topic does not exist, as far as the coordinator knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_partition.read().is_empty()
    }

    /// Returns the number of partitions that this broker leads.
    pub(crate) fn led(&self) -> usize {
        self.by_partition.read().iter().flatten().count()
    }

    /// Returns the shard of an id; `None` if another broker leads its partition.
    pub(crate) fn of_id(&self, id: &str) -> Option<Arc<Shard<T, C>>> {
        let shards = self.by_partition.read();
        let partition = partition_of(id, i32::try_from(shards.len()).unwrap_or(i32::MAX));
        shards.get(usize::try_from(partition).ok()?).cloned().flatten()
    }

    /// Returns the shard of a partition; `None` if another broker leads it.
    pub(crate) fn of_partition(&self, partition: i32) -> Option<Arc<Shard<T, C>>> {
        self.by_partition.read().get(usize::try_from(partition).ok()?).cloned().flatten()
    }

    /// Returns all entries as they are now, with their shards.
    pub(crate) fn all(&self) -> Vec<Placed<T, C>> {
        let shards: Vec<_> = self.by_partition.read().iter().flatten().cloned().collect();
        let of = |shard: Arc<Shard<T, C>>| shard.entries().into_iter().map(move |one| (Arc::clone(&shard), one));
        shards.into_iter().flat_map(of).collect()
    }

    /// Returns whether some partitions are not loaded yet.
    pub(crate) fn is_loading(&self) -> bool {
        self.by_partition.read().iter().flatten().any(|shard| shard.state() == ShardState::Loading)
    }

    /// Waits until no partition is being loaded.
    pub(crate) async fn loaded(&self) {
        loop {
            let ended = self.load_ended.notified();
            if !self.is_loading() {
                return;
            }
            ended.await;
        }
    }
}
