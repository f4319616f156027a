//! The configs of a topic.

use super::key::keys;
use super::value::Valid::{Any, AtLeast, Between, ListOf, OneOf, Ratio, Replicas};

/// The ways to handle a record that a stage rejects or fails on.
const POLICIES: &[&str] = &["fail", "skip", "dead-letter", "pass"];

/// The ways to check compressed records.
const VALIDATIONS: &[&str] = &["full", "framing", "none"];

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

keys! {
TOPIC_KEYS:
CLEANUP_POLICY "cleanup.policy" List = "delete", ListOf(&["compact", "delete"]), [LOG_CLEANUP_POLICY * 1],
    "What happens to old records: `delete` removes segments by age and size, `compact` keeps the last record of each \
    key.";
COMPRESSED_RECORDS_VALIDATION "compressed.records.validation" String = "framing", OneOf(VALIDATIONS),
    [COMPRESSED_RECORDS_VALIDATION * 1],
    "How compressed records are checked before they are stored. `full` decompresses them and checks each one, as Kafka \
    does. `framing` checks the start and the end of the compressed bytes. `none` checks only the header and the CRC.";
COMPRESSION_GZIP_LEVEL "compression.gzip.level" Int = "-1", Between(-1, 9), [COMPRESSION_GZIP_LEVEL * 1],
    "The gzip level if compression.type is gzip; -1 is the codec's own default.";
COMPRESSION_LZ4_LEVEL "compression.lz4.level" Int = "9", Between(9, 9), [COMPRESSION_LZ4_LEVEL * 1],
    "The lz4 level if compression.type is lz4. There is only one level, so that other values are rejected.";
COMPRESSION_TYPE "compression.type" String = "producer", OneOf(CODECS), [COMPRESSION_TYPE * 1],
    "How batches are stored: `producer` keeps the codec of the producer, any other value recompresses batches in \
    another codec.";
COMPRESSION_ZSTD_LEVEL "compression.zstd.level" Int = "3", Between(-131072, 22), [COMPRESSION_ZSTD_LEVEL * 1],
    "The zstd level if compression.type is zstd.";
DELETE_RETENTION_MS "delete.retention.ms" Long = "86400000", AtLeast(0), [LOG_CLEANER_DELETE_RETENTION_MS * 1],
    "How long compaction keeps records without a value, which delete their key, and markers of transactions.";
ERRORS_DEADLETTERQUEUE_GROUP_ENABLE "errors.deadletterqueue.group.enable" Boolean = "false", OneOf(&["false"]), [],
    "Whether share groups may write dead letters to the topic. Share groups are not supported yet, so that only false \
    is accepted.";
FILE_DELETE_DELAY_MS "file.delete.delay.ms" Long = "60000", AtLeast(0), [LOG_SEGMENT_DELETE_DELAY_MS * 1],
    "How long a file stays on disk after it is deleted, so that running fetches can end.";
FLUSH_MESSAGES "flush.messages" Long = "9223372036854775807", AtLeast(1), [LOG_FLUSH_INTERVAL_MESSAGES * 1],
    "Forces an fsync after this many records, whatever the acks of the producer.";
FLUSH_MS "flush.ms" Long = "9223372036854775807", AtLeast(0), [LOG_FLUSH_INTERVAL_MS * 1],
    "Forces an fsync after a record has waited for one this long.";
FOLLOWER_REPLICATION_THROTTLED_REPLICAS "follower.replication.throttled.replicas" List = "", Replicas, [],
    "The replicas whose fetches follower.replication.throttled.rate limits, as in `0:1,0:2` (partition and broker), or \
    `*` for all.";
INDEX_INTERVAL_BYTES "index.interval.bytes" Int = "4096", AtLeast(0), [LOG_INDEX_INTERVAL_BYTES * 1],
    "How many bytes of log lie between two entries of the offset index.";
INTERNAL_SEGMENT_BYTES "internal.segment.bytes" Int = null, AtLeast(1), [],
    "Kafka's internal form of segment.bytes without its lower bound, for tests.";
LEADER_REPLICATION_THROTTLED_REPLICAS "leader.replication.throttled.replicas" List = "", Replicas, [],
    "The leaders whose responses to followers out of sync leader.replication.throttled.rate limits, as in `0:1,0:2` \
    (partition and broker), or `*` for all.";
LOCAL_RETENTION_BYTES "local.retention.bytes" Long = "-2", AtLeast(-2), [],
    "The local retention of a topic in tiered storage, which is not supported.";
LOCAL_RETENTION_MS "local.retention.ms" Long = "-2", AtLeast(-2), [],
    "The local retention of a topic in tiered storage, which is not supported.";
MAX_COMPACTION_LAG_MS "max.compaction.lag.ms" Long = "9223372036854775807", AtLeast(1),
    [LOG_CLEANER_MAX_COMPACTION_LAG_MS * 1],
    "The longest time that a record may stay uncompacted.";
MAX_DECOMPRESSED_MESSAGE_BYTES "max.decompressed.message.bytes" Int = "2147483639", AtLeast(1),
    [MAX_DECOMPRESSED_MESSAGE_BYTES * 1],
    "The largest record of a compressed batch, in bytes after decompression. Below the default, compressed records are \
    always decompressed and checked.";
MAX_MESSAGE_BYTES "max.message.bytes" Int = "1048588", AtLeast(0), [MESSAGE_MAX_BYTES * 1],
    "The maximum size of a record batch, after compression.";
MESSAGE_TIMESTAMP_AFTER_MAX_MS "message.timestamp.after.max.ms" Long = "3600000", AtLeast(0),
    [LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS * 1],
    "How far the timestamp of a record may lie in the future of the broker's clock.";
MESSAGE_TIMESTAMP_BEFORE_MAX_MS "message.timestamp.before.max.ms" Long = "9223372036854775807", AtLeast(0),
    [LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS * 1],
    "How far the timestamp of a record may lie in the past of the broker's clock.";
MESSAGE_TIMESTAMP_TYPE "message.timestamp.type" String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]),
    [LOG_MESSAGE_TIMESTAMP_TYPE * 1],
    "Whether a record keeps the timestamp of its producer or gets the time of the append.";
