//! Where the partitions of a node go when it is drained.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_client::TopicPartition;

/// A node that can take partitions.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: i32,
    pub(super) rack: Option<Arc<str>>,
}

/// The replicas of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replicas {
    /// The nodes that have one.
    pub(super) nodes: Vec<i32>,
    /// Whether the partition is one of an internal topic.
    pub(super) is_internal: bool,
}

/// A partition for which no other node is left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "partition {}:{} has {replicas} replicas, and every other node that is alive has one: add a node, or lower the \
     number of its replicas with `millstream cluster reassign`", partition.topic, partition.partition
)]
pub(super) struct NoNodeLeft {
    partition: TopicPartition,
    replicas: usize,
}

/// Returns new replicas for each partition on a node. The node is replaced in its place in the list by the node with
/// the fewest replicas, one in a rack without a replica of the partition if there is any. Where every other node has a
/// replica, a partition of an internal topic has one less from then on: the cluster decides how many those have.
///
/// `nodes` are those that are alive; `partitions` has the replicas of all partitions, and decides how many each node
/// has.
///
/// # Errors
/// No other node is left for a partition.
pub(super) fn plan(
    leaving: i32,
    nodes: &[Node],
    partitions: &BTreeMap<TopicPartition, Replicas>,
) -> Result<BTreeMap<TopicPartition, Vec<i32>>, NoNodeLeft> {
    let mut load: BTreeMap<i32, usize> = BTreeMap::new();
    for id in partitions.values().flat_map(|replicas| &replicas.nodes) {
        *load.entry(*id).or_default() += 1;
    }
    let mut moves = BTreeMap::new();
    let held = partitions.iter().filter(|(_, replicas)| replicas.nodes.contains(&leaving));
    for (partition, Replicas { nodes: replicas, is_internal }) in held {
        let racks: Vec<&Arc<str>> = nodes
            .iter()
            .filter(|node| node.id != leaving && replicas.contains(&node.id))
            .filter_map(|node| node.rack.as_ref())
            .collect();
        let others = nodes.iter().filter(|node| node.id != leaving && !replicas.contains(&node.id));
        let cost = |node: &&Node| {
            let shares_rack = node.rack.as_ref().is_some_and(|rack| racks.contains(&rack));
            (shares_rack, load.get(&node.id).copied().unwrap_or(0), node.id)
        };
        let Some(chosen) = others.min_by_key(cost) else {
            if *is_internal && replicas.len() > 1 {
                moves.insert(partition.clone(), replicas.iter().copied().filter(|id| *id != leaving).collect());
                continue;
            }
            return Err(NoNodeLeft { partition: partition.clone(), replicas: replicas.len() });
        };
        *load.entry(chosen.id).or_default() += 1;
        let moved = replicas.iter().map(|&id| if id == leaving { chosen.id } else { id });
        moves.insert(partition.clone(), moved.collect());
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(nodes: &[(i32, Option<&str>)]) -> Vec<Node> {
        nodes.iter().map(|(id, rack)| Node { id: *id, rack: rack.map(Arc::from) }).collect()
    }

    fn partitions(replicas: &[&[i32]]) -> BTreeMap<TopicPartition, Replicas> {
        let named = (0..).zip(replicas).map(|(index, nodes)| {
            (TopicPartition::new("t", index), Replicas { nodes: nodes.to_vec(), is_internal: false })
        });
        named.collect()
    }

    #[test]
    fn the_least_loaded_nodes_take_the_place_of_the_one_that_leaves() {
        let nodes = nodes(&[(1, None), (2, None), (3, None), (4, None)]);
        let before = partitions(&[&[1, 2], &[2, 1], &[3, 1], &[1, 3], &[2, 3]]);
        let after = plan(1, &nodes, &before).unwrap();
        let of = |index| after.get(&TopicPartition::new("t", index)).map(Vec::as_slice);
        // Node 4 has none yet; then 3 and 4 have as many, and 2 is one ahead.
        assert_eq!([of(0), of(1), of(2), of(3)], [Some(&[4, 2][..]), Some(&[2, 4]), Some(&[3, 4]), Some(&[2, 3])]);
        assert_eq!(of(4), None, "it is on other nodes");
    }

    #[test]
    fn racks_are_kept_apart() {
        let nodes = nodes(&[(1, Some("a")), (2, Some("b")), (3, Some("b")), (4, Some("a"))]);
        // Node 4 has more replicas than 3, but 3 is in the rack of 2.
        let before = partitions(&[&[1, 2], &[4], &[4]]);
        let after = plan(1, &nodes, &before).unwrap();
        assert_eq!(after[&TopicPartition::new("t", 0)], [4, 2]);
        let after = plan(4, &nodes[1..3], &partitions(&[&[4, 2]])).unwrap();
        assert_eq!(after[&TopicPartition::new("t", 0)], [3, 2], "the same rack is better than none");
    }

    #[test]
    fn a_partition_that_cannot_go_anywhere_is_named() {
        let error = plan(1, &nodes(&[(1, None), (2, None)]), &partitions(&[&[1, 2]])).unwrap_err();
        assert!(error.to_string().starts_with("partition t:0 has 2 replicas"), "{error}");
    }

    #[test]
    fn an_internal_topic_has_a_replica_less_where_no_other_node_is_left() {
        let internal = |nodes: &[i32]| {
            BTreeMap::from([(TopicPartition::new("i", 0), Replicas { nodes: nodes.to_vec(), is_internal: true })])
        };
        let nodes = nodes(&[(1, None), (2, None)]);
        assert_eq!(plan(1, &nodes, &internal(&[1, 2])).unwrap()[&TopicPartition::new("i", 0)], [2]);
        assert_eq!(
            plan(1, &nodes, &internal(&[1])).unwrap()[&TopicPartition::new("i", 0)],
            [2],
            "another node is left"
        );
        plan(1, &nodes[..1], &internal(&[1])).unwrap_err();
    }
}
