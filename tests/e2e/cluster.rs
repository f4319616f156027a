//! The APIs that administer the nodes of a cluster, on a cluster of one.

use std::fs;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use millstream_client::KafkaUuid;
use millstream_tests::{Broker, Cluster, Tool, millstream};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch};

fn quorum(raw: &mut Raw) -> (DescribeQuorumPartitionResponse, DescribeQuorumNode) {
    let partitions = vec![DescribeQuorumPartitionRequest { partition_index: 0 }];
    let topics = vec![DescribeQuorumTopicRequest { topic_name: "__cluster_metadata".into(), partitions }];
    let mut response = raw.call(2, &DescribeQuorumRequest { topics });
    (response.topics.remove(0).partitions.remove(0), response.nodes.remove(0))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("64 bits of milliseconds")
}

/// Returns the data folder's `directory.id`.
fn directory_id(broker: &Broker) -> String {
    let text = fs::read_to_string(broker.folder().join("meta.properties")).expect("a data folder");
    let id = text.lines().find_map(|line| line.strip_prefix("directory.id=")).expect("an id");
    id.to_owned()
}

#[test]
fn the_quorum_has_the_figures_of_the_metadata_log() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let before = now_ms();
    let (first, node) = quorum(&mut raw);
    let [voter] = first.current_voters.as_slice() else { panic!("not one voter: {first:?}") };
    assert_eq!((first.leader_id, voter.replica_id, node.node_id), (0, 0, 0));
    assert_eq!((voter.log_end_offset, first.observers.len()), (first.high_watermark, 0));
    assert_eq!(KafkaUuid(voter.replica_directory_id).to_string(), directory_id(&broker));
    for timestamp in [voter.last_fetch_timestamp, voter.last_caught_up_timestamp] {
        assert!((before..=now_ms()).contains(&timestamp), "{timestamp}");
    }
    let [listener] = node.listeners.as_slice() else { panic!("not one listener: {node:?}") };
    assert_eq!(listener.name.as_str(), "PLAINTEXT");
    TcpStream::connect((listener.host.as_str(), listener.port)).expect("the address can be reached");

    Topic::create(&mut raw, "first", 3, &[]);
    let (grown, _) = quorum(&mut raw);
    assert_eq!(grown.high_watermark, first.high_watermark + 1, "a topic is one record");
    Topic::create(&mut raw, "first-config", 1, &[("retention.ms", "60000")]).produce(&mut raw, batch(&["value"]));
    let (last, _) = quorum(&mut raw);
    assert!(last.high_watermark > grown.high_watermark, "{last:?}");

    // A clean stop keeps the log and its epoch as they are. After a crash the epoch is a new one, which is a record.
    broker.stop(Signal::TERM);
    broker.restart();
    let (stopped, _) = quorum(&mut Raw::connect(&broker));
    assert_eq!((stopped.high_watermark, stopped.leader_epoch), (last.high_watermark, last.leader_epoch));
    broker.kill();
    broker.restart();
    let (killed, _) = quorum(&mut Raw::connect(&broker));
    assert_eq!((killed.high_watermark, killed.leader_epoch), (last.high_watermark + 1, last.leader_epoch + 1));
    let [again] = killed.current_voters.as_slice() else { panic!("not one voter: {killed:?}") };
    assert_eq!(again.replica_directory_id, voter.replica_directory_id);
}

fn reassign(raw: &mut Raw, topic: &str, replicas: Option<&[i32]>) -> ReassignablePartitionResponse {
    let partition = ReassignablePartition { partition_index: 0, replicas: replicas.map(<[i32]>::to_vec) };
    let topics = vec![ReassignableTopic { name: topic.into(), partitions: vec![partition] }];
    let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
    raw.call(1, &request).responses.remove(0).partitions.remove(0)
}

#[test]
fn a_partition_stays_on_the_only_broker() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "orders", 1, &[]);
    Topic::create(&mut raw, "large", 1, &[("view.of", "orders")]);
    topic.produce(&mut raw, batch(&["first"]));
    let (before, _) = quorum(&mut raw);
    for (name, replicas, code, message) in [
        ("orders", Some(&[0][..]), ErrorCode::NONE, None),
        ("orders", Some(&[0, 1]), ErrorCode::INVALID_REPLICA_ASSIGNMENT, Some("no such broker is registered")),
        ("orders", Some(&[]), ErrorCode::INVALID_REPLICA_ASSIGNMENT, Some("an empty replica list")),
        ("orders", None, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, Some("No partition reassignment is in progress.")),
        ("absent", Some(&[0]), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some("Unable to find a topic named absent.")),
        ("large", Some(&[0]), ErrorCode::INVALID_TOPIC_EXCEPTION, Some("large is a view")),
    ] {
        let result = reassign(&mut raw, name, replicas);
        assert_eq!(result.error_code, code, "{name} {replicas:?}");
        let found = result.error_message.as_deref().unwrap_or_default();
        assert!(found.contains(message.unwrap_or_default()), "{name} {replicas:?}: {found}");
    }
    let empty = raw.call(0, &AlterPartitionReassignmentsRequest::default());
    assert_eq!((empty.error_code, empty.responses.len()), (ErrorCode::NONE, 0));
    assert_eq!(quorum(&mut raw).0.high_watermark, before.high_watermark, "nothing was written");
    topic.produce(&mut raw, batch(&["second"]));
}

