//! The options of the broker that take effect.

use super::key::keys;
use super::value::Valid::{Any, AtLeast, Between, ListOf, OneOf, Ratio};

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

keys! {
BROKER_KEYS:
"advertised.listeners" List = null, Any, [],
    "The addresses that clients are told to use, one for each listener; without it those of `listeners`.";
"auto.create.topics.enable" Boolean = "true", Any, [],
    "Whether a client that asks for a topic that is not there creates it.";
"broker.id" Int = "-1", AtLeast(-1), [],
    "The older name of node.id.";
"broker.rack" String = null, Any, [],
    "The rack that metadata names for this broker.";
"compressed.records.validation" String = "framing", OneOf(&["full", "framing", "none"]), [],
    "The default of the topic option compressed.records.validation.";
"compression.gzip.level" Int = "-1", Between(-1, 9), [],
    "The default of the topic option of the same name.";
"compression.lz4.level" Int = "9", Between(1, 17), [],
    "The default of the topic option of the same name.";
"compression.type" String = "producer", OneOf(CODECS), [],
    "The default of the topic option of the same name.";
"compression.zstd.level" Int = "3", Between(-131072, 22), [],
    "The default of the topic option of the same name.";
"connections.max.idle.ms" Long = "600000", Any, [],
    "A connection that is silent for this long is closed; not above 0: never.";
"controller.listener.names" List = "", Any, [],
    "Listeners of Kafka's controller. They are left out of `listeners`, since one process is all here.";
"default.replication.factor" Int = "1", AtLeast(1), [],
    "The replication factor of topics that are created on demand. One node takes only 1.";
"delete.topic.enable" Boolean = "true", Any, [],
    "Whether topics may be deleted.";
"fetch.max.bytes" Int = "57671680", AtLeast(1024), [],
    "The most bytes that one fetch answers, whatever the client asks for.";
"flush.mode" String = "fsync", OneOf(&["fsync", "page-cache"]), [],
    "What acks=all waits for: `fsync` for stable storage, `page-cache` for the operating system, as Kafka does by default.";
"group.initial.rebalance.delay.ms" Int = "3000", AtLeast(0), [],
    "How long the first rebalance of a new group waits for more members.";
"group.max.session.timeout.ms" Int = "1800000", AtLeast(1), [],
    "The longest session time-out that a member may ask for.";
"group.max.size" Int = "10000", AtLeast(1), [],
    "The most members of one group. Kafka has no bound unless one is set.";
"group.min.session.timeout.ms" Int = "6000", AtLeast(1), [],
    "The shortest session time-out that a member may ask for.";
"listener.security.protocol.map" String = "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL", Any, [],
    "The security protocol of each listener name. Only PLAINTEXT is there so far.";
"listeners" List = "PLAINTEXT://127.0.0.1:9092", Any, [],
    "Where to listen. Port 0 takes a free port; no host is every address.";
"log.cleaner.delete.retention.ms" Long = "86400000", AtLeast(0), [],
    "The default of the topic option delete.retention.ms.";
"log.cleaner.max.compaction.lag.ms" Long = "9223372036854775807", AtLeast(1), [],
    "The default of the topic option max.compaction.lag.ms.";
"log.cleaner.min.cleanable.ratio" Double = "0.5", Ratio(0.0, 1.0), [],
    "The default of the topic option min.cleanable.dirty.ratio.";
"log.cleaner.min.compaction.lag.ms" Long = "0", AtLeast(0), [],
    "The default of the topic option min.compaction.lag.ms.";
"log.cleanup.policy" List = "delete", ListOf(&["compact", "delete"]), [],
    "The default of the topic option cleanup.policy.";
"log.dir" List = "millstream-data", Any, [],
    "The data folder. log.dirs is stronger, the flag --data-dir strongest.";
"log.dirs" List = null, Any, [],
    "The data folder: one, not a list of several.";
"log.flush.interval.messages" Long = "9223372036854775807", AtLeast(1), [],
    "The default of the topic option flush.messages.";
"log.flush.interval.ms" Long = null, AtLeast(0), [],
    "The default of the topic option flush.ms.";
"log.flush.offset.checkpoint.interval.ms" Int = "60000", AtLeast(0), [],
    "How often the recovery points are written to disk.";
"log.flush.scheduler.interval.ms" Long = "9223372036854775807", AtLeast(1), [],
    "How often the broker looks for partitions whose flush.ms has passed; the default looks every second.";
"log.flush.start.offset.checkpoint.interval.ms" Int = "60000", AtLeast(0), [],
    "How often the log start offsets are written to disk.";
"log.index.interval.bytes" Int = "4096", AtLeast(0), [],
    "The default of the topic option index.interval.bytes.";
"log.index.size.max.bytes" Int = "10485760", AtLeast(4), [],
    "The default of the topic option segment.index.bytes.";
"log.message.timestamp.after.max.ms" Long = "3600000", AtLeast(0), [],
    "The default of the topic option message.timestamp.after.max.ms.";
"log.message.timestamp.before.max.ms" Long = "9223372036854775807", AtLeast(0), [],
    "The default of the topic option message.timestamp.before.max.ms.";
"log.message.timestamp.type" String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), [],
    "The default of the topic option message.timestamp.type.";
