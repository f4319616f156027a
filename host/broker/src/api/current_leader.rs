//! The leaders that responses name beside an error, to spare the client a metadata request (KIP-951).

use millstream_partition::Partition;
use millstream_wire::Str;
use millstream_wire::messages::{LeaderIdAndEpoch, NodeEndpoint};

use crate::broker::Broker;
use crate::net::types::ConnectionInfo;

/// Returns the leader of a partition, as this broker knows it.
pub(super) fn current_leader(partition: &Partition) -> LeaderIdAndEpoch {
    LeaderIdAndEpoch { leader_id: partition.leader(), leader_epoch: partition.leader_epoch() }
}

/// Returns the addresses of those leaders that the client can reach, each once.
pub(super) fn endpoints<'a>(
    broker: &Broker,
    connection: &ConnectionInfo,
    leaders: impl Iterator<Item = &'a LeaderIdAndEpoch>,
) -> Vec<NodeEndpoint> {
    let mut ids: Vec<i32> = leaders.map(|leader| leader.leader_id).filter(|id| *id >= 0).collect();
    ids.sort_unstable();
    ids.dedup();
    let image = broker.metadata.image();
    let endpoint = |node_id: i32| {
        let registered = image.broker(node_id).filter(|registered| !registered.fenced)?;
        let (host, port) = broker.endpoint(connection, node_id)?;
        let rack = registered.registration.rack.as_deref().map(Str::from);
        Some(NodeEndpoint { node_id, host, port, rack })
    };
    ids.into_iter().filter_map(endpoint).collect()
}
