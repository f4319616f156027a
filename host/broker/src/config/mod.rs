//! Configuration: raw `key=value` pairs from a file and from `--set`, checked once into typed structs.
//!
//! Every key is one row of a table (`broker_keys`, `topic_keys`, `inert_keys`). The check, the default, the typed
//! accessor and the response of DescribeConfigs all come from that row.

mod broker_keys;
mod cleaner;
mod cluster;
mod dynamic;
mod inert_keys;
mod key;
mod listeners;
mod log_dirs;
mod properties;
mod replica_fetch;
mod tables;
mod throttled;
mod topic;
mod topic_keys;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use cleaner::CleanerConfig;
pub use cluster::ClusterFlags;
pub(crate) use cluster::{ClusterConfig, Server};
pub(crate) use dynamic::{
    FOLLOWER_RATE, LEADER_RATE, MIN_INSYNC_REPLICAS, PRODUCER_ID_EXPIRATION_MS, check_dynamic, check_dynamic_together,
    check_dynamic_value, is_dynamic, set_for_all,
};
pub(crate) use key::Key;
pub use listeners::{HostPort, ListenerConfig};
use millstream_coordinator::group::GroupConfig;
use millstream_coordinator::transaction::TransactionConfig;
pub(crate) use replica_fetch::ReplicaFetchConfig;
pub(crate) use tables::{PLUGIN_STATS, REJECTED_PRODUCERS, all_broker_keys, all_topic_keys, broker_key, topic_key};
pub(crate) use topic::{
    CompressionType, FailurePolicy, StageOptions, TopicConfig, TopicOverrides, Validation, inherited,
};
pub(crate) use value::{Kind, list};

use millstream_stage::{Limits, SpikeLimits};

use self::broker_keys as keys;
use self::key::{Role, TypedKey};
use self::value::ConfigType;

/// Why a configuration cannot be used. The text names the key, the value or the file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// Pairs as they were given, each valid by itself; later ones win.
#[derive(Debug, Clone, Default)]
pub struct RawConfig {
    values: BTreeMap<&'static str, String>,
}

impl RawConfig {
    /// Reads a Java properties file.
    ///
    /// # Errors
    /// The file cannot be read, is not a properties file, or has an unknown key or a bad value. The error has the key
    /// and the line.
    pub fn load_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read the configuration file {place}: {error}")))?;
        let parsed = properties::parse(&text).map_err(|error| ConfigError(format!("{place}, {error}")))?;
        for property in parsed {
            self.set(&property.key, &property.value)
                .map_err(|error| ConfigError(format!("{place}, line {}: {error}", property.line)))?;
        }
        Ok(())
    }

    /// Sets one `KEY=VALUE` of `--set`.
    ///
    /// # Errors
    /// The text has no `=`, or the key is unknown, or the value is bad.
    pub fn set_pair(&mut self, pair: &str) -> Result<(), ConfigError> {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| ConfigError(format!("`{pair}` is not of the form KEY=VALUE")))?;
        self.set(key.trim(), value)
    }

    /// Sets one key.
    ///
    /// # Errors
    /// The key is unknown, or the value is bad.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        if name.starts_with("listener.name.") {
            return Err(ConfigError(format!(
                "{name} is not supported: listeners have no configs of their own; remove it"
            )));
        }
        let key = broker_key(name).ok_or_else(|| ConfigError(unknown(name)))?;
        key.check(value).map_err(ConfigError)?;
        if key.role == Role::Inert {
            tracing::warn!("{name} is a valid key of Kafka that has no effect here");
        }
        self.values.insert(key.name, value.to_owned());
        Ok(())
    }

    /// Checks all values together and converts them to types.
    ///
    /// # Errors
    /// Values contradict each other.
    pub fn check(self) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::new(self.values)
    }
}

fn unknown(name: &str) -> String {
    if topic_key(name).is_some() {
        let synonyms = topic_key(name).map_or(&[][..], |key| key.broker_synonyms);
        let hint =
            synonyms.first().map_or(String::new(), |(name, _)| format!("; the broker's default for it is {name}"));
        return format!("{name} is a config of topics, not of the broker{hint}");
    }
    let closest = all_broker_keys().map(|key| (strsim::levenshtein(name, key.name), key.name)).min();
    let hint = closest
        .filter(|&(edits, _)| edits <= 3 && edits * 3 <= name.len())
        .map_or(String::new(), |(_, near)| format!("; did you mean {near}?"));
    format!("unknown configuration key {name}{hint}")
}