"log.preallocate" Boolean = "false", Any, [],
    "The default of the topic option preallocate.";
"log.retention.bytes" Long = "-1", AtLeast(-1), [],
    "The default of the topic option retention.bytes.";
"log.retention.check.interval.ms" Long = "300000", AtLeast(1), [],
    "How often the broker looks for segments that retention lets go.";
"log.retention.hours" Int = "168", AtLeast(-1), [],
    "The default of the topic option retention.ms, in hours.";
"log.retention.minutes" Int = null, AtLeast(-1), [],
    "The default of the topic option retention.ms, in minutes.";
"log.retention.ms" Long = null, AtLeast(-1), [],
    "The default of the topic option retention.ms.";
"log.roll.hours" Int = "168", AtLeast(1), [],
    "The default of the topic option segment.ms, in hours.";
"log.roll.jitter.hours" Int = "0", AtLeast(0), [],
    "The default of the topic option segment.jitter.ms, in hours.";
"log.roll.jitter.ms" Long = null, AtLeast(0), [],
    "The default of the topic option segment.jitter.ms.";
"log.roll.ms" Long = null, AtLeast(1), [],
    "The default of the topic option segment.ms.";
"log.segment.bytes" Int = "1073741824", AtLeast(1048576), [],
    "The default of the topic option segment.bytes.";
"log.segment.delete.delay.ms" Long = "60000", AtLeast(0), [],
    "The default of the topic option file.delete.delay.ms.";
"max.connections" Int = "2147483647", AtLeast(0), [],
    "The most connections at one time. The process's own limit of open files bounds it too.";
"max.connections.per.ip" Int = "2147483647", AtLeast(0), [],
    "The most connections from one address at one time.";
"max.decompressed.message.bytes" Int = "2147483639", AtLeast(1), [],
    "The default of the topic option max.decompressed.message.bytes.";
"message.max.bytes" Int = "1048588", AtLeast(0), [],
    "The default of the topic option max.message.bytes.";
"min.insync.replicas" Int = "1", AtLeast(1), [],
    "The default of the topic option of the same name.";
"node.id" Int = "0", AtLeast(0), [],
    "This broker's number.";
"num.partitions" Int = "1", AtLeast(1), [],
    "How many partitions a topic has that is created without a number.";
"offset.metadata.max.bytes" Int = "4096", AtLeast(0), [],
    "The longest text that may go with a committed offset.";
"offsets.retention.check.interval.ms" Long = "600000", AtLeast(1), [],
    "How often the broker looks for committed offsets that have expired.";
"offsets.retention.minutes" Int = "10080", AtLeast(1), [],
    "How long a committed offset is kept once its group is empty.";
"offsets.topic.num.partitions" Int = "50", AtLeast(1), [],
    "How many partitions __consumer_offsets has.";
"offsets.topic.replication.factor" Short = "1", AtLeast(1), [],
    "The replication factor of __consumer_offsets. One node takes only 1, whatever is asked for.";
"offsets.topic.segment.bytes" Int = "104857600", AtLeast(1), [],
    "The segment size of __consumer_offsets.";
"plugin.rollback.error.share" Double = "0.5", Ratio(0.0, 1.0), [],
    "A version that fails for a greater share of its records is taken back by itself; 1: never for that.";
"plugin.rollback.records.min" Long = "1000", AtLeast(1), [],
    "The records of a version, within the window, that its share of failures is first taken of.";
"plugin.rollback.traps" Int = "3", AtLeast(1), [],
    "A version that traps so often within the window is taken back by itself.";
"plugin.rollback.window.ms" Long = "60000", AtLeast(1), [],
    "The time that traps and failures are counted in.";
"producer.id.expiration.ms" Int = "86400000", AtLeast(1), [],
    "How long a partition remembers a producer that is silent.";
"queued.max.request.bytes" Long = "-1", Any, [],
    "The most bytes of requests held in memory over all connections; not above 0: a quarter of a gibibyte.";
"socket.listen.backlog.size" Int = "50", AtLeast(1), [],
    "How many connections may wait to be accepted.";
"socket.receive.buffer.bytes" Int = "102400", AtLeast(-1), [],
    "SO_RCVBUF of connections; -1 leaves it to the system.";
"socket.request.max.bytes" Int = "104857600", AtLeast(1), [],
    "The largest request; a longer one closes the connection before memory is taken for it.";
"socket.send.buffer.bytes" Int = "102400", AtLeast(-1), [],
    "SO_SNDBUF of connections; -1 leaves it to the system.";
"unclean.leader.election.enable" Boolean = "false", Any, [],
    "The default of the topic option of the same name.";
}
