//! The producer's configs, with Kafka's names and defaults.

use std::time::Duration;

use millstream_record::Codec;

use crate::config::{ClientConfig, ConfigError, boolean, millis, number};

/// Which replicas must have a record before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// `0`: the broker sends no response; a record counts as sent once it is written to the socket.
    None,
    /// `1`: the leader.
    Leader,
    /// `all` or `-1`: every in-sync replica.
    All,
}

impl Acks {
    pub(crate) fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// The configs of a [`Producer`](crate::Producer).
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// The configs of every client.
    pub client: ClientConfig,
    /// `acks`. Default `all`.
    pub acks: Acks,
    /// `enable.idempotence`: every record is stored once and in the order of sending, in spite of retries.
    /// `None`, the default: on if `acks`, `retries` and `max.in.flight` allow it.
    pub enable_idempotence: Option<bool>,
    /// `transactional.id`: lets the producer write transactions. A new producer with the same id fences the one before,
    /// so the id is that of one task of an application, and stays across restarts. Default none.
    pub transactional_id: Option<String>,
    /// `transaction.timeout.ms`: the coordinator aborts a transaction that is open for longer. Default 60 s.
    pub transaction_timeout: Duration,
    /// `batch.size`: the size at which a batch is full, in uncompressed bytes. Default 16 KiB.
    /// A larger record is sent in a batch of its own.
    pub batch_size: usize,
    /// `linger.ms`: how long a record waits for more records to fill the batch. Default 5 ms.
    pub linger: Duration,
    /// `buffer.memory`: the maximum bytes of waiting and sent records; `send` waits for room. Default 32 MiB.
    pub buffer_memory: usize,
    /// `max.block.ms`: how long `send` waits for room or for a topic's metadata. Default 60 s.
    pub max_block: Duration,
    /// `max.request.size`: the largest record and the largest request, in bytes. Default 1 MiB.
    pub max_request_size: usize,
    /// `max.in.flight.requests.per.connection`. Default 5, the maximum with idempotence.
    pub max_in_flight_requests: usize,
    /// `retries`: the maximum retries of a batch. Default 2^31 - 1, so that `delivery.timeout.ms` decides.
    pub retries: u32,
    /// `delivery.timeout.ms`: the maximum time from `send` to the result, with all retries. Default 120 s.
    pub delivery_timeout: Duration,
    /// `compression.type`: the codec for a producer without a compressor stage. Default `none`.
    pub compression: Codec,
    /// `compression.<codec>.level`; `None` is the codec's default.
    pub compression_level: Option<i32>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            client: ClientConfig::default(),
            acks: Acks::All,
            enable_idempotence: None,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
            batch_size: 16 * 1024,
            linger: Duration::from_millis(5),
            buffer_memory: 32 * 1024 * 1024,
            max_block: Duration::from_secs(60),
            max_request_size: 1024 * 1024,
            max_in_flight_requests: 5,
            retries: i32::MAX as u32,
            delivery_timeout: Duration::from_secs(120),
            compression: Codec::None,
            compression_level: None,
        }
    }
}

impl ProducerConfig {
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
            "acks" => {
                self.acks = match value.trim() {
                    "0" => Acks::None,
                    "1" => Acks::Leader,
                    "all" | "-1" => Acks::All,
                    _ => return Err(ConfigError::new(key, format!("{value:?} is not one of 0, 1, all"))),
                }
            }
            "enable.idempotence" => self.enable_idempotence = Some(boolean(key, value)?),
            "transactional.id" => self.transactional_id = Some(value.into()),
            "transaction.timeout.ms" => self.transaction_timeout = millis(key, value)?,
            "batch.size" => self.batch_size = number(key, value)?,
            "linger.ms" => self.linger = millis(key, value)?,
            "buffer.memory" => self.buffer_memory = number(key, value)?,
            "max.block.ms" => self.max_block = millis(key, value)?,
            "max.request.size" => self.max_request_size = number(key, value)?,
            "max.in.flight.requests.per.connection" => self.max_in_flight_requests = number(key, value)?,
            "retries" => self.retries = number(key, value)?,
            "delivery.timeout.ms" => self.delivery_timeout = millis(key, value)?,
            "compression.type" => {
                self.compression = value.trim().parse().map_err(|_| {
                    ConfigError::new(key, format!("{value:?} is not one of none, gzip, snappy, lz4, zstd"))
                })?;
            }
            "compression.gzip.level" | "compression.lz4.level" | "compression.zstd.level" => {
                self.compression_level = Some(number(key, value)?);
            }
            _ if self.client.set(key, value)? => {}
            _ => return Err(ConfigError::new(key, "is not a config of the producer")),
        }
        Ok(())
    }

    /// Returns whether batches carry a producer id and sequences.
    pub fn idempotent(&self) -> bool {
        let permitted = self.acks == Acks::All && self.retries > 0 && self.max_in_flight_requests <= 5;
        self.transactional_id.is_some() || self.enable_idempotence.unwrap_or(permitted)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.client.validate()?;
        self.validate_idempotence()?;
        if self.max_in_flight_requests == 0 {
            return Err(ConfigError::new("max.in.flight.requests.per.connection", "must be at least 1"));
        }
        if self.delivery_timeout < self.linger + self.client.request_timeout {
            let message = "must be at least linger.ms + request.timeout.ms";
            return Err(ConfigError::new("delivery.timeout.ms", message));
        }
        // Positions inside a batch have 32 bits, in the protocol and in the columns of a stage.
        for (key, value) in [
            ("batch.size", self.batch_size),
            ("max.request.size", self.max_request_size),
            ("buffer.memory", self.buffer_memory),
        ] {
            if value == 0 || value > i32::MAX as usize {
                return Err(ConfigError::new(key, format!("{value} is not between 1 and 2147483647 bytes")));
            }
        }
        Ok(())
    }
}