pub use millstream_partition::FlushMode;

/// The broker's configuration, checked.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// This broker's node id.
    pub node_id: i32,
    /// The rack of this broker, as Metadata responses show it.
    pub rack: Option<String>,
    /// The addresses to listen on; never empty.
    pub listeners: Vec<ListenerConfig>,
    pub(crate) replica_lag_max: Duration,
    /// The limits of a follower's fetches.
    pub(crate) replica_fetch: ReplicaFetchConfig,
    /// The most fetch sessions.
    pub(crate) fetch_session_slots: usize,
    /// Whether a consumer with a rack reads from a replica in it.
    pub(crate) selects_by_rack: bool,
    /// The windows over which rates of replication are measured: their number, and the length of one.
    pub(crate) replication_quota_windows: (usize, Duration),
    /// The index of the listener for other brokers.
    pub(crate) inter_broker_listener: Option<usize>,
    /// `None` for a node that is alone.
    pub(crate) cluster: Option<ClusterConfig>,
    /// The data folders for partitions; never empty.
    pub log_dirs: Vec<PathBuf>,
    /// The data folder of the metadata.
    pub metadata_dir: PathBuf,
    /// What acks=all waits for.
    pub flush_mode: FlushMode,
    pub(crate) auto_create_topics: bool,
    pub(crate) delete_topic_enable: bool,
    /// Whether a leader asks the coordinator before it appends the first batch of a transaction.
    pub(crate) verifies_transactions: bool,
    pub(crate) num_partitions: i32,
    pub(crate) default_replication_factor: i32,
    pub(crate) fetch_max_bytes: usize,
    /// `disk.reserve.bytes`: the free space of each data folder that producers leave.
    pub(crate) disk_reserve_bytes: u64,
    pub(crate) request_max_bytes: usize,
    pub(crate) queued_max_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: usize,
    pub(crate) connections_max_idle: Option<Duration>,
    pub(crate) listen_backlog: u32,
    /// Set only if the file or a flag sets it: the default leaves the size to the operating system, which adapts it.
    pub(crate) socket_send_buffer: Option<u32>,
    /// Likewise.
    pub(crate) socket_receive_buffer: Option<u32>,
    pub(crate) retention_check_interval: Duration,
    pub(crate) flush_check_interval: Duration,
    pub(crate) recovery_checkpoint_interval: Duration,
    pub(crate) high_watermark_checkpoint_interval: Duration,
    pub(crate) log_start_checkpoint_interval: Duration,
    pub(crate) producer_id_expiration: Duration,
    /// As the file has it.
    pub(crate) cleaner: CleanerConfig,
    pub(crate) group: GroupConfig,
    pub(crate) transactions: TransactionConfig,
    /// When a version of a plug-in is rolled back.
    pub(crate) spike_limits: SpikeLimits,
    /// The limits of plug-ins.
    pub(crate) plugin_limits: Limits,
    pub(crate) topic_defaults: TopicConfig,
    /// The values that are set in the file or by a flag, for DescribeConfigs.
    values: BTreeMap<&'static str, String>,
}

/// Flags that take precedence over the file and `--set`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dirs: Vec<PathBuf>,
    /// `--listen`
    pub listen: Option<HostPort>,
    /// `--advertise`
    pub advertise: Option<HostPort>,
}

