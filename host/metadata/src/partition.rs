//! A partition of a topic: its replicas, its leader and its in-sync set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The leader of a partition without one.
pub const NO_LEADER: i32 = -1;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionImage {
    /// The broker that leads it, or [`NO_LEADER`].
    pub leader: i32,
    /// Rises with every new leader, and when a leader may have lost records.
    pub leader_epoch: i32,
    /// Rises with every change of the partition, so that a change that was decided on an older state is detected.
    pub partition_epoch: i32,
    /// The brokers that hold the partition, the preferred leader first. During a reassignment those of both sides.
    #[serde(with = "list")]
    pub replicas: Arc<[i32]>,
    /// Those of them that are in sync. Empty if the last one has left.
    #[serde(with = "list")]
    pub isr: Arc<[i32]>,
    /// The replicas that a reassignment adds.
    #[serde(default, with = "list", skip_serializing_if = "list::is_empty")]
    pub adding: Arc<[i32]>,
    /// The replicas that a reassignment removes.
    #[serde(default, with = "list", skip_serializing_if = "list::is_empty")]
    pub removing: Arc<[i32]>,
    /// The eligible leader replicas (KIP-966): they left an in-sync set that is smaller than `min.insync.replicas`, and
    /// hold every committed record.
    #[serde(default, with = "list", skip_serializing_if = "list::is_empty")]
    pub elr: Arc<[i32]>,
    /// The leader that was the last one, while the partition has none.
    #[serde(default, with = "list", skip_serializing_if = "list::is_empty")]
    pub last_known_elr: Arc<[i32]>,
    /// The leader was elected from outside of the in-sync set and has not recovered yet (KIP-704).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
}

/// A shared list in JSON. Serde's own feature for it would make every package that needs serde compile again.
mod list {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &Arc<[i32]>, serializer: S) -> Result<S::Ok, S::Error> {
        (**list).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[i32]>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::from)
    }

    pub(super) fn is_empty(list: &Arc<[i32]>) -> bool {
        list.is_empty()
    }
}

impl PartitionImage {
    /// Returns a new partition: the first replica leads, and all are in sync.
    pub(crate) fn new(replicas: Arc<[i32]>, leader_epoch: i32) -> Self {
        let leader = replicas.first().copied().unwrap_or(NO_LEADER);
        Self::led_by(leader, Arc::clone(&replicas), replicas, leader_epoch)
    }

    /// Returns a new partition of which only some replicas are in sync.
    pub(crate) fn led_by(leader: i32, replicas: Arc<[i32]>, isr: Arc<[i32]>, leader_epoch: i32) -> Self {
        Self {
            leader,
            leader_epoch,
            partition_epoch: 0,
            replicas,
            isr,
            adding: Arc::default(),
            removing: Arc::default(),
            elr: Arc::default(),
            last_known_elr: Arc::default(),
            recovering: false,
        }
    }

    /// Returns whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Applies a change.
    pub(crate) fn apply(&mut self, change: &PartitionChange) {
        let PartitionChange { leader, isr, replicas, adding, removing, elr, last_known_elr, recovering } = change;
        if let Some(leader) = leader {
            self.leader = *leader;
            self.leader_epoch += 1;
        }
        let lists = [
            (&mut self.isr, isr),
            (&mut self.replicas, replicas),
            (&mut self.adding, adding),
            (&mut self.removing, removing),
            (&mut self.elr, elr),
            (&mut self.last_known_elr, last_known_elr),
        ];
        for (list, new) in lists {
            if let Some(new) = new {
                *list = Arc::from(new.as_slice());
            }
        }
        self.recovering = recovering.unwrap_or(self.recovering);
        self.partition_epoch += 1;
    }
}

/// A change of one partition. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartitionChange {
    /// The leader. It may be the one of before: the leader epoch rises in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<i32>,
    /// The in-sync set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isr: Option<Vec<i32>>,
    /// All replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<i32>>,
    /// The replicas that a reassignment adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<i32>>,
    /// The replicas that a reassignment removes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<i32>>,
    /// The eligible leader replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elr: Option<Vec<i32>>,
    /// The last leader of a partition without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_known_elr: Option<Vec<i32>>,
    /// Whether the leader recovers from an unclean election.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
}
