//! Start: what `__consumer_offsets` holds becomes groups again.
//!
//! Partitions are read side by side on blocking threads. Until a partition is read, requests for its groups are answered
//! COORDINATOR_LOAD_IN_PROGRESS, which every client takes as "in a moment"; a partition that cannot be read is never served, since
//! its groups would start from nothing.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_record::{BatchView, batches};
use tokio::time::Duration;

use super::coordinator::{GroupCoordinator, PartitionState};
use super::model::{GroupSnapshot, Now};
use super::offsets::Offsets;
use super::records::{self, Key};
use super::state::Group;

/// Bytes of the log that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// Most bytes that one batch may unpack to: its records were bounded by `max.message.bytes` when they were written.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// How long [`GroupCoordinator::start`] waits for the load, so that clients of a small broker never see it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the log says of one group.
#[derive(Debug, Default)]
struct Loaded {
    snapshot: Option<GroupSnapshot>,
    offsets: Offsets,
}

impl GroupCoordinator {
    /// Loads the groups and starts the timers. Returns when all are loaded, or after two seconds: the rest goes on beside.
    pub(crate) async fn start(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).run_timers());
        tokio::spawn(Arc::clone(self).run_expiry());
        let count = self.storage.partitions();
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
                    tracing::error!("the load of a partition of __consumer_offsets has failed: {error}");
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::info!("still loading the groups; theirs are answered COORDINATOR_LOAD_IN_PROGRESS meanwhile");
        }
    }

    /// Whether some partitions are still to be read.
    pub(super) fn is_loading(&self) -> bool {
        self.partitions.read().contains(&PartitionState::Loading)
    }

    /// Reads one partition and serves its groups from then on.
    fn load(self: &Arc<Self>, partition: i32) {
        let state = match self.read_groups(partition) {
            Ok(groups) => {
                for (id, loaded) in groups {
                    self.install_loaded(id, loaded);
                }
                PartitionState::Active
            }
            Err(error) => {
                tracing::error!(partition, "cannot load the groups of a partition of __consumer_offsets: {error}");
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
        let now: Now = self.now();
        let group = match snapshot {
            Some(snapshot) => Group::restored(Arc::clone(&self.config), snapshot, now),
            None if offsets.is_empty() => return,
            None => Group::new(Arc::clone(&self.config), now),
        };
        tracing::debug!(group = %id, generation = group.generation(), state = group.state().name(), "loaded");
        self.install(id, group, offsets);
    }

    fn read_groups(&self, partition: i32) -> Result<HashMap<Arc<str>, Loaded>, String> {
        let mut groups = HashMap::new();
        let mut offset = 0;
        loop {
            let bytes = self.storage.read(partition, offset, READ_BYTES)?;
            if bytes.is_empty() {
                return Ok(groups);
            }
            for batch in batches(&bytes) {
                let batch = batch.map_err(|error| format!("after offset {offset}: {error}"))?;
                if batch.next_offset() > offset {
                    replay(&batch, &mut groups)?;
                    offset = batch.next_offset();
                }
            }
            if self.is_stopped() {
                return Err("the broker stops".to_owned());
            }
        }
    }
}

/// Applies the records of one batch.
fn replay(batch: &BatchView<'_>, groups: &mut HashMap<Arc<str>, Loaded>) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("batch at offset {}: {error}", batch.base_offset());
    batch.verify_crc().map_err(|error| at(&error))?;
    if batch.is_control() {
        return Ok(());
    }
    let records = batch.records(BATCH_BYTES_MAX).map_err(|error| at(&error))?;
    for record in records.iter() {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key else { continue };
        // One record that cannot be read must not take all groups of the partition away.
        if let Err(error) = replay_record(key, record.value, record.offset, groups) {
            tracing::warn!(offset = record.offset, "skipping a record of __consumer_offsets: {error}");
        }
    }
    Ok(())
}

fn replay_record(
    key: &[u8],
    value: Option<&[u8]>,
    log_offset: i64,
    groups: &mut HashMap<Arc<str>, Loaded>,
) -> Result<(), millstream_wire::WireError> {
    match Key::decode(key)? {
        Key::Offset { group, topic, partition } => {
            let offsets = &mut groups.entry(group).or_default().offsets;
            match value {
                Some(value) => offsets.apply(&topic, partition, records::decode_offset(value, log_offset)?),
                None => offsets.remove(&topic, partition, log_offset, false),
            }
        }
        Key::Group { group } => {
            groups.entry(group).or_default().snapshot = value.map(records::decode_group).transpose()?;
        }
        Key::Other(version) => tracing::debug!(version, "skipping a record of a group of another protocol"),
    }
    Ok(())
}
