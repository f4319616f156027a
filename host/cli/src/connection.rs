//! The connection to a cluster: its address, the configs of its clients, and the wait for it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use millstream_client::plugins::PluginStore;
use millstream_client::{Admin, ClientConfig, ConfigError};

use crate::text;

/// The default of `default.api.timeout.ms` in this program: a user waits for the call.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The default of `default.api.timeout.ms` for changes of plug-ins: a broker compiles and probes them.
const PLUGIN_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for a broker that rejects connections because it is still starting.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval of the attempts in that time, and the timeout of one attempt.
const CONNECT_INTERVAL: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The address of the cluster, and configs of the client.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// A broker to connect to first; separate several by commas
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,

    /// A client config with Kafka's name, such as linger.ms=20; may be repeated
    #[arg(short = 'X', long = "property", value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

impl Connection {
    /// Returns a connection to this broker without configs.
    pub(crate) fn to(bootstrap_server: &str) -> Connection {
        Connection { bootstrap_server: bootstrap_server.to_owned(), properties: Vec::new() }
    }

    /// Returns a connection to the same cluster without configs, for a client of another kind.
    pub(crate) fn without_properties(&self) -> Connection {
        Connection::to(&self.bootstrap_server)
    }

    /// Returns an admin client, after a check that a broker accepts connections.
    pub(crate) fn admin(&self) -> anyhow::Result<Admin> {
        self.check_reachable()?;
        Ok(Admin::new(self.client_config()?)?)
    }

    /// Returns the store of the cluster's plug-ins, after a check that a broker accepts connections.
    pub(crate) fn plugin_store(&self) -> anyhow::Result<PluginStore> {
        self.check_reachable()?;
        let mut config = self.client_config()?;
        if config.default_api_timeout == CALL_TIMEOUT {
            config.default_api_timeout = PLUGIN_CALL_TIMEOUT;
        }
        Ok(PluginStore::new(config)?)
    }

    /// Returns the configs that every client has.
    pub(crate) fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let mut config = ClientConfig::new(&self.bootstrap_server);
        config.default_api_timeout = CALL_TIMEOUT;
        self.apply(|key, value| match config.set(key, value)? {
            true => Ok(()),
            false => Err(ConfigError { key: key.into(), message: "is not a config of the admin client".into() }),
        })?;
        Ok(config)
    }

    /// Sets each property through `set`.
    pub(crate) fn apply<E: std::error::Error + Send + Sync + 'static>(
        &self,
        mut set: impl FnMut(&str, &str) -> Result<(), E>,
    ) -> anyhow::Result<()> {
        for property in &self.properties {
            let (key, value) = text::pair(property).with_context(|| format!("--property {property}"))?;
            set(key, value)?;
        }
        Ok(())
    }

    /// Fails if all brokers reject connections. Without this check the client would retry for the whole timeout. It
    /// leaves all other errors to the client, and does nothing if the user has set a timeout.
    pub(crate) fn check_reachable(&self) -> anyhow::Result<()> {
        const SET_BY_USER: [&str; 3] = ["bootstrap.servers", "default.api.timeout.ms", "max.block.ms"];
        if self.properties.iter().any(|property| SET_BY_USER.iter().any(|key| property.starts_with(key))) {
            return Ok(());
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while let Some(error) = self.connect_error() {
            if Instant::now() >= deadline {
                let servers = &self.bootstrap_server;
                bail!(
                    "cannot connect to {servers}: {error}; start a broker with `millstream serve`, or name another one \
                     with -b"
                );
            }
            std::thread::sleep(CONNECT_INTERVAL);
        }
        Ok(())
    }

    /// Returns the last error if all brokers reject connections.
    fn connect_error(&self) -> Option<io::Error> {
        let mut last = None;
        for server in self.bootstrap_server.split(',').map(str::trim) {
            let addresses = match server.to_socket_addrs() {
                Ok(addresses) => addresses,
                // Not HOST:PORT.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return None,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            for address in addresses {
                match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => last = Some(error),
                    _ => return None,
                }
            }
        }
        last
    }
}
