//! The broker keys that are read, and the defaults of topic configs.
//!
//! All of them act. The keys of Kafka that have no effect here are in [`super::inert_keys`].

use millstream_stage::Limits;

use super::key::keys;
use super::value::Valid::{Any, AtLeast, Between, ListOf, OneOf, Ratio};

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const SELECTORS: &[&str] = &[LEADER_SELECTOR, RACK_SELECTOR];

const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";

/// The value of `replica.selector.class` by which consumers read from a replica in their rack.
pub(super) const RACK_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

keys! {
BROKER_KEYS:
ADVERTISED_LISTENERS "advertised.listeners" List = null, Any, Acts,
    "The addresses that clients connect to, one for each listener. Without it, clients get the addresses in \
    `listeners`.";
AUTO_CREATE_TOPICS_ENABLE "auto.create.topics.enable" Boolean = "true", Any, Acts,
    "Whether a client's request for a topic that does not exist creates it.";
AUTO_LEADER_REBALANCE_ENABLE "auto.leader.rebalance.enable" Boolean = "true", Any, Acts,
    "Whether partitions go back to their preferred leaders, once these are in sync.";
BROKER_HEARTBEAT_INTERVAL_MS "broker.heartbeat.interval.ms" Int = "2000", AtLeast(1), Acts,
    "How often a broker of a cluster sends a heartbeat to the controller.";
BROKER_ID "broker.id" Int = "-1", AtLeast(-1), Acts,
    "The older name of node.id.";
BROKER_RACK "broker.rack" String = null, Any, Acts,
    "The rack of this broker, as Metadata responses show it.";
BROKER_SESSION_TIMEOUT_MS "broker.session.timeout.ms" Int = "9000", AtLeast(1), Acts,
    "A broker whose heartbeats stop for this long is fenced. One whose process ends is fenced at once.";
COMPRESSED_RECORDS_VALIDATION "compressed.records.validation" String = "framing", OneOf(&["full", "framing", "none"]),
    Acts,
    "The default of the topic config of the same name.";
COMPRESSION_GZIP_LEVEL "compression.gzip.level" Int = "-1", Between(-1, 9), Acts,
    "The default of the topic config of the same name.";
COMPRESSION_LZ4_LEVEL "compression.lz4.level" Int = "9", Between(9, 9), Acts,
    "The default of the topic config of the same name.";
COMPRESSION_TYPE "compression.type" String = "producer", OneOf(CODECS), Acts,
    "The default of the topic config of the same name.";
COMPRESSION_ZSTD_LEVEL "compression.zstd.level" Int = "3", Between(-131072, 22), Acts,
    "The default of the topic config of the same name.";
CONNECTIONS_MAX_IDLE_MS "connections.max.idle.ms" Long = "600000", Any, Acts,
    "Closes a connection after this long without a request; 0 or less disables this.";
CONTROLLER_LISTENER_NAMES "controller.listener.names" List = "", Any, Acts,
    "The listener on which the nodes of a cluster reach each other. Without controller.quorum.voters and \
    controller.quorum.bootstrap.servers it is not opened. A node that does not vote and has no such listener takes a \
    free port for it.";
CONTROLLER_QUORUM_BOOTSTRAP_SERVERS "controller.quorum.bootstrap.servers" List = "", Any, Acts,
    "The addresses of nodes of the cluster. If none of them is in a cluster yet, the first one forms it.";
CONTROLLER_QUORUM_VOTERS "controller.quorum.voters" List = "", Any, Acts,
    "The same as controller.quorum.bootstrap.servers, each with its node id: `1@host:9093`. It is read at a node's \
    first start; later the quorum itself keeps its voters.";
CORDONED_LOG_DIRS "cordoned.log.dirs" List = "", Any, Acts,
    "The data folders that get no new partitions (KIP-1066), as log.dirs names them. With `*` this broker gets no new \
    replicas; it can be set only while the broker runs, and `millstream cluster drain` sets it.";
DEFAULT_REPLICATION_FACTOR "default.replication.factor" Int = "1", AtLeast(1), Acts,
    "The replication factor of topics that are created without one. Topics that are created on demand get at most one \
    replica for each broker.";
DELETE_TOPIC_ENABLE "delete.topic.enable" Boolean = "true", Any, Acts,
    "Whether topics may be deleted.";
DISK_RESERVE_BYTES "disk.reserve.bytes" Long = "16777216", AtLeast(0), Acts,
    "The free space in bytes that producers leave on the disk of each data folder. With less, they get \
    KAFKA_STORAGE_ERROR until twice as much is free. A file keeps a quarter of it for the start and the end of the \
    broker; 0 means no reserve.";
FETCH_MAX_BYTES "fetch.max.bytes" Int = "57671680", AtLeast(1024), Acts,
    "The maximum size of a fetch response, whatever the client asks for.";
FLUSH_MODE "flush.mode" String = "fsync", OneOf(&["fsync", "page-cache"]), Acts,
    "What acks=all waits for: `fsync` waits for stable storage, `page-cache` for the operating system, as Kafka does \
    by default.";
FOLLOWER_REPLICATION_THROTTLED_RATE "follower.replication.throttled.rate" Long = "9223372036854775807", AtLeast(0),
    Acts,
    "The most bytes that this broker fetches in a second for the replicas in the topic config \
    follower.replication.throttled.replicas. It can be changed while the broker runs.";
GROUP_INITIAL_REBALANCE_DELAY_MS "group.initial.rebalance.delay.ms" Int = "3000", AtLeast(0), Acts,
    "How long the first rebalance of a new group waits for more members.";
GROUP_MAX_SESSION_TIMEOUT_MS "group.max.session.timeout.ms" Int = "1800000", AtLeast(1), Acts,
    "The longest session timeout that a member may request.";
GROUP_MAX_SIZE "group.max.size" Int = "10000", AtLeast(1), Acts,
    "The maximum number of members in a group. Kafka's default is no limit.";
GROUP_MIN_SESSION_TIMEOUT_MS "group.min.session.timeout.ms" Int = "6000", AtLeast(1), Acts,
    "The shortest session timeout that a member may request.";
INTER_BROKER_LISTENER_NAME "inter.broker.listener.name" String = null, Any, Acts,
    "The listener on which other brokers fetch from this one; the other listeners reject them. Without it, it is the \
    listener of controller.listener.names.";
LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS "leader.imbalance.check.interval.seconds" Long = "300", AtLeast(1), Acts,
    "How often the controller looks for partitions that their preferred leaders could lead.";
LEADER_REPLICATION_THROTTLED_RATE "leader.replication.throttled.rate" Long = "9223372036854775807", AtLeast(0), Acts,
    "The most bytes that this broker sends in a second to followers that are out of sync, for the partitions in the \
    topic config leader.replication.throttled.replicas. It can be changed while the broker runs.";
LISTENER_SECURITY_PROTOCOL_MAP "listener.security.protocol.map" String =
    "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL", Any, Acts,
    "The security protocol of each listener. Only PLAINTEXT is supported so far.";
LISTENERS "listeners" List = "PLAINTEXT://127.0.0.1:9092", Any, Acts,
    "The addresses to listen on. Port 0 takes a free port; an empty host means all addresses.";
LOG_CLEANER_BACKOFF_MS "log.cleaner.backoff.ms" Long = "15000", AtLeast(0), Acts,
    "How long the cleaner pauses when no log needs to be compacted. It can be changed while the broker runs.";
LOG_CLEANER_DEDUPE_BUFFER_SIZE "log.cleaner.dedupe.buffer.size" Long = "134217728", Any, Acts,
    "The most memory for the keys of the logs that are being compacted, for all threads together: 16 bytes a key. \
    It can be changed while the broker runs.";
LOG_CLEANER_DELETE_RETENTION_MS "log.cleaner.delete.retention.ms" Long = "86400000", AtLeast(0), Acts,
    "The default of the topic config delete.retention.ms.";
LOG_CLEANER_ENABLE "log.cleaner.enable" Boolean = "true", Any, Acts,
    "Whether topics with cleanup.policy=compact are compacted.";
LOG_CLEANER_IO_BUFFER_LOAD_FACTOR "log.cleaner.io.buffer.load.factor" Double = "0.9", Ratio(0.0, 1.0), Acts,
    "The share of log.cleaner.dedupe.buffer.size that is filled with keys: the rest of a log is left to the next pass. \
    It can be changed while the broker runs.";
LOG_CLEANER_IO_BUFFER_SIZE "log.cleaner.io.buffer.size" Int = "524288", AtLeast(0), Acts,
    "How many bytes the cleaner reads or writes at a time. It can be changed while the broker runs.";
LOG_CLEANER_IO_MAX_BYTES_PER_SECOND "log.cleaner.io.max.bytes.per.second" Double = "1.7976931348623157E308", Any,
    Acts,
    "The most bytes that the cleaner reads and writes in a second. It can be changed while the broker runs.";
LOG_CLEANER_MAX_COMPACTION_LAG_MS "log.cleaner.max.compaction.lag.ms" Long = "9223372036854775807", AtLeast(1), Acts,
    "The default of the topic config max.compaction.lag.ms.";
LOG_CLEANER_MIN_CLEANABLE_RATIO "log.cleaner.min.cleanable.ratio" Double = "0.5", Ratio(0.0, 1.0), Acts,
    "The default of the topic config min.cleanable.dirty.ratio.";
LOG_CLEANER_MIN_COMPACTION_LAG_MS "log.cleaner.min.compaction.lag.ms" Long = "0", AtLeast(0), Acts,
    "The default of the topic config min.compaction.lag.ms.";
LOG_CLEANER_THREADS "log.cleaner.threads" Int = "1", AtLeast(0), Acts,
    "How many logs are compacted at a time. It can be changed while the broker runs.";
LOG_CLEANUP_POLICY "log.cleanup.policy" List = "delete", ListOf(&["compact", "delete"]), Acts,
    "The default of the topic config cleanup.policy.";
LOG_DIR "log.dir" List = "millstream-data", Any, Acts,
    "The data folder. log.dirs takes precedence over it, and the flag --data-dir over both.";
LOG_DIRS "log.dirs" List = null, Any, Acts,
    "The data folders, one for each disk. A new partition is created in the folder with the fewest partitions. A \
    folder that fails takes only its partitions out of service.";
LOG_FLUSH_INTERVAL_MESSAGES "log.flush.interval.messages" Long = "9223372036854775807", AtLeast(1), Acts,
    "The default of the topic config flush.messages.";
LOG_FLUSH_INTERVAL_MS "log.flush.interval.ms" Long = null, AtLeast(0), Acts,
    "The default of the topic config flush.ms.";
LOG_FLUSH_OFFSET_CHECKPOINT_INTERVAL_MS "log.flush.offset.checkpoint.interval.ms" Int = "60000", AtLeast(0), Acts,
    "How often the recovery points are written to disk.";
LOG_FLUSH_SCHEDULER_INTERVAL_MS "log.flush.scheduler.interval.ms" Long = "9223372036854775807", AtLeast(1), Acts,
    "How often the broker checks for partitions whose flush.ms has passed, at least once a second.";
LOG_FLUSH_START_OFFSET_CHECKPOINT_INTERVAL_MS "log.flush.start.offset.checkpoint.interval.ms" Int = "60000",
    AtLeast(0), Acts,
    "How often the log start offsets are written to disk.";
LOG_INDEX_INTERVAL_BYTES "log.index.interval.bytes" Int = "4096", AtLeast(0), Acts,
    "The default of the topic config index.interval.bytes.";
LOG_INDEX_SIZE_MAX_BYTES "log.index.size.max.bytes" Int = "10485760", AtLeast(4), Acts,
    "The default of the topic config segment.index.bytes.";
LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS "log.message.timestamp.after.max.ms" Long = "3600000", AtLeast(0), Acts,
    "The default of the topic config message.timestamp.after.max.ms.";
LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS "log.message.timestamp.before.max.ms" Long = "9223372036854775807", AtLeast(0),
    Acts,
    "The default of the topic config message.timestamp.before.max.ms.";
LOG_MESSAGE_TIMESTAMP_TYPE "log.message.timestamp.type" String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]),
    Acts,
    "The default of the topic config message.timestamp.type.";
