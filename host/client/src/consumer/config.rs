//! The consumer's configs, with Kafka's names and defaults.

use std::time::Duration;

use crate::config::{ClientConfig, ConfigError, boolean, millis, number, split_list};

/// Where to start if the group has no committed offset for a partition, or one that no longer exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    /// `earliest`: at the oldest record.
    Earliest,
    /// `latest`: at the next record that is stored.
    Latest,
    /// `none`: `poll` returns an error.
    None,
}

/// Which records a consumer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All stored records.
    ReadUncommitted,
    /// No records of transactions that were aborted or are still open.
    ReadCommitted,
}

/// How the leader of a group assigns the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// `range`: each member gets consecutive partitions of each topic.
    Range,
    /// `roundrobin`: the partitions of all topics go to the members in turn.
    RoundRobin,
}

impl Assignor {
    /// Returns the name in the group protocol.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
        }
    }

    /// Returns the assignor with this short name or Java class name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "range" | "org.apache.kafka.clients.consumer.RangeAssignor" => Some(Assignor::Range),
            "roundrobin" | "org.apache.kafka.clients.consumer.RoundRobinAssignor" => Some(Assignor::RoundRobin),
            _ => None,
        }
    }
}

/// The configs of a [`Consumer`](crate::Consumer).
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The configs of every client.
    pub client: ClientConfig,
    /// `group.id`: needed to subscribe and to commit. Default none.
    pub group_id: Option<String>,
    /// `group.instance.id`: makes this a static member, which keeps its partitions across a restart. Default none.
    pub group_instance_id: Option<String>,
    /// `partition.assignment.strategy`, in the order of preference. Default `range`.
    pub assignors: Vec<Assignor>,
    /// `session.timeout.ms`: the group removes a member without a heartbeat for that long. Default 45 s.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`. Default 3 s.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: a member without a `poll` for that long leaves the group. Default 5 min.
    pub max_poll_interval: Duration,
    /// `enable.auto.commit`: commits the returned records during the first `poll` after the interval, before a
    /// rebalance, and on close. Default true.
    pub enable_auto_commit: bool,
    /// `auto.commit.interval.ms`. Default 5 s.
    pub auto_commit_interval: Duration,
    /// `auto.offset.reset`. Default `latest`.
    pub auto_offset_reset: OffsetReset,
    /// `client.rack`: the rack of this consumer. With a broker that selects replicas by rack, reads go to a replica in
    /// it. Default empty.
    pub client_rack: String,
    /// `fetch.min.bytes`: the broker waits until it has that many bytes. Default 1.
    pub fetch_min_bytes: i32,
    /// `fetch.max.wait.ms`: the maximum wait for `fetch.min.bytes`. Default 500 ms.
    pub fetch_max_wait: Duration,
    /// `fetch.max.bytes`: the maximum bytes of a response, unless its first batch is larger. Default 50 MiB.
    pub fetch_max_bytes: i32,
    /// `max.partition.fetch.bytes`: the maximum bytes of one partition in a response, unless the first batch is larger.
    /// Default 1 MiB.
    pub max_partition_fetch_bytes: i32,
    /// `max.poll.records`: the maximum records of one `poll`. Default 500.
    pub max_poll_records: usize,
    /// `isolation.level`. Default `read_uncommitted`.
    pub isolation_level: IsolationLevel,
    /// `check.crcs`: whether to check the CRC of fetched batches. Default true.
    pub check_crcs: bool,
    /// `allow.auto.create.topics`: whether reading a topic that does not exist may create it. Default true.
    pub allow_auto_create_topics: bool,
    /// `decompressed.batch.max.bytes` (not a config of Kafka): the maximum size of a decompressed batch; a larger one
    /// is an error. Default 64 MiB.
    pub decompressed_batch_max_bytes: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            client: ClientConfig::default(),
            group_id: None,
            group_instance_id: None,
            assignors: vec![Assignor::Range],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            enable_auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            auto_offset_reset: OffsetReset::Latest,
            client_rack: String::new(),
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 50 * 1024 * 1024,
            max_partition_fetch_bytes: 1024 * 1024,
            max_poll_records: 500,
            isolation_level: IsolationLevel::ReadUncommitted,
            check_crcs: true,
            allow_auto_create_topics: true,
            decompressed_batch_max_bytes: 64 * 1024 * 1024,
        }
    }
}

impl ConsumerConfig {
    /// Creates the default configs for these servers: `host:port`, separated by commas.
    pub fn new(bootstrap_servers: &str) -> Self {
        Self { client: ClientConfig::new(bootstrap_servers), ..Self::default() }
    }

