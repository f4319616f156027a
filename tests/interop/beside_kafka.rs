//! Sends the same requests to our broker and to Apache Kafka, and compares the responses.
//!
//! A probe records lines of text, one for each response. Values that differ from node to node (folders, free space,
//! ids) are left out. Lists that Kafka returns in no fixed order are sorted.

mod cluster;
mod configs;
mod groups;
mod records;
mod tools;

use std::fmt::Debug;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, KAFKA_CLASSPATH, KafkaNode, wait_until};

use crate::java::KAFKA_42_CLASSPATH;
use crate::support::{Raw, Topic};

const PATIENCE: Duration = Duration::from_secs(60);

/// A probe, run against one broker.
type Probe = fn(&mut Raw, &mut Seen);

const PROBES: [(&str, Probe); 17] = [
    ("delete_records", records::delete_records),
    ("describe_log_dirs", records::describe_log_dirs),
    ("describe_producers", records::describe_producers),
    ("describe_topic_partitions", records::describe_topic_partitions),
    ("delete_groups", groups::delete_groups),
    ("offset_delete", groups::offset_delete),
    ("elect_leaders", tools::elect_leaders),
    ("list_partition_reassignments", tools::list_partition_reassignments),
    ("describe_acls", tools::describe_acls),
    ("describe_client_quotas", tools::describe_client_quotas),
    ("describe_user_scram_credentials", tools::describe_user_scram_credentials),
    ("list_config_resources", tools::list_config_resources),
    ("describe_quorum", cluster::describe_quorum),
    ("alter_partition_reassignments", cluster::alter_partition_reassignments),
    ("update_features", cluster::update_features),
    ("unregister_broker", cluster::unregister_broker),
    ("unregister_controller", cluster::unregister_controller),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::trial("beside_kafka::responses_are_equal", KAFKA_CLASSPATH, |_| responses_are_equal()),
        crate::trial("beside_kafka::all_configs_are_known", KAFKA_42_CLASSPATH, configs::all_are_known),
    ]
}

/// Compares the responses of all probes. They share one Kafka node, which takes long to start.
fn responses_are_equal() {
    let kafka = KafkaNode::start();
    let ours = Broker::builder().set("group.initial.rebalance.delay.ms", "100").start();
    let mut differences = Vec::new();
    for (name, probe) in PROBES {
        let [ours, kafkas] = [ours.address(), kafka.address()].map(|address| {
            let mut seen = Seen::default();
            probe(&mut Raw::to(address), &mut seen);
            seen.0
        });
        assert!(!kafkas.is_empty(), "{name} has seen nothing");
        let count = ours.len().max(kafkas.len());
        differences.extend((0..count).filter(|&at| ours.get(at) != kafkas.get(at)).map(|at| {
            let nothing = String::new();
            format!(
                "{name}\n  kafka {}\n  ours  {}",
                kafkas.get(at).unwrap_or(&nothing),
                ours.get(at).unwrap_or(&nothing)
            )
        }));
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// Creates a topic and waits until its partitions are served, which takes Kafka a moment.
fn create(raw: &mut Raw, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Topic {
    let topic = Topic::create(raw, name, partitions, configs);
    for partition in 0..partitions {
        wait_until("the partition", PATIENCE, || {
            let code = topic.offset_for(raw, partition, -1).error_code;
            assert!(code.is_ok() || code.retriable(), "{name}: {code}");
            code.is_ok().then_some(())
        });
    }
    topic
}

/// The lines that a probe has recorded.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    fn add(&mut self, what: &str, response: &impl Debug) {
        self.0.push(format!("{what}: {response:?}"));
    }
}
