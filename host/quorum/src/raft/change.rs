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

/// The number of election timeouts in which a new voter has to confirm an entry.
const RESPONSE_ELECTIONS: u32 = 4;

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
        let _order = self.changes.lock().await;
        match self.member(node_id, Some(&peer))? {
            Member::None => self.append_member(node_id, peer).await.map(drop),
            Member::Observer | Member::Voter => Ok(()),
        }
    }

    /// Adds a voter that responds. One that does not would be needed for each later decision of a quorum of two, the
    /// decision to remove it too. The node follows the log first, and other changes go on meanwhile.
    pub(super) async fn change_vote(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        if matches!(self.member(node_id, Some(&peer))?, Member::Voter) {
            return Ok(());
        }
        self.change_add(node_id, peer.clone()).await?;
        let end = self.raft.metrics().borrow().last_log_index.map_or(0, |index| index + 1);
        self.confirmed(node_id, end.saturating_sub(LAG_MAX), self.config.change_timeout).await?;
        let _order = self.changes.lock().await;
        // Another directory may have taken the id meanwhile.
        if matches!(self.member(node_id, Some(&peer))?, Member::Voter) {
            return Ok(());
        }
        // It had confirmed entries before. This one shows that it still runs.
        let end = self.append_member(node_id, peer).await?;
        self.confirmed(node_id, end, self.config.election_timeout.end * RESPONSE_ELECTIONS).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node_id]))).await.map(drop)
    }

    /// Appends an entry that names the node as a member, and returns the end of the log with it. Its place among the
    /// voters stays.
    async fn append_member(&self, node_id: NodeId, peer: Peer) -> Result<u64, ChangeError> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node_id, peer)]))).await
    }

    /// Waits until a member has confirmed the entries below `end`. The library's own wait ends at a lag of thousands of
    /// entries.
    async fn confirmed(&self, node_id: NodeId, end: u64, limit: Duration) -> Result<(), ChangeError> {
        let wait = self.raft.wait(Some(limit));
        let confirms = wait.metrics(
            |metrics| match &metrics.replication {
                // The next step returns the error that another node leads.
                None => true,
                Some(all) => matches!(all.get(&node_id), Some(Some(matched)) if end <= matched.index + 1),
            },
            "a new voter confirms entries",
        );
        confirms.await.map(drop).map_err(|_| ChangeError::NoResponse(node_id))
    }

    /// Replaces the address of a member. The directory id must be the member's.
    pub(super) async fn change_peer(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        let _order = self.changes.lock().await;
        match self.member(node_id, Some(&peer))? {
            Member::None => Err(ChangeError::Unknown(node_id)),
            Member::Observer | Member::Voter => {
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(node_id, peer)]))).await.map(drop)
            }
        }
    }

    pub(super) async fn change_remove(&self, node_id: NodeId) -> Result<(), ChangeError> {
        let _order = self.changes.lock().await;
        let nodes = BTreeSet::from([node_id]);
        match self.member(node_id, None)? {
            Member::None => Err(ChangeError::Unknown(node_id)),
            Member::Observer => self.change(ChangeMembers::RemoveNodes(nodes)).await.map(drop),
            Member::Voter => {
                let is_last = self.raft.metrics().borrow().membership_config.voter_ids().all(|id| id == node_id);
                if is_last {
                    return Err(ChangeError::LastVoter(node_id));
                }
                if node_id == self.config.node_id {
                    // The library does not expect that a leader commits the change that removes it.
                    self.elections.resign().await?;
                }
                self.change(ChangeMembers::RemoveVoters(nodes)).await.map(drop)
            }
        }
    }

    /// Appends a change, and returns the end of the log with it.
    async fn change(&self, change: ChangeMembers<NodeId, Peer>) -> Result<u64, ChangeError> {
        // Added nodes stay, and removed voters do not become observers.
        let keeps_nodes = !matches!(change, ChangeMembers::RemoveVoters(_));
        let changed = self.raft.change_membership(change, keeps_nodes).await;
        changed.map(|response| response.log_id.index + 1).map_err(change_error)
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