MIN_CLEANABLE_DIRTY_RATIO "min.cleanable.dirty.ratio" Double = "0.5", Ratio(0.0, 1.0), [LOG_CLEANER_MIN_CLEANABLE_RATIO
    * 1],
    "The share of a compacted log that must be uncompacted before it is compacted again.";
MIN_COMPACTION_LAG_MS "min.compaction.lag.ms" Long = "0", AtLeast(0), [LOG_CLEANER_MIN_COMPACTION_LAG_MS * 1],
    "The shortest time that a record stays uncompacted.";
MIN_INSYNC_REPLICAS "min.insync.replicas" Int = "1", AtLeast(1), [MIN_INSYNC_REPLICAS * 1],
    "The number of replicas that must be in sync for a write with acks=all.";
PREALLOCATE "preallocate" Boolean = "false", Any, [LOG_PREALLOCATE * 1],
    "Whether a new segment gets the disk space of segment.bytes with its first record. What is left over is given back \
    when the segment is closed.";
REMOTE_COPY_LAG_BYTES "remote.copy.lag.bytes" Long = "-1", AtLeast(-1), [],
    "How many bytes a topic in tiered storage may lag, which is not supported.";
REMOTE_COPY_LAG_MS "remote.copy.lag.ms" Long = "0", AtLeast(-1), [],
    "How long a topic in tiered storage may lag, which is not supported.";
REMOTE_LOG_COPY_DISABLE "remote.log.copy.disable" Boolean = "false", Any, [],
    "Part of tiered storage, which is not supported.";
REMOTE_LOG_DELETE_ON_DISABLE "remote.log.delete.on.disable" Boolean = "false", Any, [],
    "Part of tiered storage, which is not supported.";
