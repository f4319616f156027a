//! The options of a topic.

use super::key::keys;
use super::value::Valid::{Any, AtLeast, Between, ListOf, OneOf, Ratio};

/// What may become of a record that a stage refuses or fails on.
const POLICIES: &[&str] = &["fail", "skip", "dead-letter", "pass"];

/// How far compressed records are checked.
const VALIDATIONS: &[&str] = &["full", "framing", "none"];

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

keys! {
TOPIC_KEYS:
"cleanup.policy" List = "delete", ListOf(&["compact", "delete"]), ["log.cleanup.policy" * 1],
    "What happens to old records: `delete` drops segments by age and size, `compact` keeps the last record of each key.";
"compressed.records.validation" String = "framing", OneOf(VALIDATIONS), ["compressed.records.validation" * 1],
    "How far compressed records are checked before they are stored. `full` decompresses them and checks each, as Apache Kafka does; `framing` checks how the compressed bytes start and end; `none` checks the batch's header and CRC only.";
"compression.gzip.level" Int = "-1", Between(-1, 9), ["compression.gzip.level" * 1],
    "The gzip level if compression.type is gzip; -1 is the codec's own default.";
"compression.lz4.level" Int = "9", Between(1, 17), ["compression.lz4.level" * 1],
    "The lz4 level if compression.type is lz4. One level exists here; the value is accepted for Kafka's sake.";
"compression.type" String = "producer", OneOf(CODECS), ["compression.type" * 1],
    "How batches are stored: `producer` keeps the producer's codec, anything else recodes what arrives otherwise.";
"compression.zstd.level" Int = "3", Between(-131072, 22), ["compression.zstd.level" * 1],
    "The zstd level if compression.type is zstd.";
"delete.retention.ms" Long = "86400000", AtLeast(0), ["log.cleaner.delete.retention.ms" * 1],
    "How long a compacted topic keeps delete markers.";
"errors.deadletterqueue.group.enable" Boolean = "false", OneOf(&["false"]), [],
    "Whether share groups may write dead letters to the topic. There are no share groups here: only false is accepted.";
"file.delete.delay.ms" Long = "60000", AtLeast(0), ["log.segment.delete.delay.ms" * 1],
    "How long a file stays on disk after it was deleted, so that fetches under way can end.";
"flush.messages" Long = "9223372036854775807", AtLeast(1), ["log.flush.interval.messages" * 1],
    "Force an fsync after this many records, whatever the producer's acks say.";
"flush.ms" Long = "9223372036854775807", AtLeast(0), ["log.flush.interval.ms" * 1],
    "Force an fsync when a record has waited this long for one.";
"follower.replication.throttled.replicas" List = "", Any, [],
    "Replicas whose replication is throttled on the follower's side. One node has none.";
"index.interval.bytes" Int = "4096", AtLeast(0), ["log.index.interval.bytes" * 1],
    "How many bytes of log lie between two entries of the offset index.";
"internal.segment.bytes" Int = null, AtLeast(1), [],
    "Kafka's internal override of segment.bytes without its lower bound, for tests.";
"leader.replication.throttled.replicas" List = "", Any, [],
    "Replicas whose replication is throttled on the leader's side. One node has none.";
"local.retention.bytes" Long = "-2", AtLeast(-2), [],
    "Local retention of a tiered topic. There is no tiered storage here.";
"local.retention.ms" Long = "-2", AtLeast(-2), [],
    "Local retention of a tiered topic. There is no tiered storage here.";
"max.compaction.lag.ms" Long = "9223372036854775807", AtLeast(1), ["log.cleaner.max.compaction.lag.ms" * 1],
    "The longest time that a record may stay out of reach of compaction.";
"max.decompressed.message.bytes" Int = "2147483639", AtLeast(1), ["max.decompressed.message.bytes" * 1],
    "The largest record of a compressed batch, in bytes after decompression. Below the default, compressed records are decompressed and checked whatever compressed.records.validation says.";
"max.message.bytes" Int = "1048588", AtLeast(0), ["message.max.bytes" * 1],
    "The largest record batch that the topic takes, in bytes, after compression.";
"message.timestamp.after.max.ms" Long = "3600000", AtLeast(0), ["log.message.timestamp.after.max.ms" * 1],
    "How far a record's timestamp may lie in the broker's future.";
"message.timestamp.before.max.ms" Long = "9223372036854775807", AtLeast(0), ["log.message.timestamp.before.max.ms" * 1],
    "How far a record's timestamp may lie in the broker's past.";
"message.timestamp.type" String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), ["log.message.timestamp.type" * 1],
    "Whether a record bears the producer's time or that of the append.";
