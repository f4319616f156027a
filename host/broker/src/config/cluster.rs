//! How a node takes part in a cluster: the listener for other nodes, and where to find them.

use std::time::Duration;

use super::broker_keys as keys;
use super::listeners::{HostPort, ListenerConfig, reachable};
use super::{ConfigError, RawConfig, Reader};

/// The name of the listener for nodes that flags open.
const LISTENER: &str = "CLUSTER";

/// A node of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterConfig {
    /// The index of the listener for other nodes.
    pub(crate) listener: usize,
    /// Where nodes of the cluster are, this one possibly among them.
    pub(crate) servers: Vec<Server>,
    /// Whether the node votes in the quorum.
    pub(crate) votes: bool,
    /// Whether the node stores records and serves clients.
    pub(crate) is_broker: bool,
    /// Whether the listener for other nodes is on a free port, since the configuration names none.
    pub(crate) has_free_port: bool,
    /// `broker.session.timeout.ms`
    pub(crate) session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`
    pub(crate) heartbeat_interval: Duration,
    /// The interval of `auto.leader.rebalance.enable`.
    pub(crate) balance_interval: Option<Duration>,
}

/// A node of `controller.quorum.voters` or `controller.quorum.bootstrap.servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its id, if the config names it.
    pub(crate) id: Option<i32>,
    /// The address of its listener for nodes.
    pub(crate) address: HostPort,
}

/// Flags that make a node part of a cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterFlags {
    /// `--node-id`
    pub node_id: Option<i32>,
    /// `--join`: the addresses of nodes of a cluster.
    pub join: Vec<HostPort>,
    /// `--cluster-listen`: the address for other nodes.
    pub listen: Option<HostPort>,
}

impl RawConfig {
    /// Applies the flags that make a node part of a cluster: they add a listener for nodes. `clients` is the value of
    /// `--listen`.
    ///
    /// # Errors
    /// A flag contradicts the keys of the quorum, or the address for other nodes is not known.
    pub fn with_cluster_flags(mut self, flags: ClusterFlags, clients: Option<&HostPort>) -> Result<Self, ConfigError> {
        if let Some(id) = flags.node_id {
            self.set(keys::NODE_ID.row.name, &id.to_string())?;
        }
        if flags.join.is_empty() && flags.listen.is_none() {
            return Ok(self);
        }
        let read = Reader { values: &self.values };
        if is_configured(&read) || !read.get(keys::CONTROLLER_LISTENER_NAMES).is_empty() {
            return Err(ConfigError(
                "--join and --cluster-listen cannot be combined with the controller.* keys: use one of the two"
                    .to_owned(),
            ));
        }
        let listeners = read.get(keys::LISTENERS).join(",");
        let listen = match (flags.listen, clients) {
            (Some(listen), _) => listen,
            // As in Kafka's examples: 9092 for clients, 9093 for nodes.
            (None, Some(HostPort { host, port: port @ 1..=65534 })) => HostPort { host: host.clone(), port: port + 1 },
            _ => {
                return Err(ConfigError(
                    "--join needs an address for other nodes: set --listen to a port, or set --cluster-listen"
                        .to_owned(),
                ));
            }
        };
        let servers = if flags.join.is_empty() { vec![listen.clone()] } else { flags.join };
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let map = read.get(keys::LISTENER_SECURITY_PROTOCOL_MAP);
        let map = format!("{map},{LISTENER}:PLAINTEXT");
        self.set(keys::LISTENERS.row.name, &format!("{listeners},{LISTENER}://{listen}"))?;
        self.set(keys::LISTENER_SECURITY_PROTOCOL_MAP.row.name, &map)?;
        self.set(keys::CONTROLLER_LISTENER_NAMES.row.name, LISTENER)?;
        self.set(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS.row.name, &servers.join(","))?;
        Ok(self)
    }
}

/// The roles of `process.roles`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roles {
    pub(super) is_broker: bool,
    pub(super) votes: bool,
}