LOG_PREALLOCATE "log.preallocate" Boolean = "false", Any, Acts,
    "The default of the topic config preallocate.";
LOG_RETENTION_BYTES "log.retention.bytes" Long = "-1", AtLeast(-1), Acts,
    "The default of the topic config retention.bytes.";
LOG_RETENTION_CHECK_INTERVAL_MS "log.retention.check.interval.ms" Long = "300000", AtLeast(1), Acts,
    "How often the broker deletes segments that are past their retention.";
LOG_RETENTION_HOURS "log.retention.hours" Int = "168", AtLeast(-1), Acts,
    "The default of the topic config retention.ms, in hours.";
LOG_RETENTION_MINUTES "log.retention.minutes" Int = null, AtLeast(-1), Acts,
    "The default of the topic config retention.ms, in minutes.";
LOG_RETENTION_MS "log.retention.ms" Long = null, AtLeast(-1), Acts,
    "The default of the topic config retention.ms.";
LOG_ROLL_HOURS "log.roll.hours" Int = "168", AtLeast(1), Acts,
    "The default of the topic config segment.ms, in hours.";
LOG_ROLL_JITTER_HOURS "log.roll.jitter.hours" Int = "0", AtLeast(0), Acts,
    "The default of the topic config segment.jitter.ms, in hours.";
