//! Loading: a replay of `__consumer_offsets` gives the groups.
//!
//! Partitions are read in parallel on blocking threads. Until a partition is read, requests for its groups get
//! COORDINATOR_LOAD_IN_PROGRESS, which every client retries. The groups of a partition that cannot be read are never
//! served: they would start without their offsets.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use millstream_partition::UNPACKED_BATCH_BYTES_MAX;
use millstream_record::BatchView;
use millstream_wire::WireError;
use tokio::time::Duration;

use super::classic::ClassicGroup;
use super::classic::model::GroupSnapshot;
use super::coordinator::{GroupCoordinator, PartitionState};
use super::kind::Group;
use super::log::{self, CONSUMER_OFFSETS, Key};
use super::offsets::Offsets;

/// How long [`GroupCoordinator::start`] waits for the load. Clients of a small broker never see a group being loaded.
const LOAD_WAIT: Duration = Duration::from_secs(2);

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
        let count = self.topic.partitions();
        self.partitions.write().resize(usize::try_from(count).unwrap_or(0), PartitionState::Loading);
        let loads: Vec<_> = (0..count)
            .map(|partition| {
                let coordinator = Arc::clone(self);
                tokio::task::spawn_blocking(move || coordinator.load(partition))
            })
            .collect();
        let all = async {
            for load in loads {
                if let Err(error) = load.await {
                    tracing::error!("loading a partition of {CONSUMER_OFFSETS} failed: {error}");
                }
            }
        };
        if tokio::time::timeout(LOAD_WAIT, all).await.is_err() {
            tracing::info!(
                "consumer groups are still being loaded; requests for them get COORDINATOR_LOAD_IN_PROGRESS"
            );
        }
    }

    /// Returns whether some partitions are not loaded yet.
    pub(super) fn is_loading(&self) -> bool {
        self.partitions.read().contains(&PartitionState::Loading)
    }

    /// Loads one partition, and serves its groups from then on.
    fn load(self: &Arc<Self>, partition: i32) {
        let span = tracing::info_span!("load", topic = CONSUMER_OFFSETS, partition);
        let _entered = span.enter();
        let state = match self.read_groups(partition) {
            Ok(groups) => {
                for (id, loaded) in groups {
                    self.install_loaded(id, loaded);
                }
                PartitionState::Active
            }
            Err(error) => {
                tracing::error!("cannot load the groups of this partition: {error}");
                PartitionState::Failed
            }
        };
        let index = usize::try_from(partition).unwrap_or(0);
        if let Some(slot) = self.partitions.write().get_mut(index) {
            *slot = state;
        }
    }

    fn install_loaded(self: &Arc<Self>, id: Arc<str>, loaded: Loaded) {
        let Loaded { snapshot, offsets } = loaded;
        let now = self.now();
        let group = match snapshot {
            Some(snapshot) => ClassicGroup::restored(Arc::clone(&self.config), snapshot, now),
            None if offsets.is_empty() => return,
            None => ClassicGroup::new(Arc::clone(&self.config), now),
        };
        tracing::debug!(group = %id, generation = group.generation(), state = group.state().name(), "loaded");
        self.install(id, Group::Classic(group), offsets);
    }

    fn read_groups(&self, partition: i32) -> Result<HashMap<Arc<str>, Loaded>, String> {
        let mut groups = HashMap::new();
        let mut outcome = Ok(());
        let replayed = self.topic.replay(partition, &mut |batch| {
            outcome = if self.is_stopped() { Err("the broker stops".to_owned()) } else { replay(batch, &mut groups) };
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        replayed.map_err(|error| error.to_string())?;
        outcome.map(|()| groups)
    }
}

/// Applies the records of one batch.
pub(super) fn replay(batch: &BatchView<'_>, groups: &mut HashMap<Arc<str>, Loaded>) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("batch at offset {}: {error}", batch.base_offset());
    batch.verify_crc().map_err(|error| at(&error))?;
    if batch.is_control() {
        return Ok(());
    }
    let records = batch.records(UNPACKED_BATCH_BYTES_MAX).map_err(|error| at(&error))?;
    for record in records.iter() {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key else { continue };
        // One record that cannot be read must not fail all groups of the partition.
        if let Err(error) = replay_record(key, record.value, record.offset, groups) {
            tracing::warn!(offset = record.offset, "skipping a record of {CONSUMER_OFFSETS}: {error}");
        }
    }
    Ok(())
}

fn replay_record(
    key: &[u8],
    value: Option<&[u8]>,
    log_offset: i64,
    groups: &mut HashMap<Arc<str>, Loaded>,
) -> Result<(), WireError> {
    match Key::decode(key)? {
        Key::Offset { group, topic, partition } => {
            let offsets = &mut groups.entry(group).or_default().offsets;
            match value {
                Some(value) => offsets.apply(&topic, partition, log::decode_offset(value, log_offset)?),
                None => offsets.remove(&topic, partition, log_offset),
            }
        }
        Key::Group { group } => {
            groups.entry(group).or_default().snapshot = value.map(log::decode_group).transpose()?;
        }
        Key::Other(version) => tracing::debug!(version, "skipping a record of another group protocol"),
    }
    Ok(())
}
