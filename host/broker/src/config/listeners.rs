//! `listeners` and `advertised.listeners`.

use std::fmt;
use std::str::FromStr;

use super::broker_keys as keys;
use super::key::TypedKey;
use super::value::ConfigType;
use super::{ConfigError, Reader, cluster, list};

/// A host and a port, `HOST:PORT`; an IPv6 address is in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address. For listening, an empty host means all addresses.
    pub host: String,
    /// The port. For listening, 0 takes a free one.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError(format!("`{text}` is not of the form HOST:PORT"));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        if bare.is_none() && host.contains([':', '/', '[', ']', ' ']) {
            return Err(bad());
        }
        let port = port.parse().map_err(|_| bad())?;
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name, for example `PLAINTEXT`.
    pub name: String,
    /// The address that it listens on.
    pub bind: HostPort,
    /// The address that clients get for it; `None` is the address that they connected to.
    pub advertised: Option<HostPort>,
}

/// Reads the listeners of the configuration. A node that is alone opens none for other nodes.
pub(super) fn from_values(read: &Reader<'_>, in_cluster: bool) -> Result<Vec<ListenerConfig>, ConfigError> {
    let controllers = read.get(keys::CONTROLLER_LISTENER_NAMES);
    let is_broker = cluster::roles(read).is_broker;
    let is_skipped = |name: &String| !in_cluster && is_broker && controllers.contains(&name.as_str());
    let mut found: Vec<ListenerConfig> = Vec::new();
    for (name, bind) in named(keys::LISTENERS, &read.get(keys::LISTENERS))? {
        if is_skipped(&name) {
            continue;
        }
        require_plaintext(read, &name)?;
        if found.iter().any(|listener| listener.name == name) {
            return Err(ConfigError(format!("bad value for listeners: {name} is listed twice")));
        }
        found.push(ListenerConfig { name, bind, advertised: None });
    }
    let mut for_clients = found.iter().filter(|listener| !controllers.contains(&listener.name.as_str()));
    match (for_clients.next(), is_broker) {
        (None, true) => return Err(ConfigError("bad value for listeners: none of them is for clients".to_owned())),
        (Some(ListenerConfig { name, .. }), false) => {
            return Err(ConfigError(format!(
                "bad value for listeners: {name} is for clients, and process.roles=controller has no clients; name it \
                 in controller.listener.names or remove it"
            )));
        }
        _ => {}
    }
    let advertised = read.get(keys::ADVERTISED_LISTENERS).unwrap_or_default();
    for (name, address) in named(keys::ADVERTISED_LISTENERS, &advertised)? {
        if is_skipped(&name) {
            continue;
        }
        let listener = found
            .iter_mut()
            .find(|listener| listener.name == name)
            .ok_or_else(|| ConfigError(format!("bad value for advertised.listeners: {name} is not in listeners")))?;
        listener.advertised = Some(reachable("advertised.listeners", address)?);
    }
    Ok(found)
}

/// Returns the index of the listener for other brokers, if one is configured.
pub(super) fn inter_broker(read: &Reader<'_>, listeners: &[ListenerConfig]) -> Result<Option<usize>, ConfigError> {
    let Some(name) = read.get(keys::INTER_BROKER_LISTENER_NAME) else { return Ok(None) };
    let found = listeners.iter().position(|listener| listener.name == name);
    let unknown = || ConfigError(format!("bad value for inter.broker.listener.name: {name} is not in listeners"));
    found.map(Some).ok_or_else(unknown)
}

/// Returns an address for clients, if it is one that they can connect to.
pub(super) fn reachable(option: &str, address: HostPort) -> Result<HostPort, ConfigError> {
    if address.host.is_empty() || address.host == "0.0.0.0" || address.host == "::" || address.port == 0 {
        return Err(ConfigError(format!("bad value for {option}: clients cannot connect to `{address}`")));
    }
    Ok(address)
}

