//! A topic's options, typed: the broker's defaults under the topic's own values.

use std::collections::BTreeMap;

use millstream_record::Codec;

use super::ConfigError;
use super::key::{Key, all_topic_keys, topic_key};
use super::value::list;

/// What was set on the topic itself, by name.
pub(crate) type TopicOverrides = BTreeMap<String, String>;

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionType {
    /// Whatever the producer chose is stored.
    Producer,
    /// Batches of another codec are recoded.
    Codec(Codec),
}

/// `compressed.records.validation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    /// Compressed records are decompressed, and each is checked.
    Full,
    /// What can be checked without decompressing is checked.
    Framing,
    /// The batch's header and CRC are checked.
    None,
}

/// The default of `max.decompressed.message.bytes`.
const RECORD_BYTES_MAX: i32 = 2_147_483_639;

/// What becomes of a record that a stage refuses or fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    /// What holds the record fails with it: the batch that is produced, the partition that is fetched.
    Fail,
    /// It is dropped.
    Skip,
    /// It is dropped, and kept in `stage.dead.letter.topic`.
    DeadLetter,
    /// It passes as if the stage were not there.
    Pass,
}

/// The stages of a topic as its options write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageOptions {
    pub(crate) admit: Option<String>,
    pub(crate) admit_policy: FailurePolicy,
    pub(crate) compressor: Option<String>,
    pub(crate) compressor_policy: FailurePolicy,
    pub(crate) filter: Option<String>,
    pub(crate) filter_policy: FailurePolicy,
    pub(crate) dead_letter_topic: Option<String>,
    /// These two are for applications: the broker checks them and keeps them.
    pub(crate) partitioner: Option<String>,
    pub(crate) serializer: Option<String>,
}

/// The options of a topic that the broker acts on. Sizes are bytes, times milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    pub(crate) delete: bool,
    pub(crate) compact: bool,
    pub(crate) compression: CompressionType,
    pub(crate) validation: Validation,
    /// The largest record of a compressed batch.
    pub(crate) record_bytes_max: i32,
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
    /// `None` keeps records of any age.
    pub(crate) retention_ms: Option<i64>,
    /// `None` is no bound.
    pub(crate) retention_bytes: Option<i64>,
    pub(crate) segment_bytes: i32,
    pub(crate) segment_index_bytes: i32,
    pub(crate) segment_jitter_ms: i64,
    pub(crate) segment_ms: i64,
    pub(crate) stages: StageOptions,
    /// The topic that this one is a view of.
    pub(crate) view_of: Option<String>,
}

impl TopicConfig {
    /// The room, in bytes, that a log leaves above `max.message.bytes` for the headers of a dead letter: six names, an error
    /// of about 1 KiB, a topic, a plug-in and four numbers. Producers cannot use it.
    pub(crate) const DEAD_LETTER_OVERHEAD_MAX: u32 = 4 << 10;

    /// The defaults that the broker's own keys give.
    pub(crate) fn from_broker(explicit: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::resolve(explicit, &TopicOverrides::new())
    }

    /// The options of a topic that sets `overrides`.
    ///
    /// # Errors
    /// An unknown option, a bad value, values that do not go together.
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
            values.insert(key.name, text.unwrap_or_default());
        }
        Self::from_values(&values)
    }

    /// Every value was checked against its row, so no fallback in here is ever reached.
    fn from_values(values: &BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
        let text = |name: &str| values.get(name).map_or("", |text| text.trim());
        let long = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let bounded = |name: &str| Some(long(name)).filter(|&number| number >= 0);
        let filled = |name: &str| Some(text(name)).filter(|text| !text.is_empty()).map(str::to_owned);
        if long("min.compaction.lag.ms") > long("max.compaction.lag.ms") {
            return Err(ConfigError("min.compaction.lag.ms is above max.compaction.lag.ms".to_owned()));
        }
        let policies = list(text("cleanup.policy"));
        let segment_bytes = text("internal.segment.bytes").parse().unwrap_or_else(|_| int("segment.bytes"));
        Ok(Self {
            delete: policies.contains(&"delete"),
            compact: policies.contains(&"compact"),
            compression: compression(text("compression.type")),
            validation: validation(text("compressed.records.validation")),
            record_bytes_max: int("max.decompressed.message.bytes"),
            gzip_level: bounded("compression.gzip.level").and_then(|level| i32::try_from(level).ok()),
            zstd_level: int("compression.zstd.level"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_message_bytes: int("max.message.bytes"),
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            min_insync_replicas: int("min.insync.replicas"),
            retention_ms: bounded("retention.ms"),
            retention_bytes: bounded("retention.bytes"),
            segment_bytes,
            segment_index_bytes: int("segment.index.bytes"),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_ms: long("segment.ms"),
            stages: StageOptions {
                admit: filled("stage.admit"),
                admit_policy: policy(text("stage.admit.failure.policy")),
                compressor: filled("stage.compressor"),
                compressor_policy: policy(text("stage.compressor.failure.policy")),
                filter: filled("stage.filter"),
                filter_policy: policy(text("stage.filter.failure.policy")),
                dead_letter_topic: filled("stage.dead.letter.topic"),
                partitioner: filled("stage.partitioner"),
                serializer: filled("stage.serializer"),
            },
            view_of: filled("view.of"),
        })
    }
}

impl TopicConfig {
    /// Whether the records of a compressed batch are decompressed before the batch is stored.
    pub(crate) fn decompresses(&self) -> bool {
        self.compact || self.validation == Validation::Full || self.record_bytes_max < RECORD_BYTES_MAX
    }
}

/// The value that the broker's keys give an option, else its own default.
pub(crate) fn inherited(key: &Key, explicit: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = key.broker_synonyms.iter().find_map(|&(name, factor)| Some(scaled(&explicit(name)?, factor)));
    set.or_else(|| key.default.map(str::to_owned))
}

/// A broker's value in the topic's unit. A negative number means "no bound" in either unit.
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
    fn the_topic_is_stronger_than_the_broker_and_the_finer_unit_than_the_coarser() {
        let config = resolve(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")], &[]).expect("good");
        assert_eq!(config.retention_ms, Some(120_000));
        let config = resolve(&[("log.retention.hours", "-1")], &[]).expect("good");
        assert_eq!(config.retention_ms, None);
        let config = resolve(&[("log.retention.ms", "5")], &[("retention.ms", "7")]).expect("good");
        assert_eq!(config.retention_ms, Some(7));
    }

    #[test]
    fn compressed_records_are_decompressed_where_an_option_needs_it() {
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
    fn policies_and_codecs() {
        let config = resolve(&[], &[("cleanup.policy", "compact,delete"), ("compression.type", "zstd")]).expect("good");
        assert!(config.compact && config.delete);
        assert_eq!(config.compression, CompressionType::Codec(Codec::Zstd));
    }

    #[test]
    fn bad_options_are_named() {
        for (name, value) in
            [("no.such", "1"), ("retention.ms", "x"), ("cleanup.policy", "keep"), ("segment.bytes", "1")]
        {
            assert!(resolve(&[], &[(name, value)]).expect_err("refused").to_string().contains(name));
        }
        assert!(resolve(&[], &[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]).is_err());
    }
}
