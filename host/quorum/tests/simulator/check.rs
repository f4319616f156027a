//! What must hold whatever happens.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use millstream_quorum::storage::{SEGMENT_BYTES, Wal};
use millstream_quorum::{Leadership, Machine, NodeId, RestoreError};
use parking_lot::Mutex;

use crate::disk::Platter;

/// What all nodes together have shown.
#[derive(Default)]
pub(crate) struct Checker {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The committed entries of all nodes.
    committed: BTreeMap<u64, Bytes>,
    /// The hash of all committed entries up to an index.
    chains: BTreeMap<u64, u64>,
    acknowledged: BTreeMap<u64, Bytes>,
    leaders: BTreeMap<u64, NodeId>,
    /// The entries on all disks, by index and term.
    entries: BTreeMap<(u64, u64), Bytes>,
    /// The number of snapshots that running nodes received.
    installs: usize,
    violation: Option<String>,
    /// A hash of all that happened, in its order.
    trace: u64,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Checker {
    pub(crate) fn fail(&self, violation: String) {
        self.seen.lock().violation.get_or_insert(violation);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.seen.lock().violation.clone()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.seen.lock().trace
    }

    pub(crate) fn note(&self, event: impl Hash) {
        let mut seen = self.seen.lock();
        seen.trace = hash((seen.trace, event));
    }

    pub(crate) fn elections(&self) -> usize {
        self.seen.lock().leaders.len()
    }

    pub(crate) fn installs(&self) -> usize {
        self.seen.lock().installs
    }

    pub(crate) fn commits(&self) -> usize {
        self.seen.lock().acknowledged.len()
    }

    pub(crate) fn last_acknowledged(&self) -> u64 {
        self.seen.lock().acknowledged.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn acknowledge(&self, index: u64, bytes: Bytes) {
        self.note(("acknowledged", index));
        let mut seen = self.seen.lock();
        if seen.committed.get(&index) != Some(&bytes) {
            seen.violation.get_or_insert(format!("entry {index} is acknowledged, but another is committed"));
        }
        seen.acknowledged.insert(index, bytes);
    }

    pub(crate) fn lead(&self, known: Leadership) {
        let Some(leader) = known.leader else { return };
        self.note(("leader", known.term, leader));
        let mut seen = self.seen.lock();
        let first = *seen.leaders.entry(known.term).or_insert(leader);
        if first != leader {
            seen.violation.get_or_insert(format!("term {} has the leaders {first} and {leader}", known.term));
        }
    }

    fn apply(&self, node_id: NodeId, index: u64, bytes: &Bytes, chain: u64) {
        self.note(("applied", node_id, index));
        let mut seen = self.seen.lock();
        let known = seen.committed.entry(index).or_insert_with(|| bytes.clone()).clone();
        let known_chain = *seen.chains.entry(index).or_insert(chain);
        if known != *bytes {
            seen.violation.get_or_insert(format!("node {node_id} commits another entry {index}"));
        } else if known_chain != chain {
            seen.violation.get_or_insert(format!("node {node_id} commits other entries before {index}"));
        }
    }

    fn restore(&self, node_id: NodeId, index: u64, chain: u64, is_running: bool) {
        let mut seen = self.seen.lock();
        seen.installs += usize::from(is_running);
        if index > 0 && seen.chains.get(&index) != Some(&chain) {
            seen.violation.get_or_insert(format!("node {node_id} restores a snapshot of other entries before {index}"));
        }
    }

    /// Compares what a disk holds with what it reported as durable, and with the other disks.
    pub(crate) fn inspect(&self, node_id: NodeId, platter: &Platter) {
        let wal = match Wal::open(platter.copy(), SEGMENT_BYTES) {
            Ok(wal) => wal,
            Err(error) => return self.fail(format!("node {node_id} cannot open its log: {error}")),
        };
        let vote = wal.vote().map(|vote| vote.to_vec());
        let (durable, written) = platter.votes();
        if vote != durable && (written.is_none() || vote != written) {
            self.fail(format!("node {node_id} has forgotten a vote"));
        }
        let mut seen = self.seen.lock();
        for (index, bytes) in (wal.first()..).zip(wal.entries(0..u64::MAX)) {
            let known = seen.entries.entry((index, term(bytes))).or_insert_with(|| bytes.clone()).clone();
            if known != *bytes {
                seen.violation.get_or_insert(format!("node {node_id} has another entry {index} of the same term"));
            }
        }
    }

    /// Compares the state of a node at the end with all that was ever committed.
    pub(crate) fn finish(&self, node_id: NodeId, chain: u64) {
        let mut seen = self.seen.lock();
        let lost = seen.acknowledged.iter().find(|(index, bytes)| seen.committed.get(index) != Some(*bytes));
        if let Some(index) = lost.map(|(index, _)| *index) {
            seen.violation.get_or_insert(format!("the acknowledged entry {index} is lost"));
        }
        let whole = seen.committed.iter().fold(0, |chain, (index, bytes)| hash((chain, index, &bytes[..])));
        if whole != chain {
            seen.violation.get_or_insert(format!("node {node_id} does not have all committed entries"));
        }
    }
}

/// Returns the term of a stored entry, which is its first number.
fn term(bytes: &[u8]) -> u64 {
    let mut term = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        term |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    term
}

/// The state of a node: a hash of all entries.
pub(crate) struct ChainMachine {
    pub(crate) node_id: NodeId,
    pub(crate) checker: Arc<Checker>,
    pub(crate) chain: Arc<Mutex<u64>>,
    pub(crate) last: u64,
    /// Whether the state has changed since the process started.
    pub(crate) is_running: bool,
}

impl Machine for ChainMachine {
    fn apply(&mut self, index: u64, bytes: &Bytes) {
        if index <= self.last {
            self.checker.fail(format!("node {} applies entry {index} after {}", self.node_id, self.last));
        }
        let chain = hash((*self.chain.lock(), index, &bytes[..]));
        *self.chain.lock() = chain;
        (self.last, self.is_running) = (index, true);
        self.checker.apply(self.node_id, index, bytes, chain);
    }

    fn snapshot(&self) -> Bytes {
        [self.last.to_le_bytes(), self.chain.lock().to_le_bytes()].concat().into()
    }

    fn restore(&mut self, index: u64, snapshot: &Bytes) -> Result<(), RestoreError> {
        let (last, chain) = snapshot.split_first_chunk::<8>().ok_or("the snapshot is too short")?;
        let (last, chain) = (u64::from_le_bytes(*last), u64::from_le_bytes(chain.try_into()?));
        if last > index || last < self.last {
            self.checker.fail(format!("node {} restores {last} at {index} after {}", self.node_id, self.last));
        }
        self.checker.restore(self.node_id, last, chain, self.is_running);
        self.is_running = true;
        self.last = last;
        *self.chain.lock() = chain;
        Ok(())
    }
}
