//! Configuration: raw `key=value` pairs from a file and from `--set`, checked once into typed structs.
//!
//! Every option is one row of a table (`broker_keys`, `topic_keys`, `inert_keys`), from which the check, the defaults and
//! the answer to DescribeConfigs are all made.

mod broker_keys;
mod inert_keys;
mod key;
mod listeners;
mod properties;
mod topic;
mod topic_keys;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use key::{
    Key, PLUGIN_STATS, REJECTED_PRODUCERS, all_broker_keys, all_topic_keys, broker_key, inert_key, topic_key,
};
pub use listeners::{HostPort, ListenerConfig};
use millstream_coordinator::group::GroupConfig;
pub(crate) use topic::{
    CompressionType, FailurePolicy, StageOptions, TopicConfig, TopicOverrides, Validation, inherited,
};
pub(crate) use value::{Kind, list};

use millstream_stage::SpikeLimits;

/// A configuration that cannot be used. Its text names the key, the value or the file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// Pairs as they were given, each known and each right by itself; later ones win.
#[derive(Debug, Clone, Default)]
pub struct RawConfig {
    values: BTreeMap<&'static str, String>,
}

impl RawConfig {
    /// Reads a Java properties file.
    ///
    /// # Errors
    /// A file that cannot be read or is no properties file, an unknown key or a bad value: each by its name and line.
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

    /// Takes one `KEY=VALUE`, as `--set` gives it.
    ///
    /// # Errors
    /// Text without `=`, an unknown key, a bad value.
    pub fn set_pair(&mut self, pair: &str) -> Result<(), ConfigError> {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| ConfigError(format!("`{pair}` is not of the form KEY=VALUE")))?;
        self.set(key.trim(), value)
    }

    /// Sets one key.
    ///
    /// # Errors
    /// An unknown key, a bad value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        if name.starts_with("listener.name.") {
            tracing::warn!("{name} has no effect: listeners take no options of their own here");
            return Ok(());
        }
        let key = match (broker_key(name), inert_key(name)) {
            (Some(key), _) => key,
            (None, Some(key)) => {
                tracing::warn!("{name} is a valid key of Kafka that has no effect here");
                key
            }
            (None, None) => return Err(ConfigError(unknown(name))),
        };
        if key.name == "authorizer.class.name" && !value.is_empty() {
            // Access control that is asked for and not enforced would be worse than a refusal to start.
            return Err(ConfigError(format!("bad value `{value}` for {name}: there is no authorizer here yet")));
        }
        key.check(value).map_err(ConfigError)?;
        self.values.insert(key.name, value.to_owned());
        Ok(())
    }

    /// Checks the whole and turns it into types.
    ///
    /// # Errors
    /// Values that do not go together.
    pub fn check(self) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::new(self.values)
    }
}

fn unknown(name: &str) -> String {
    if topic_key(name).is_some() {
        let synonyms = topic_key(name).map_or(&[][..], |key| key.broker_synonyms);
        let hint =
            synonyms.first().map_or(String::new(), |(name, _)| format!("; the broker's default for it is {name}"));
        return format!("{name} is an option of a topic, not of a broker{hint}");
    }
    let close = all_broker_keys().map(|key| (distance(name, key.name), key.name)).min();
    let hint = close
        .filter(|&(edits, _)| edits <= 3 && edits * 3 <= name.len())
        .map_or(String::new(), |(_, near)| format!("; did you mean {near}?"));
    format!("unknown configuration key {name}{hint}")
}

/// Edits between two names, by Levenshtein.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

pub use millstream_partition::FlushMode;

/// The broker's configuration, checked.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// This broker's number.
    pub node_id: i32,
    /// The rack that metadata names.
    pub rack: Option<String>,
    /// Where to listen; never empty.
    pub listeners: Vec<ListenerConfig>,
    /// The folder that holds everything.
    pub data_dir: PathBuf,
    /// What acks=all waits for.
    pub flush_mode: FlushMode,
    pub(crate) auto_create_topics: bool,
    pub(crate) delete_topic_enable: bool,
    pub(crate) num_partitions: i32,
    pub(crate) default_replication_factor: i32,
    pub(crate) fetch_max_bytes: usize,
    pub(crate) request_max_bytes: usize,
    pub(crate) queued_max_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: usize,
    pub(crate) connections_max_idle: Option<Duration>,
    pub(crate) listen_backlog: u32,
    pub(crate) socket_send_buffer: Option<u32>,
    pub(crate) socket_receive_buffer: Option<u32>,
    pub(crate) retention_check_interval: Duration,
    pub(crate) flush_check_interval: Duration,
    pub(crate) recovery_checkpoint_interval: Duration,
    pub(crate) log_start_checkpoint_interval: Duration,
    pub(crate) producer_id_expiration: Duration,
    pub(crate) group: GroupConfig,
    /// When a version of a plug-in is taken back.
    pub(crate) spike_limits: SpikeLimits,
    pub(crate) topic_defaults: TopicConfig,
    /// What was set in the file or by flag, for DescribeConfigs.
    values: BTreeMap<&'static str, String>,
}

