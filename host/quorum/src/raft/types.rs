//! The types that the consensus library is used with, and their bytes on disk.
//!
//! What is stored are our own types: a new version of the library can change its own, and a log stays readable.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::{
    AsyncRuntime, CommittedLeaderId, EntryPayload, LogId, Membership, OptionalSend, StoredMembership, Vote,
};
use serde::{Deserialize, Serialize};

use crate::quorum::{NodeId, Peer};

openraft::declare_raft_types!(
    /// The types of a quorum: entries are bytes, and applying one returns nothing.
    pub(super) Types:
        D = Bytes,
        R = (),
        NodeId = NodeId,
        Node = Peer,
        Entry = openraft::Entry<Types>,
        SnapshotData = Bytes,
        AsyncRuntime = Runtime,
);

/// A runtime on tokio that draws its randomness from `fastrand`, so that a test can seed it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runtime;

/// A random number generator whose seed a test can choose.
pub(super) struct ThreadRng;

impl rand_08::RngCore for ThreadRng {
    fn next_u32(&mut self) -> u32 {
        fastrand::u32(..)
    }

    fn next_u64(&mut self) -> u64 {
        fastrand::u64(..)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        fastrand::fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_08::Error> {
        fastrand::fill(bytes);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = tokio::time::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = ThreadRng;
    type OneshotSender<T: OptionalSend> = <openraft::TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type OneshotReceiverError = tokio::sync::oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        ThreadRng
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        openraft::TokioRuntime::oneshot()
    }
}

/// The place of an entry in the log: the term of its leader, and its index.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Position {
    term: u64,
    index: u64,
}

impl Position {
    pub(super) fn new(term: u64, index: u64) -> Self {
        Self { term, index }
    }
}

impl From<LogId<NodeId>> for Position {
    fn from(id: LogId<NodeId>) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<Position> for LogId<NodeId> {
    fn from(position: Position) -> Self {
        // In a term with a single leader, the id of the node is not a part of an entry's position.
        LogId::new(CommittedLeaderId::new(position.term, NodeId::default()), position.index)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredVote {
    term: u64,
    voted_for: Option<NodeId>,
    committed: bool,
}

impl From<Vote<NodeId>> for StoredVote {
    fn from(vote: Vote<NodeId>) -> Self {
        Self { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<StoredVote> for Vote<NodeId> {
    fn from(stored: StoredVote) -> Self {
        let leader_id = openraft::LeaderId { term: stored.term, voted_for: stored.voted_for };
        Self { leader_id, committed: stored.committed }
    }
}

/// The members: one set of voters, or two while they change; and all nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Members {
    voters: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, Peer>,
}

impl From<&Membership<NodeId, Peer>> for Members {
    fn from(membership: &Membership<NodeId, Peer>) -> Self {
        let nodes = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        Self { voters: membership.get_joint_config().clone(), nodes }
    }
}

impl From<Members> for Membership<NodeId, Peer> {
    fn from(members: Members) -> Self {
        Self::new(members.voters, members.nodes)
    }
}

#[derive(Serialize, Deserialize)]
enum StoredPayload {
    Blank,
    Data(Bytes),
    Members(Members),
}

/// An entry, without its index.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredEntry {
    term: u64,
    payload: StoredPayload,
}

impl From<openraft::Entry<Types>> for StoredEntry {
    fn from(entry: openraft::Entry<Types>) -> Self {
        let payload = match entry.payload {
            EntryPayload::Blank => StoredPayload::Blank,
            EntryPayload::Normal(bytes) => StoredPayload::Data(bytes),
            EntryPayload::Membership(membership) => StoredPayload::Members(Members::from(&membership)),
        };
        Self { term: entry.log_id.leader_id.term, payload }
    }
}

impl StoredEntry {
    pub(super) fn at(self, index: u64) -> openraft::Entry<Types> {
        let payload = match self.payload {
            StoredPayload::Blank => EntryPayload::Blank,
            StoredPayload::Data(bytes) => EntryPayload::Normal(bytes),
            StoredPayload::Members(members) => EntryPayload::Membership(members.into()),
        };
        openraft::Entry { log_id: Position { term: self.term, index }.into(), payload }
    }
}

/// What is stored about a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotDescription {
    id: String,
    last: Option<Position>,
    members_at: Option<Position>,
    members: Members,
}

pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Peer>;

impl From<&SnapshotMeta> for SnapshotDescription {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            id: meta.snapshot_id.clone(),
            last: meta.last_log_id.map(Position::from),
            members_at: meta.last_membership.log_id().map(Position::from),
            members: Members::from(meta.last_membership.membership()),
        }
    }
}

impl From<SnapshotDescription> for SnapshotMeta {
    fn from(stored: SnapshotDescription) -> Self {
        Self {
            last_log_id: stored.last.map(LogId::from),
            last_membership: StoredMembership::new(stored.members_at.map(LogId::from), stored.members.into()),
            snapshot_id: stored.id,
        }
    }
}

/// Returns the bytes of a stored value.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    Bytes::from(postcard::to_allocvec(value).expect("values of the log have lengths"))
}

/// Returns the value of stored bytes.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> postcard::Result<T> {
    postcard::from_bytes(bytes)
}
