//! Apache Kafka's own tools.

pub(crate) mod admin;
pub(crate) mod console;
mod edge;
mod kill;
mod performance;

use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool};

pub(crate) const TOPIC_COMMAND: &str = "org.apache.kafka.tools.TopicCommand";

/// A test of the tools on one class path.
type Test = fn(&Tools);

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 10] = [
        ("console::round_trip", console::round_trip),
        ("console::group_rebalances", console::group_rebalances),
        ("admin::topics", admin::topics),
        ("admin::configs", admin::configs),
        ("edge::options", edge::options),
        ("edge::refusals", edge::refusals),
        ("performance::produce_and_consume", performance::produce_and_consume),
        ("performance::dump_log_segments", performance::dump_log_segments),
        ("kill::nothing_lost_and_nothing_twice", kill::nothing_lost_and_nothing_twice),
        ("kill::without_compression_and_small_batches", kill::without_compression_and_small_batches),
    ];
    tests
        .into_iter()
        .map(|(name, test)| {
            crate::trial(&format!("java::{name}"), "MILLSTREAM_KAFKA_CLASSPATH", move |classpath| {
                test(&Tools::new(classpath));
            })
        })
        .collect()
}

/// The Java tools on one class path.
pub(crate) struct Tools {
    classpath: String,
}

impl Tools {
    pub(crate) fn new(classpath: &str) -> Self {
        Self { classpath: classpath.to_owned() }
    }

    /// A tool by its class. The options keep a short-lived JVM small and quick to start.
    fn tool(&self, class: &str) -> Tool {
        Tool::new("java")
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &self.classpath, class])
            .limit(Duration::from_secs(180))
    }

    /// A tool that talks to `broker`.
    pub(crate) fn client(&self, class: &str, broker: &Broker) -> Tool {
        self.client_of(class, &broker.bootstrap())
    }

    pub(crate) fn client_of(&self, class: &str, bootstrap: &str) -> Tool {
        self.tool(class).args(["--bootstrap-server", bootstrap])
    }

    pub(crate) fn create_topic(&self, broker: &Broker, name: &str, partitions: u32) {
        self.client(TOPIC_COMMAND, broker)
            .args(["--create", "--topic", name, "--partitions", &partitions.to_string()])
            .succeed();
    }
}