/// What a flag of its own says, stronger than the file and `--set`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<HostPort>,
    /// `--advertise`
    pub advertise: Option<HostPort>,
}

impl BrokerConfig {
    fn new(values: BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
        let read = Reader { values: &values };
        let node_id = match (values.get("node.id"), read.int("broker.id")) {
            (Some(_), id) if id >= 0 && id != read.int("node.id") => {
                return Err(ConfigError("node.id and broker.id are both set and differ; set only node.id".to_owned()));
            }
            (None, id) if id >= 0 => id,
            _ => read.int("node.id"),
        };
        let group = read.group()?;
        Ok(Self {
            node_id,
            rack: read.text("broker.rack").map(str::to_owned),
            listeners: listeners::from_values(&read)?,
            data_dir: read.data_dir()?,
            flush_mode: if read.text("flush.mode") == Some("page-cache") {
                FlushMode::PageCache
            } else {
                FlushMode::Fsync
            },
            auto_create_topics: read.boolean("auto.create.topics.enable"),
            delete_topic_enable: read.boolean("delete.topic.enable"),
            num_partitions: read.int("num.partitions"),
            default_replication_factor: read.int("default.replication.factor"),
            fetch_max_bytes: read.size("fetch.max.bytes"),
            request_max_bytes: read.size("socket.request.max.bytes"),
            queued_max_bytes: read.queued_max_bytes(),
            max_connections: read.size("max.connections"),
            max_connections_per_ip: read.size("max.connections.per.ip"),
            connections_max_idle: u64::try_from(read.long("connections.max.idle.ms"))
                .ok()
                .filter(|&ms| ms > 0)
                .map(Duration::from_millis),
            listen_backlog: u32::try_from(read.int("socket.listen.backlog.size")).unwrap_or(50),
            socket_send_buffer: u32::try_from(read.int("socket.send.buffer.bytes")).ok(),
            socket_receive_buffer: u32::try_from(read.int("socket.receive.buffer.bytes")).ok(),
            retention_check_interval: read.millis("log.retention.check.interval.ms"),
            flush_check_interval: read.millis("log.flush.scheduler.interval.ms").min(Duration::from_secs(1)),
            recovery_checkpoint_interval: read.millis("log.flush.offset.checkpoint.interval.ms"),
            log_start_checkpoint_interval: read.millis("log.flush.start.offset.checkpoint.interval.ms"),
            producer_id_expiration: read.millis("producer.id.expiration.ms"),
            group,
            spike_limits: read.spike_limits(),
            topic_defaults: TopicConfig::from_broker(&|name| values.get(name).cloned())?,
            values,
        })
    }

