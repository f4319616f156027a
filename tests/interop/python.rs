//! confluent-kafka, kafka-python and aiokafka. The scripts in `python/` do the work and the checks.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Cluster, Tool, wait_until};
use serde_json::Value;

use crate::{failover, plugins};

/// The script and command of every test.
const TESTS: [(&str, &str); 12] = [
    ("with_confluent_kafka", "round-trip"),
    ("with_confluent_kafka", "group"),
    ("with_confluent_kafka", "admin"),
    ("with_confluent_kafka", "refusals"),
    ("with_confluent_kafka", "deletions"),
    ("with_confluent_kafka", "consumer-protocol"),
    ("with_kafka_python", "round-trip"),
    ("with_kafka_python", "group"),
    ("with_kafka_python", "refusals"),
    ("with_kafka_python", "deletions"),
    ("with_aiokafka", "round-trip"),
    ("with_aiokafka", "group"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let on_one_node = TESTS.iter().map(|&(script, command)| {
        let name = format!("python::{script}::{}", command.replace('-', "_"));
        crate::trial(&name, "MILLSTREAM_PYTHON", move |python| run(python, script, command))
    });
    let name = "python::with_confluent_kafka::failover";
    let on_three_nodes = crate::trial(name, "MILLSTREAM_PYTHON", over_failovers);
    let name = "python::with_confluent_kafka::near_reads";
    let in_racks = crate::trial(name, "MILLSTREAM_PYTHON", near_reads);
    let name = "python::with_confluent_kafka::version_swaps";
    let swaps = crate::trial(name, "MILLSTREAM_PYTHON", over_version_swaps);
    on_one_node.chain([on_three_nodes, in_racks, swaps]).collect()
}

/// Returns a script with its command, to which the address of the broker is added.
pub(crate) fn script(python: &str, script: &str, command: &str) -> Tool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python").join(script).with_extension("py");
    let tool = Tool::new(python).env("PYTHONDONTWRITEBYTECODE", "1").arg(script).arg(command);
    tool.limit(Duration::from_secs(240))
}

/// Lets librdkafka produce and consume while nodes end and come back.
fn over_failovers(python: &str) {
    let mut cluster = Cluster::start(3, &[]);
    let scratch = tempfile::TempDir::new().expect("a temporary folder");
    let end = scratch.path().join("end");
    let client = script(python, "with_confluent_kafka", "failover").arg(cluster.bootstrap()).arg(&end);
    let client = std::thread::spawn(move || client.succeed());
    failover::kill_and_roll(&mut cluster, "confluent-failover");
    assert!(!client.is_finished(), "the client ended before the nodes");
    std::fs::write(&end, "").expect("a file of the test's own");
    let output = client.join().expect("the client ends well");
    assert!(output.ends_with("failover: ok\n"), "{output}");
}

/// Lets librdkafka produce and consume while the nodes change from one version of a plug-in to the next.
fn over_version_swaps(python: &str) {
    let cluster = Cluster::start(3, &[]);
    let (bootstrap, scratch) = (cluster.bootstrap(), tempfile::TempDir::new().expect("a temporary folder"));
    plugins::push(&bootstrap, scratch.path(), "contains", 1);
    let end = scratch.path().join("end");
    let client = script(python, "with_confluent_kafka", "failover").arg(&bootstrap);
    let client = client.arg(&end).arg("stage.admit=contains{\"text\":\"record\"}");
    let client = std::thread::spawn(move || client.succeed());
    for version in 1..=5 {
        if version > 1 {
            plugins::push(&bootstrap, scratch.path(), "contains", version);
        }
        wait_until("records to pass the version", Duration::from_secs(60), || {
            let listed = plugins::output(&bootstrap, &["plugin", "list", "--json"]);
            let listed: Value = serde_json::from_str(&listed).expect("JSON");
            let has_passed = |one: &Value| one["number"] == version && one["calls"].as_u64() >= Some(20);
            listed.as_array().expect("a list").iter().any(has_passed).then_some(())
        });
    }
    assert!(!client.is_finished(), "the client ended before the last version");
    std::fs::write(&end, "").expect("a file of the test's own");
    let output = client.join().expect("the client ends well");
    assert!(output.ends_with("failover: ok\n"), "{output}");
}

/// Lets librdkafka read from the replica in its rack.
fn near_reads(python: &str) {
    let selector = ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");
    let cluster = Cluster::start_with(3, &[selector], |id, node| node.set("broker.rack", &format!("r{id}")));
    let output = script(python, "with_confluent_kafka", "near-reads").arg(cluster.bootstrap()).succeed();
    assert!(output.ends_with("near-reads: ok\n"), "{output}");
}

fn run(python: &str, name: &str, command: &str) {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    let output = script(python, name, command).arg(broker.bootstrap()).succeed();
    assert!(output.ends_with(&format!("{command}: ok\n")), "{output}");
}
