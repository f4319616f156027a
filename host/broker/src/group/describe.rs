//! What ListGroups and DescribeGroups show.

use std::sync::Arc;

use super::coordinator::{GroupCoordinator, Missing};
use super::model::{GroupError, MemberSnapshot};

/// The only type of group so far, by ListGroups' name.
pub(crate) const CLASSIC: &str = "classic";

/// A line of ListGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedGroup {
    pub(crate) id: Arc<str>,
    /// Empty if no member has ever joined.
    pub(crate) protocol_type: Arc<str>,
    pub(crate) state: &'static str,
}

/// A group of DescribeGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedGroup {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: Arc<str>,
    pub(crate) protocol: Arc<str>,
    pub(crate) members: Vec<MemberSnapshot>,
}

impl GroupCoordinator {
    /// All groups, sorted by id.
    ///
    /// # Errors
    /// Some are still being loaded.
    pub(crate) fn list(&self) -> Result<Vec<ListedGroup>, GroupError> {
        if self.is_loading() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let listed = self.all().into_iter().map(|(id, slot)| {
            let slot = slot.lock();
            let protocol_type = slot.group.protocol_type().cloned().unwrap_or_default();
            ListedGroup { id, protocol_type, state: slot.group.state().name() }
        });
        let mut groups: Vec<_> = listed.collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// One group.
    ///
    /// # Errors
    /// [`GroupError::GroupIdNotFound`]; it is not served here, or not yet.
    pub(crate) fn describe(self: &Arc<Self>, group_id: &str) -> Result<DescribedGroup, GroupError> {
        if self.partitions.read().is_empty() {
            return Err(GroupError::GroupIdNotFound);
        }
        self.with_group(group_id, Missing::Refuse(GroupError::GroupIdNotFound), |slot, _, _| DescribedGroup {
            state: slot.group.state().name(),
            protocol_type: slot.group.protocol_type().cloned().unwrap_or_default(),
            protocol: slot.group.described_protocol().cloned().unwrap_or_default(),
            members: slot.group.describe_members(),
        })
    }
}