    /// Applies the flags that are stronger than any key.
    ///
    /// # Errors
    /// A flag for "the" listener where several are configured.
    pub fn with_flags(mut self, flags: Flags) -> Result<Self, ConfigError> {
        if let Some(folder) = flags.data_dir {
            self.values.insert("log.dirs", folder.display().to_string());
            self.data_dir = folder;
        }
        if (flags.listen.is_some() || flags.advertise.is_some()) && self.listeners.len() > 1 {
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
        Ok(self)
    }

    /// The value that was set in the file or by flag, as text.
    pub(crate) fn explicit(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// Typed reading of checked values, with the table's defaults.
pub(crate) struct Reader<'a> {
    values: &'a BTreeMap<&'static str, String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let explicit = self.values.get(name).map(String::as_str);
        explicit.or_else(|| broker_key(name).and_then(|key| key.default))
    }

    /// Every value was checked against its row before it came here, so the fallback is never reached.
    fn long(&self, name: &str) -> i64 {
        self.text(name).and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    }

    fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).unwrap_or(i32::MAX)
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.long(name)).unwrap_or(0)
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.long(name)).unwrap_or(0))
    }

    fn boolean(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
    }

    fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let text = self.text("log.dirs").or_else(|| self.text("log.dir")).unwrap_or("millstream-data");
        match list(text)[..] {
            [folder] if !folder.is_empty() => Ok(PathBuf::from(folder)),
            _ => Err(ConfigError(format!("bad value `{text}` for log.dirs: exactly one data folder is supported"))),
        }
    }

    /// A bound where Kafka has none: memory for requests in flight is finite unless somebody asks for more.
    fn queued_max_bytes(&self) -> usize {
        let default = 256 << 20;
        let asked = usize::try_from(self.long("queued.max.request.bytes")).ok().filter(|&bytes| bytes > 0);
        // One request of the largest size must always fit, or it could never be read.
        asked.unwrap_or(default).max(self.size("socket.request.max.bytes"))
    }

    fn spike_limits(&self) -> SpikeLimits {
        let share = self.text("plugin.rollback.error.share").and_then(|share| share.trim().parse().ok());
        SpikeLimits {
            traps: self.size("plugin.rollback.traps"),
            window: self.millis("plugin.rollback.window.ms"),
            error_share: share.unwrap_or(1.0),
            sample_min: self.long("plugin.rollback.records.min").unsigned_abs(),
        }
    }

    fn group(&self) -> Result<GroupConfig, ConfigError> {
        let group = GroupConfig {
            initial_rebalance_delay: self.millis("group.initial.rebalance.delay.ms"),
            min_session_timeout_ms: self.int("group.min.session.timeout.ms"),
            max_session_timeout_ms: self.int("group.max.session.timeout.ms"),
            max_size: self.size("group.max.size"),
            offsets_topic_partitions: self.int("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: self.int("offsets.topic.segment.bytes"),
            offsets_retention: self.millis("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval: self.millis("offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: self.size("offset.metadata.max.bytes"),
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
        assert_eq!(config.data_dir, PathBuf::from("millstream-data"));
        assert_eq!((config.node_id, config.num_partitions, config.flush_mode), (0, 1, FlushMode::Fsync));
        assert_eq!(config.spike_limits, SpikeLimits::default());
        assert_eq!(config.topic_defaults.retention_ms, Some(7 * 24 * 3_600_000));
    }

    #[test]
    fn refusals_name_the_key() {
        assert_eq!(
            refusal(&["num.partition=3"]),
            "unknown configuration key num.partition; did you mean num.partitions?"
        );
        assert_eq!(refusal(&["xyzzy=3"]), "unknown configuration key xyzzy");
        assert_eq!(refusal(&["num.partitions"]), "`num.partitions` is not of the form KEY=VALUE");
        assert!(refusal(&["num.partitions=0"]).contains("bad value `0` for num.partitions: expected at least 1"));
        assert!(refusal(&["retention.ms=1"]).contains("the broker's default for it is log.retention.ms"));
        assert!(refusal(&["log.dirs=/a,/b"]).contains("exactly one data folder"));
        assert!(refusal(&["node.id=1", "broker.id=2"]).contains("differ"));
        assert!(refusal(&["authorizer.class.name=x.Y"]).contains("authorizer.class.name"));
        assert!(!refusal(&["ssl.key.password=secret", "num.partitions=x"]).contains("secret"));
    }

    #[test]
    fn flags_are_stronger_and_count_as_set() {
        let address = |port| HostPort { host: "localhost".to_owned(), port };
        let flags = Flags { data_dir: None, listen: Some(address(1)), advertise: Some(address(2)) };
        let config = checked(&["listeners=PLAINTEXT://:9092"]).expect("good").with_flags(flags).expect("good");
        assert_eq!(config.listeners[0].bind, address(1));
        assert_eq!(config.explicit("listeners"), Some("PLAINTEXT://localhost:1"));
        assert_eq!(config.explicit("advertised.listeners"), Some("PLAINTEXT://localhost:2"));
        assert_eq!(config.explicit("log.dirs"), None);
        for nowhere in ["0.0.0.0:9092", "localhost:0"] {
            let flags = Flags { data_dir: None, listen: None, advertise: Some(nowhere.parse().expect("an address")) };
            let refused =
                checked(&[]).expect("good").with_flags(flags).expect_err("nobody can connect to it").to_string();
            assert!(refused.contains("--advertise") && refused.contains(nowhere), "{refused}");
        }
    }

    #[test]
    fn kafkas_own_sample_file_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.properties");
        let text = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
             listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nnum.network.threads=3\n\
             log.dirs=/tmp/kraft-combined-logs\nlog.retention.hours=24\nzookeeper.connect=localhost:2181\n";
        std::fs::write(&path, text).expect("written");
        let mut raw = RawConfig::default();
        raw.load_file(&path).expect("known keys");
        let config = raw.check().expect("a good file");
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].advertised, Some(HostPort { host: "localhost".to_owned(), port: 9092 }));
        assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
        assert_eq!(config.explicit("log.retention.hours"), Some("24"));
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
