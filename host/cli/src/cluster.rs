//! What the commands that talk to a cluster share: where it is, and how to wait for it.

use std::future::Future;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How long a call is tried again: a person waits for it. `-X default.api.timeout.ms=...` says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a broker that refuses connections is waited for: one that was started just now is there in that time.
const STARTING: Duration = Duration::from_secs(2);

/// How often it is tried, and how long a try may take.
const TRY_AGAIN: Duration = Duration::from_millis(100);
const DIAL: Duration = Duration::from_secs(1);

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Cluster {
    /// A broker to ask first; several are joined by commas
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,

    /// A setting of the client by Kafka's name, such as linger.ms=20; may be repeated
    #[arg(short = 'X', long = "property", value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

impl Cluster {
    /// The cluster with this broker.
    pub(crate) fn at(bootstrap_server: &str) -> Cluster {
        Cluster { bootstrap_server: bootstrap_server.to_owned(), properties: Vec::new() }
    }

    /// The same cluster for another client, which has other settings.
    pub(crate) fn without_properties(&self) -> Cluster {
        Cluster::at(&self.bootstrap_server)
    }

    /// Sees that somebody listens at one of the servers. The client would try for as long as a call may take, and a
    /// person would wait for what is not going to come. Whatever else may be wrong with a server is the client's to say.
    pub(crate) fn reach(&self) -> anyhow::Result<()> {
        const SET_BY_HAND: [&str; 3] = ["bootstrap.servers", "default.api.timeout.ms", "max.block.ms"];
        if self.properties.iter().any(|property| SET_BY_HAND.iter().any(|key| property.starts_with(key))) {
            return Ok(());
        }
        let give_up = Instant::now() + STARTING;
        while let Some(refusal) = self.refusal() {
            if Instant::now() >= give_up {
                let servers = &self.bootstrap_server;
                bail!("no broker answers at {servers}: {refusal}; `millstream serve` starts one, -b names another");
            }
            std::thread::sleep(TRY_AGAIN);
        }
        Ok(())
    }

    /// Why none of the servers can be connected to, if all of them are known to be away.
    fn refusal(&self) -> Option<std::io::Error> {
        let mut last = None;
        for server in self.bootstrap_server.split(',').map(str::trim) {
            let addresses = match server.to_socket_addrs() {
                Ok(addresses) => addresses,
                // Not HOST:PORT.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return None,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            for address in addresses {
                match TcpStream::connect_timeout(&address, DIAL) {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => last = Some(error),
                    _ => return None,
                }
            }
        }
        last
    }

    /// Applies the properties, each through `set`.
    pub(crate) fn apply<E: std::error::Error + Send + Sync + 'static>(
        &self,
        mut set: impl FnMut(&str, &str) -> Result<(), E>,
    ) -> anyhow::Result<()> {
        for property in &self.properties {
            let (key, value) = pair(property).with_context(|| format!("--property {property}"))?;
            set(key, value)?;
        }
        Ok(())
    }
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    let (key, value) = text.split_once('=').context("expected KEY=VALUE")?;
    anyhow::ensure!(!key.trim().is_empty(), "the key is empty in {text:?}; expected KEY=VALUE");
    Ok((key.trim(), value))
}

/// Runs a command's future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(future);
    // A thread that still waits for standard input must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

/// Ends when the command should: at Ctrl-C, or when the system says so.
pub(crate) async fn told_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// Text with `\t`, `\n`, `\0` and `\\` as one would write them in a shell.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        let plain = match letter {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('0') => '\0',
                Some('\\') | None => '\\',
                Some(other) => {
                    bytes.push(b'\\');
                    other
                }
            },
            letter => letter,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(pair("a=b=c").unwrap(), ("a", "b=c"));
        assert_eq!(pair("a=").unwrap(), ("a", ""));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn escapes_are_those_of_a_shell() {
        assert_eq!(unescape(r"a\tb\n\\t\x\"), b"a\tb\n\\t\\x\\");
        assert_eq!(unescape("é"), "é".as_bytes());
    }
}
