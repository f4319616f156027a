//! The APIs that administer the nodes of a cluster, on a cluster of one.

use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::{Seen, create};
use crate::support::Raw;

pub(super) fn describe_quorum(raw: &mut Raw, seen: &mut Seen) {
    const QUORUM: &str = "__cluster_metadata";
    let of = |name: &str, partitions: &[i32]| DescribeQuorumTopicRequest {
        topic_name: name.into(),
        partitions: partitions
            .iter()
            .map(|&partition_index| DescribeQuorumPartitionRequest { partition_index })
            .collect(),
    };
    for version in 0..=2 {
        for topics in [
            vec![of(QUORUM, &[0])],
            vec![],
            vec![of(QUORUM, &[])],
            vec![of(QUORUM, &[1])],
            vec![of(QUORUM, &[0, 1])],
            vec![of("no-such-topic", &[0])],
            vec![of(QUORUM, &[0]), of("no-such-topic", &[0])],
        ] {
            let what = format!("v{version} {topics:?}");
            let mut response = raw.call(version, &DescribeQuorumRequest { topics });
            response.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(without_figures);
            // Kafka's is the listener of the controllers.
            for node in &mut response.nodes {
                assert!(
                    node.listeners.iter().all(|listener| listener.host.as_str() == "127.0.0.1" && listener.port > 0)
                );
                node.listeners.truncate(1);
                node.listeners[0] = NodeListener::default();
            }
            seen.add(&what, &response);
        }
    }
}

/// Checks the figures of a quorum, which differ from node to node, and sets them to zero.
fn without_figures(quorum: &mut DescribeQuorumPartitionResponse) {
    for voter in &mut quorum.current_voters {
        assert_eq!(voter.log_end_offset, quorum.high_watermark, "one voter has all committed records");
        assert!(voter.log_end_offset > 0, "{voter:?}");
        assert_eq!(voter.last_fetch_timestamp, voter.last_caught_up_timestamp);
        voter.log_end_offset = 0;
        // -1 in a version without it.
        voter.last_fetch_timestamp = voter.last_fetch_timestamp.signum();
        voter.last_caught_up_timestamp = voter.last_caught_up_timestamp.signum();
        if !voter.replica_directory_id.is_nil() {
            voter.replica_directory_id = Uuid::max();
        }
    }
    assert!(quorum.leader_epoch >= 0, "{quorum:?}");
    (quorum.high_watermark, quorum.leader_epoch) = (0, 0);
}

pub(super) fn alter_partition_reassignments(raw: &mut Raw, seen: &mut Seen) {
    let topic = create(raw, "moved", 2, &[]);
    let to = |partition_index: i32, replicas: &[i32]| ReassignablePartition {
        partition_index,
        replicas: Some(replicas.to_vec()),
    };
    let cancel = |partition_index: i32| ReassignablePartition { partition_index, replicas: None };
    let of = |name: &str, partitions: &[ReassignablePartition]| ReassignableTopic {
        name: name.into(),
        partitions: partitions.to_vec(),
    };
    let name = topic.name.as_str();
    for topics in [
        vec![of(name, &[])],
        vec![of(name, &[to(0, &[0])])],
        vec![of(name, &[to(0, &[7]), to(1, &[0, 7])])],
        vec![of(name, &[to(0, &[]), to(1, &[0, 0])])],
        vec![of(name, &[to(0, &[-1]), to(1, &[7, 7])])],
        vec![of(name, &[cancel(0), to(1, &[0])])],
        vec![of(name, &[to(9, &[0]), cancel(-1), cancel(9)])],
        vec![of("no-such-topic", &[to(0, &[0]), cancel(3)]), of(name, &[cancel(0)])],
        vec![of(name, &[to(0, &[0]), cancel(0)])],
        vec![of(name, &[cancel(0)]), of(name, &[to(0, &[0])])],
        vec![of("", &[cancel(0)])],
    ] {
        for (version, allow_replication_factor_change) in [(0, true), (1, true), (1, false)] {
            let what = format!("v{version} {allow_replication_factor_change} {topics:?}");
            let topics = topics.clone();
            let request =
                AlterPartitionReassignmentsRequest { timeout_ms: 30_000, allow_replication_factor_change, topics };
            let mut response = raw.call(version, &request);
            for result in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
                // Kafka leaves this message out, and its clients fill it in.
                if result.error_code == ErrorCode::NO_REASSIGNMENT_IN_PROGRESS {
                    result.error_message = None;
                }
            }
            seen.add(&what, &response);
        }
    }
}

