//! Valid keys of Kafka's broker that do not act here.
//!
//! They are known so that the `server.properties` files that Kafka ships work unchanged, and DescribeConfigs lists them
//! with Kafka's defaults. A key of the internals of Kafka's process is accepted with a warning. A key of a part of
//! Kafka that is not here is rejected, unless its value is the default. They are the keys of Kafka 4.2 without its
//! internal ones, and the best known ones of older versions.

use super::key::{Role, inert_keys};
use super::value::Valid::{Any, AtLeast, Between, OneOf};

/// The part of Kafka that a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    ConnectionLimits,
    ConsumerGroups,
    Jvm,
    Metrics,
    OtherVersions,
    Plugins,
    Quorum,
    Replication,
    Sasl,
    ShareGroups,
    ShareTopic,
    StreamsGroups,
    TieredStorage,
    Tls,
    Transactions,
}

impl Part {
    /// Returns whether every valid value of this part is accepted, or only the default.
    pub(super) const fn role(self) -> Role {
        match self {
            Self::Jvm | Self::Metrics | Self::Replication | Self::ShareTopic => Role::Inert,
            _ => Role::Absent,
        }
    }

    /// Returns why a key of this part does not act, as DescribeConfigs shows it.
    pub(super) const fn doc(self) -> &'static str {
        match self {
            Self::ConnectionLimits => "Not supported: max.connections and max.connections.per.ip limit connections.",
            Self::ConsumerGroups => "Not supported: it belongs to the consumer group protocol of KIP-848.",
            Self::Jvm => "Accepted without effect: it belongs to the internals of Kafka's broker.",
            Self::Metrics => "Accepted without effect: it belongs to the metrics of the JVM.",
            Self::OtherVersions => {
                "Not supported: it belongs to other versions of Kafka, or turns off what always acts."
            }
            Self::Plugins => "Not supported: it names a Java class for the broker.",
            Self::Quorum => "Not supported: the metadata quorum has fixed limits.",
            Self::Replication => {
                "Accepted without effect: the operating system sizes the buffers of connections between brokers."
            }
            Self::Sasl => "Not supported: it belongs to SASL authentication.",
            Self::ShareGroups => "Not supported: it belongs to share groups.",
            Self::ShareTopic => {
                "Accepted without effect: it belongs to the topic of share groups, which is not created."
            }
            Self::StreamsGroups => "Not supported: it belongs to the streams group protocol.",
            Self::TieredStorage => "Not supported: it belongs to tiered storage.",
            Self::Tls => "Not supported: it belongs to TLS.",
            Self::Transactions => "Not supported: it belongs to parts of transactions that are not here.",
        }
    }
}