LOG_ROLL_JITTER_MS "log.roll.jitter.ms" Long = null, AtLeast(0), Acts,
    "The default of the topic config segment.jitter.ms.";
LOG_ROLL_MS "log.roll.ms" Long = null, AtLeast(1), Acts,
    "The default of the topic config segment.ms.";
LOG_SEGMENT_BYTES "log.segment.bytes" Int = "1073741824", AtLeast(1048576), Acts,
    "The default of the topic config segment.bytes.";
LOG_SEGMENT_DELETE_DELAY_MS "log.segment.delete.delay.ms" Long = "60000", AtLeast(0), Acts,
    "The default of the topic config file.delete.delay.ms.";
MAX_CONNECTIONS "max.connections" Int = "2147483647", AtLeast(0), Acts,
    "The maximum number of open connections. The process's limit of open files bounds it too.";
MAX_CONNECTIONS_PER_IP "max.connections.per.ip" Int = "2147483647", AtLeast(0), Acts,
    "The maximum number of open connections from one IP address.";
MAX_DECOMPRESSED_MESSAGE_BYTES "max.decompressed.message.bytes" Int = "2147483639", AtLeast(1), Acts,
    "The default of the topic config of the same name.";
MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS "max.incremental.fetch.session.cache.slots" Int = "1000", AtLeast(0), Acts,
    "The maximum number of fetch sessions. A client without one names all its partitions in each fetch.";