/// Returns the roles of the node: without the key it has both.
pub(super) fn roles(read: &Reader<'_>) -> Roles {
    let roles = read.get(keys::PROCESS_ROLES);
    let has = |role: &str| roles.as_ref().is_none_or(|roles| roles.contains(&role));
    Roles { is_broker: has("broker"), votes: has("controller") }
}

/// Returns whether the configuration names nodes of a cluster.
pub(super) fn is_configured(read: &Reader<'_>) -> bool {
    let named = |list: Vec<&str>| list.iter().any(|entry| !entry.is_empty());
    named(read.get(keys::CONTROLLER_QUORUM_VOTERS)) || named(read.get(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS))
}

pub(super) fn from_values(
    read: &Reader<'_>,
    listeners: &mut Vec<ListenerConfig>,
) -> Result<Option<ClusterConfig>, ConfigError> {
    let Roles { is_broker, votes } = roles(read);
    if !is_configured(read) {
        return match is_broker {
            true => Ok(None),
            false => Err(ConfigError(
                "process.roles=controller needs the nodes of the quorum: name them in \
                 controller.quorum.bootstrap.servers"
                    .to_owned(),
            )),
        };
    }
    let (listener, has_free_port) = node_listener(read, listeners, votes)?;
    let servers = servers(read)?;
    let id = read.node_id()?;
    if !votes && servers.iter().all(|server| server.id == Some(id)) {
        return Err(ConfigError(
            "process.roles=broker leaves no voter: name the nodes of the quorum in controller.quorum.bootstrap.servers"
                .to_owned(),
        ));
    }
    let interval = Duration::from_secs(read.get(keys::LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS).unsigned_abs());
    Ok(Some(ClusterConfig {
        listener,
        servers,
        votes,
        is_broker,
        has_free_port,
        session_timeout: read.millis(keys::BROKER_SESSION_TIMEOUT_MS),
        heartbeat_interval: read.millis(keys::BROKER_HEARTBEAT_INTERVAL_MS),
        balance_interval: Some(interval).filter(|_| read.get(keys::AUTO_LEADER_REBALANCE_ENABLE)),
    }))
}

/// Returns the index of the listener for other nodes, and whether it is on a free port. As in Kafka, a node that does
/// not vote may have none in its configuration.
fn node_listener(
    read: &Reader<'_>,
    listeners: &mut Vec<ListenerConfig>,
    votes: bool,
) -> Result<(usize, bool), ConfigError> {
    let names = read.get(keys::CONTROLLER_LISTENER_NAMES);
    if let Some(index) = listeners.iter().position(|listener| names.contains(&listener.name.as_str())) {
        return Ok((index, false));
    }
    let name = names.first().filter(|name| !votes && !name.is_empty()).ok_or_else(|| {
        ConfigError(
            "a node of a cluster needs a listener for other nodes: name one of `listeners` in \
             controller.listener.names"
                .to_owned(),
        )
    })?;
    let mut listener = ListenerConfig { name: (*name).to_owned(), ..listeners[0].clone() };
    take_free_port(&mut listener, &listeners[0]);
    listeners.push(listener);
    Ok((listeners.len() - 1, true))
}

/// Puts a listener on a free port beside another listener.
pub(super) fn take_free_port(listener: &mut ListenerConfig, beside: &ListenerConfig) {
    let free = |address: &HostPort| HostPort { host: address.host.clone(), port: 0 };
    (listener.bind, listener.advertised) = (free(&beside.bind), beside.advertised.as_ref().map(free));
}

/// Checks that other nodes and clients can reach each listener of a node of a cluster.
///
/// # Errors
/// A listener without an address in `advertised.listeners` listens on every address.
pub(super) fn check_reachable(listeners: &[ListenerConfig]) -> Result<(), ConfigError> {
    let mut without_address = listeners.iter().filter(|listener| listener.advertised.is_none());
    match without_address.find(|listener| is_everywhere(&listener.bind.host)) {
        Some(everywhere) => Err(ConfigError(format!(
            "listener {} listens on every address, and other nodes have to know one: set it in advertised.listeners",
            everywhere.name
        ))),
        None => Ok(()),
    }
}

