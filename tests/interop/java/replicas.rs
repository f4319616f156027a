//! Throttled moves, reads from a near replica, and unclean elections, with Kafka's tools on a cluster of three.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use millstream_tests::{Cluster, wait_until};
use tempfile::TempDir;

use super::cluster::{LEADER_ELECTION, REASSIGN};
use super::performance::{CONSUMER, PRODUCER};
use super::three_nodes::{Nodes, PATIENCE, field};
use super::{CONFIG_COMMAND, TOPIC_COMMAND, Tools};

/// Sends records of 1 KB without compression. Returns the report.
fn produce(nodes: &Nodes<'_>, topic: &str, records: usize) -> String {
    let records = records.to_string();
    let args = ["--topic", topic, "--num-records", &records, "--record-size", "1000", "--throughput", "-1"];
    let report = nodes.succeed(PRODUCER, &args);
    assert!(report.contains(&format!("{records} records sent")), "{report}");
    report
}

/// Moves a replica of 10 MB at 2 MB a second. Producers to the replicas in sync are not slowed down. After the move the
/// throttle is gone.
pub(super) fn throttled_moves(tools: &Tools) {
    const BYTES: f64 = 10e6;
    const RATE: f64 = 2e6;
    let nodes = Nodes::of(Cluster::start(3, &[]), tools);
    nodes.succeed(TOPIC_COMMAND, &["--create", "--topic", "heavy", "--replica-assignment", "1:2"]);
    produce(&nodes, "heavy", 10_000);
    let scratch = TempDir::new().expect("a temporary folder");
    let moves = scratch.path().join("moves.json");
    let json = r#"{"version":1,"partitions":[{"topic":"heavy","partition":0,"replicas":[1,3]}]}"#;
    fs::write(&moves, json).expect("a file of the test's own");
    let moves = moves.to_str().expect("a path in UTF-8");
    let rate = (RATE as u32).to_string();
    let begin = Instant::now();
    let args = ["--execute", "--throttle", &rate, "--reassignment-json-file", moves];
    let executed = nodes.succeed(REASSIGN, &args);
    assert!(executed.contains("The inter-broker throttle limit was set to 2000000 B/s"), "{executed}");
    let entity = ["--describe", "--entity-type", "brokers", "--entity-name", "1"];
    let described = nodes.succeed(CONFIG_COMMAND, &entity);
    assert!(described.contains("leader.replication.throttled.rate=2000000"), "{described}");
    let topic = ["--describe", "--entity-type", "topics", "--entity-name", "heavy"];
    let described = nodes.succeed(CONFIG_COMMAND, &topic);
    assert!(described.contains("follower.replication.throttled.replicas=0:3"), "{described}");
    assert!(described.contains("leader.replication.throttled.replicas=0:1,0:2"), "{described}");

    let in_sync = || field(&nodes.described("heavy", 0), "Isr").to_owned();
    wait_until("the new replica in sync", PATIENCE, || in_sync().contains('3').then_some(()));
    let taken = begin.elapsed().as_secs_f64();
    // The first window has no past, and the tools take seconds to start.
    assert!(taken > BYTES / RATE * 0.6, "{taken} s for {BYTES} bytes at {RATE} a second");
    let verified = wait_until("the end of the move", PATIENCE, || {
        let verified = nodes.succeed(REASSIGN, &["--verify", "--reassignment-json-file", moves]);
        verified.contains(" is completed.").then_some(verified)
    });
    assert!(verified.contains("Clearing topic-level throttles on topic heavy"), "{verified}");
    for entity in [entity, topic] {
        let described = nodes.succeed(CONFIG_COMMAND, &entity);
        assert!(!described.contains("throttled"), "{described}");
    }
    // A throttle by which a move never ends, and writes that need the two replicas in sync.
    fs::write(moves, json.replace("[1,3]", "[1,3,2]")).expect("a file of the test's own");
    nodes.succeed(REASSIGN, &["--execute", "--throttle", "1", "--reassignment-json-file", moves]);
    let begin = Instant::now();
    produce(&nodes, "heavy", 5_000);
    assert!(begin.elapsed() < PATIENCE / 2, "writes are slow: {:?}", begin.elapsed());
    assert!(!in_sync().contains('2'), "a byte a second was enough");
    let args = ["--execute", "--additional", "--throttle", "100000000", "--reassignment-json-file", moves];
    nodes.succeed(REASSIGN, &args);
    wait_until("the last replica in sync", PATIENCE, || in_sync().contains('2').then_some(()));
}