METADATA_LOG_DIR "metadata.log.dir" String = null, Any, Acts,
    "The data folder of the metadata and of the quorum. Without it, it is the first one of log.dirs.";
MESSAGE_MAX_BYTES "message.max.bytes" Int = "1048588", AtLeast(0), Acts,
    "The default of the topic config max.message.bytes.";
MIN_INSYNC_REPLICAS "min.insync.replicas" Int = "1", AtLeast(1), Acts,
    "The default of the topic config of the same name.";
NODE_ID "node.id" Int = "0", AtLeast(0), Acts,
    "The id of this broker.";
NUM_PARTITIONS "num.partitions" Int = "1", AtLeast(1), Acts,
    "The number of partitions of topics that are created without one.";
NUM_REPLICA_FETCHERS "num.replica.fetchers" Int = "1", Between(1, 100), Acts,
    "The number of connections over which a broker fetches from each leader that it follows. The partitions of a topic \
    are spread over them.";
OFFSET_METADATA_MAX_BYTES "offset.metadata.max.bytes" Int = "4096", AtLeast(0), Acts,
    "The maximum size of the metadata text of a committed offset.";
OFFSETS_COMMIT_TIMEOUT_MS "offsets.commit.timeout.ms" Int = "5000", AtLeast(1), Acts,
    "How long a request to a group coordinator may wait for the commit of its record.";
