//! The changes of in-sync sets that leaders on this broker want: what Kafka calls AlterPartition (KIP-497).

use std::sync::Arc;
use std::time::Duration;

use millstream_metadata::controller::AlterPartition;
use millstream_partition::Partition;
use millstream_partition::replica::InSyncProposal;
use millstream_wire::ErrorCode;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::{Replica, ReplicaHost};
use crate::error::ApiError;

/// The pause before a request without a clear response is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A wanted change.
#[derive(Debug)]
pub(crate) struct WantedChange {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: Arc<Partition>,
    pub(crate) proposal: InSyncProposal,
}

/// Sends the changes that leaders want to the controller, and looks for followers that lag, until `stop` says so.
///
/// A follower is looked at twice in `lag_max` (`replica.lag.time.max.ms`), as in Kafka.
pub(crate) async fn run(
    host: Arc<dyn ReplicaHost>,
    mut wanted: mpsc::UnboundedReceiver<WantedChange>,
    lag_max: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut look = interval((lag_max / 2).max(Duration::from_millis(10)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(change) = wanted.recv() => drop(tokio::spawn(carry_out(Arc::clone(&host), change))),
            _ = look.tick() => {
                for change in expired(&*host, lag_max) {
                    tokio::spawn(carry_out(Arc::clone(&host), change));
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn expired(host: &dyn ReplicaHost, lag_max: Duration) -> Vec<WantedChange> {
    let lag_max_ms = u64::try_from(lag_max.as_millis()).unwrap_or(u64::MAX);
    let expired = |Replica { topic_id, partition }: Replica| {
        let proposal = partition.expire_followers(lag_max_ms)?;
        let (topic, index) = (partition.topic(), partition.index());
        tracing::info!(topic, partition = index, isr = ?members(&proposal), "followers lag and leave the in-sync set");
        Some(WantedChange { topic_id, partition, proposal })
    };
    host.led().into_iter().filter_map(expired).collect()
}

/// Sends one change until it has a clear response. Newer metadata settles it as well, and comes by itself.
async fn carry_out(host: Arc<dyn ReplicaHost>, change: WantedChange) {
    let WantedChange { topic_id, partition, proposal } = change;
    loop {
        let replica = host.registration();
        let request = AlterPartition {
            broker: replica.replica_id,
            broker_epoch: replica.replica_epoch,
            topic: topic_id,
            partition: partition.index(),
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.clone(),
            recovered: true,
        };
        let error = match host.alter_partition(request).await {
            Ok(true) => return,
            // The set is the wanted one already.
            Ok(false) => return partition.rejected(&proposal),
            Err(error) => error,
        };
        let (topic, index) = (partition.topic(), partition.index());
        tracing::info!(topic, partition = index, isr = ?members(&proposal), %error, "the in-sync set stays");
        match settles(&error) {
            Settles::Rejected => return partition.rejected(&proposal),
            Settles::ByMetadata => return,
            Settles::Not => sleep(RETRY_AFTER).await,
        }
    }
}

/// What an error says about a request.
enum Settles {
    /// It will never be carried out.
    Rejected,
    /// It is older than metadata that is on its way to this broker.
    ByMetadata,
    /// It may have been carried out, or not.
    Not,
}

fn settles(error: &ApiError) -> Settles {
    match error.code {
        ErrorCode::INELIGIBLE_REPLICA => Settles::Rejected,
        ErrorCode::INVALID_UPDATE_VERSION
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::STALE_BROKER_EPOCH => Settles::ByMetadata,
        _ => Settles::Not,
    }
}

fn members(proposal: &InSyncProposal) -> Vec<i32> {
    proposal.isr.iter().map(|(id, _)| *id).collect()
}
