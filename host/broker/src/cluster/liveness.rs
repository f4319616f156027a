//! Which processes have ended.
//!
//! Each node holds a connection to every other node. The operating system closes the connections of a process that
//! ends. If a new one is not accepted, or by another process, the old process is gone. A host that vanishes closes
//! nothing: the session timeout of the controller is for those.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use millstream_quorum::{NodeId, Quorum};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::Cluster;
use super::peers::PeerError;

/// The pause before a connection is retried.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What is known of the process of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// It was the last one that accepted a connection.
    Runs(Uuid),
    /// It has ended, and no other one was seen since.
    Ended(Uuid),
}

/// What is known of each node. A node that was never reached is missing.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    by_node: HashMap<NodeId, Process>,
    /// The newest level of the metadata log that the last process of a node knows.
    levels: HashMap<NodeId, u16>,
}

impl Processes {
    /// Returns whether a process has ended: it was seen to end, or another one runs in its place.
    pub(crate) fn has_ended(&self, node_id: NodeId, incarnation: Uuid) -> bool {
        match self.by_node.get(&node_id) {
            None => false,
            Some(Process::Runs(other)) => *other != incarnation,
            Some(Process::Ended(ended)) => *ended == incarnation,
        }
    }

    /// Returns whether a node has no process, as far as is known.
    fn is_gone(&self, node_id: NodeId) -> bool {
        matches!(self.by_node.get(&node_id), Some(Process::Ended(_)))
    }
}

impl Cluster {
    /// Watches the other members of the quorum until `stop` says so.
    pub(crate) async fn watch_nodes(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut watched: HashMap<NodeId, (String, AbortHandle)> = HashMap::new();
        let mut applied = self.applied();
        loop {
            applied.mark_unchanged();
            let members = self.other_members();
            watched.retain(|id, (address, task)| {
                let stays = members.get(id) == Some(address);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (id, address) in members {
                let cluster = Arc::clone(&self);
                watched.entry(id).or_insert_with(|| {
                    let task = tokio::spawn(cluster.watch_node(id, address.clone()));
                    (address, task.abort_handle())
                });
            }
            tokio::select! {
                // Changes of the members are entries.
                changed = applied.changed() => if changed.is_err() { break },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        watched.into_values().for_each(|(_, task)| task.abort());
    }

    /// Returns whether a majority of the voters runs, with this node or without it.
    pub(crate) fn has_majority(&self, with_this: bool) -> bool {
        let Some(quorum) = self.quorum() else { return false };
        let voters = quorum.describe().voters;
        let processes = self.processes.borrow();
        let runs = |id: NodeId| if id == self.node_id { with_this } else { !processes.is_gone(id) };
        voters.iter().filter(|voter| runs(voter.node_id)).count() * 2 > voters.len()
    }

    /// Waits until no majority of the voters runs.
    pub(crate) async fn majority_is_gone(&self) {
        let mut processes = self.processes.subscribe();
        while self.has_majority(true) {
            if processes.changed().await.is_err() {
                return;
            }
        }
    }

    fn other_members(&self) -> HashMap<NodeId, String> {
        let Some(quorum) = self.quorum() else { return HashMap::new() };
        let description = quorum.describe();
        let members = description.voters.into_iter().chain(description.observers);
        let others = members.filter(|member| member.node_id != self.node_id);
        others.map(|member| (member.node_id, self.peers.address(&member.peer))).collect()
    }

    async fn watch_node(self: Arc<Self>, node_id: NodeId, address: String) {
        let mut known: Option<Uuid> = None;
        loop {
            match self.peers.connect(&address).await {
                Ok(mut connection) if connection.welcome.node_id == node_id => {
                    let incarnation = connection.welcome.incarnation;
                    if let Some(before) = known.replace(incarnation).filter(|before| *before != incarnation) {
                        self.process_ended(node_id, before).await;
                    }
                    self.note(node_id, Process::Runs(incarnation));
                    self.note_level(node_id, connection.welcome.level_max);
                    connection.closed().await;
                    // At once: this shows whether the process has ended.
                    continue;
                }
                Err(PeerError::NotSent { error, .. }) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    if let Some(before) = known.take() {
                        self.process_ended(node_id, before).await;
                    }
                }
                Ok(_) | Err(_) => {}
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn process_ended(&self, node_id: NodeId, incarnation: Uuid) {
        tracing::info!(node_id, "the process of a node has ended");
        self.note(node_id, Process::Ended(incarnation));
        if let Some(quorum) = self.quorum() {
            quorum.declare_dead(node_id).await;
        }
    }

    /// Returns the newest level of the metadata log that each other member of the quorum knows; `None` for one that was
    /// never reached.
    pub(crate) fn member_levels(&self) -> BTreeMap<NodeId, Option<u16>> {
        let processes = self.processes.borrow();
        self.other_members().into_keys().map(|id| (id, processes.levels.get(&id).copied())).collect()
    }

    fn note_level(&self, node_id: NodeId, level: u16) {
        self.processes.send_if_modified(|processes| {
            processes.levels.insert(node_id, level);
            // No wait is about levels.
            false
        });
    }

    fn note(&self, node_id: NodeId, process: Process) {
        self.processes.send_modify(|processes| {
            processes.by_node.insert(node_id, process);
        });
    }
}
