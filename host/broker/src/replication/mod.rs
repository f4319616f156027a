//! Following leaders: what a follower does over the network. Deciding what a response means is the partition's work
//! (`host/partition/src/replication.rs`).
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | one fetcher for each leader |
//! | `fetcher.rs` | the fetches from one leader, for all partitions that follow it |
//! | `connection.rs` | one connection to another broker |

mod connection;
mod fetcher;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use fetcher::{FetcherConfig, Followed, FollowerHost};

use fetcher::Fetcher;

/// A fetcher that runs. It ends when this is dropped.
struct Running {
    address: (String, u16),
    _stop: watch::Sender<bool>,
}

/// Runs a fetcher for each leader that partitions of this broker follow, until `stop` says so.
pub(crate) async fn run(host: Arc<dyn FollowerHost>, config: FetcherConfig, mut stop: watch::Receiver<bool>) {
    let mut roles = host.roles();
    let mut running: HashMap<i32, Running> = HashMap::new();
    loop {
        roles.mark_unchanged();
        let leaders = host.leaders();
        running.retain(|leader, fetcher| {
            leaders.contains(leader) && host.address(*leader).as_ref() == Some(&fetcher.address)
        });
        for leader in leaders.into_iter().filter(|leader| !running.contains_key(leader)).collect::<Vec<_>>() {
            let Some(address) = host.address(leader) else {
                tracing::warn!(leader, "the leader has no listener for other brokers");
                continue;
            };
            let (sender, stopped) = watch::channel(false);
            let fetcher = Fetcher::new(Arc::clone(&host), leader, address.clone(), config.clone());
            tokio::spawn(fetcher.run(stopped));
            running.insert(leader, Running { address, _stop: sender });
        }
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
