//! confluent-kafka, kafka-python and aiokafka. The scripts in `python/` do the work and the checks.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool};

/// The script and command of every test.
const TESTS: [(&str, &str); 13] = [
    ("with_confluent_kafka", "round-trip"),
    ("with_confluent_kafka", "group"),
    ("with_confluent_kafka", "admin"),
    ("with_confluent_kafka", "refusals"),
    ("with_confluent_kafka", "transactions"),
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
    TESTS
        .iter()
        .map(|&(script, command)| {
            let name = format!("python::{script}::{}", command.replace('-', "_"));
            crate::trial(&name, "MILLSTREAM_PYTHON", move |python| run(python, script, command))
        })
        .collect()
}

fn run(python: &str, script: &str, command: &str) {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python").join(script).with_extension("py");
    let output = Tool::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args([command, &broker.bootstrap()])
        .limit(Duration::from_secs(240))
        .succeed();
    assert!(output.ends_with(&format!("{command}: ok\n")), "{output}");
}
