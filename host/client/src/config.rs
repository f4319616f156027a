//! The configs that the producer, the consumer and the admin client share: servers, timeouts, retries.

use std::time::Duration;

/// An invalid config, rejected before any request is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The key as Kafka writes it, `linger.ms`.
    pub key: String,
    /// What is wrong, and what is expected.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// The configs of every client, with Kafka's defaults.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `bootstrap.servers`: `host:port` of the brokers to contact first.
    pub bootstrap_servers: Vec<String>,
    /// `client.id`: the name in the brokers' logs and quotas. Default `millstream`.
    pub client_id: String,
    /// `request.timeout.ms`: the maximum wait for one response. Default 30 s.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: the maximum time of one call with all its retries. Default 60 s.
    pub default_api_timeout: Duration,
    /// `retry.backoff.ms`: the wait before the first retry; it doubles with each retry. Default 100 ms.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`: the longest wait between retries. Default 1 s.
    pub retry_backoff_max: Duration,
    /// `reconnect.backoff.ms`: the wait before the first reconnection attempt. Default 50 ms.
    pub reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`: the longest wait between reconnection attempts. Default 1 s.
    pub reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms`: the maximum time of one connection attempt. Default 10 s.
    pub connection_setup_timeout: Duration,
    /// `metadata.max.age.ms`: the maximum age of the metadata. Default 5 min.
    pub metadata_max_age: Duration,
    /// `receive.message.max.bytes` (librdkafka's name): the largest accepted response, in bytes. A larger one closes
    /// the connection before memory is allocated. Default 100 MB.
    pub receive_message_max_bytes: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "millstream".into(),
            request_timeout: Duration::from_secs(30),
            default_api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            metadata_max_age: Duration::from_secs(300),
            receive_message_max_bytes: 100_000_000,
        }
    }
}

impl ClientConfig {
    /// Creates the default configs for these servers: `host:port`, separated by commas.
    pub fn new(bootstrap_servers: &str) -> Self {
        Self { bootstrap_servers: split_list(bootstrap_servers), ..Self::default() }
    }

    /// Sets the config `key`. Returns `Ok(false)` if no config has that name.
    ///
    /// # Errors
    /// The value does not have the type of the config.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, ConfigError> {
        match key {
            "bootstrap.servers" => self.bootstrap_servers = split_list(value),
            "client.id" => self.client_id = value.into(),
            "request.timeout.ms" => self.request_timeout = millis(key, value)?,
            "default.api.timeout.ms" => self.default_api_timeout = millis(key, value)?,
            "retry.backoff.ms" => self.retry_backoff = millis(key, value)?,
            "retry.backoff.max.ms" => self.retry_backoff_max = millis(key, value)?,
            "reconnect.backoff.ms" => self.reconnect_backoff = millis(key, value)?,
            "reconnect.backoff.max.ms" => self.reconnect_backoff_max = millis(key, value)?,
            "socket.connection.setup.timeout.ms" => self.connection_setup_timeout = millis(key, value)?,
            "metadata.max.age.ms" => self.metadata_max_age = millis(key, value)?,
            "receive.message.max.bytes" => self.receive_message_max_bytes = number(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.bootstrap_servers.is_empty() {
            return Err(ConfigError::new("bootstrap.servers", "is empty; expected host:port"));
        }
        for server in &self.bootstrap_servers {
            let port = server.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(ConfigError::new("bootstrap.servers", format!("{server:?} is not host:port")));
            }
        }
        if i16::try_from(self.client_id.len()).is_err() {
            return Err(ConfigError::new("client.id", "is longer than 32,767 bytes"));
        }
        Ok(())
    }

    /// Returns the wait before retry number `attempt` (from 0). It doubles each time, with a jitter of 20 %, so that
    /// clients that lost the same broker do not return at the same moment.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        backoff_with_jitter(self.retry_backoff, self.retry_backoff_max, attempt)
    }

    /// Returns the wait before connection attempt number `attempt` (from 0).
    pub(crate) fn connect_backoff(&self, attempt: u32) -> Duration {
        backoff_with_jitter(self.reconnect_backoff, self.reconnect_backoff_max, attempt)
    }
}

fn backoff_with_jitter(first: Duration, most: Duration, attempt: u32) -> Duration {
    let wait = first.saturating_mul(1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX)).min(most);
    // 0.8 to 1.2 times.
    wait * (800 + fastrand::u32(..=400)) / 1000
}

pub(crate) fn split_list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(String::from).collect()
}

pub(crate) fn number<N: std::str::FromStr>(key: &str, value: &str) -> Result<N, ConfigError> {
    value.trim().parse().map_err(|_| {
        let kind = std::any::type_name::<N>();
        ConfigError::new(key, format!("{value:?} is not a number that fits ({kind})"))
    })
}

pub(crate) fn millis(key: &str, value: &str) -> Result<Duration, ConfigError> {
    number(key, value).map(Duration::from_millis)
}

pub(crate) fn boolean(key: &str, value: &str) -> Result<bool, ConfigError> {
    match value.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ConfigError::new(key, format!("{value:?} is not true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_by_kafkas_names() {
        let mut config = ClientConfig::new("a:1, b:2");
        assert_eq!(config.bootstrap_servers, ["a:1", "b:2"]);
        assert_eq!(config.set("request.timeout.ms", "1500"), Ok(true));
        assert_eq!(config.request_timeout, Duration::from_millis(1500));
        assert_eq!(config.set("no.such.key", "1"), Ok(false));
        let error = config.set("retry.backoff.ms", "soon").unwrap_err();
        assert!(error.to_string().starts_with("retry.backoff.ms: \"soon\" is not a number"), "{error}");
    }

    #[test]
    fn servers_need_a_port() {
        assert!(ClientConfig::new("localhost:9092").validate().is_ok());
        assert!(ClientConfig::new("[::1]:9092").validate().is_ok());
        assert_eq!(ClientConfig::new("localhost").validate().unwrap_err().key, "bootstrap.servers");
        assert_eq!(ClientConfig::new("").validate().unwrap_err().key, "bootstrap.servers");
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let config = ClientConfig::new("a:1");
        for (attempt, wait_ms) in [(0, 100), (1, 200), (2, 400), (5, 1000), (4_000_000, 1000)] {
            let wait = config.backoff(attempt).as_millis();
            assert!((wait_ms * 8 / 10..=wait_ms * 12 / 10).contains(&wait), "{attempt}: {wait}");
        }
    }
}