/// Reads with the rack of each node in turn. Kafka's metrics of the consumer say from which nodes the bytes came.
pub(super) fn near_reads(tools: &Tools) {
    let selector = ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");
    let racks = Cluster::start_with(3, &[selector], |id, node| node.set("broker.rack", &format!("r{id}")));
    let mut nodes = Nodes::of(racks, tools);
    nodes.succeed(TOPIC_COMMAND, &["--create", "--topic", "near", "--replica-assignment", "1:2:3"]);
    produce(&nodes, "near", 10_000);
    // The followers learn what is committed with the fetch after the last record.
    let read = |nodes: &Nodes<'_>, rack: &str| {
        let property = format!("client.rack={rack}");
        let args = ["--topic", "near", "--num-records", "10000", "--print-metrics", "--command-property", &property];
        nodes.succeed(CONSUMER, &args)
    };
    for (rack, wanted) in [("r3", 3), ("r2", 2), ("r1", 1), ("elsewhere", 1)] {
        let report = read(&nodes, rack);
        let bytes = [1, 2, 3].map(|node| incoming_bytes(&report, node));
        let total: f64 = bytes.iter().sum();
        assert!(total > 10e6 && bytes[wanted - 1] > 0.95 * total, "{rack}: {bytes:?}\n{report}");
    }
    nodes.cluster.kill(1);
    let report = read(&nodes, "r3");
    let bytes = [2, 3].map(|node| incoming_bytes(&report, node));
    assert!(bytes[1] > 10e6 && bytes[0] < 1e6, "{bytes:?}\n{report}");
}

/// Returns the bytes that a consumer got from a node, as its metrics say.
fn incoming_bytes(report: &str, node: usize) -> f64 {
    let name = format!("node-id=node-{node}}}");
    let line = report.lines().find(|line| line.contains("incoming-byte-total") && line.contains(&name));
    line.and_then(|line| line.rsplit(':').next()?.trim().parse().ok()).unwrap_or(0.0)
}

/// Lets a replica lead that lacks records, by hand and by the topic's config. What it lacks is gone.
pub(super) fn unclean_elections(tools: &Tools) {
    let mut nodes = Nodes::of(Cluster::start(3, &[]), tools);
    let create = |name: &str, unclean: &str| {
        let unclean = format!("unclean.leader.election.enable={unclean}");
        let args = ["--create", "--topic", name, "--replica-assignment", "2:3", "--config", "min.insync.replicas=1"];
        nodes.succeed(TOPIC_COMMAND, &[&args[..], &["--config", &unclean]].concat());
    };
    create("by-hand", "false");
    create("by-config", "true");
    for topic in ["by-hand", "by-config"] {
        produce(&nodes, topic, 10);
    }
    let wait_for = |nodes: &Nodes<'_>, topic: &str, wanted: &[(&str, &str)]| {
        let mut line = String::new();
        let done = |line: &mut String| {
            *line = nodes.described(topic, 0);
            wanted.iter().all(|(name, value)| field(line, name) == *value)
        };
        let deadline = Instant::now() + PATIENCE;
        while !done(&mut line) {
            assert!(Instant::now() < deadline, "{wanted:?}: {line}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    nodes.cluster.kill(3);
    for topic in ["by-hand", "by-config"] {
        wait_for(&nodes, topic, &[("Leader", "2"), ("Isr", "2")]);
        produce(&nodes, topic, 5);
    }
    // The quorum needs two nodes to see that the leader is gone.
    nodes.cluster.kill(2);
    nodes.cluster.restart(3);
    wait_for(&nodes, "by-config", &[("Leader", "3"), ("Isr", "3"), ("Elr", "")]);
    wait_for(&nodes, "by-hand", &[("Leader", "none"), ("Isr", ""), ("Elr", "2")]);
    let elect = |kind: &str| {
        let args = ["--election-type", kind, "--topic", "by-hand", "--partition", "0"];
        nodes.run(LEADER_ELECTION, &args)
    };
    let preferred = elect("preferred");
    assert!(preferred.contains("PreferredLeaderNotAvailableException"), "{preferred}");
    let elected = elect("unclean");
    assert!(elected.contains("Successfully completed leader election (UNCLEAN) for partitions by-hand-0"), "{elected}");
    wait_for(&nodes, "by-hand", &[("Leader", "3"), ("Isr", "3")]);
    nodes.cluster.restart(2);
    for topic in ["by-hand", "by-config"] {
        wait_until("both replicas in sync", PATIENCE, || {
            (field(&nodes.described(topic, 0), "Isr").len() == 3).then_some(())
        });
        let offsets = nodes.succeed("org.apache.kafka.tools.GetOffsetShell", &["--topic", topic]);
        assert_eq!(offsets.trim(), format!("{topic}:0:10"));
    }
}
