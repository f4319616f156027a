//! Loading and unloading: the groups follow the leaders of the partitions of `__consumer_offsets`.
//!
//! When this broker becomes the leader of a partition, a replay of its log to the end gives the groups. Partitions are
//! read in parallel on blocking threads. Until a partition is read, requests for its groups get
//! COORDINATOR_LOAD_IN_PROGRESS, which every client retries. The groups of a partition that cannot be read are never
//! served: they would start without their offsets.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_partition::UNPACKED_BATCH_BYTES_MAX;
use millstream_record::{BatchView, EndMarker};
use millstream_wire::WireError;
use parking_lot::Mutex;
use tokio::time::Duration;

use super::classic::ClassicGroup;
use super::classic::model::GroupSnapshot;
use super::coordinator::GroupCoordinator;
use super::kind::Group;
use super::log::{self, CONSUMER_OFFSETS, Key};
use super::offsets::Offsets;
use super::shard::{OpenTransactions, Shard, Slot};
use crate::partition_of::partition_of;
use crate::shards::Changed;

/// How long [`GroupCoordinator::start`] waits for the load. Clients of a small broker never see a group being loaded.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// What the log says about all groups.
#[derive(Debug, Default)]
pub(super) struct AllLoaded {
    pub(super) groups: HashMap<Arc<str>, Loaded>,
    open_transactions: OpenTransactions,
}

/// What the log says about one group.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    snapshot: Option<GroupSnapshot>,
    offsets: Offsets,
}

#[cfg(test)]
impl Loaded {
    pub(super) fn into_parts(self) -> (Option<GroupSnapshot>, Offsets) {
        (self.snapshot, self.offsets)
    }
}

impl GroupCoordinator {
    /// Starts the timers and loads the groups. Returns when all are loaded, or after two seconds, when the load
    /// continues in the background.
    pub async fn start(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).run_timers());
        tokio::spawn(Arc::clone(self).run_expiry());
        self.roles_changed();
        if tokio::time::timeout(LOAD_WAIT, self.shards.loaded()).await.is_err() {
            tracing::info!(
                "consumer groups are still being loaded; requests for them get COORDINATOR_LOAD_IN_PROGRESS"
            );
        }
    }

    /// Follows the leaders of the partitions: loads the groups of those that this broker leads in a new epoch, and
    /// drops the groups of those that it no longer leads. Nothing happens if the leaders are the same.
    ///
    /// It has to be called after every change of the topic or of its leaders, within the runtime.
    pub fn roles_changed(self: &Arc<Self>) {
        if self.is_stopped() {
            return;
        }
        self.shards.follow(&*self.topic, |Changed { closed, to_load }| {
            closed.iter().for_each(|shard| self.unload(shard));
            for shard in to_load {
                tokio::spawn(Arc::clone(self).run_load(shard));
            }
        });
    }

    /// Closes a shard: rejects its waiting requests, and drops its groups with their timers.
    fn unload(&self, shard: &Shard) {
        let groups = shard.close();
        let (partition, leader_epoch) = (shard.partition, shard.leader_epoch);
        tracing::debug!(topic = CONSUMER_OFFSETS, partition, leader_epoch, groups = groups.len(), "unloaded");
        for (id, slot) in groups {
            let mut slot = slot.lock();
            slot.reject_waiting();
            self.retire(&id, &mut slot);
        }
    }

    async fn run_load(self: Arc<Self>, shard: Arc<Shard>) {
        let (coordinator, loading) = (Arc::clone(&self), Arc::clone(&shard));
        let done = tokio::task::spawn_blocking(move || coordinator.load(&loading)).await;
        if let Err(error) = done {
            tracing::error!("loading a partition of {CONSUMER_OFFSETS} failed: {error}");
            shard.load_failed();
        }
        self.shards.load_ended.notify_waiters();
    }

    /// Loads the groups of a shard, and serves them from then on. Blocks for the disk.
    fn load(&self, shard: &Arc<Shard>) {
        let (partition, leader_epoch) = (shard.partition, shard.leader_epoch);
        let span = tracing::info_span!("load", topic = CONSUMER_OFFSETS, partition, leader_epoch);
        let _entered = span.enter();
        let AllLoaded { groups, open_transactions } = match self.read_groups(shard) {
            Ok(loaded) => loaded,
            Err(_) if !self.is_current(shard) => return tracing::debug!("the load was overtaken"),
            Err(error) => {
                tracing::error!("cannot load the groups of this partition: {error}");
                return shard.load_failed();
            }
        };
        let count = self.topic.partitions();
        let groups = groups.into_iter().filter(|(id, _)| partition_of(id, count) == partition);
        let slots: Vec<_> = groups
            .filter_map(|(id, loaded)| Some((id.clone(), Arc::new(Mutex::new(self.restore(&id, loaded)?)))))
            .collect();
        *shard.common.open_transactions.lock() = open_transactions;
        if !self.is_current(shard) || !shard.activate(slots) {
            return tracing::debug!("the load was overtaken");
        }
        for (id, slot) in shard.entries() {
            let mut slot = slot.lock();
            if !slot.removed {
                self.arm(&id, &mut slot);
            }
        }
    }

    /// Returns whether this broker still leads the partition in the epoch of the shard. If it does not, the shard is
    /// closed or will be soon.
    fn is_current(&self, shard: &Shard) -> bool {
        self.topic.led_epoch(shard.partition) == Some(shard.leader_epoch)
    }

    fn restore(&self, id: &str, loaded: Loaded) -> Option<Slot> {
        let Loaded { snapshot, offsets } = loaded;
        let now = self.now();
        let group = match snapshot {
            Some(snapshot) => ClassicGroup::restored(Arc::clone(&self.config), snapshot, now),
            None if offsets.is_empty() => return None,
            None => ClassicGroup::new(Arc::clone(&self.config), now),
        };
        tracing::debug!(group = id, generation = group.generation(), state = group.state().name(), "loaded");
        Some(Slot::new(Group::Classic(group), offsets))
    }

    fn read_groups(&self, shard: &Shard) -> Result<AllLoaded, String> {
        let mut loaded = AllLoaded::default();
        shard.replay(&*self.topic, || self.is_stopped(), |batch| replay(batch, &mut loaded))?;
        Ok(loaded)
    }
}

