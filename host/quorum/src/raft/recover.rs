//! The way out of a quorum whose majority is lost for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::{EntryPayload, LeaderId, Membership, Vote};

use super::OpenError;
use super::store::{Store, meta};
use super::types::{Position, StoredEntry, StoredVote, Types, decode, encode};
use crate::config::QuorumConfig;
use crate::quorum::{NodeId, Peer};
use crate::storage::Disk;
use crate::storage::snapshot::StoredSnapshot;

/// A stopped node that may become the only member of its quorum.
pub struct LastMember {
    node_id: NodeId,
    own: Peer,
    members: BTreeMap<NodeId, Peer>,
    store: Store,
    /// The newest term that the node has seen.
    term: u64,
}

impl std::fmt::Debug for LastMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastMember").field("node_id", &self.node_id).field("end", &self.end()).finish_non_exhaustive()
    }
}

impl LastMember {
    /// Reads the log of a stopped node, and changes nothing.
    ///
    /// # Errors
    /// The log cannot be read, or does not name the node as a member.
    pub fn open(node_id: NodeId, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let (store, snapshot) = Store::open(disk, QuorumConfig::new(node_id).segment_bytes)?;
        let members = last_members(&store, snapshot)?;
        let members: BTreeMap<NodeId, Peer> = members.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        let (directory_id, vote) = {
            let wal = store.wal.lock();
            (wal.directory_id(), wal.vote().map(|vote| decode::<StoredVote>(vote)).transpose())
        };
        let vote = vote.map_err(|error| OpenError::Start(format!("its log cannot be read: {error}")))?;
        let term = vote.map_or(0, |vote| Vote::from(vote).leader_id.term);
        let own = members.get(&node_id).filter(|peer| peer.directory_id == directory_id).cloned();
        let own = own.ok_or_else(|| OpenError::Start(format!("its log does not name node {node_id} as a member")))?;
        Ok(Self { node_id, own, members, store, term })
    }

    /// Returns the other members.
    pub fn others(&self) -> Vec<NodeId> {
        self.members.keys().copied().filter(|id| *id != self.node_id).collect()
    }

    /// Returns the index after the last entry.
    pub fn end(&self) -> u64 {
        self.store.wal.lock().end()
    }

    /// Returns the newest term that the node has seen.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Makes the node the only member. Entries that only other members had are lost, and those that no majority had
    /// confirmed become valid.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn make_only_voter(self) -> Result<(), OpenError> {
        let Self { node_id, own, store, term, .. } = self;
        let mut wal = store.wal.lock();
        // The entry is in a term that no other member has led.
        let leader_id = LeaderId { term: term + 1, voted_for: Some(node_id) };
        let nodes = BTreeMap::from([(node_id, own)]);
        let end = wal.end();
        let entry = openraft::Entry::<Types> {
            log_id: Position::new(term + 1, end).into(),
            payload: EntryPayload::Membership(Membership::new(vec![BTreeSet::from([node_id])], nodes)),
        };
        wal.save_vote(encode(&StoredVote::from(Vote { leader_id, committed: false })))?;
        wal.append(end, vec![encode(&StoredEntry::from(entry))])?;
        Ok(())
    }
}

/// Returns the newest members that the log or the snapshot names.
fn last_members(store: &Store, snapshot: Option<StoredSnapshot>) -> Result<Membership<NodeId, Peer>, OpenError> {
    let mut members = match snapshot {
        None => Membership::default(),
        Some(stored) => meta(&*store.disk, &stored)?.last_membership.membership().clone(),
    };
    let wal = store.wal.lock();
    for (index, bytes) in (wal.first()..).zip(wal.entries(wal.first()..wal.end())) {
        let entry = decode::<StoredEntry>(bytes);
        let entry = entry.map_err(|error| OpenError::Start(format!("its log cannot be read: {error}")))?;
        if let EntryPayload::Membership(newer) = entry.at(index).payload {
            members = newer;
        }
    }
    Ok(members)
}