"min.cleanable.dirty.ratio" Double = "0.5", Ratio(0.0, 1.0), ["log.cleaner.min.cleanable.ratio" * 1],
    "The share of a compacted log that must be dirty before it is cleaned.";
"min.compaction.lag.ms" Long = "0", AtLeast(0), ["log.cleaner.min.compaction.lag.ms" * 1],
    "The least time that a record stays out of reach of compaction.";
"min.insync.replicas" Int = "1", AtLeast(1), ["min.insync.replicas" * 1],
    "How many replicas must be in sync for a write with acks=all.";
"preallocate" Boolean = "false", Any, ["log.preallocate" * 1],
    "Whether a new segment's file is given its full size at once. Accepted; files grow as they are written.";
"remote.copy.lag.bytes" Long = "-1", AtLeast(-1), [],
    "Part of tiered storage, which is not there.";
"remote.copy.lag.ms" Long = "0", AtLeast(-1), [],
    "Part of tiered storage, which is not there.";
"remote.log.copy.disable" Boolean = "false", Any, [],
    "Part of tiered storage, which is not there.";
"remote.log.delete.on.disable" Boolean = "false", Any, [],
    "Part of tiered storage, which is not there.";
"remote.storage.enable" Boolean = "false", OneOf(&["false"]), [],
    "Tiered storage, which is not there: only false is taken.";
"retention.bytes" Long = "-1", AtLeast(-1), ["log.retention.bytes" * 1],
    "The size above which a partition's oldest segments are deleted; -1 is no bound.";
"retention.ms" Long = "604800000", AtLeast(-1), ["log.retention.ms" * 1, "log.retention.minutes" * 60000, "log.retention.hours" * 3600000],
    "The age above which segments are deleted; -1 is no bound.";
"segment.bytes" Int = "1073741824", AtLeast(1048576), ["log.segment.bytes" * 1],
    "The size at which a segment is closed and the next one begun.";
"segment.index.bytes" Int = "10485760", AtLeast(4), ["log.index.size.max.bytes" * 1],
    "The largest size of a segment's index files.";
"segment.jitter.ms" Long = "0", AtLeast(0), ["log.roll.jitter.ms" * 1, "log.roll.jitter.hours" * 3600000],
    "The random part taken off segment.ms, so that not all partitions roll at once.";
"segment.ms" Long = "604800000", AtLeast(1), ["log.roll.ms" * 1, "log.roll.hours" * 3600000],
    "The age at which a segment is closed even if it is not full.";
"stage.admit" String = null, Any, [],
    "A chain of filters that a record has to pass to be stored, as in `contains{\"text\":\"x\"} | schema@3`.";
"stage.admit.failure.policy" String = "fail", OneOf(POLICIES), [],
    "What becomes of a record that stage.admit refuses or fails on: `fail` refuses its batch, `skip` drops it, `dead-letter` moves it to stage.dead.letter.topic, `pass` lets it in.";
"stage.compressor" String = null, Any, [],
    "The compressor that writes what is stored, whatever compression.type says.";
"stage.compressor.failure.policy" String = "fail", OneOf(&["fail", "pass"]), [],
    "What becomes of a batch that stage.compressor fails on: `fail` refuses it, `pass` stores it as it came.";
"stage.dead.letter.topic" String = null, Any, [],
    "Where records go that a stage refuses, if its failure policy is dead-letter.";
"stage.filter" String = null, Any, [],
    "The chain of filters of a view: what passes it is what the view shows.";
"stage.filter.failure.policy" String = "skip", OneOf(POLICIES), [],
    "What becomes of a record that stage.filter fails on: `fail` fails the fetch, `skip` hides it, `dead-letter` hides it and copies it to stage.dead.letter.topic, `pass` shows it.";
"stage.partitioner" String = null, Any, [],
    "The partitioner that applications use which take their stages from the cluster.";
"stage.serializer" String = null, Any, [],
    "The serializer that applications use which take their stages from the cluster.";
"unclean.leader.election.enable" Boolean = "false", Any, ["unclean.leader.election.enable" * 1],
    "Whether a replica that is out of sync may lead. One node never elects.";
"view.of" String = null, Any, [],
    "Makes the topic a read-only view of this one: the same partitions, offsets and timestamps, no storage of its own.";
}
