//! Replication between brokers: the fetches of followers, and the in-sync sets that leaders want. Deciding what a fetch
//! or a response means is the partition's work (`host/partition/src/replication.rs`).
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | what replication needs of its broker, and the fetchers for each leader |
//! | `fetcher.rs` | the fetches from one leader, for a share of the partitions that follow it |
//! | `appends.rs` | what has come from a leader, until it is appended and synced |
//! | `session.rs` | what the leader remembers of the partitions of a fetcher |
//! | `connection.rs` | one connection to another broker |
//! | `throttle.rs` | the rates that bound how fast followers catch up |
//! | `in_sync.rs` | the changes of in-sync sets that leaders on this broker want |

#[cfg(test)]
mod ahead_tests;
mod appends;
mod connection;
mod fetcher;
mod in_sync;
mod session;
#[cfg(test)]
mod tests;
mod throttle;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use millstream_metadata::controller::AlterPartition;
use millstream_partition::Partition;
use millstream_wire::messages::ReplicaState;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) use connection::{Connection, ConnectionError};
pub(crate) use fetcher::FetcherConfig;
pub(crate) use in_sync::{WantedChange, run as run_in_sync};
pub(crate) use throttle::{Quota, Throttle};

use crate::error::ApiError;
use fetcher::Fetcher;

type AlterFuture<'a> = Pin<Box<dyn Future<Output = Result<bool, ApiError>> + Send + 'a>>;

/// A replica of this broker.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: Arc<Partition>,
}

/// A partition by the id of its topic and its number.
type PartitionKey = (Uuid, i32);

impl Replica {
    fn key(&self) -> PartitionKey {
        (self.topic_id, self.partition.index())
    }

    /// Returns which of `fetchers` fetches the replica: always the same, and each has its share of a topic.
    fn fetcher(&self, fetchers: usize) -> usize {
        let (topic_id, index) = self.key();
        let (_, topic) = topic_id.as_u64_pair();
        (topic.wrapping_add(index.unsigned_abs().into()) % fetchers as u64) as usize
    }
}

/// What replication needs of its broker.
pub(crate) trait ReplicaHost: Send + Sync + 'static {
    /// Returns the id of this broker and the epoch of its registration.
    fn registration(&self) -> ReplicaState;

    /// Returns the leaders that partitions of this broker follow.
    fn leaders(&self) -> BTreeSet<i32>;

    /// Returns the host and the port of another broker's listener for brokers; `None` if it has none.
    fn address(&self, broker: i32) -> Option<(String, u16)>;

    /// Returns the replicas that follow a leader.
    fn followed(&self, leader: i32) -> Vec<Replica>;

    /// Returns the replicas that lead and have followers.
    fn led(&self) -> Vec<Replica>;

    /// Returns the throttle of this broker's fetches; `None` without a rate.
    fn throttle(&self) -> Option<Throttle>;

    /// Returns whether a topic config names the replica as throttled on the follower.
    fn is_throttled(&self, replica: &Replica) -> bool;

    /// Returns a signal that changes after the roles of partitions have changed.
    fn roles(&self) -> watch::Receiver<u64>;

    /// Writes the checkpoint of recovery points durably. Blocks for the disk.
    ///
    /// # Errors
    /// The disk failed.
    fn write_recovery_points(&self) -> io::Result<()>;

    /// Asks the controller for an in-sync set. Returns whether it has changed.
    fn alter_partition(&self, request: AlterPartition) -> AlterFuture<'_>;
}

/// A fetcher that runs. It ends when this is dropped.
struct Running {
    address: (String, u16),
    _stop: watch::Sender<bool>,
}

/// Runs the fetchers of each leader that partitions of this broker follow, until `stop` says so. When this returns, no
/// fetcher writes to a log any more.
pub(crate) async fn run(host: Arc<dyn ReplicaHost>, config: FetcherConfig, mut stop: watch::Receiver<bool>) {
    let mut roles = host.roles();
    let mut running: HashMap<(i32, usize), Running> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        roles.mark_unchanged();
        let leaders = host.leaders();
        running.retain(|(leader, _), fetcher| {
            leaders.contains(leader) && host.address(*leader).as_ref() == Some(&fetcher.address)
        });
        let fetchers = config.fetch.fetchers;
        let wanted = leaders.into_iter().flat_map(|leader| (0..fetchers).map(move |index| (leader, index)));
        for (leader, index) in wanted.filter(|fetcher| !running.contains_key(fetcher)).collect::<Vec<_>>() {
            let Some(address) = host.address(leader) else {
                tracing::warn!(leader, "the leader has no listener for other brokers");
                continue;
            };
            let (sender, stopped) = watch::channel(false);
            let fetcher = Fetcher::new(Arc::clone(&host), (leader, index), address.clone(), config.clone());
            tasks.spawn(fetcher.run(stopped));
            running.insert((leader, index), Running { address, _stop: sender });
        }
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { break },
            Some(_) = tasks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    drop(running);
    while tasks.join_next().await.is_some() {}
}
