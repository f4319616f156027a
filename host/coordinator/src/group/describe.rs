//! ListGroups and DescribeGroups.

use std::sync::Arc;

use super::classic::model::MemberSnapshot;
use super::coordinator::{GroupCoordinator, Missing};
use super::model::GroupError;

/// A group in a ListGroups response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group's id.
    pub id: Arc<str>,
    /// Empty if no member has ever joined.
    pub protocol_type: Arc<str>,
    /// The name of the state.
    pub state: &'static str,
    /// The name of the group's protocol.
    pub kind: &'static str,
}

/// A group in a DescribeGroups response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// The name of the state.
    pub state: &'static str,
    /// Empty if no member has ever joined.
    pub protocol_type: Arc<str>,
    /// The protocol of the generation; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// The members.
    pub members: Vec<MemberSnapshot>,
}

impl GroupCoordinator {
    /// Returns all groups of the partitions that this broker leads, sorted by id.
    ///
    /// # Errors
    /// Some are still being loaded.
    pub fn list(&self) -> Result<Vec<ListedGroup>, GroupError> {
        if self.shards.is_loading() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let listed = self.all().into_iter().map(|(_, (id, slot))| {
            let slot = slot.lock();
            let protocol_type = slot.group.protocol_type().cloned().unwrap_or_default();
            ListedGroup { id, protocol_type, state: slot.group.state_name(), kind: slot.group.kind() }
        });
        let mut groups: Vec<_> = listed.collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// Returns one group.
    ///
    /// # Errors
    /// [`GroupError::GroupIdNotFound`]; it is not served here, or not yet.
    pub fn describe(self: &Arc<Self>, group_id: &str) -> Result<DescribedGroup, GroupError> {
        let shard = self.shard(group_id)?;
        self.with_group(&shard, group_id, Missing::Reject(GroupError::GroupIdNotFound), |slot, _, _| DescribedGroup {
            state: slot.group.state_name(),
            protocol_type: slot.group.protocol_type().cloned().unwrap_or_default(),
            protocol: slot.group.described_protocol().cloned().unwrap_or_default(),
            members: slot.group.describe_members(),
        })
    }
}