impl BrokerConfig {
    fn new(values: BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
        let read = Reader { values: &values };
        let group = read.group()?;
        let mut listeners = listeners::from_values(&read, cluster::is_configured(&read))?;
        let cluster = cluster::from_values(&read, &mut listeners)?;
        let inter_broker_listener = listeners::inter_broker(&read, &listeners)?;
        let log_dirs = log_dirs::from_values(&read)?;
        Ok(Self {
            node_id: read.node_id()?,
            rack: read.get(keys::BROKER_RACK).map(str::to_owned),
            inter_broker_listener: inter_broker_listener.or(cluster.as_ref().map(|cluster| cluster.listener)),
            cluster,
            listeners,
            metadata_dir: log_dirs::metadata(&values, &log_dirs),
            log_dirs,
            flush_mode: match read.get(keys::FLUSH_MODE) {
                "page-cache" => FlushMode::PageCache,
                _ => FlushMode::Fsync,
            },
            auto_create_topics: read.get(keys::AUTO_CREATE_TOPICS_ENABLE),
            delete_topic_enable: read.get(keys::DELETE_TOPIC_ENABLE),
            verifies_transactions: read.get(keys::TRANSACTION_PARTITION_VERIFICATION_ENABLE),
            num_partitions: read.get(keys::NUM_PARTITIONS),
            default_replication_factor: read.get(keys::DEFAULT_REPLICATION_FACTOR),
            fetch_max_bytes: read.size(keys::FETCH_MAX_BYTES),
            disk_reserve_bytes: u64::try_from(read.get(keys::DISK_RESERVE_BYTES)).unwrap_or(0),
            request_max_bytes: read.size(keys::SOCKET_REQUEST_MAX_BYTES),
            queued_max_bytes: read.queued_max_bytes(),
            max_connections: read.size(keys::MAX_CONNECTIONS),
            max_connections_per_ip: read.size(keys::MAX_CONNECTIONS_PER_IP),
            connections_max_idle: Some(read.millis(keys::CONNECTIONS_MAX_IDLE_MS)).filter(|idle| !idle.is_zero()),
            listen_backlog: read.get(keys::SOCKET_LISTEN_BACKLOG_SIZE).unsigned_abs(),
            socket_send_buffer: read.buffer(keys::SOCKET_SEND_BUFFER_BYTES),
            socket_receive_buffer: read.buffer(keys::SOCKET_RECEIVE_BUFFER_BYTES),
            replication_quota_windows: (
                read.size(keys::REPLICATION_QUOTA_WINDOW_NUM),
                Duration::from_secs(read.get(keys::REPLICATION_QUOTA_WINDOW_SIZE_SECONDS).unsigned_abs().into()),
            ),
            replica_fetch: read.replica_fetch()?,
            fetch_session_slots: read.size(keys::MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS),
            selects_by_rack: read.get(keys::REPLICA_SELECTOR_CLASS) == Some(keys::RACK_SELECTOR),
            replica_lag_max: read.millis(keys::REPLICA_LAG_TIME_MAX_MS),
            retention_check_interval: read.millis(keys::LOG_RETENTION_CHECK_INTERVAL_MS),
            flush_check_interval: read.millis(keys::LOG_FLUSH_SCHEDULER_INTERVAL_MS).min(Duration::from_secs(1)),
            recovery_checkpoint_interval: read.millis(keys::LOG_FLUSH_OFFSET_CHECKPOINT_INTERVAL_MS),
            high_watermark_checkpoint_interval: read.millis(keys::REPLICA_HIGH_WATERMARK_CHECKPOINT_INTERVAL_MS),
            log_start_checkpoint_interval: read.millis(keys::LOG_FLUSH_START_OFFSET_CHECKPOINT_INTERVAL_MS),
            producer_id_expiration: read.millis(keys::PRODUCER_ID_EXPIRATION_MS),
            cleaner: CleanerConfig::from_values(&values, &|_| None)?,
            group,
            transactions: read.transactions(),
            spike_limits: read.spike_limits(),
            plugin_limits: read.plugin_limits(),
            topic_defaults: TopicConfig::from_broker(&|name| values.get(name).cloned())?,
            values,
        })
    }

    /// Returns the limits of plug-ins.
    pub fn plugin_limits(&self) -> &Limits {
        &self.plugin_limits
    }

    /// Applies the flags, which take precedence over all keys.
    ///
    /// # Errors
    /// A flag for "the" listener is used while several are configured.
    pub fn with_flags(mut self, flags: Flags) -> Result<Self, ConfigError> {
        if !flags.data_dirs.is_empty() {
            self.set_log_dirs(flags.data_dirs);
        }
        self.check_cordoned()?;
        let nodes = self.cluster.as_ref().map(|cluster| cluster.listener);
        let clients = self.listeners.len() - usize::from(nodes.is_some());
        if (flags.listen.is_some() || flags.advertise.is_some()) && (clients > 1 || nodes == Some(0)) {
            return Err(ConfigError(
                "--listen and --advertise are for one listener, and `listeners` names several".to_owned(),
            ));
        }
        let listener = &mut self.listeners[0];
        if let Some(listen) = flags.listen {
            self.values.insert("listeners", format!("{}://{listen}", listener.name));
            listener.bind = listen;
        }
        if let Some(advertise) = flags.advertise {
            let advertise = listeners::reachable("--advertise", advertise)?;
            self.values.insert("advertised.listeners", format!("{}://{advertise}", listener.name));
            listener.advertised = Some(advertise);
        }
        if let Some(index) = self.cluster.as_ref().filter(|cluster| cluster.has_free_port).map(|one| one.listener) {
            let clients = self.listeners[0].clone();
            cluster::take_free_port(&mut self.listeners[index], &clients);
        }
        if self.cluster.is_some() {
            cluster::check_reachable(&self.listeners)?;
        }
        Ok(self)
    }

