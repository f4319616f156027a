//! The topics as they are served: the metadata image joined with the open partitions.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_log::{CleanupPolicy, LogConfig, TimestampType};
use millstream_partition::Partition;
use millstream_registry::LOGS_TOPIC;
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::edge::TopicDecoders;
use crate::edge::plugins;
use crate::edge::topic_stages::Attached;
use crate::edge::view::link::View;
use crate::error::ApiError;

/// Where transactions will be kept: clients may not write there today either.
const TRANSACTION_STATE: &str = "__transaction_state";

/// The longest name: Kafka's bound, which leaves room for the partition number in a file name.
const NAME_MAX: usize = 249;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) stages: Attached,
    /// The plug-ins that read batches in private formats, where there may be any.
    pub(crate) decoders: Option<Arc<TopicDecoders>>,
    /// For a view they are those of the topic that it shows.
    pub(crate) partitions: Vec<Arc<Partition>>,
    pub(crate) view: Option<Arc<View>>,
}

impl Topic {
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// Refuses to write to a view, in a way that no client tries again.
    pub(crate) fn check_takes_records(&self) -> Result<(), ApiError> {
        let Some(view) = &self.view else { return Ok(()) };
        let message =
            format!("{} is a view of {} and takes no records: produce to {}", &*self.name, &*view.of, &*view.of);
        Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message))
    }

    /// The partitions whose logs are the topic's: a view has none.
    pub(crate) fn own_partitions(&self) -> &[Arc<Partition>] {
        if self.view.is_some() { &[] } else { &self.partitions }
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics; replaced as a whole when one comes, goes or changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicTable {
    by_name: HashMap<Str, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl TopicTable {
    pub(crate) fn insert(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.name.clone(), topic);
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Arc<Partition>> {
        self.by_name(topic)?.partition(index)
    }

    /// The topic that a request names: by name in old versions, by id in new ones.
    pub(crate) fn resolve(&self, by_id: bool, name: &str, id: Uuid) -> Result<&Arc<Topic>, ApiError> {
        if by_id {
            let unknown = || ApiError::new(ErrorCode::UNKNOWN_TOPIC_ID, "This server does not host this topic ID.");
            self.by_id(id).ok_or_else(unknown)
        } else {
            self.by_name(name).ok_or_else(ApiError::unknown_topic)
        }
    }
}

/// Whether a topic belongs to the broker itself.
pub(crate) fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, plugins::TOPIC, LOGS_TOPIC].contains(&name)
}

/// Kafka's rules for names. They also keep a name from leaving the data folder.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    let problem = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        "__cluster_metadata" => "the name is the broker's own".to_owned(),
        _ if name.len() > NAME_MAX => format!("the length of a topic name is at most {NAME_MAX} characters"),
        _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) => {
            format!(
                "'{}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
                name.escape_debug()
            )
        }
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {problem}")))
}

/// The options of a topic that concern its log.
pub(crate) fn log_config(config: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
    let unsigned = |number: i32| u32::try_from(number).unwrap_or(0);
    let jitter = config.segment_jitter_ms.min(config.segment_ms.saturating_sub(1));
    LogConfig {
        segment_bytes: unsigned(config.segment_bytes),
        segment_ms: config.segment_ms - if jitter > 0 { random_below(jitter) } else { 0 },
        index_interval_bytes: unsigned(config.index_interval_bytes),
        segment_index_bytes: unsigned(config.segment_index_bytes),
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        max_message_bytes: unsigned(config.max_message_bytes),
        timestamp_type: if config.log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        cleanup_policy: CleanupPolicy { delete: config.delete, compact: config.compact },
        producer_id_expiration_ms,
    }
}

/// A number in `0..bound`, for a positive bound. A uuid is the randomness at hand, and its low bits are uniform enough.
fn random_below(bound: i64) -> i64 {
    (Uuid::new_v4().as_u128() % bound as u128) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a.b_c-D9", "__consumer_offsets", &"x".repeat(249)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "a\0b", "é", "a b", &"x".repeat(250), "__cluster_metadata"] {
            let error = check_name(bad).expect_err(bad);
            assert_eq!(error.code, ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        // In Kafka's words; a name that is not text for a terminal does not get there.
        let told = |bad| check_name(bad).expect_err(bad).text().expect("words").to_string();
        assert!(told("a b").contains("'a b' contains"), "{}", told("a b"));
        assert!(told("a\x1b[2J").contains(r"'a\u{1b}[2J' contains"), "{}", told("a\x1b[2J"));
    }
}
