//! The tools for groups, log starts, log folders, elections, reassignments, ACLs and producers.

use std::fs;

use millstream_tests::{Broker, Finished};

use super::console::{CONSUMER, GROUPS, PRODUCER};
use super::{CONFIG_COMMAND, TOPIC_COMMAND, Tools};

const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
pub(super) const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
pub(super) const LEADER_ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";
pub(super) const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
pub(super) const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
pub(super) const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
const CLIENT_METRICS: &str = "org.apache.kafka.tools.ClientMetricsCommand";

pub(super) fn said(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

fn produce(tools: &Tools, broker: &Broker, topic: &str, records: usize) {
    let lines: Vec<String> = (0..records).map(|n| format!("value-{n}")).collect();
    tools.client(PRODUCER, broker).args(["--topic", topic]).input(lines.join("\n")).succeed();
}

fn consume(tools: &Tools, broker: &Broker, topic: &str, args: &[&str]) -> Finished {
    tools.client(CONSUMER, broker).args(["--topic", topic, "--from-beginning"]).args(args).run()
}

/// Deletes the offsets of one topic, then the group. Both work only while the group has no member in the way.
pub(super) fn groups(tools: &Tools) {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    for topic in ["one", "two"] {
        tools.create_topic(&broker, topic, 1);
        produce(tools, &broker, topic, 5);
        let read = consume(tools, &broker, topic, &["--group", "readers", "--max-messages", "5"]);
        assert_eq!(read.stdout.lines().count(), 5, "{}", said(&read));
    }
    let groups = |args: &[&str]| tools.client(GROUPS, &broker).args(["--group", "readers"]).args(args).run();
    let described = groups(&["--describe"]);
    assert!(said(&described).contains("one") && said(&described).contains("two"), "{}", said(&described));

    let deleted = groups(&["--delete-offsets", "--topic", "one"]);
    assert_eq!(deleted.code, Some(0), "{}", said(&deleted));
    assert!(deleted.stdout.contains("Request succeeded for deleting offsets"), "{}", said(&deleted));
    let described = said(&groups(&["--describe"]));
    assert!(!described.contains("one ") && described.contains("two "), "{described}");
    let absent = said(&groups(&["--delete-offsets", "--topic", "none"]));
    assert!(absent.contains("UnknownTopicOrPartition") || absent.contains("does not host"), "{absent}");

    let deleted = groups(&["--delete"]);
    assert!(
        said(&deleted).contains("Deletion of requested consumer groups ('readers') was successful."),
        "{}",
        said(&deleted)
    );
    assert_eq!(tools.client(GROUPS, &broker).arg("--list").succeed().trim(), "");
    let again = said(&groups(&["--delete"]));
    assert!(again.contains("GroupIdNotFoundException"), "{again}");
}

/// Deletes the records below an offset, which stay deleted after a crash.
pub(super) fn delete_records(tools: &Tools) {
    let mut broker = Broker::start();
    tools.create_topic(&broker, "orders", 2);
    tools
        .client(TOPIC_COMMAND, &broker)
        .args(["--create", "--topic", "compacted", "--config", "cleanup.policy=compact"])
        .succeed();
    tools
        .client(PRODUCER, &broker)
        .args(["--topic", "compacted", "--reader-property", "parse.key=true"])
        .input("key\tvalue")
        .succeed();
    produce(tools, &broker, "orders", 10);
    let file = broker.scratch().join("offsets.json");
    let delete = |broker: &Broker, topic: &str, partition: u32, offset: i64| {
        let json = format!(
            r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":{partition},"offset":{offset}}}]}}"#
        );
        fs::write(&file, json).expect("a file of the test's own");
        said(&tools.client(DELETE_RECORDS, broker).arg("--offset-json-file").arg(&file).run())
    };
    let end = |broker: &Broker, partition: u32| {
        let ends = tools.client("org.apache.kafka.tools.GetOffsetShell", broker).args(["--topic", "orders"]).succeed();
        let line = ends.lines().find(|line| line.starts_with(&format!("orders:{partition}:"))).expect("a line");
        line.rsplit(':').next().and_then(|end| end.parse::<i64>().ok()).expect("an offset")
    };
    // The producer's partitioner may have chosen either.
    let partition = u32::from(end(&broker, 0) == 0);
    let deleted = delete(&broker, "orders", partition, 3);
    assert!(deleted.contains("low_watermark: 3"), "{deleted}");
    let refused = delete(&broker, "orders", partition, 100);
    assert!(refused.contains("OffsetOutOfRange"), "{refused}");
    let refused = delete(&broker, "compacted", 0, 1);
    assert!(refused.contains("PolicyViolation"), "{refused}");

    broker.kill();
    broker.restart();
    let read = consume(tools, &broker, "orders", &["--timeout-ms", "8000"]);
    let left: Vec<String> = (3..10).map(|n| format!("value-{n}")).collect();
    assert_eq!(read.stdout.lines().collect::<Vec<_>>(), left, "{}", read.stderr);
    let deleted = delete(&broker, "orders", partition, -1);
    assert!(deleted.contains("low_watermark: 10"), "{deleted}");
    assert_eq!(consume(tools, &broker, "orders", &["--timeout-ms", "8000"]).stdout, "");
    assert_eq!(end(&broker, partition), 10);
}

/// Checks what the tools print about a cluster of one node without security.
pub(super) fn listings(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 2);
    produce(tools, &broker, "orders", 10);
    let run = |tool: &str, args: &[&str]| said(&tools.client(tool, &broker).args(args).run());

    let dirs = run(LOG_DIRS, &["--describe", "--topic-list", "orders"]);
    let json: serde_json::Value =
        dirs.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a line of JSON");
    let folder = &json["brokers"][0]["logDirs"][0];
    assert_eq!(folder["error"], serde_json::Value::Null, "{dirs}");
    let sizes: Vec<u64> = folder["partitions"]
        .as_array()
        .expect("partitions")
        .iter()
        .filter_map(|found| found["size"].as_u64())
        .collect();
    assert_eq!((sizes.len(), sizes.iter().any(|&size| size > 100)), (2, true), "{dirs}");

    let elected = run(LEADER_ELECTION, &["--election-type", "preferred", "--topic", "orders", "--partition", "0"]);
    assert!(elected.contains("Valid replica already elected for partitions orders-0"), "{elected}");
    let listed = run(REASSIGN, &["--list"]);
    assert!(listed.contains("No partition reassignments found."), "{listed}");
    let acls = run(ACLS, &["--list"]);
    assert!(
        acls.contains("SecurityDisabledException") && acls.contains("No Authorizer is configured on the broker"),
        "{acls}"
    );
    let producers = run(TRANSACTIONS, &["describe-producers", "--topic", "orders", "--partition", "0"]);
    assert!(producers.contains("ProducerId"), "{producers}");
    let metrics = run(CLIENT_METRICS, &["--list"]);
    assert!(!metrics.contains("Exception"), "{metrics}");
    for entity in ["users", "clients"] {
        let quotas = run(CONFIG_COMMAND, &["--describe", "--entity-type", entity]);
        assert!(!quotas.contains("Exception"), "{entity}: {quotas}");
    }
    let described = run(TOPIC_COMMAND, &["--describe", "--topic", "orders"]);
    assert_eq!(described.matches("Leader: ").count(), 2, "{described}");
}