impl ProducerConfig {
    /// Checks the configs that idempotence and transactions depend on.
    fn validate_idempotence(&self) -> Result<(), ConfigError> {
        let cause = match &self.transactional_id {
            Some(id) if id.is_empty() => return Err(ConfigError::new("transactional.id", "is empty")),
            Some(id) if i16::try_from(id.len()).is_err() => {
                return Err(ConfigError::new("transactional.id", "is longer than 32,767 bytes"));
            }
            Some(_) if self.enable_idempotence == Some(false) => {
                return Err(ConfigError::new("enable.idempotence", "must be true with a transactional.id"));
            }
            Some(_) => "a transactional.id",
            None if self.enable_idempotence == Some(true) => "enable.idempotence=true",
            None => return Ok(()),
        };
        if self.acks != Acks::All {
            return Err(ConfigError::new("acks", format!("must be all with {cause}")));
        }
        if self.retries == 0 {
            return Err(ConfigError::new("retries", format!("must be above 0 with {cause}")));
        }
        if self.max_in_flight_requests > 5 {
            let message = format!("must be at most 5 with {cause}: brokers remember five batches");
            return Err(ConfigError::new("max.in.flight.requests.per.connection", message));
        }
        let timeout_ms = self.transaction_timeout.as_millis();
        if timeout_ms == 0 || timeout_ms > i32::MAX as u128 {
            let message = format!("{timeout_ms} is not between 1 and 2147483647 ms");
            return Err(ConfigError::new("transaction.timeout.ms", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_by_kafkas_names() {
        let mut config = ProducerConfig::new("a:1");
        for (key, value) in [("acks", "1"), ("linger.ms", "20"), ("compression.type", "zstd"), ("client.id", "x")] {
            config.set(key, value).unwrap();
        }
        assert_eq!((config.acks, config.linger), (Acks::Leader, Duration::from_millis(20)));
        assert_eq!((config.compression, config.client.client_id.as_str()), (Codec::Zstd, "x"));
        assert_eq!(config.set("linger", "1").unwrap_err().key, "linger");
        assert_eq!(config.set("acks", "2").unwrap_err().key, "acks");
        assert_eq!(config.set("compression.type", "rar").unwrap_err().key, "compression.type");
    }

    #[test]
    fn idempotence_is_off_if_another_config_excludes_it_unless_it_is_set() {
        let mut config = ProducerConfig::new("a:1");
        assert!(config.idempotent());
        config.acks = Acks::Leader;
        assert!(!config.idempotent());
        assert!(config.validate().is_ok());
        config.enable_idempotence = Some(true);
        assert_eq!(config.validate().unwrap_err().key, "acks");
    }

    #[test]
    fn a_transactional_id_needs_idempotence() {
        let mut config = ProducerConfig::new("a:1");
        config.set("transactional.id", "payments").unwrap();
        config.set("transaction.timeout.ms", "5000").unwrap();
        assert_eq!(config.transaction_timeout, Duration::from_secs(5));
        assert!(config.idempotent() && config.validate().is_ok());
        for (key, value) in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("retries", "0"),
            ("max.in.flight.requests.per.connection", "6"),
            ("transaction.timeout.ms", "0"),
            ("transactional.id", ""),
        ] {
            let mut invalid = config.clone();
            invalid.set(key, value).unwrap();
            assert_eq!(invalid.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn invalid_configs_are_named() {
        let rejected = |change: fn(&mut ProducerConfig)| {
            let mut config = ProducerConfig::new("a:1");
            change(&mut config);
            config.validate().unwrap_err().key
        };
        assert_eq!(rejected(|c| c.delivery_timeout = Duration::from_secs(1)), "delivery.timeout.ms");
        assert_eq!(rejected(|c| c.batch_size = 0), "batch.size");
        assert_eq!(rejected(|c| c.max_in_flight_requests = 0), "max.in.flight.requests.per.connection");
    }
}