inert_keys! {
INERT_KEYS:
Jvm "add.partitions.to.txn.retry.backoff.max.ms" Int = "100", AtLeast(0);
Jvm "add.partitions.to.txn.retry.backoff.ms" Int = "20", AtLeast(1);
Plugins "alter.config.policy.class.name" Class = null, Any;
Jvm "alter.log.dirs.replication.quota.window.num" Int = "11", AtLeast(1);
Jvm "alter.log.dirs.replication.quota.window.size.seconds" Int = "1", AtLeast(1);
Plugins "authorizer.class.name" String = "", Any;
Jvm "background.threads" Int = "10", AtLeast(1);
Plugins "client.quota.callback.class" Class = null, Any;
Plugins "config.providers" List = "", Any;
Sasl "connection.failed.authentication.delay.ms" Int = "100", AtLeast(0);
Sasl "connections.max.reauth.ms" Long = "0", Any;
OtherVersions "controlled.shutdown.enable" Boolean = "true", Any;
Quorum "controller.quorum.append.linger.ms" Int = "25", AtLeast(0);
Quorum "controller.quorum.auto.join.enable" Boolean = "false", Any;
Quorum "controller.quorum.election.backoff.max.ms" Int = "1000", AtLeast(0);
Quorum "controller.quorum.election.timeout.ms" Int = "1000", AtLeast(0);
Quorum "controller.quorum.fetch.timeout.ms" Int = "2000", AtLeast(0);
Quorum "controller.quorum.request.timeout.ms" Int = "2000", AtLeast(0);
Quorum "controller.quorum.retry.backoff.ms" Int = "20", AtLeast(0);
Quorum "controller.quota.window.num" Int = "11", AtLeast(1);
Quorum "controller.quota.window.size.seconds" Int = "1", AtLeast(1);
Quorum "controller.socket.timeout.ms" Int = "30000", Any;
Plugins "create.topic.policy.class.name" Class = null, Any;
Sasl "delegation.token.expiry.check.interval.ms" Long = "3600000", AtLeast(1);
Sasl "delegation.token.expiry.time.ms" Long = "86400000", AtLeast(1);
Sasl "delegation.token.max.lifetime.ms" Long = "604800000", AtLeast(1);
Sasl "delegation.token.secret.key" Password = null, Any;
Jvm "delete.records.purgatory.purge.interval.requests" Int = "1", Any;
OtherVersions "early.start.listeners" List = null, Any;
Jvm "fetch.purgatory.purge.interval.requests" Int = "1000", Any;
ConsumerGroups "group.consumer.assignors" List = "uniform,range", Any;
ConsumerGroups "group.consumer.heartbeat.interval.ms" Int = "5000", AtLeast(1);
ConsumerGroups "group.consumer.max.heartbeat.interval.ms" Int = "15000", AtLeast(1);
ConsumerGroups "group.consumer.max.session.timeout.ms" Int = "60000", AtLeast(1);
ConsumerGroups "group.consumer.max.size" Int = "2147483647", AtLeast(1);
ConsumerGroups "group.consumer.migration.policy" String = "bidirectional", Any;
ConsumerGroups "group.consumer.min.heartbeat.interval.ms" Int = "5000", AtLeast(1);
ConsumerGroups "group.consumer.min.session.timeout.ms" Int = "45000", AtLeast(1);
ConsumerGroups "group.consumer.session.timeout.ms" Int = "45000", AtLeast(1);
Jvm "group.coordinator.append.linger.ms" Int = "-1", AtLeast(-1);
ConsumerGroups "group.coordinator.rebalance.protocols" List = "classic,consumer,streams", Any;
Jvm "group.coordinator.threads" Int = "4", AtLeast(1);
ShareGroups "group.share.assignors" List = "simple", Any;
ShareGroups "group.share.delivery.count.limit" Int = "5", Between(2, 10);
ShareGroups "group.share.heartbeat.interval.ms" Int = "5000", AtLeast(1);
ShareGroups "group.share.max.heartbeat.interval.ms" Int = "15000", AtLeast(1);
ShareGroups "group.share.max.record.lock.duration.ms" Int = "60000", Between(30000, 3600000);
ShareGroups "group.share.max.session.timeout.ms" Int = "60000", AtLeast(1);
ShareGroups "group.share.max.share.sessions" Int = "2000", AtLeast(1);
ShareGroups "group.share.max.size" Int = "200", Between(1, 1000);
ShareGroups "group.share.min.heartbeat.interval.ms" Int = "5000", AtLeast(1);
ShareGroups "group.share.min.record.lock.duration.ms" Int = "15000", Between(1000, 30000);
ShareGroups "group.share.min.session.timeout.ms" Int = "45000", AtLeast(1);
ShareGroups "group.share.partition.max.record.locks" Int = "2000", Between(100, 10000);
ShareGroups "group.share.record.lock.duration.ms" Int = "30000", Between(1000, 3600000);
ShareGroups "group.share.session.timeout.ms" Int = "45000", AtLeast(1);
StreamsGroups "group.streams.heartbeat.interval.ms" Int = "5000", AtLeast(1);
StreamsGroups "group.streams.initial.rebalance.delay.ms" Int = "3000", AtLeast(0);
StreamsGroups "group.streams.max.heartbeat.interval.ms" Int = "15000", AtLeast(1);
StreamsGroups "group.streams.max.session.timeout.ms" Int = "60000", AtLeast(1);
StreamsGroups "group.streams.max.size" Int = "2147483647", AtLeast(1);
StreamsGroups "group.streams.max.standby.replicas" Int = "2", AtLeast(0);
StreamsGroups "group.streams.min.heartbeat.interval.ms" Int = "5000", AtLeast(1);
StreamsGroups "group.streams.min.session.timeout.ms" Int = "45000", AtLeast(1);
StreamsGroups "group.streams.num.standby.replicas" Int = "0", AtLeast(0);
StreamsGroups "group.streams.session.timeout.ms" Int = "45000", AtLeast(1);
Jvm "initial.broker.registration.timeout.ms" Int = "60000", Any;
Metrics "kafka.metrics.polling.interval.secs" Int = "10", AtLeast(1);
Metrics "kafka.metrics.reporters" List = "", Any;
Jvm "log.dir.failure.timeout.ms" Long = "30000", AtLeast(1);
TieredStorage "log.local.retention.bytes" Long = "-2", AtLeast(-2);
TieredStorage "log.local.retention.ms" Long = "-2", AtLeast(-2);
ConnectionLimits "max.connection.creation.rate" Int = "2147483647", AtLeast(0);
ConnectionLimits "max.connections.per.ip.overrides" String = "", Any;
Jvm "max.request.partition.size.limit" Int = "2000", AtLeast(1);
Quorum "metadata.log.max.record.bytes.between.snapshots" Long = "20971520", AtLeast(1);
Quorum "metadata.log.max.snapshot.interval.ms" Long = "3600000", AtLeast(0);
Quorum "metadata.log.segment.bytes" Int = "1073741824", AtLeast(8388608);
Quorum "metadata.log.segment.ms" Long = "604800000", Any;
Quorum "metadata.max.idle.interval.ms" Int = "500", AtLeast(0);
Quorum "metadata.max.retention.bytes" Long = "104857600", Any;
Quorum "metadata.max.retention.ms" Long = "604800000", Any;
Metrics "metric.reporters" List = "org.apache.kafka.common.metrics.JmxReporter", Any;
Metrics "metrics.num.samples" Int = "2", AtLeast(1);
Metrics "metrics.recording.level" String = "INFO", Any;
Metrics "metrics.sample.window.ms" Long = "30000", AtLeast(1);
Jvm "num.io.threads" Int = "8", AtLeast(1);
Jvm "num.network.threads" Int = "3", AtLeast(1);
Jvm "num.recovery.threads.per.data.dir" Int = "2", AtLeast(1);
Jvm "num.replica.alter.log.dirs.threads" Int = null, Any;
Jvm "offsets.load.buffer.size" Int = "5242880", AtLeast(1);
OtherVersions "offsets.topic.compression.codec" Int = "0", Any;
Plugins "principal.builder.class" Class = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
    Any;
Jvm "producer.purgatory.purge.interval.requests" Int = "1000", Any;
Jvm "queued.max.requests" Int = "500", AtLeast(1);
Jvm "quota.window.num" Int = "11", AtLeast(1);
Jvm "quota.window.size.seconds" Int = "1", AtLeast(1);
TieredStorage "remote.fetch.max.wait.ms" Int = "500", AtLeast(1);
TieredStorage "remote.list.offsets.request.timeout.ms" Long = "30000", AtLeast(1);
TieredStorage "remote.log.index.file.cache.total.size.bytes" Long = "1073741824", AtLeast(1);
TieredStorage "remote.log.manager.copier.thread.pool.size" Int = "10", AtLeast(1);
TieredStorage "remote.log.manager.copy.max.bytes.per.second" Long = "9223372036854775807", AtLeast(1);
TieredStorage "remote.log.manager.copy.quota.window.num" Int = "11", AtLeast(1);
TieredStorage "remote.log.manager.copy.quota.window.size.seconds" Int = "1", AtLeast(1);
TieredStorage "remote.log.manager.expiration.thread.pool.size" Int = "10", AtLeast(1);
TieredStorage "remote.log.manager.fetch.max.bytes.per.second" Long = "9223372036854775807", AtLeast(1);
TieredStorage "remote.log.manager.fetch.quota.window.num" Int = "11", AtLeast(1);
TieredStorage "remote.log.manager.fetch.quota.window.size.seconds" Int = "1", AtLeast(1);
TieredStorage "remote.log.manager.follower.thread.pool.size" Int = "2", AtLeast(1);
TieredStorage "remote.log.manager.task.interval.ms" Long = "30000", AtLeast(1);
TieredStorage "remote.log.manager.thread.pool.size" Int = "2", AtLeast(1);
TieredStorage "remote.log.metadata.custom.metadata.max.bytes" Int = "128", AtLeast(0);
TieredStorage "remote.log.metadata.manager.class.name" String =
    "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", Any;
TieredStorage "remote.log.metadata.manager.class.path" String = null, Any;
TieredStorage "remote.log.metadata.manager.impl.prefix" String = "rlmm.config.", Any;
TieredStorage "remote.log.metadata.manager.listener.name" String = null, Any;
TieredStorage "remote.log.reader.max.pending.tasks" Int = "100", AtLeast(1);
TieredStorage "remote.log.reader.threads" Int = "10", AtLeast(1);
TieredStorage "remote.log.storage.manager.class.name" String = null, Any;
TieredStorage "remote.log.storage.manager.class.path" String = null, Any;
TieredStorage "remote.log.storage.manager.impl.prefix" String = "rsm.config.", Any;
TieredStorage "remote.log.storage.system.enable" Boolean = "false", OneOf(&["false"]);
Replication "replica.socket.receive.buffer.bytes" Int = "65536", Any;
Jvm "request.timeout.ms" Int = "30000", Any;
Sasl "sasl.client.callback.handler.class" Class = null, Any;
Sasl "sasl.enabled.mechanisms" List = "GSSAPI", Any;
Sasl "sasl.jaas.config" Password = null, Any;
Sasl "sasl.kerberos.kinit.cmd" String = "/usr/bin/kinit", Any;
Sasl "sasl.kerberos.min.time.before.relogin" Long = "60000", Any;
Sasl "sasl.kerberos.principal.to.local.rules" List = "DEFAULT", Any;
Sasl "sasl.kerberos.service.name" String = null, Any;
Sasl "sasl.kerberos.ticket.renew.jitter" Double = "0.05", Any;
Sasl "sasl.kerberos.ticket.renew.window.factor" Double = "0.8", Any;
Sasl "sasl.login.callback.handler.class" Class = null, Any;
Sasl "sasl.login.class" Class = null, Any;
Sasl "sasl.login.connect.timeout.ms" Int = null, Any;
Sasl "sasl.login.read.timeout.ms" Int = null, Any;
Sasl "sasl.login.refresh.buffer.seconds" Short = "300", Any;
Sasl "sasl.login.refresh.min.period.seconds" Short = "60", Any;
Sasl "sasl.login.refresh.window.factor" Double = "0.8", Any;
Sasl "sasl.login.refresh.window.jitter" Double = "0.05", Any;
Sasl "sasl.login.retry.backoff.max.ms" Long = "10000", Any;
Sasl "sasl.login.retry.backoff.ms" Long = "100", Any;
Sasl "sasl.mechanism.controller.protocol" String = "GSSAPI", Any;
Sasl "sasl.mechanism.inter.broker.protocol" String = "GSSAPI", Any;
Sasl "sasl.oauthbearer.assertion.algorithm" String = "RS256", Any;
Sasl "sasl.oauthbearer.assertion.claim.aud" String = null, Any;
Sasl "sasl.oauthbearer.assertion.claim.exp.seconds" Int = "300", Between(0, 86400);
Sasl "sasl.oauthbearer.assertion.claim.iss" String = null, Any;
Sasl "sasl.oauthbearer.assertion.claim.jti.include" Boolean = "false", Any;
Sasl "sasl.oauthbearer.assertion.claim.nbf.seconds" Int = "60", Between(0, 3600);
Sasl "sasl.oauthbearer.assertion.claim.sub" String = null, Any;
Sasl "sasl.oauthbearer.assertion.file" String = null, Any;
Sasl "sasl.oauthbearer.assertion.private.key.file" String = null, Any;
Sasl "sasl.oauthbearer.assertion.private.key.passphrase" Password = null, Any;
Sasl "sasl.oauthbearer.assertion.template.file" String = null, Any;
Sasl "sasl.oauthbearer.client.credentials.client.id" String = null, Any;
Sasl "sasl.oauthbearer.client.credentials.client.secret" Password = null, Any;
Sasl "sasl.oauthbearer.clock.skew.seconds" Int = "30", Any;
Sasl "sasl.oauthbearer.expected.audience" List = "", Any;
Sasl "sasl.oauthbearer.expected.issuer" String = null, Any;
Sasl "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long = "3600000", Any;
Sasl "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long = "10000", Any;
Sasl "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long = "100", Any;
Sasl "sasl.oauthbearer.jwks.endpoint.url" String = null, Any;
Sasl "sasl.oauthbearer.jwt.retriever.class" Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
    Any;
Sasl "sasl.oauthbearer.jwt.validator.class" Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
    Any;
Sasl "sasl.oauthbearer.scope" String = null, Any;
Sasl "sasl.oauthbearer.scope.claim.name" String = "scope", Any;
Sasl "sasl.oauthbearer.sub.claim.name" String = "sub", Any;
Sasl "sasl.oauthbearer.token.endpoint.url" String = null, Any;
Sasl "sasl.server.callback.handler.class" Class = null, Any;
Sasl "sasl.server.max.receive.size" Int = "524288", Any;
Tls "security.inter.broker.protocol" String = "PLAINTEXT", Any;
Plugins "security.providers" String = null, Any;
ShareGroups "share.coordinator.append.linger.ms" Int = "-1", AtLeast(-1);
ShareGroups "share.coordinator.load.buffer.size" Int = "5242880", AtLeast(1);
ShareGroups "share.coordinator.snapshot.update.records.per.snapshot" Int = "500", AtLeast(0);
ShareGroups "share.coordinator.state.topic.compression.codec" Int = "0", Any;
ShareTopic "share.coordinator.state.topic.min.isr" Short = "2", AtLeast(1);
ShareGroups "share.coordinator.state.topic.num.partitions" Int = "50", AtLeast(1);
ShareTopic "share.coordinator.state.topic.replication.factor" Short = "3", AtLeast(1);
ShareGroups "share.coordinator.state.topic.segment.bytes" Int = "104857600", AtLeast(1);
ShareGroups "share.coordinator.threads" Int = "1", AtLeast(1);
ShareGroups "share.coordinator.write.timeout.ms" Int = "5000", AtLeast(1);
ShareGroups "share.fetch.purgatory.purge.interval.requests" Int = "1000", Any;
Jvm "socket.connection.setup.timeout.max.ms" Long = "30000", Any;
Jvm "socket.connection.setup.timeout.ms" Long = "10000", Any;
Tls "ssl.allow.dn.changes" Boolean = "false", Any;
Tls "ssl.allow.san.changes" Boolean = "false", Any;
Tls "ssl.cipher.suites" List = "", Any;
Tls "ssl.client.auth" String = "none", OneOf(&["required", "requested", "none"]);
Tls "ssl.enabled.protocols" List = "TLSv1.2,TLSv1.3", Any;
Tls "ssl.endpoint.identification.algorithm" String = "https", Any;
Tls "ssl.engine.factory.class" Class = null, Any;
Tls "ssl.key.password" Password = null, Any;
Tls "ssl.keymanager.algorithm" String = "SunX509", Any;
Tls "ssl.keystore.certificate.chain" Password = null, Any;
Tls "ssl.keystore.key" Password = null, Any;
Tls "ssl.keystore.location" String = null, Any;
Tls "ssl.keystore.password" Password = null, Any;
Tls "ssl.keystore.type" String = "JKS", Any;
Tls "ssl.principal.mapping.rules" String = "DEFAULT", Any;
Tls "ssl.protocol" String = "TLSv1.3", Any;
Tls "ssl.provider" String = null, Any;
Tls "ssl.secure.random.implementation" String = null, Any;
Tls "ssl.trustmanager.algorithm" String = "PKIX", Any;
Tls "ssl.truststore.certificates" Password = null, Any;
Tls "ssl.truststore.location" String = null, Any;
Tls "ssl.truststore.password" Password = null, Any;
Tls "ssl.truststore.type" String = "JKS", Any;
Jvm "telemetry.max.bytes" Int = "1048576", AtLeast(1);
Transactions "transaction.state.log.load.buffer.size" Int = "5242880", AtLeast(1);
Transactions "transaction.two.phase.commit.enable" Boolean = "false", Any;
OtherVersions "zookeeper.connect" String = null, Any;
OtherVersions "zookeeper.connection.timeout.ms" Int = null, Any;
OtherVersions "zookeeper.session.timeout.ms" Int = null, Any;
OtherVersions "zookeeper.set.acl" Boolean = null, Any;
OtherVersions "zookeeper.max.in.flight.requests" Int = null, Any;
OtherVersions "zookeeper.metadata.migration.enable" Boolean = null, Any;
OtherVersions "broker.id.generation.enable" Boolean = null, Any;
OtherVersions "reserved.broker.max.id" Int = null, Any;
OtherVersions "log.message.format.version" String = null, Any;
OtherVersions "inter.broker.protocol.version" String = null, Any;
OtherVersions "log.message.downconversion.enable" Boolean = null, Any;
OtherVersions "log.message.timestamp.difference.max.ms" Long = null, Any;
OtherVersions "host.name" String = null, Any;
OtherVersions "port" Int = null, Any;
OtherVersions "advertised.host.name" String = null, Any;
OtherVersions "advertised.port" Int = null, Any;
OtherVersions "control.plane.listener.name" String = null, Any;
OtherVersions "controlled.shutdown.max.retries" Int = null, Any;
OtherVersions "controlled.shutdown.retry.backoff.ms" Long = null, Any;
OtherVersions "password.encoder.secret" Password = null, Any;
OtherVersions "enable.zookeeper.quorum" Boolean = null, Any;
OtherVersions "eligible.leader.replicas.enable" Boolean = null, Any;
OtherVersions "offsets.commit.required.acks" Short = null, Any;
OtherVersions "group.coordinator.new.enable" Boolean = null, Any;
OtherVersions "super.users" String = null, Any;
OtherVersions "allow.everyone.if.no.acl.found" Boolean = null, Any;
}