    /// Sets the config with Kafka's name `key`, as a properties file or `--property` does.
    ///
    /// # Errors
    /// The key is unknown, or the value does not have its type.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        match key {
            "group.id" => self.group_id = Some(value.into()),
            "group.instance.id" => self.group_instance_id = Some(value.into()),
            "partition.assignment.strategy" => self.assignors = assignors(key, value)?,
            "session.timeout.ms" => self.session_timeout = millis(key, value)?,
            "heartbeat.interval.ms" => self.heartbeat_interval = millis(key, value)?,
            "max.poll.interval.ms" => self.max_poll_interval = millis(key, value)?,
            "enable.auto.commit" => self.enable_auto_commit = boolean(key, value)?,
            "auto.commit.interval.ms" => self.auto_commit_interval = millis(key, value)?,
            "auto.offset.reset" => {
                self.auto_offset_reset = match value.trim() {
                    "earliest" => OffsetReset::Earliest,
                    "latest" => OffsetReset::Latest,
                    "none" => OffsetReset::None,
                    _ => return Err(ConfigError::new(key, format!("{value:?} is not one of earliest, latest, none"))),
                }
            }
            "client.rack" => self.client_rack = value.trim().into(),
            "fetch.min.bytes" => self.fetch_min_bytes = number(key, value)?,
            "fetch.max.wait.ms" => self.fetch_max_wait = millis(key, value)?,
            "fetch.max.bytes" => self.fetch_max_bytes = number(key, value)?,
            "max.partition.fetch.bytes" => self.max_partition_fetch_bytes = number(key, value)?,
            "max.poll.records" => self.max_poll_records = number(key, value)?,
            "isolation.level" => {
                self.isolation_level = match value.trim() {
                    "read_uncommitted" => IsolationLevel::ReadUncommitted,
                    "read_committed" => IsolationLevel::ReadCommitted,
                    _ => {
                        let message = format!("{value:?} is not read_uncommitted or read_committed");
                        return Err(ConfigError::new(key, message));
                    }
                }
            }
            "check.crcs" => self.check_crcs = boolean(key, value)?,
            "allow.auto.create.topics" => self.allow_auto_create_topics = boolean(key, value)?,
            "decompressed.batch.max.bytes" => self.decompressed_batch_max_bytes = number(key, value)?,
            _ if self.client.set(key, value)? => {}
            _ => return Err(ConfigError::new(key, "is not a config of the consumer")),
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.client.validate()?;
        if self.group_id.as_deref() == Some("") {
            return Err(ConfigError::new("group.id", "is empty"));
        }
        if self.group_instance_id.is_some() && self.group_id.is_none() {
            return Err(ConfigError::new("group.instance.id", "needs a group.id"));
        }
        if self.assignors.is_empty() {
            return Err(ConfigError::new("partition.assignment.strategy", "is empty"));
        }
        if self.heartbeat_interval >= self.session_timeout {
            return Err(ConfigError::new("heartbeat.interval.ms", "must be below session.timeout.ms"));
        }
        if self.max_poll_records == 0 {
            return Err(ConfigError::new("max.poll.records", "must be at least 1"));
        }
        if i16::try_from(self.client_rack.len()).is_err() {
            return Err(ConfigError::new("client.rack", "is longer than 32,767 bytes"));
        }
        for (key, value) in [
            ("fetch.min.bytes", self.fetch_min_bytes),
            ("fetch.max.bytes", self.fetch_max_bytes),
            ("max.partition.fetch.bytes", self.max_partition_fetch_bytes),
        ] {
            if value < 0 {
                return Err(ConfigError::new(key, format!("{value} is negative")));
            }
        }
        // The broker may wait for fetch.max.wait.ms before it responds.
        if self.fetch_max_wait >= self.client.request_timeout {
            return Err(ConfigError::new("fetch.max.wait.ms", "must be below request.timeout.ms"));
        }
        if self.client.receive_message_max_bytes < self.fetch_max_bytes as usize {
            return Err(ConfigError::new("receive.message.max.bytes", "must be at least fetch.max.bytes"));
        }
        Ok(())
    }
}

fn assignors(key: &str, value: &str) -> Result<Vec<Assignor>, ConfigError> {
    let parse = |name: &String| {
        Assignor::from_name(name).ok_or_else(|| ConfigError::new(key, format!("{name:?} is not range or roundrobin")))
    };
    split_list(value).iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_by_kafkas_names() {
        let mut config = ConsumerConfig::new("a:1");
        for (key, value) in [
            ("group.id", "g"),
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "roundrobin,org.apache.kafka.clients.consumer.RangeAssignor"),
            ("isolation.level", "read_committed"),
            ("client.rack", "r1"),
            ("request.timeout.ms", "4000"),
        ] {
            config.set(key, value).unwrap();
        }
        assert_eq!(config.group_id.as_deref(), Some("g"));
        assert_eq!(config.auto_offset_reset, OffsetReset::Earliest);
        assert_eq!(config.client_rack, "r1");
        assert_eq!(config.assignors, [Assignor::RoundRobin, Assignor::Range]);
        assert_eq!(config.isolation_level, IsolationLevel::ReadCommitted);
        assert!(config.validate().is_ok());
        assert_eq!(config.set("linger.ms", "1").unwrap_err().key, "linger.ms");
        assert_eq!(
            config.set("partition.assignment.strategy", "x").unwrap_err().message,
            "\"x\" is not range or roundrobin"
        );
    }

    #[test]
    fn invalid_configs_are_named() {
        let rejected = |change: fn(&mut ConsumerConfig)| {
            let mut config = ConsumerConfig::new("a:1");
            change(&mut config);
            config.validate().unwrap_err().key
        };
        assert_eq!(rejected(|c| c.heartbeat_interval = c.session_timeout), "heartbeat.interval.ms");
        assert_eq!(rejected(|c| c.group_instance_id = Some("i".into())), "group.instance.id");
        assert_eq!(rejected(|c| c.fetch_max_wait = Duration::from_secs(60)), "fetch.max.wait.ms");
        assert_eq!(rejected(|c| c.max_poll_records = 0), "max.poll.records");
    }
}