pub(super) fn update_features(raw: &mut Raw, seen: &mut Seen) {
    /// The feature of the metadata log, in Kafka and here.
    const LEVELS: [&str; 2] = ["metadata.version", "millstream.version"];
    let client = ApiVersionsRequest {
        client_software_name: "raw".into(),
        client_software_version: "1".into(),
        ..Default::default()
    };
    let features = raw.call(4, &client);
    let supported = features.supported_features.iter().find(|feature| LEVELS.contains(&feature.name.as_str()));
    let supported = supported.expect("a range of levels").clone();
    let own = supported.name.as_str();
    let level = features.finalized_features.iter().find(|feature| feature.name.as_str() == own);
    let level = level.expect("a level").max_version_level;
    // The levels differ from Kafka's.
    let range = format!("{}-{}", supported.min_version, supported.max_version);
    let up = |feature: &str, max_version_level| (feature.to_owned(), max_version_level, 1);
    for (what, updates) in [
        ("none", vec![]),
        ("unknown", vec![up("no.such.feature", 1)]),
        ("unknown, off", vec![up("no.such.feature", 0)]),
        ("unknown, off, down", vec![("no.such.feature".to_owned(), 0, 2)]),
        ("unknown, negative", vec![up("no.such.feature", -1)]),
        ("unnamed", vec![up("", 1)]),
        ("two unknown", vec![up("no.such.feature", 1), up("another", 1)]),
        ("unknown type", vec![("no.such.feature".to_owned(), 1, 9)]),
        ("too high", vec![up(own, 99)]),
        ("off", vec![up(own, 0)]),
        ("off, down", vec![(own.to_owned(), 0, 2)]),
        ("off, down at any cost", vec![(own.to_owned(), 0, 3)]),
        ("negative", vec![up(own, -1)]),
        ("the same", vec![up(own, level)]),
        ("the same, down", vec![(own.to_owned(), level, 2)]),
        ("one bad", vec![up(own, level), up("no.such.feature", 1)]),
    ] {
        for (version, validate_only) in [(0, false), (1, false), (1, true), (2, false), (2, true)] {
            let update = |(feature, max_version_level, upgrade_type): &(String, i16, i8)| FeatureUpdateKey {
                feature: feature.as_str().into(),
                max_version_level: *max_version_level,
                // A flag in version 0, a type in the others.
                allow_downgrade: version == 0 && *upgrade_type != 1,
                upgrade_type: if version == 0 { 1 } else { *upgrade_type },
            };
            let feature_updates = updates.iter().map(update).collect();
            let request = UpdateFeaturesRequest { timeout_ms: 30_000, feature_updates, validate_only };
            let mut response = raw.call(version, &request);
            let common = |text: Str| Str::from(text.replace(&range, "RANGE").replace(own, "LEVEL"));
            response.error_message = response.error_message.map(common);
            for result in &mut response.results {
                result.feature = common(result.feature.clone());
            }
            seen.add(&format!("v{version} {validate_only} {what}"), &response);
        }
    }
}

pub(super) fn unregister_broker(raw: &mut Raw, seen: &mut Seen) {
    for broker_id in [7, -1] {
        seen.add(&format!("broker {broker_id}"), &raw.call(0, &UnregisterBrokerRequest { broker_id }));
    }
}

pub(super) fn unregister_controller(raw: &mut Raw, seen: &mut Seen) {
    for controller_id in [7, -1, 0] {
        seen.add(&format!("controller {controller_id}"), &raw.call(0, &UnregisterControllerRequest { controller_id }));
    }
}
