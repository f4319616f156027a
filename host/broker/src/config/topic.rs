//! The typed configs of a topic: its own values on top of the broker's defaults.

use std::collections::BTreeMap;

use millstream_log::{CleanupPolicy, LogConfig, TimestampType};
use millstream_record::Codec;

use super::ConfigError;
use super::key::{Key, TypedKey};
use super::tables::{all_topic_keys, topic_key};
use super::throttled::ThrottledReplicas;
use super::topic_keys as keys;
use super::value::{ConfigType, List};

/// The configs that are set on a topic itself, by name.
pub(crate) type TopicOverrides = BTreeMap<String, String>;

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionType {
    /// Batches keep the codec of their producer.
    Producer,
    /// Batches in another codec are recompressed.
    Codec(Codec),
}

/// `compressed.records.validation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    /// Compressed records are decompressed, and each is checked.
    Full,
    /// Only what needs no decompression is checked.
    Framing,
    /// Only the header and the CRC of the batch are checked.
    None,
}

/// The default of `max.decompressed.message.bytes`.
const RECORD_BYTES_MAX: i32 = 2_147_483_639;

/// The handling of a record that a stage rejects or fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    /// The produced batch or the fetch of the partition fails.
    Fail,
    /// The record is dropped.
    Skip,
    /// The record is moved to `stage.dead.letter.topic`.
    DeadLetter,
    /// The record passes as if there were no stage.
    Pass,
}

/// The stages of a topic, as in its configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageOptions {
    pub(crate) admit: Option<String>,
    pub(crate) admit_policy: FailurePolicy,
    pub(crate) compressor: Option<String>,
    pub(crate) compressor_policy: FailurePolicy,
    pub(crate) filter: Option<String>,
    pub(crate) filter_policy: FailurePolicy,
    pub(crate) dead_letter_topic: Option<String>,
    /// These run in applications; the broker only checks them.
    pub(crate) partitioner: Option<String>,
    pub(crate) serializer: Option<String>,
}