REMOTE_STORAGE_ENABLE "remote.storage.enable" Boolean = "false", OneOf(&["false"]), [],
    "Whether the topic uses tiered storage, which is not supported: the only valid value is false.";
RETENTION_BYTES "retention.bytes" Long = "-1", AtLeast(-1), [LOG_RETENTION_BYTES * 1],
    "The size of a partition above which its oldest segments are deleted; -1 disables this.";
RETENTION_MS "retention.ms" Long = "604800000", AtLeast(-1), [LOG_RETENTION_MS * 1, LOG_RETENTION_MINUTES * 60000,
    LOG_RETENTION_HOURS * 3600000],
    "The age above which segments are deleted; -1 disables this.";
SEGMENT_BYTES "segment.bytes" Int = "1073741824", AtLeast(1048576), [LOG_SEGMENT_BYTES * 1],
    "The size at which a segment is closed and the next one is started.";
SEGMENT_INDEX_BYTES "segment.index.bytes" Int = "10485760", AtLeast(4), [LOG_INDEX_SIZE_MAX_BYTES * 1],
    "The maximum size of each index file of a segment.";
SEGMENT_JITTER_MS "segment.jitter.ms" Long = "0", AtLeast(0), [LOG_ROLL_JITTER_MS * 1, LOG_ROLL_JITTER_HOURS * 3600000],
    "The random part that is subtracted from segment.ms, so that not all partitions roll at once.";
SEGMENT_MS "segment.ms" Long = "604800000", AtLeast(1), [LOG_ROLL_MS * 1, LOG_ROLL_HOURS * 3600000],
    "The age at which a segment is closed, even if it is not full.";
STAGE_ADMIT "stage.admit" String = null, Any, [],
    "The chain of filters that a record must pass to be stored, as in `contains{\"text\":\"x\"} | schema@3`.";
STAGE_ADMIT_FAILURE_POLICY "stage.admit.failure.policy" String = "fail", OneOf(POLICIES), [],
    "What happens to a record that stage.admit rejects or fails on: `fail` rejects its batch, `skip` drops the record, \
    `dead-letter` moves it to stage.dead.letter.topic, `pass` stores it.";
STAGE_COMPRESSOR "stage.compressor" String = null, Any, [],
    "The compressor of stored batches. It takes precedence over compression.type.";
STAGE_COMPRESSOR_FAILURE_POLICY "stage.compressor.failure.policy" String = "fail", OneOf(&["fail", "pass"]), [],
    "What happens to a batch that stage.compressor fails on: `fail` rejects it, `pass` stores it as it was sent.";
STAGE_DEAD_LETTER_TOPIC "stage.dead.letter.topic" String = null, Any, [],
    "The topic for records that a stage rejects, if its failure policy is dead-letter.";
STAGE_FILTER "stage.filter" String = null, Any, [],
    "The chain of filters of a view. The view shows the records that pass it.";
STAGE_FILTER_FAILURE_POLICY "stage.filter.failure.policy" String = "skip", OneOf(POLICIES), [],
    "What happens to a record that stage.filter fails on: `fail` fails the fetch, `skip` hides the record, \
    `dead-letter` hides it and copies it to stage.dead.letter.topic, `pass` shows it.";
STAGE_PARTITIONER "stage.partitioner" String = null, Any, [],
    "The partitioner of applications that take their stages from the cluster.";
STAGE_SERIALIZER "stage.serializer" String = null, Any, [],
    "The serializer of applications that take their stages from the cluster.";
UNCLEAN_LEADER_ELECTION_ENABLE "unclean.leader.election.enable" Boolean = "false", Any, [UNCLEAN_LEADER_ELECTION_ENABLE
    * 1],
    "Whether a replica that is out of sync may become leader. It has no effect on a single broker.";
VIEW_OF "view.of" String = null, Any, [],
    "Makes the topic a read-only view of this topic: the same partitions, offsets and timestamps, without storage of \
    its own.";
}
