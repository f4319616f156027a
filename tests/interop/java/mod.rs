//! Apache Kafka's own tools.

mod admin;
mod cluster;
mod compaction;
pub(crate) mod console;
mod edge;
mod failover;
mod kill;
mod log_dirs;
mod performance;
mod replicas;
mod roles;
mod three_nodes;
mod transactions;

use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, KAFKA_CLASSPATH, Tool};

pub(crate) const TOPIC_COMMAND: &str = "org.apache.kafka.tools.TopicCommand";
pub(crate) const CONFIG_COMMAND: &str = "org.apache.kafka.tools.ConfigCommand";
pub(crate) const DUMP_LOG_SEGMENTS: &str = "org.apache.kafka.tools.DumpLogSegments";

/// Names the class path of the older release, which some tests run as well; `cargo xtask test` sets it.
pub(crate) const KAFKA_42_CLASSPATH: &str = "MILLSTREAM_KAFKA_42_CLASSPATH";

/// A test of the tools on one class path.
type Test = fn(&Tools);

/// The tests that run with both releases.
const TOOLS: [(&str, Test); 10] = [
    ("console::round_trip", console::round_trip),
    ("console::group_rebalances", console::group_rebalances),
    ("admin::topics", admin::topics),
    ("admin::configs", admin::configs),
    ("compaction::console_and_dump", compaction::console_and_dump),
    ("log_dirs::one_node", log_dirs::one_node),
    ("log_dirs::three_nodes", log_dirs::three_nodes),
    ("performance::dump_log_segments", performance::dump_log_segments),
    ("transactions::performance_and_tools", transactions::performance_and_tools),
    ("transactions::copiers", transactions::copiers),
];

/// The tests that run with the newer release only.
const MORE: [(&str, Test); 19] = [
    ("cluster::groups", cluster::groups),
    ("cluster::delete_records", cluster::delete_records),
    ("cluster::listings", cluster::listings),
    ("cluster::nodes", cluster::nodes),
    ("cluster::consumer_protocol", cluster::consumer_protocol),
    ("edge::options", edge::options),
    ("edge::refusals", edge::refusals),
    ("performance::produce_and_consume", performance::produce_and_consume),
    ("replicas::throttled_moves", replicas::throttled_moves),
    ("replicas::near_reads", replicas::near_reads),
    ("replicas::unclean_elections", replicas::unclean_elections),
    ("roles::one_controller", roles::one_controller),
    ("roles::three_controllers", roles::three_controllers),
    ("three_nodes::topics", three_nodes::topics),
    ("three_nodes::moves", three_nodes::moves),
    ("three_nodes::nodes", three_nodes::nodes),
    ("failover::producer_and_group", failover::producer_and_group),
    ("kill::nothing_lost_and_nothing_twice", kill::nothing_lost_and_nothing_twice),
    ("kill::without_compression_and_small_batches", kill::without_compression_and_small_batches),
];

pub(crate) fn trials() -> Vec<Trial> {
    let newer = TOOLS.into_iter().chain(MORE).map(|(name, test)| {
        crate::trial(&format!("java::{name}"), KAFKA_CLASSPATH, move |classpath| test(&Tools::new(classpath)))
    });
    let older = TOOLS.into_iter().map(|(name, test)| {
        crate::trial(&format!("java_4_2::{name}"), KAFKA_42_CLASSPATH, move |classpath| {
            test(&Tools::v4_2(classpath));
        })
    });
    newer.chain(older).collect()
}

/// A release of Kafka, where the tests depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    V4_2,
    V4_4,
}

/// The Java tools on one class path.
pub(crate) struct Tools {
    classpath: String,
    release: Release,
}

impl Tools {
    /// Returns the tools of the newer release.
    pub(crate) fn new(classpath: &str) -> Self {
        Self { classpath: classpath.to_owned(), release: Release::V4_4 }
    }

    /// Returns the tools of the older release.
    pub(crate) fn v4_2(classpath: &str) -> Self {
        Self { classpath: classpath.to_owned(), release: Release::V4_2 }
    }

    /// Returns the class path.
    pub(crate) fn classpath(&self) -> &str {
        &self.classpath
    }

    /// Returns a tool by its class. The options keep a short-lived JVM small and quick to start.
    pub(crate) fn tool(&self, class: &str) -> Tool {
        // Two classes have moved between the releases.
        let class = match class {
            CONFIG_COMMAND if self.release == Release::V4_2 => "kafka.admin.ConfigCommand",
            DUMP_LOG_SEGMENTS if self.release == Release::V4_2 => "kafka.tools.DumpLogSegments",
            class => class,
        };
        Tool::new("java")
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &self.classpath, class])
            .limit(Duration::from_secs(180))
    }

    /// Returns a tool that talks to `broker`.
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
