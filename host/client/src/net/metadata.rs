//! The metadata of the cluster: brokers, topics, leaders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{MetadataResponse, MetadataResponseBroker, MetadataResponseTopic, NodeEndpoint};
use uuid::Uuid;

/// A partition in the last metadata response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The broker that leads it, if any.
    pub(crate) leader: Option<i32>,
    /// Increases with every change of the leader; -1 if the broker does not report it.
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
}

/// A topic in the last metadata response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    /// All zeros if the broker has no topic ids.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// By partition number.
    pub(crate) partitions: Vec<Partition>,
}

impl Topic {
    /// Checks whether this broker leads the partition.
    pub(crate) fn is_led_by(&self, node: i32, partition: usize) -> bool {
        self.partitions.get(partition).is_some_and(|partition| partition.leader == Some(node))
    }
}

/// The metadata of the cluster. Every refresh replaces it as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    /// Increases with every refresh.
    pub(crate) generation: u64,
    pub(crate) fetched: Instant,
    pub(crate) controller: Option<i32>,
    /// `host:port` by node id.
    pub(crate) brokers: HashMap<i32, Arc<str>>,
    pub(crate) topics: HashMap<Arc<str>, Result<Arc<Topic>, ErrorCode>>,
}

/// A leader that the response of another broker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewLeader<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    /// -1 if the broker knows none.
    pub(crate) id: i32,
    pub(crate) epoch: i32,
}

impl Metadata {
    /// Returns the metadata before the first response.
    pub(crate) fn empty() -> Self {
        Self {
            generation: 0,
            fetched: Instant::now(),
            controller: None,
            brokers: HashMap::new(),
            topics: HashMap::new(),
        }
    }

    /// Returns the topic, if the last response had it without an error.
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)?.as_ref().ok()
    }

    /// Returns the broker that leads the partition, and the leader epoch.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let partition = self.topic(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// Returns the name of the topic with this id.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<&Arc<str>> {
        self.topics.iter().find(|(_, topic)| topic.as_ref().is_ok_and(|topic| topic.id == id)).map(|(name, _)| name)
    }

    /// Returns the metadata with these leaders, or `None` if none of them is newer or can be reached.
    pub(crate) fn with_leaders(&self, leaders: &[NewLeader<'_>], endpoints: &[NodeEndpoint]) -> Option<Self> {
        let mut changed = None;
        for NewLeader { topic, partition, id, epoch } in leaders.iter().copied() {
            let Ok(index) = usize::try_from(partition) else { continue };
            let known = self.topic(topic).and_then(|known| known.partitions.get(index));
            let endpoint = endpoints.iter().find(|endpoint| endpoint.node_id == id);
            let is_reachable = endpoint.is_some() || self.brokers.contains_key(&id);
            if known.is_none_or(|known| known.leader_epoch >= epoch) || !is_reachable {
                continue;
            }
            let newer: &mut Self = changed.get_or_insert_with(|| self.clone());
            if let Some(endpoint) = endpoint {
                newer.brokers.insert(id, address_of(&endpoint.host, endpoint.port).into());
            }
            if let Some(Ok(topic)) = newer.topics.get_mut(topic)
                && let Some(partition) = Arc::make_mut(topic).partitions.get_mut(index)
            {
                (partition.leader, partition.leader_epoch) = (Some(id), epoch);
            }
        }
        changed
    }

    /// Returns the metadata after `response`, which covers all followed topics.
    pub(crate) fn updated(&self, response: MetadataResponse) -> Self {
        let address = |broker: &MetadataResponseBroker| address_of(&broker.host, broker.port).into();
        let brokers = response.brokers.iter().map(|broker| (broker.node_id, address(broker)));
        let topics = response.topics.iter().filter_map(|topic| {
            let name: Arc<str> = topic.name.as_deref()?.into();
            let known = self.topic(&name);
            Some((name, read_topic(topic, known.map(|known| &**known)).map(Arc::new)))
        });
        Self {
            generation: self.generation + 1,
            fetched: Instant::now(),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: brokers.collect(),
            topics: topics.collect(),
        }
    }
}