fn is_everywhere(host: &str) -> bool {
    host.is_empty() || host == "0.0.0.0" || host == "::"
}

fn servers(read: &Reader<'_>) -> Result<Vec<Server>, ConfigError> {
    let mut servers = Vec::new();
    let voters = read.get(keys::CONTROLLER_QUORUM_VOTERS);
    for entry in voters.iter().filter(|entry| !entry.is_empty()) {
        let bad = || ConfigError(format!("bad value `{entry}` for controller.quorum.voters: expected ID@HOST:PORT"));
        let (id, address) = entry.split_once('@').ok_or_else(bad)?;
        let id = id.parse().ok().filter(|id: &i32| *id >= 0).ok_or_else(bad)?;
        let address = reachable("controller.quorum.voters", address.parse().map_err(|_| bad())?)?;
        servers.push(Server { id: Some(id), address });
    }
    let bootstrap = read.get(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS);
    for entry in bootstrap.iter().filter(|entry| !entry.is_empty()) {
        let address: HostPort = entry.parse().map_err(|error| {
            ConfigError(format!("bad value `{entry}` for controller.quorum.bootstrap.servers: {error}"))
        })?;
        // A node that takes a free port can only mean itself by port 0.
        servers.push(Server { id: (address.port == 0).then(|| read.node_id()).transpose()?, address });
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BrokerConfig, Flags};

    fn checked(pairs: &[&str]) -> Result<BrokerConfig, ConfigError> {
        let mut raw = RawConfig::default();
        pairs.iter().try_for_each(|pair| raw.set_pair(pair))?;
        raw.check()?.with_flags(Flags::default())
    }

    const NODE: [&str; 4] = [
        "listeners=PLAINTEXT://a:9092,NODES://a:9093",
        "controller.listener.names=NODES",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,NODES:PLAINTEXT",
        "node.id=1",
    ];

    #[test]
    fn the_keys_of_kafka_make_a_node_of_a_cluster() {
        let pairs = [
            &NODE[..],
            &[
                "controller.quorum.voters=1@a:9093,2@b:9093",
                "process.roles=broker",
                "broker.session.timeout.ms=700",
                "broker.heartbeat.interval.ms=70",
                "leader.imbalance.check.interval.seconds=9",
            ],
        ]
        .concat();
        let cluster = checked(&pairs).expect("good").cluster.expect("a cluster");
        assert_eq!((cluster.listener, cluster.votes), (1, false));
        let server = |id, text: &str| Server { id: Some(id), address: text.parse().expect("an address") };
        assert_eq!(cluster.servers, [server(1, "a:9093"), server(2, "b:9093")]);
        assert_eq!(cluster.session_timeout, Duration::from_millis(700));
        assert_eq!(cluster.heartbeat_interval, Duration::from_millis(70));
        assert_eq!(cluster.balance_interval, Some(Duration::from_secs(9)));
        let unbalanced = [&pairs[..], &["auto.leader.rebalance.enable=false"]].concat();
        assert_eq!(checked(&unbalanced).expect("good").cluster.expect("a cluster").balance_interval, None);
        assert!(checked(&NODE).expect("good").cluster.is_none(), "without other nodes it is alone");
    }

    #[test]
    fn a_node_with_one_role_has_the_listeners_of_it() {
        let servers = "controller.quorum.bootstrap.servers=a:9093";
        let controller = ["process.roles=controller", "listeners=NODES://a:9093", "controller.listener.names=NODES"];
        let config = checked(&[&controller[..], &[servers]].concat()).expect("good");
        let cluster = config.cluster.expect("a cluster");
        assert_eq!((config.listeners.len(), cluster.listener, cluster.votes, cluster.is_broker), (1, 0, true, false));
        let broker = ["process.roles=broker", "listeners=PLAINTEXT://:9092", "controller.listener.names=NODES"];
        let advertised = "advertised.listeners=PLAINTEXT://b:9092";
        let config = checked(&[&broker[..], &[servers, advertised, "node.id=2"]].concat()).expect("good");
        let cluster = config.cluster.expect("a cluster");
        assert_eq!((config.listeners.len(), cluster.listener, cluster.votes, cluster.is_broker), (2, 1, false, true));
        let nodes = &config.listeners[1];
        assert_eq!((nodes.name.as_str(), nodes.bind.to_string().as_str()), ("NODES", ":0"));
        assert_eq!(nodes.advertised.as_ref().map(ToString::to_string).as_deref(), Some("b:0"));
    }

    #[test]
    fn what_cannot_work_is_rejected_by_name() {
        let servers = "controller.quorum.bootstrap.servers=b:9093";
        for (pairs, part) in [
            (vec!["process.roles=controller"], "PLAINTEXT is for clients"),
            ([&NODE[..], &["process.roles=controller"]].concat(), "PLAINTEXT is for clients"),
            ([&NODE[..], &["process.roles=controller", "listeners=NODES://a:9093"]].concat(), "needs the nodes"),
            (vec![servers], "controller.listener.names"),
            (vec![servers, "controller.listener.names=NODES"], "controller.listener.names"),
            (
                [&NODE[..], &[servers, "listeners=PLAINTEXT://:9092,NODES://a:9093"]].concat(),
                "listener PLAINTEXT listens on every address",
            ),
            ([&NODE[..], &["controller.quorum.voters=a:9093"]].concat(), "expected ID@HOST:PORT"),
            ([&NODE[..], &["controller.quorum.voters=1@a:9093", "process.roles=broker"]].concat(), "leaves no voter"),
            ([&NODE[..], &["controller.quorum.bootstrap.servers=b"]].concat(), "HOST:PORT"),
        ] {
            let message = checked(&pairs).expect_err("rejected").to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn flags_add_a_listener_for_nodes() {
        let listen = "127.0.0.1:9192".parse::<HostPort>().expect("an address");
        let flags =
            ClusterFlags { node_id: Some(2), join: vec!["127.0.0.1:9093".parse().expect("an address")], listen: None };
        let raw = RawConfig::default().with_cluster_flags(flags.clone(), Some(&listen)).expect("good");
        let config = raw.check().expect("good");
        assert_eq!(config.node_id, 2);
        assert_eq!(config.listeners[1].bind.to_string(), "127.0.0.1:9193");
        assert_eq!(config.inter_broker_listener, Some(1));
        assert_eq!(config.cluster.expect("a cluster").servers[0].address.port, 9093);
        let everywhere = "0.0.0.0:9192".parse::<HostPort>().expect("an address");
        let raw = RawConfig::default().with_cluster_flags(flags.clone(), Some(&listen)).expect("good");
        let listens = |advertise| {
            let flags = Flags { listen: Some(everywhere.clone()), advertise, ..Flags::default() };
            raw.clone().check().expect("good").with_flags(flags)
        };
        let error = listens(None).expect_err("no address").to_string();
        assert!(error.contains("listener PLAINTEXT listens on every address"), "{error}");
        listens(Some(listen.clone())).expect("an address");
        let error = RawConfig::default().with_cluster_flags(flags.clone(), None).expect_err("no port").to_string();
        assert!(error.contains("--cluster-listen"), "{error}");
        let mut raw = RawConfig::default();
        raw.set_pair("controller.quorum.voters=1@a:9093").expect("good");
        let error = raw.with_cluster_flags(flags, Some(&listen)).expect_err("both").to_string();
        assert!(error.contains("controller.* keys"), "{error}");
    }
}