fn named<T: ConfigType>(key: TypedKey<T>, entries: &[&str]) -> Result<Vec<(String, HostPort)>, ConfigError> {
    let key = key.row.name;
    let parse = |entry: &str| {
        let (name, address) = entry
            .split_once("://")
            .ok_or_else(|| ConfigError(format!("bad value `{entry}` for {key}: expected NAME://HOST:PORT")))?;
        let address = address
            .parse::<HostPort>()
            .map_err(|error| ConfigError(format!("bad value `{entry}` for {key}: {error}")))?;
        Ok((name.to_owned(), address))
    };
    entries.iter().copied().map(parse).collect()
}

fn require_plaintext(read: &Reader<'_>, name: &str) -> Result<(), ConfigError> {
    let map = read.get(keys::LISTENER_SECURITY_PROTOCOL_MAP);
    let is_default = !read.values.contains_key(keys::LISTENER_SECURITY_PROTOCOL_MAP.row.name);
    let protocol = list(map)
        .into_iter()
        .filter_map(|entry| entry.split_once(':'))
        .find(|(listener, _)| *listener == name)
        .map(|(_, protocol)| protocol);
    match protocol {
        Some("PLAINTEXT") => Ok(()),
        Some(other) => Err(ConfigError(format!(
            "listener {name} asks for {other}, and only PLAINTEXT listeners are supported so far"
        ))),
        // As in Kafka, a configuration without the key needs none for the listener of the quorum.
        None if is_default && read.get(keys::CONTROLLER_LISTENER_NAMES).contains(&name) => Ok(()),
        None => Err(ConfigError(format!("listener {name} is not in listener.security.protocol.map"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RawConfig;
    use super::*;

    fn listeners(pairs: &[&str]) -> Result<Vec<ListenerConfig>, ConfigError> {
        let mut raw = RawConfig::default();
        for pair in pairs {
            raw.set_pair(pair)?;
        }
        raw.check().map(|config| config.listeners)
    }

    #[test]
    fn host_and_port() {
        assert_eq!("[::1]:9".parse(), Ok(HostPort { host: "::1".to_owned(), port: 9 }));
        assert_eq!(HostPort { host: "::1".to_owned(), port: 9 }.to_string(), "[::1]:9");
        assert_eq!(":9092".parse(), Ok(HostPort { host: String::new(), port: 9092 }));
        for bad in ["localhost", "a:b", "a:99999", "::1:9", "http://a:1", ""] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn several_listeners_with_their_own_addresses() {
        let found = listeners(&[
            "listeners=IN://0.0.0.0:19092,OUT://:9092",
            "advertised.listeners=IN://broker:19092,OUT://localhost:9092",
            "listener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT",
        ])
        .expect("good");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].advertised.as_ref().map(ToString::to_string), Some("localhost:9092".to_owned()));
    }

    #[test]
    fn the_listener_of_the_quorum_is_plaintext_by_default() {
        let node = [
            "listeners=PLAINTEXT://a:9092,NODES://a:9093",
            "controller.listener.names=NODES",
            "controller.quorum.bootstrap.servers=a:9093",
        ];
        assert_eq!(listeners(&node).expect("good").len(), 2);
        let with_map = [&node[..], &["listener.security.protocol.map=PLAINTEXT:PLAINTEXT"]].concat();
        let error = listeners(&with_map).expect_err("it is not in the map").to_string();
        assert!(error.contains("listener NODES is not in listener.security.protocol.map"), "{error}");
    }

    #[test]
    fn listeners_that_cannot_be_served_are_rejected() {
        for (pairs, part) in [
            (&["listeners=SSL://:9093"][..], "only PLAINTEXT"),
            (&["listeners=OTHER://:9093"], "listener.security.protocol.map"),
            (&["listeners=localhost:9092"], "NAME://HOST:PORT"),
            (&["listeners=PLAINTEXT://:1,PLAINTEXT://:2"], "listed twice"),
            (&["advertised.listeners=PLAINTEXT://0.0.0.0:9092"], "cannot connect"),
            (&["advertised.listeners=PLAINTEXT://a:0"], "cannot connect"),
            (&["advertised.listeners=X://a:9092"], "not in listeners"),
            (&["controller.listener.names=PLAINTEXT"], "for clients"),
        ] {
            let message = listeners(pairs).expect_err("refused").to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