/// Returns `host:port`, with brackets around an IPv6 address.
pub(crate) fn address_of(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Reads a topic of a response. Brokers learn of a new leader at different times, so a partition with an older leader
/// epoch than the known one is ignored (KIP-320).
fn read_topic(topic: &MetadataResponseTopic, known: Option<&Topic>) -> Result<Topic, ErrorCode> {
    if topic.error_code != ErrorCode::NONE && topic.partitions.is_empty() {
        return Err(topic.error_code);
    }
    let mut listed: Vec<_> = topic.partitions.iter().collect();
    listed.sort_by_key(|partition| partition.partition_index);
    // Partitions are numbered from 0 without gaps; a gap makes the response unusable.
    if (0..).zip(&listed).any(|(index, partition)| partition.partition_index != index) {
        return Err(ErrorCode::LEADER_NOT_AVAILABLE);
    }
    let known = known.filter(|known| known.id == topic.topic_id);
    let partitions = listed.iter().enumerate().map(|(index, partition)| {
        let newer = known.and_then(|known| known.partitions.get(index));
        match newer.filter(|newer| newer.leader_epoch > partition.leader_epoch && partition.leader_epoch >= 0) {
            Some(newer) => newer.clone(),
            None => Partition {
                leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                leader_epoch: partition.leader_epoch,
                replicas: partition.replica_nodes.clone(),
                in_sync: partition.isr_nodes.clone(),
            },
        }
    });
    Ok(Topic { id: topic.topic_id, internal: topic.is_internal, partitions: partitions.collect() })
}

#[cfg(test)]
mod tests {
    use millstream_wire::Str;
    use millstream_wire::messages::{MetadataResponseBroker, MetadataResponsePartition};

    use super::*;

    fn response(epoch: i32, leader_id: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition { leader_id, leader_epoch: epoch, ..Default::default() };
        let topic =
            MetadataResponseTopic { name: Some(Str::from("t")), partitions: vec![partition], ..Default::default() };
        let broker = MetadataResponseBroker { node_id: 1, host: Str::from("::1"), port: 9, ..Default::default() };
        MetadataResponse { brokers: vec![broker], topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn an_older_response_changes_no_leader() {
        let first = Metadata::empty().updated(response(5, 1));
        assert_eq!(first.leader("t", 0), Some((1, 5)));
        assert_eq!(first.updated(response(4, 2)).leader("t", 0), Some((1, 5)));
        assert_eq!(first.updated(response(6, -1)).leader("t", 0), None);
        assert_eq!(first.leader("t", 1), None);
        assert_eq!(&*first.brokers[&1], "[::1]:9");
    }

    #[test]
    fn a_named_leader_counts_if_it_is_newer_and_can_be_reached() {
        let known = Metadata::empty().updated(response(5, 1));
        let leader = |id, epoch| [NewLeader { topic: "t", partition: 0, id, epoch }];
        let endpoint = [NodeEndpoint { node_id: 2, host: Str::from("b"), port: 8, ..Default::default() }];
        assert!(known.with_leaders(&leader(2, 5), &endpoint).is_none(), "the epoch is known");
        assert!(known.with_leaders(&leader(2, 6), &[]).is_none(), "it has no address");
        assert!(known.with_leaders(&[NewLeader { topic: "u", ..leader(2, 6)[0] }], &endpoint).is_none());
        let newer = known.with_leaders(&leader(2, 6), &endpoint).expect("it is newer");
        assert_eq!((newer.leader("t", 0), &*newer.brokers[&2]), (Some((2, 6)), "b:8"));
        assert_eq!(newer.updated(response(5, 1)).leader("t", 0), Some((2, 6)), "an older response changes no leader");
    }

    #[test]
    fn errors_and_gaps_give_no_topic() {
        let mut gap = response(1, 1);
        gap.topics[0].partitions[0].partition_index = 1;
        let metadata = Metadata::empty().updated(gap);
        assert_eq!(metadata.topics["t"], Err(ErrorCode::LEADER_NOT_AVAILABLE));
        let mut unknown = response(1, 1);
        unknown.topics[0].partitions.clear();
        unknown.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert!(Metadata::empty().updated(unknown).topic("t").is_none());
    }
}