OFFSETS_RETENTION_CHECK_INTERVAL_MS "offsets.retention.check.interval.ms" Long = "600000", AtLeast(1), Acts,
    "How often the broker removes committed offsets that have expired.";
OFFSETS_RETENTION_MINUTES "offsets.retention.minutes" Int = "10080", AtLeast(1), Acts,
    "How long committed offsets are kept after their group is empty.";
OFFSETS_TOPIC_NUM_PARTITIONS "offsets.topic.num.partitions" Int = "50", AtLeast(1), Acts,
    "The number of partitions of __consumer_offsets.";
OFFSETS_TOPIC_REPLICATION_FACTOR "offsets.topic.replication.factor" Short = "3", AtLeast(1), Acts,
    "The replication factor of __consumer_offsets, at most one replica for each broker.";
OFFSETS_TOPIC_SEGMENT_BYTES "offsets.topic.segment.bytes" Int = "104857600", AtLeast(1), Acts,
    "The segment size of __consumer_offsets.";
PLUGIN_LIMITS "plugin.limits" String = "default", OneOf(&Limits::PROFILES), Acts,
    "The limits of a plug-in's file: `default`, or `large` for those that carry a large interpreter, such as Python.";
PLUGIN_ROLLBACK_ERROR_SHARE "plugin.rollback.error.share" Double = "0.5", Ratio(0.0, 1.0), Acts,
    "Failure rate above which a version is rolled back automatically; 1 disables this check.";
PLUGIN_ROLLBACK_RECORDS_MIN "plugin.rollback.records.min" Long = "1000", AtLeast(1), Acts,
    "The minimum number of records in the window before a version's failure rate is evaluated.";
PLUGIN_ROLLBACK_TRAPS "plugin.rollback.traps" Int = "3", AtLeast(1), Acts,
    "The number of traps in the window after which a version is rolled back automatically.";
PLUGIN_ROLLBACK_WINDOW_MS "plugin.rollback.window.ms" Long = "60000", AtLeast(1), Acts,
    "The window over which the traps and failures of a version are counted.";
PROCESS_ROLES "process.roles" List = null, ListOf(&["broker", "controller"]), Acts,
    "What the node does: `broker` stores records and serves clients, `controller` votes in the quorum. Without it, a \
    node does both.";
PRODUCER_ID_EXPIRATION_MS "producer.id.expiration.ms" Int = "86400000", AtLeast(1), Acts,
    "How long a partition remembers an idempotent producer that sends nothing.";
QUEUED_MAX_REQUEST_BYTES "queued.max.request.bytes" Long = "-1", Any, Acts,
    "The maximum memory for requests and responses in flight, over all connections; 0 or less means 256 MiB. Messages \
    up to 16 KiB are not counted.";
REPLICA_FETCH_BACKOFF_MS "replica.fetch.backoff.ms" Int = "1000", AtLeast(0), Acts,
    "The pause of a follower after a fetch that failed.";
REPLICA_FETCH_MAX_BYTES "replica.fetch.max.bytes" Int = "1048576", AtLeast(0), Acts,
    "The most bytes of one partition that a follower asks for in a fetch. A larger batch is sent all the same.";
REPLICA_FETCH_MIN_BYTES "replica.fetch.min.bytes" Int = "1", AtLeast(0), Acts,
    "The bytes that a leader waits for before it responds to a follower.";
REPLICA_FETCH_RESPONSE_MAX_BYTES "replica.fetch.response.max.bytes" Int = "10485760", AtLeast(0), Acts,
    "The most bytes of all partitions that a follower asks for in a fetch. A larger batch is sent all the same.";
REPLICA_FETCH_WAIT_MAX_MS "replica.fetch.wait.max.ms" Int = "500", AtLeast(0), Acts,
    "How long a leader waits for records before it responds to a follower. Keep it below replica.lag.time.max.ms.";
REPLICA_HIGH_WATERMARK_CHECKPOINT_INTERVAL_MS "replica.high.watermark.checkpoint.interval.ms" Long = "5000",
    AtLeast(0), Acts,
    "How often the high watermarks are written to disk, if they have changed.";