/// Applies the records of one batch.
pub(super) fn replay(batch: &BatchView<'_>, loaded: &mut AllLoaded) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("batch at offset {}: {error}", batch.base_offset());
    batch.verify_crc().map_err(|error| at(&error))?;
    if batch.is_control() {
        if let Some(marker) = EndMarker::of(batch) {
            let producer_id = batch.producer_id();
            for group in loaded.open_transactions.remove(&producer_id).unwrap_or_default() {
                if let Some(group) = loaded.groups.get_mut(&group) {
                    group.offsets.end_transaction(producer_id, marker.is_commit, batch.base_offset());
                }
            }
        }
        return Ok(());
    }
    let producer_id = batch.is_transactional().then(|| batch.producer_id());
    let records = batch.records(UNPACKED_BATCH_BYTES_MAX).map_err(|error| at(&error))?;
    for record in records.iter() {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key else { continue };
        // One record that cannot be read must not fail all groups of the partition.
        if let Err(error) = replay_record(key, record.value, record.offset, producer_id, loaded) {
            tracing::warn!(offset = record.offset, "skipping a record of {CONSUMER_OFFSETS}: {error}");
        }
    }
    Ok(())
}

fn replay_record(
    key: &[u8],
    value: Option<&[u8]>,
    log_offset: i64,
    producer_id: Option<i64>,
    loaded: &mut AllLoaded,
) -> Result<(), WireError> {
    let groups = &mut loaded.groups;
    match Key::decode(key)? {
        Key::Offset { group, topic, partition } => {
            if let Some(producer_id) = producer_id {
                loaded.open_transactions.entry(producer_id).or_default().insert(Arc::clone(&group));
            }
            let offsets = &mut groups.entry(group).or_default().offsets;
            match (value, producer_id) {
                (Some(value), Some(producer_id)) => {
                    offsets.add_pending(producer_id, &topic, partition, log::decode_offset(value, log_offset)?);
                }
                (Some(value), None) => offsets.apply(&topic, partition, log::decode_offset(value, log_offset)?),
                (None, _) => offsets.remove(&topic, partition, log_offset),
            }
        }
        Key::Group { group } => {
            groups.entry(group).or_default().snapshot = value.map(log::decode_group).transpose()?;
        }
        Key::Other(version) => tracing::debug!(version, "skipping a record of another group protocol"),
    }
    Ok(())
}
