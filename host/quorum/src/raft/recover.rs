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

/// Makes a stopped node the only member of its quorum, and returns the members of before. Entries that only other
/// members had are lost, and those that no majority had confirmed become valid.
///
/// # Errors
/// The log cannot be read or written, or does not name the node as a member.
pub fn make_only_voter(node_id: NodeId, disk: Arc<dyn Disk>) -> Result<BTreeMap<NodeId, Peer>, OpenError> {
    let (store, snapshot) = Store::open(disk, QuorumConfig::new(node_id).segment_bytes)?;
    let unreadable = |error: postcard::Error| OpenError::Start(format!("its log cannot be read: {error}"));
    let members = last_members(&store, snapshot)?;
    let before: BTreeMap<NodeId, Peer> = members.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
    let mut wal = store.wal.lock();
    let own = before.get(&node_id).filter(|peer| peer.directory_id == wal.directory_id());
    let own = own.ok_or_else(|| OpenError::Start(format!("its log does not name node {node_id} as a member")))?;
    let mut term = 0;
    if let Some(vote) = wal.vote() {
        term = Vote::from(decode::<StoredVote>(vote).map_err(unreadable)?).leader_id.term;
    }
    // The entry is in a term that no other member has led.
    let leader_id = LeaderId { term: term + 1, voted_for: Some(node_id) };
    let nodes = BTreeMap::from([(node_id, own.clone())]);
    let end = wal.end();
    let entry = openraft::Entry::<Types> {
        log_id: Position::new(term + 1, end).into(),
        payload: EntryPayload::Membership(Membership::new(vec![BTreeSet::from([node_id])], nodes)),
    };
    wal.save_vote(encode(&StoredVote::from(Vote { leader_id, committed: false })))?;
    wal.append(end, vec![encode(&StoredEntry::from(entry))])?;
    Ok(before)
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