REPLICA_LAG_TIME_MAX_MS "replica.lag.time.max.ms" Long = "30000", AtLeast(1), Acts,
    "A follower that has lacked records of its leader for this long leaves the in-sync set.";
REPLICA_SELECTOR_CLASS "replica.selector.class" String = null, OneOf(SELECTORS), Acts,
    "Which replica a consumer reads from. org.apache.kafka.common.replica.RackAwareReplicaSelector sends a consumer \
    with a client.rack to a replica in sync in this rack; otherwise it reads from the leader.";
REPLICA_SOCKET_TIMEOUT_MS "replica.socket.timeout.ms" Int = "30000", AtLeast(1), Acts,
    "How long a follower waits for a connection to a leader, and for a response.";
REPLICATION_QUOTA_WINDOW_NUM "replication.quota.window.num" Int = "11", AtLeast(1), Acts,
    "The number of windows over which the rates of throttled replicas are measured.";
REPLICATION_QUOTA_WINDOW_SIZE_SECONDS "replication.quota.window.size.seconds" Int = "1", AtLeast(1), Acts,
    "The length of each of these windows.";
SOCKET_LISTEN_BACKLOG_SIZE "socket.listen.backlog.size" Int = "50", AtLeast(1), Acts,
    "The maximum number of connections that wait to be accepted.";
SOCKET_RECEIVE_BUFFER_BYTES "socket.receive.buffer.bytes" Int = "102400", AtLeast(-1), Acts,
    "The SO_RCVBUF of connections; -1 uses the operating system's default.";
SOCKET_REQUEST_MAX_BYTES "socket.request.max.bytes" Int = "104857600", AtLeast(1), Acts,
    "The maximum size of a request. The broker closes a connection that sends a larger one, before it allocates memory \
    for it.";
SOCKET_SEND_BUFFER_BYTES "socket.send.buffer.bytes" Int = "102400", AtLeast(-1), Acts,
    "The SO_SNDBUF of connections; -1 uses the operating system's default.";
TRANSACTION_ABORT_INTERVAL_MS "transaction.abort.timed.out.transaction.cleanup.interval.ms" Int = "10000", AtLeast(1),
    Acts,
    "How often the broker looks for transactions that are open for longer than their timeout, and aborts them.";
TRANSACTION_MAX_TIMEOUT_MS "transaction.max.timeout.ms" Int = "900000", AtLeast(1), Acts,
    "The longest transaction timeout that a producer may ask for.";
TRANSACTION_PARTITION_VERIFICATION_ENABLE "transaction.partition.verification.enable" Boolean = "true", Any, Acts,
    "Whether a leader asks the coordinator of a transaction before it appends the first batch of it. A client that \
    adds partitions by Produce (transaction.version 2) is always checked.";
TRANSACTION_REMOVE_EXPIRED_INTERVAL_MS "transaction.remove.expired.transaction.cleanup.interval.ms" Int = "3600000",
    AtLeast(1), Acts,
    "How often the broker looks for transactional ids that have expired.";
TRANSACTION_STATE_LOG_MIN_ISR "transaction.state.log.min.isr" Int = "2", AtLeast(1), Acts,
    "The min.insync.replicas of __transaction_state. A partition with fewer replicas needs all of them.";
TRANSACTION_STATE_LOG_NUM_PARTITIONS "transaction.state.log.num.partitions" Int = "50", AtLeast(1), Acts,
    "The number of partitions of __transaction_state.";
TRANSACTION_STATE_LOG_REPLICATION_FACTOR "transaction.state.log.replication.factor" Short = "3", AtLeast(1), Acts,
    "The replication factor of __transaction_state, at most one replica for each broker.";
TRANSACTION_STATE_LOG_SEGMENT_BYTES "transaction.state.log.segment.bytes" Int = "104857600", AtLeast(1), Acts,
    "The segment size of __transaction_state.";
TRANSACTIONAL_ID_EXPIRATION_MS "transactional.id.expiration.ms" Int = "604800000", AtLeast(1), Acts,
    "How long a transactional id is remembered that has no transaction.";
UNCLEAN_LEADER_ELECTION_ENABLE "unclean.leader.election.enable" Boolean = "false", Any, Acts,
    "The default of the topic config of the same name.";
}