fn features(raw: &mut Raw) -> ApiVersionsResponse {
    let request = ApiVersionsRequest {
        client_software_name: "raw".into(),
        client_software_version: "1".into(),
        ..Default::default()
    };
    raw.call(3, &request)
}

fn raise(raw: &mut Raw, level: i16, validate_only: bool) -> UpdateFeaturesResponse {
    let update =
        FeatureUpdateKey { feature: "millstream.version".into(), max_version_level: level, ..Default::default() };
    raw.call(1, &UpdateFeaturesRequest { feature_updates: vec![update], validate_only, ..Default::default() })
}

#[test]
fn the_feature_level_of_the_metadata_is_a_feature() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let before = features(&mut raw);
    let name = || "millstream.version".into();
    let supported = |name, level| SupportedFeatureKey { name, min_version: level, max_version: level };
    let finalized = |name, level| FinalizedFeatureKey { name, min_version_level: level, max_version_level: level };
    let transactions = || "transaction.version".into();
    assert_eq!(before.supported_features, [supported(name(), 1), supported(transactions(), 2)]);
    assert_eq!(before.finalized_features, [finalized(name(), 1), finalized(transactions(), 2)]);
    let epoch = before.finalized_features_epoch;
    assert_eq!(raise(&mut raw, 1, false).error_code, ErrorCode::NONE);
    let rejected = raise(&mut raw, 2, false);
    assert_eq!(rejected.error_code, ErrorCode::INVALID_UPDATE_VERSION);
    let message = rejected.error_message.expect("a reason");
    assert!(message.ends_with("Local controller 0 only supports versions 1-1"), "{message}");
    assert_eq!(features(&mut raw).finalized_features_epoch, epoch, "nothing was written");
    Topic::create(&mut raw, "orders", 1, &[]);
    assert!(features(&mut raw).finalized_features_epoch > epoch);
}

/// The directions of UpdateFeatures.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Clients choose the protocol of transactions by this level.
#[test]
fn the_version_of_transactions_is_a_feature_of_a_cluster() {
    let cluster = Cluster::start(1, &[]);
    let mut raw = Raw::to(cluster.address(1));
    let level = |raw: &mut Raw| {
        let finalized = features(raw).finalized_features.into_iter();
        finalized.map(|feature| (feature.name.to_string(), feature.max_version_level)).collect::<Vec<_>>()
    };
    let shown = |level: Option<i16>| {
        let transactions = level.map(|level| ("transaction.version".to_owned(), level));
        [("millstream.version".to_owned(), 3)].into_iter().chain(transactions).collect::<Vec<_>>()
    };
    let change = |raw: &mut Raw, level, upgrade_type| {
        let feature = "transaction.version".into();
        let update = FeatureUpdateKey { feature, max_version_level: level, upgrade_type, ..Default::default() };
        raw.call(1, &UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() })
    };
    assert_eq!(level(&mut raw), shown(Some(2)));
    for (to, direction, after) in [(1, SAFE_DOWNGRADE, Some(1)), (0, UNSAFE_DOWNGRADE, None), (2, UPGRADE, Some(2))] {
        assert_eq!(change(&mut raw, to, direction).error_code, ErrorCode::NONE);
        assert_eq!(level(&mut raw), shown(after));
    }
    for (to, direction) in [(1, UPGRADE), (3, UPGRADE), (-1, UNSAFE_DOWNGRADE)] {
        assert_eq!(change(&mut raw, to, direction).error_code, ErrorCode::INVALID_UPDATE_VERSION);
    }
}

#[test]
fn the_only_node_cannot_be_unregistered() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "orders", 1, &[]);
    let itself = raw.call(0, &UnregisterBrokerRequest { broker_id: 0 });
    let message = "Broker 0 is the only broker of the cluster and has all of its data: it cannot be unregistered.";
    assert_eq!((itself.error_code, itself.error_message.as_deref()), (ErrorCode::INVALID_REQUEST, Some(message)));
    let other = raw.call(0, &UnregisterBrokerRequest { broker_id: 5 });
    let message = "Broker ID 5 is not currently registered";
    assert_eq!(
        (other.error_code, other.error_message.as_deref()),
        (ErrorCode::BROKER_ID_NOT_REGISTERED, Some(message))
    );
    let itself = raw.call(0, &UnregisterControllerRequest { controller_id: 0 });
    assert_eq!(itself.error_code, ErrorCode::INVALID_REQUEST);
    let other = raw.call(0, &UnregisterControllerRequest { controller_id: 5 });
    assert_eq!(other.error_code, ErrorCode::CONTROLLER_ID_NOT_REGISTERED);
    topic.produce(&mut raw, batch(&["first"]));
    broker.kill();
    broker.restart();
    topic.produce(&mut Raw::connect(&broker), batch(&["second"]));
}

