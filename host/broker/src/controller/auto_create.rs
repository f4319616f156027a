//! Topics that are created because a client or the broker itself uses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::ErrorCode;

use super::Controller;
use crate::config::BrokerConfig;
use crate::edge::plugins;
use crate::error::ApiError;
use millstream_coordinator::group::{CONSUMER_OFFSETS, GroupConfig};
use millstream_coordinator::transaction::{TRANSACTION_STATE, TransactionConfig};
use millstream_metadata::controller::{NewTopic, Replication, Request};

impl Controller {
    /// Makes sure that a topic exists. Creates it with the configs of an automatic creation.
    ///
    /// # Errors
    /// The topic does not exist and cannot be created.
    pub(crate) async fn ensure_topic(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        self.ensure_topics(vec![name.to_owned()]).await.pop().unwrap_or(Ok(()))
    }

    /// Makes sure that a dead letter topic exists. A new one is as durable as the topic with the records.
    ///
    /// # Errors
    /// The topic does not exist and cannot be created.
    pub(super) async fn ensure_dead_letter_topic(self: &Arc<Self>, name: &str, source: &str) -> Result<(), ApiError> {
        const MIN_IN_SYNC: &str = "min.insync.replicas";
        if self.node.topics.load().by_name(name).is_some() {
            return Ok(());
        }
        let mut topic = on_demand(&self.node.config, name);
        if let Some(source) = self.metadata.image().topic(source) {
            let replicas = source.partitions.first().map(|partition| partition.replicas.len());
            if let Some(replicas) = replicas.and_then(|count| i32::try_from(count).ok()) {
                topic.replication = Replication::UpTo(replicas);
            }
            let in_sync = source.configs.get(MIN_IN_SYNC).map(|value| (MIN_IN_SYNC.to_owned(), value.clone()));
            topic.configs.extend(in_sync);
        }
        match self.submit_one(Request::CreateTopic(topic), false).await {
            Err(error) if error.code != ErrorCode::TOPIC_ALREADY_EXISTS => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure that topics exist. Missing ones are created together. Returns an outcome for each name.
    pub(crate) async fn ensure_topics(self: &Arc<Self>, names: Vec<String>) -> Vec<Result<(), ApiError>> {
        let table = self.node.topics.load_full();
        let missing = names.iter().filter(|name| table.by_name(name).is_none());
        let requests: Vec<_> = missing.map(|name| Request::CreateTopic(on_demand(&self.node.config, name))).collect();
        let created = if requests.is_empty() { Vec::new() } else { self.submit(requests, false).await };
        let mut created = created.into_iter();
        let outcome = |name: &String| match table.by_name(name).is_none().then(|| created.next()).flatten() {
            Some(Err(error)) if error.code != ErrorCode::TOPIC_ALREADY_EXISTS => Err(error),
            _ => Ok(()),
        };
        names.iter().map(outcome).collect()
    }
}

/// Returns a topic as it is created automatically.
fn on_demand(config: &BrokerConfig, name: &str) -> NewTopic {
    if let Some(topic) = plugins::topic(name) {
        return topic;
    }
    match name {
        CONSUMER_OFFSETS => {
            let GroupConfig {
                offsets_topic_partitions,
                offsets_topic_replication_factor,
                offsets_topic_segment_bytes,
                ..
            } = config.group;
            NewTopic {
                partitions: Some(offsets_topic_partitions),
                replication: Replication::UpTo(offsets_topic_replication_factor),
                configs: configs([
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "producer".to_owned()),
                    segment_bytes(offsets_topic_segment_bytes),
                ]),
                ..NewTopic::new(name)
            }
        }
        TRANSACTION_STATE => {
            let TransactionConfig {
                topic_partitions,
                topic_replication_factor,
                topic_segment_bytes,
                topic_min_isr,
                ..
            } = config.transactions;
            NewTopic {
                partitions: Some(topic_partitions),
                replication: Replication::UpTo(topic_replication_factor),
                configs: configs([
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "uncompressed".to_owned()),
                    ("min.insync.replicas", topic_min_isr.to_string()),
                    segment_bytes(topic_segment_bytes),
                    ("unclean.leader.election.enable", "false".to_owned()),
                ]),
                ..NewTopic::new(name)
            }
        }
        _ => NewTopic {
            partitions: Some(config.num_partitions),
            replication: Replication::UpTo(config.default_replication_factor),
            ..NewTopic::new(name)
        },
    }
}

/// Returns the config of a segment's size. Below the public limit only the internal name is allowed.
fn segment_bytes(bytes: i32) -> (&'static str, String) {
    (if bytes < 1 << 20 { "internal.segment.bytes" } else { "segment.bytes" }, bytes.to_string())
}

fn configs<const N: usize>(configs: [(&str, String); N]) -> BTreeMap<String, String> {
    configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