/// Checks what the tools for the nodes of a cluster print, and moves a partition to the broker that it is on.
pub(super) fn nodes(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 1);
    let run = |tool: &str, args: &[&str]| said(&tools.client(tool, &broker).args(args).run());

    let status = run(QUORUM, &["describe", "--status"]);
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((line("LeaderId:"), line("MaxFollowerLag:")), (Some("0"), Some("0")), "{status}");
    assert!(status.contains(&format!("PLAINTEXT://{}", broker.bootstrap())), "{status}");
    let replication = run(QUORUM, &["describe", "--replication"]);
    assert_eq!(replication.matches("Leader").count(), 1, "{replication}");
    let features = run(FEATURES, &["describe"]);
    assert!(features.contains("Feature: millstream.version"), "{features}");
    assert!(!features.contains("UNKNOWN"), "{features}");

    let file = broker.scratch().join("moves.json");
    let moves = |replica: i32| {
        let json =
            format!(r#"{{"version":1,"partitions":[{{"topic":"orders","partition":0,"replicas":[{replica}]}}]}}"#);
        fs::write(&file, json).expect("a file of the test's own");
        let reassign = |action: &[&str]| {
            let tool = tools.client(REASSIGN, &broker).arg("--reassignment-json-file").arg(&file);
            said(&tool.args(action).run())
        };
        (reassign(&["--execute"]), reassign(&["--verify", "--preserve-throttles"]))
    };
    let (executed, verified) = moves(0);
    assert!(executed.contains("Successfully started partition reassignment for orders-0"), "{executed}");
    assert!(verified.contains("Reassignment of partition orders-0 is completed."), "{verified}");
    let (executed, _) = moves(7);
    assert!(executed.contains("Unknown broker id 7"), "{executed}");
}

/// Checks that a consumer of the newer protocol ends and shows the reason.
pub(super) fn consumer_protocol(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 1);
    let args = ["--group", "readers", "--command-property", "group.protocol=consumer", "--timeout-ms", "60000"];
    let refused = said(&consume(tools, &broker, "orders", &args));
    assert!(refused.contains("UnsupportedVersionException"), "{refused}");
}