#[test]
fn the_commands_show_the_node_and_the_quorum() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "orders", 3, &[]);
    let run = |command: &str, json: bool| {
        let tool = Tool::new(millstream()).args(["cluster", command, "-b", &broker.bootstrap()]);
        if json { tool.arg("--json").succeed() } else { tool.succeed() }
    };
    let parsed = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("a JSON object");
    let described = parsed(run("describe", true));
    let expected = serde_json::json!([{
        "id": 0, "address": broker.bootstrap(), "rack": null, "state": "alive",
        "leaders": 3, "replicas": 3, "in_sync": 3, "lag": 0,
    }]);
    assert_eq!((&described["nodes"], &described["controller"]), (&expected, &serde_json::json!(0)));
    assert_eq!(described["under_replicated"], serde_json::json!([]));
    let replica = &described["replicas"][0];
    assert_eq!((&replica["node"], &replica["role"], &replica["lag"]), (&0.into(), &"leader".into(), &0.into()));
    let text = run("describe", false);
    assert!(text.contains("Controller: 0\tUnderReplicatedPartitions: 0\n"), "{text}");
    assert!(text.contains(&broker.bootstrap()), "{text}");

    let (real, _) = quorum(&mut raw);
    let shown = parsed(run("quorum", true));
    assert_eq!((&shown["leader"], &shown["high_watermark"]), (&0.into(), &real.high_watermark.into()));
    let voter = &shown["nodes"][0];
    assert_eq!((&voter["role"], &voter["lag"]), (&"leader".into(), &0.into()));
    assert_eq!(voter["directory_id"], directory_id(&broker));
    let text = run("quorum", false);
    assert!(text.contains("leader") && text.contains(&directory_id(&broker)), "{text}");
}

#[test]
fn the_commands_that_move_partitions_say_what_a_single_node_cannot_do() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "orders", 2, &[]);
    Topic::create(&mut raw, "large", 2, &[("view.of", "orders")]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plan.json");
    let plan = r#"{"version":1,"partitions":[{"topic":"orders","partition":1,"replicas":[0],"log_dirs":["any"]}]}"#;
    fs::write(&file, plan).expect("written");
    let file = file.to_str().expect("UTF-8");
    let run = |arguments: &[&str]| {
        let tool = Tool::new(millstream()).arg("cluster").args(arguments).args(["-b", &broker.bootstrap()]);
        let done = tool.run();
        (done.code == Some(0), done.stdout + &done.stderr)
    };
    for (arguments, succeeds, words) in [
        (&["reassign", "orders", "--to", "0"][..], true, "orders:0  moves to 0\norders:1  moves to 0\n"),
        (&["reassign", "--plan", file], true, "orders:1  moves to 0\n"),
        (
            &["reassign", "--plan", file, "--json"],
            true,
            r#"{"partitions":[{"error":null,"partition":1,"topic":"orders"}]}"#,
        ),
        (&["reassign", "orders:1", "--to", "7"], false, "includes broker 7, but no such broker is registered"),
        (&["reassign", "orders:9", "--to", "0"], false, "1 of 1 partitions were rejected"),
        (&["reassign", "large:0", "--to", "0"], false, "large is a view"),
        (&["reassign", "orders:0", "--cancel"], false, "No partition reassignment is in progress."),
        (&["reassign", "orders"], false, "name the new nodes with --to"),
        (&["reassign", "absent", "--to", "0"], false, "no topic has that name"),
        (&["reassign", "--list"], true, "no partition is being moved\n"),
        (&["reassign", "--list", "--json"], true, r#"{"reassignments":[]}"#),
        (&["elect"], true, ""),
        (&["elect", "orders"], true, "orders:0  needs no election\norders:1  needs no election\n"),
        (&["elect", "orders:1", "--unclean", "--json"], true, r#"{"error":null,"partition":1,"topic":"orders"}"#),
        (&["elect", "orders:5"], false, "No such partition as orders-5"),
        (&["drain", "0"], false, "node 0 is the only one that is alive"),
        (&["drain", "5"], false, "the cluster has no node 5"),
        (&["remove", "0"], false, "node 0 has replicas of 2 partitions, the first is orders:0"),
        (&["remove", "5"], false, "the cluster has no node 5"),
    ] {
        let (succeeded, text) = run(arguments);
        assert_eq!(succeeded, succeeds, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}