/// The configs of a topic that the broker acts on. Sizes are in bytes, times in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    pub(crate) delete: bool,
    pub(crate) compact: bool,
    pub(crate) compression: CompressionType,
    pub(crate) gzip_level: Option<i32>,
    pub(crate) zstd_level: i32,
    pub(crate) file_delete_delay_ms: i64,
    pub(crate) flush_messages: i64,
    pub(crate) flush_ms: i64,
    pub(crate) index_interval_bytes: i32,
    pub(crate) max_message_bytes: i32,
    pub(crate) timestamp_before_max_ms: i64,
    pub(crate) timestamp_after_max_ms: i64,
    pub(crate) log_append_time: bool,
    pub(crate) min_insync_replicas: i32,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_cleanable_dirty_ratio: f64,
    pub(crate) min_compaction_lag_ms: i64,
    pub(crate) preallocate: bool,
    pub(crate) max_compaction_lag_ms: i64,
    /// `None` keeps records of any age.
    pub(crate) retention_ms: Option<i64>,
    /// `None` means no limit.
    pub(crate) retention_bytes: Option<i64>,
    pub(crate) segment_bytes: i32,
    pub(crate) segment_index_bytes: i32,
    pub(crate) segment_jitter_ms: i64,
    pub(crate) segment_ms: i64,
    pub(crate) stages: StageOptions,
    /// `leader.replication.throttled.replicas`
    pub(crate) throttled_leaders: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`
    pub(crate) throttled_followers: ThrottledReplicas,
    pub(crate) validation: Validation,
    /// The largest record of a compressed batch, in bytes.
    pub(crate) record_bytes_max: i32,
    /// The source, if the topic is a view.
    pub(crate) view_of: Option<String>,
}

impl TopicConfig {
    /// The bytes that a log leaves above `max.message.bytes` for the headers of a dead letter: six names, an error of
    /// about 1 KiB, a topic, a plug-in and four numbers. Producers cannot use them.
    pub(crate) const DEAD_LETTER_OVERHEAD_MAX: u32 = 4 << 10;

    /// Returns the defaults that the broker's keys set.
    pub(crate) fn from_broker(explicit: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::resolve(explicit, &TopicOverrides::new())
    }

    /// Returns the configs of a topic that sets `overrides`.
    ///
    /// # Errors
    /// A config is unknown, a value is bad, or values contradict each other.
    pub(crate) fn resolve(
        explicit: &dyn Fn(&str) -> Option<String>,
        overrides: &TopicOverrides,
    ) -> Result<Self, ConfigError> {
        for (name, value) in overrides {
            let key = topic_key(name).ok_or_else(|| ConfigError(format!("Unknown topic config name: {name}")))?;
            key.check(value).map_err(ConfigError)?;
        }
        let mut values = BTreeMap::new();
        for key in all_topic_keys() {
            let text = overrides.get(key.name).cloned().or_else(|| inherited(key, explicit));
            values.extend(text.map(|text| (key.name, text)));
        }
        Values(&values).config()
    }

    /// Returns whether the records of a compressed batch are decompressed before the batch is stored.
    pub(crate) fn decompresses(&self) -> bool {
        self.compact || self.validation == Validation::Full || self.record_bytes_max < RECORD_BYTES_MAX
    }

    /// Returns the size of the largest batch that the log takes.
    pub(crate) fn stored_batch_bytes_max(&self) -> u32 {
        u32::try_from(self.max_message_bytes).unwrap_or(0).saturating_add(Self::DEAD_LETTER_OVERHEAD_MAX)
    }

    /// Returns the configs for the log of a partition.
    pub(crate) fn log_config(&self, producer_id_expiration_ms: i64) -> LogConfig {
        let unsigned = |number: i32| u32::try_from(number).unwrap_or(0);
        let jitter = self.segment_jitter_ms.min(self.segment_ms.saturating_sub(1));
        LogConfig {
            segment_bytes: unsigned(self.segment_bytes),
            segment_ms: self.segment_ms - if jitter > 0 { fastrand::i64(0..jitter) } else { 0 },
            index_interval_bytes: unsigned(self.index_interval_bytes),
            segment_index_bytes: unsigned(self.segment_index_bytes),
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            max_message_bytes: self.stored_batch_bytes_max(),
            timestamp_type: if self.log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            cleanup_policy: CleanupPolicy { delete: self.delete, compact: self.compact },
            min_cleanable_dirty_ratio: self.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: self.min_compaction_lag_ms,
            max_compaction_lag_ms: self.max_compaction_lag_ms,
            delete_retention_ms: self.delete_retention_ms,
            preallocate: self.preallocate,
            producer_id_expiration_ms,
        }
    }
}

/// Checked values, each read with the type of its row.
struct Values<'a>(&'a BTreeMap<&'static str, String>);

impl<'a> Values<'a> {
    fn get<T: ConfigType>(&self, key: TypedKey<T>) -> T::Value<'a> {
        key.parse(self.0.get(key.row.name).map(String::as_str))
    }

    /// Returns a number; -1 means no limit.
    fn bounded(&self, key: TypedKey<i64>) -> Option<i64> {
        Some(self.get(key)).filter(|&number| number >= 0)
    }

    /// Returns a text; an empty one counts as not set.
    fn filled(&self, key: TypedKey<Option<super::value::Text>>) -> Option<String> {
        self.get(key).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn replicas(&self, key: TypedKey<List>) -> ThrottledReplicas {
        ThrottledReplicas::parse(&self.get(key).join(",")).unwrap_or_default()
    }

    fn config(&self) -> Result<TopicConfig, ConfigError> {
        if self.get(keys::MIN_COMPACTION_LAG_MS) > self.get(keys::MAX_COMPACTION_LAG_MS) {
            return Err(ConfigError("min.compaction.lag.ms is above max.compaction.lag.ms".to_owned()));
        }
        let policies = self.get(keys::CLEANUP_POLICY);
        let segment_bytes = self.get(keys::INTERNAL_SEGMENT_BYTES).unwrap_or_else(|| self.get(keys::SEGMENT_BYTES));
        Ok(TopicConfig {
            delete: policies.contains(&"delete"),
            compact: policies.contains(&"compact"),
            compression: compression(self.get(keys::COMPRESSION_TYPE)),
            gzip_level: Some(self.get(keys::COMPRESSION_GZIP_LEVEL)).filter(|&level| level >= 0),
            zstd_level: self.get(keys::COMPRESSION_ZSTD_LEVEL),
            file_delete_delay_ms: self.get(keys::FILE_DELETE_DELAY_MS),
            flush_messages: self.get(keys::FLUSH_MESSAGES),
            flush_ms: self.get(keys::FLUSH_MS),
            index_interval_bytes: self.get(keys::INDEX_INTERVAL_BYTES),
            max_message_bytes: self.get(keys::MAX_MESSAGE_BYTES),
            timestamp_before_max_ms: self.get(keys::MESSAGE_TIMESTAMP_BEFORE_MAX_MS),
            timestamp_after_max_ms: self.get(keys::MESSAGE_TIMESTAMP_AFTER_MAX_MS),
            log_append_time: self.get(keys::MESSAGE_TIMESTAMP_TYPE) == "LogAppendTime",
            min_insync_replicas: self.get(keys::MIN_INSYNC_REPLICAS),
            delete_retention_ms: self.get(keys::DELETE_RETENTION_MS),
            min_cleanable_dirty_ratio: self.get(keys::MIN_CLEANABLE_DIRTY_RATIO),
            min_compaction_lag_ms: self.get(keys::MIN_COMPACTION_LAG_MS),
            preallocate: self.get(keys::PREALLOCATE),
            max_compaction_lag_ms: self.get(keys::MAX_COMPACTION_LAG_MS),
            retention_ms: self.bounded(keys::RETENTION_MS),
            retention_bytes: self.bounded(keys::RETENTION_BYTES),
            segment_bytes,
            segment_index_bytes: self.get(keys::SEGMENT_INDEX_BYTES),
            segment_jitter_ms: self.get(keys::SEGMENT_JITTER_MS),
            segment_ms: self.get(keys::SEGMENT_MS),
            stages: self.stages(),
            throttled_leaders: self.replicas(keys::LEADER_REPLICATION_THROTTLED_REPLICAS),
            throttled_followers: self.replicas(keys::FOLLOWER_REPLICATION_THROTTLED_REPLICAS),
            view_of: self.filled(keys::VIEW_OF),
            validation: validation(self.get(keys::COMPRESSED_RECORDS_VALIDATION)),
            record_bytes_max: self.get(keys::MAX_DECOMPRESSED_MESSAGE_BYTES),
        })
    }

    fn stages(&self) -> StageOptions {
        StageOptions {
            admit: self.filled(keys::STAGE_ADMIT),
            admit_policy: policy(self.get(keys::STAGE_ADMIT_FAILURE_POLICY)),
            compressor: self.filled(keys::STAGE_COMPRESSOR),
            compressor_policy: policy(self.get(keys::STAGE_COMPRESSOR_FAILURE_POLICY)),
            filter: self.filled(keys::STAGE_FILTER),
            filter_policy: policy(self.get(keys::STAGE_FILTER_FAILURE_POLICY)),
            dead_letter_topic: self.filled(keys::STAGE_DEAD_LETTER_TOPIC),
            partitioner: self.filled(keys::STAGE_PARTITIONER),
            serializer: self.filled(keys::STAGE_SERIALIZER),
        }
    }
}

/// Returns the value of a topic config that the topic does not set: from the broker's keys, or the default.
pub(crate) fn inherited(key: &Key, explicit: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = key.broker_synonyms.iter().find_map(|&(name, factor)| Some(scaled(&explicit(name)?, factor)));
    set.or_else(|| key.default.map(str::to_owned))
}

/// Converts a broker's value to the topic's unit. A negative number means "no limit" in either unit.
fn scaled(text: &str, factor: i64) -> String {
    match text.parse::<i64>() {
        Ok(number) if factor != 1 && number >= 0 => number.saturating_mul(factor).to_string(),
        _ => text.to_owned(),
    }
}

fn policy(name: &str) -> FailurePolicy {
    match name {
        "skip" => FailurePolicy::Skip,
        "dead-letter" => FailurePolicy::DeadLetter,
        "pass" => FailurePolicy::Pass,
        _ => FailurePolicy::Fail,
    }
}

fn validation(name: &str) -> Validation {
    match name {
        "full" => Validation::Full,
        "none" => Validation::None,
        _ => Validation::Framing,
    }
}

fn compression(name: &str) -> CompressionType {
    match name {
        "uncompressed" => CompressionType::Codec(Codec::None),
        "gzip" => CompressionType::Codec(Codec::Gzip),
        "snappy" => CompressionType::Codec(Codec::Snappy),
        "lz4" => CompressionType::Codec(Codec::Lz4),
        "zstd" => CompressionType::Codec(Codec::Zstd),
        _ => CompressionType::Producer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(broker: &[(&str, &str)], topic: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        let explicit = |name: &str| broker.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let overrides = topic.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TopicConfig::resolve(&explicit, &overrides)
    }

    #[test]
    fn the_topic_overrides_the_broker_and_the_finer_unit_the_coarser() {
        let config = resolve(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")], &[]).expect("good");
        assert_eq!(config.retention_ms, Some(120_000));
        let config = resolve(&[("log.retention.hours", "-1")], &[]).expect("good");
        assert_eq!(config.retention_ms, None);
        let config = resolve(&[("log.retention.ms", "5")], &[("retention.ms", "7")]).expect("good");
        assert_eq!(config.retention_ms, Some(7));
        let broker = [("log.cleaner.min.compaction.lag.ms", "5"), ("log.cleaner.max.compaction.lag.ms", "7")];
        let config = resolve(&broker, &[("max.compaction.lag.ms", "6")]).expect("good").log_config(0);
        assert_eq!((config.min_compaction_lag_ms, config.max_compaction_lag_ms), (5, 6));
        let broker = [("log.cleaner.min.cleanable.ratio", "0.25"), ("log.cleaner.delete.retention.ms", "9")];
        let config = resolve(&broker, &[]).expect("good").log_config(0);
        assert_eq!((config.min_cleanable_dirty_ratio, config.delete_retention_ms), (0.25, 9));
    }

    #[test]
    fn policies_and_codecs() {
        let config = resolve(&[], &[("cleanup.policy", "compact,delete"), ("compression.type", "zstd")]).expect("good");
        assert!(config.compact && config.delete);
        assert_eq!(config.compression, CompressionType::Codec(Codec::Zstd));
    }

    #[test]
    fn compressed_records_are_decompressed_if_a_config_needs_it() {
        let decompresses = |topic: &[(&str, &str)]| resolve(&[], topic).expect("good").decompresses();
        assert!(!decompresses(&[]));
        assert!(!decompresses(&[("compressed.records.validation", "none")]));
        assert!(decompresses(&[("compressed.records.validation", "full")]));
        assert!(decompresses(&[("cleanup.policy", "compact"), ("compressed.records.validation", "none")]));
        assert!(decompresses(&[("max.decompressed.message.bytes", "1000")]));
        let broker = [("compressed.records.validation", "full"), ("max.decompressed.message.bytes", "9")];
        let config = resolve(&broker, &[]).expect("good");
        assert_eq!((config.validation, config.record_bytes_max), (Validation::Full, 9));
    }

    #[test]
    fn bad_configs_are_named() {
        for (name, value) in
            [("no.such", "1"), ("retention.ms", "x"), ("cleanup.policy", "keep"), ("segment.bytes", "1")]
        {
            assert!(resolve(&[], &[(name, value)]).expect_err(name).to_string().contains(name));
        }
        assert!(resolve(&[], &[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]).is_err());
    }
}