    /// Returns the configs of the cleaner with those that were set while the broker runs. Together they may not fit:
    /// then those of the file stay in force.
    pub(crate) fn cleaner_with(&self, set: &dyn Fn(&str) -> Option<String>) -> CleanerConfig {
        CleanerConfig::from_values(&self.values, set).unwrap_or_else(|error| {
            tracing::warn!("the configs of the cleaner that were set do not fit those of the file: {error}");
            self.cleaner.clone()
        })
    }

    /// Returns `leader.replication.throttled.rate` of the file.
    pub(crate) fn leader_throttled_rate(&self) -> i64 {
        Reader { values: &self.values }.get(keys::LEADER_REPLICATION_THROTTLED_RATE)
    }

    /// Returns `follower.replication.throttled.rate` of the file.
    pub(crate) fn follower_throttled_rate(&self) -> i64 {
        Reader { values: &self.values }.get(keys::FOLLOWER_REPLICATION_THROTTLED_RATE)
    }

    /// Returns the value that is set in the file or by a flag, as text.
    pub(crate) fn explicit(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns the configs of a topic that sets `overrides` itself. `set` has the broker's configs that were set while
    /// it runs.
    ///
    /// # Errors
    /// A config is unknown, a value is bad, or values contradict each other.
    pub(crate) fn topic_config(
        &self,
        set: &dyn Fn(&str) -> Option<String>,
        overrides: &TopicOverrides,
    ) -> Result<TopicConfig, ConfigError> {
        TopicConfig::resolve(&|name| set(name).or_else(|| self.explicit(name).map(str::to_owned)), overrides)
    }
}

/// Reads checked values with the type and the default of their row.
pub(crate) struct Reader<'a> {
    values: &'a BTreeMap<&'static str, String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn get<T: ConfigType>(&self, key: TypedKey<T>) -> T::Value<'a> {
        key.parse(self.values.get(key.row.name).map(String::as_str))
    }

    /// Returns a size in bytes, or a count.
    fn size(&self, key: TypedKey<i32>) -> usize {
        usize::try_from(self.get(key)).unwrap_or(0)
    }

    /// Returns a duration, which is never negative.
    fn millis<T>(&self, key: TypedKey<T>) -> Duration
    where
        T: for<'v> ConfigType<Value<'v> = T> + Into<i64>,
    {
        Duration::from_millis(u64::try_from(self.get(key).into()).unwrap_or(0))
    }

    /// Returns the size of a socket's buffer, if it is set and not left to the operating system.
    fn buffer(&self, key: TypedKey<i32>) -> Option<u32> {
        self.values.get(key.row.name)?;
        u32::try_from(self.get(key)).ok()
    }

    fn node_id(&self) -> Result<i32, ConfigError> {
        let (node_id, broker_id) = (self.get(keys::NODE_ID), self.get(keys::BROKER_ID));
        match self.values.contains_key(keys::NODE_ID.row.name) {
            true if broker_id >= 0 && broker_id != node_id => {
                Err(ConfigError("node.id and broker.id are both set and differ; set only node.id".to_owned()))
            }
            false if broker_id >= 0 => Ok(broker_id),
            _ => Ok(node_id),
        }
    }

    /// Returns the memory for messages in flight. It always has a limit, unlike Kafka's default.
    fn queued_max_bytes(&self) -> usize {
        let default = 256 << 20;
        let configured = usize::try_from(self.get(keys::QUEUED_MAX_REQUEST_BYTES)).ok().filter(|&bytes| bytes > 0);
        // The largest request must always fit; otherwise it could never be read.
        configured.unwrap_or(default).max(self.size(keys::SOCKET_REQUEST_MAX_BYTES))
    }

    fn spike_limits(&self) -> SpikeLimits {
        SpikeLimits {
            traps: self.size(keys::PLUGIN_ROLLBACK_TRAPS),
            window: self.millis(keys::PLUGIN_ROLLBACK_WINDOW_MS),
            error_share: self.get(keys::PLUGIN_ROLLBACK_ERROR_SHARE),
            sample_min: self.get(keys::PLUGIN_ROLLBACK_RECORDS_MIN).unsigned_abs(),
        }
    }

    fn plugin_limits(&self) -> Limits {
        Limits::of_profile(self.get(keys::PLUGIN_LIMITS)).unwrap_or_default()
    }

    fn transactions(&self) -> TransactionConfig {
        TransactionConfig {
            max_timeout_ms: self.get(keys::TRANSACTION_MAX_TIMEOUT_MS),
            id_expiration: self.millis(keys::TRANSACTIONAL_ID_EXPIRATION_MS),
            abort_interval: self.millis(keys::TRANSACTION_ABORT_INTERVAL_MS),
            expiry_interval: self.millis(keys::TRANSACTION_REMOVE_EXPIRED_INTERVAL_MS),
            topic_partitions: self.get(keys::TRANSACTION_STATE_LOG_NUM_PARTITIONS),
            topic_replication_factor: self.get(keys::TRANSACTION_STATE_LOG_REPLICATION_FACTOR).into(),
            topic_segment_bytes: self.get(keys::TRANSACTION_STATE_LOG_SEGMENT_BYTES),
            topic_min_isr: self.get(keys::TRANSACTION_STATE_LOG_MIN_ISR),
        }
    }

    fn group(&self) -> Result<GroupConfig, ConfigError> {
        let retention_minutes = self.get(keys::OFFSETS_RETENTION_MINUTES).unsigned_abs();
        let group = GroupConfig {
            initial_rebalance_delay: self.millis(keys::GROUP_INITIAL_REBALANCE_DELAY_MS),
            min_session_timeout_ms: self.get(keys::GROUP_MIN_SESSION_TIMEOUT_MS),
            max_session_timeout_ms: self.get(keys::GROUP_MAX_SESSION_TIMEOUT_MS),
            max_size: self.size(keys::GROUP_MAX_SIZE),
            offsets_topic_partitions: self.get(keys::OFFSETS_TOPIC_NUM_PARTITIONS),
            offsets_topic_replication_factor: self.get(keys::OFFSETS_TOPIC_REPLICATION_FACTOR).into(),
            offsets_topic_segment_bytes: self.get(keys::OFFSETS_TOPIC_SEGMENT_BYTES),
            offsets_commit_timeout: self.millis(keys::OFFSETS_COMMIT_TIMEOUT_MS),
            offsets_retention: Duration::from_secs(60 * u64::from(retention_minutes)),
            offsets_retention_check_interval: self.millis(keys::OFFSETS_RETENTION_CHECK_INTERVAL_MS),
            offset_metadata_max_bytes: self.size(keys::OFFSET_METADATA_MAX_BYTES),
        };
        if group.min_session_timeout_ms > group.max_session_timeout_ms {
            return Err(ConfigError("group.min.session.timeout.ms is above group.max.session.timeout.ms".to_owned()));
        }
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[&str]) -> Result<BrokerConfig, ConfigError> {
        let mut raw = RawConfig::default();
        for pair in pairs {
            raw.set_pair(pair)?;
        }
        raw.check()
    }

    fn refusal(pairs: &[&str]) -> String {
        checked(pairs).expect_err("refused").to_string()
    }

    #[test]
    fn needs_no_configuration_at_all() {
        let config = checked(&[]).expect("defaults");
        assert_eq!(config.listeners[0].bind, HostPort { host: "127.0.0.1".to_owned(), port: 9092 });
        assert_eq!(config.log_dirs, [PathBuf::from("millstream-data")]);
        assert_eq!(config.metadata_dir, PathBuf::from("millstream-data"));
        assert_eq!((config.node_id, config.num_partitions, config.flush_mode), (0, 1, FlushMode::Fsync));
        assert_eq!(config.spike_limits, SpikeLimits::default());
        assert_eq!(config.topic_defaults.retention_ms, Some(7 * 24 * 3_600_000));
    }

    #[test]
    fn errors_name_the_key() {
        assert_eq!(
            refusal(&["num.partition=3"]),
            "unknown configuration key num.partition; did you mean num.partitions?"
        );
        assert_eq!(refusal(&["xyzzy=3"]), "unknown configuration key xyzzy");
        assert_eq!(refusal(&["num.partitions"]), "`num.partitions` is not of the form KEY=VALUE");
        assert!(refusal(&["num.partitions=0"]).contains("bad value `0` for num.partitions: expected at least 1"));
        assert!(refusal(&["retention.ms=1"]).contains("the broker's default for it is log.retention.ms"));
        assert!(refusal(&["log.dirs=/a,,/b"]).contains("empty name"));
        assert!(refusal(&["node.id=1", "broker.id=2"]).contains("differ"));
        assert!(refusal(&["authorizer.class.name=x.Y"]).contains("authorizer.class.name"));
        assert!(!refusal(&["ssl.key.password=secret", "num.partitions=x"]).contains("secret"));
    }

    #[test]
    fn flags_take_precedence_and_count_as_set() {
        let address = |port| HostPort { host: "localhost".to_owned(), port };
        let flags = Flags { data_dirs: Vec::new(), listen: Some(address(1)), advertise: Some(address(2)) };
        let config = checked(&["listeners=PLAINTEXT://:9092"]).expect("good").with_flags(flags).expect("good");
        assert_eq!(config.listeners[0].bind, address(1));
        assert_eq!(config.explicit("listeners"), Some("PLAINTEXT://localhost:1"));
        assert_eq!(config.explicit("advertised.listeners"), Some("PLAINTEXT://localhost:2"));
        assert_eq!(config.explicit("log.dirs"), None);
        for nowhere in ["0.0.0.0:9092", "localhost:0"] {
            let flags =
                Flags { data_dirs: Vec::new(), listen: None, advertise: Some(nowhere.parse().expect("an address")) };
            let refused =
                checked(&[]).expect("good").with_flags(flags).expect_err("no client can connect to it").to_string();
            assert!(refused.contains("--advertise") && refused.contains(nowhere), "{refused}");
        }
    }

    /// Their effects take minutes or need many failures, so tests of the parts set the fields directly.
    #[test]
    fn slow_keys_reach_their_parts() {
        let config = checked(&[
            "offsets.retention.minutes=2",
            "offsets.retention.check.interval.ms=70",
            "plugin.rollback.traps=5",
            "plugin.rollback.window.ms=90",
            "plugin.limits=large",
            "socket.listen.backlog.size=11",
            "log.flush.scheduler.interval.ms=20",
            "log.flush.start.offset.checkpoint.interval.ms=30",
        ])
        .expect("good");
        assert_eq!(config.group.offsets_retention, Duration::from_secs(120));
        assert_eq!(config.group.offsets_retention_check_interval, Duration::from_millis(70));
        assert_eq!(config.plugin_limits(), &Limits::large());
        assert_eq!((config.spike_limits.traps, config.spike_limits.window), (5, Duration::from_millis(90)));
        assert_eq!(config.listen_backlog, 11);
        assert_eq!(config.flush_check_interval, Duration::from_millis(20));
        assert_eq!(config.log_start_checkpoint_interval, Duration::from_millis(30));
    }

    #[test]
    fn kafkas_own_sample_file_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.properties");
        let text = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
             listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nnum.network.threads=3\n\
             log.dirs=/tmp/kraft-combined-logs\nlog.retention.hours=24\nnum.recovery.threads.per.data.dir=1\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n";
        std::fs::write(&path, text).expect("written");
        let mut raw = RawConfig::default();
        raw.load_file(&path).expect("known keys");
        let config = raw.check().expect("a good file");
        assert_eq!((config.listeners.len(), config.inter_broker_listener), (2, Some(0)));
        let cluster = config.cluster.as_ref().expect("a cluster of one");
        assert_eq!((cluster.listener, cluster.votes, cluster.servers.len()), (1, true, 1));
        assert_eq!(config.listeners[0].advertised, Some(HostPort { host: "localhost".to_owned(), port: 9092 }));
        assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
        assert_eq!(config.explicit("log.retention.hours"), Some("24"));
    }

    #[test]
    fn what_kafka_does_and_this_broker_does_not_is_rejected() {
        for (name, value) in [
            ("zookeeper.connect", "localhost:2181"),
            ("security.inter.broker.protocol", "SASL_SSL"),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("listener.name.clients.ssl.keystore.location", "/keys"),
        ] {
            let error = RawConfig::default().set(name, value).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("remove it"), "{error}");
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bad.properties");
        let mut raw = RawConfig::default();
        assert!(raw.load_file(&path).expect_err("missing").to_string().contains("bad.properties"));
        std::fs::write(&path, "num.partitions=1\nfoo.bar=2\n").expect("written");
        let message = raw.load_file(&path).expect_err("unknown").to_string();
        assert!(message.contains("bad.properties, line 2: unknown configuration key foo.bar"), "{message}");
    }
}
