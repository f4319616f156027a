//! Changes of the members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Raft, RaftMetrics, ServerState};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::RaftQuorum;
use super::types::Types;
use crate::quorum::{ChangeError, NodeId, Peer};

/// The number of entries that a voter may be behind when it begins to vote.
const LAG_MAX: u64 = 10;

/// The time between attempts to finish a change.
const FINISH_DELAY: Duration = Duration::from_millis(50);

type WriteError = RaftError<NodeId, ClientWriteError<NodeId, Peer>>;

/// What a node id stands for.
enum Member {
    None,
    Observer,
    Voter,
}

impl RaftQuorum {
    /// Returns what a node id stands for, or an error if it belongs to another folder than that of `peer`.
    fn member(&self, node_id: NodeId, peer: Option<&Peer>) -> Result<Member, ChangeError> {
        let metrics = self.raft.metrics();
        let members = metrics.borrow().membership_config.membership().clone();
        let Some(known) = members.get_node(&node_id) else { return Ok(Member::None) };
        if peer.is_some_and(|peer| peer.directory_id != known.directory_id) {
            return Err(ChangeError::InUse { node_id, directory_id: known.directory_id });
        }
        Ok(if members.voter_ids().any(|id| id == node_id) { Member::Voter } else { Member::Observer })
    }

    pub(super) async fn change_add(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        match self.member(node_id, Some(&peer))? {
            Member::None => self.change(ChangeMembers::AddNodes(BTreeMap::from([(node_id, peer)]))).await,
            Member::Observer | Member::Voter => Ok(()),
        }
    }

    pub(super) async fn change_vote(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        if matches!(self.member(node_id, Some(&peer))?, Member::Voter) {
            return Ok(());
        }
        self.change_add(node_id, peer).await?;
        // The library's own wait ends at a lag of thousands of entries.
        let wait = self.raft.wait(Some(self.config.change_timeout));
        let caught_up = wait.metrics(
            |metrics| match &metrics.replication {
                None => true,
                Some(all) => all.get(&node_id).is_some_and(|matched| {
                    let end = matched.map_or(0, |id| id.index + 1);
                    metrics.last_log_index.map_or(0, |index| index + 1) <= end + LAG_MAX
                }),
            },
            "a new voter catches up",
        );
        caught_up.await.map_err(|_| ChangeError::TimedOut)?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node_id]))).await
    }

    pub(super) async fn change_remove(&self, node_id: NodeId) -> Result<(), ChangeError> {
        let nodes = BTreeSet::from([node_id]);
        match self.member(node_id, None)? {
            Member::None => Err(ChangeError::Unknown(node_id)),
            Member::Observer => self.change(ChangeMembers::RemoveNodes(nodes)).await,
            Member::Voter => {
                let is_last = self.raft.metrics().borrow().membership_config.voter_ids().all(|id| id == node_id);
                if is_last {
                    return Err(ChangeError::LastVoter(node_id));
                }
                if node_id == self.config.node_id {
                    // The library does not expect that a leader commits the change that removes it.
                    self.elections.resign().await?;
                }
                self.change(ChangeMembers::RemoveVoters(nodes)).await
            }
        }
    }

    async fn change(&self, change: ChangeMembers<NodeId, Peer>) -> Result<(), ChangeError> {
        // Added nodes stay, and removed voters do not become observers.
        let keeps_nodes = !matches!(change, ChangeMembers::RemoveVoters(_));
        let changed = self.raft.change_membership(change, keeps_nodes).await;
        changed.map(drop).map_err(change_error)
    }
}

/// Says whether the voters are being changed, so that a majority of both the old and the new ones is needed.
pub(super) fn is_joint(metrics: &RaftMetrics<NodeId, Peer>) -> bool {
    metrics.membership_config.membership().get_joint_config().len() > 1
}

/// Finishes changes whose leader died, or whose caller stopped waiting. The library does not.
pub(super) async fn finish_changes(raft: Raft<Types>, changes: Arc<Mutex<()>>) {
    let mut metrics = raft.metrics();
    let is_unfinished = |metrics: &RaftMetrics<NodeId, Peer>| metrics.state == ServerState::Leader && is_joint(metrics);
    while metrics.wait_for(is_unfinished).await.is_ok() {
        {
            let _order = changes.lock().await;
            if is_unfinished(&raft.metrics().borrow()) {
                let no_more = ChangeMembers::AddVoterIds(BTreeSet::new());
                if let Err(error) = raft.change_membership(no_more, false).await {
                    tracing::debug!(%error, "a change of the voters is not yet finished");
                }
            }
        }
        sleep(FINISH_DELAY).await;
    }
}

fn change_error(error: WriteError) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::LearnerNotFound(missing) => ChangeError::Unknown(missing.node_id),
            error => ChangeError::InProgress(error.to_string()),
        },
        RaftError::Fatal(error) => ChangeError::Stopped(error.to_string()),
    }
}
