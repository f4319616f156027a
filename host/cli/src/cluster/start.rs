//! `millstream cluster start`: a cluster on this machine, for trying things out.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use millstream_client::{Admin, ClientConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::output;
use crate::runtime::StopSignals;

/// The file in the folder of a cluster that keeps the ports of its nodes.
const NODES: &str = "nodes.json";

/// The time for all nodes to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval of the looks at the nodes that start, and the time for one look.
const LOOK_AFTER: Duration = Duration::from_millis(50);
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Run a cluster on this machine. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    nodes: u16,

    /// The folder for the data of all nodes; without it, the data is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The port of the first node; the others take the next ones [default: free ports]
    #[arg(long)]
    port: Option<u16>,

    /// A config of every node; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Print a JSON object on one line when all nodes are ready
    #[arg(long)]
    json: bool,
}

/// The ports of a node.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Ports {
    clients: u16,
    nodes: u16,
}

/// A node that runs as a process of its own. It ends with its standard input, so it does not outlive this process.
struct Node {
    id: usize,
    ports: Ports,
    process: Child,
}

impl Start {
    /// Runs the cluster until SIGTERM or SIGINT.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let is_kept = self.dir.is_some();
        let folder = match &self.dir {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("millstream-cluster-{}", std::process::id())),
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let ended = self.run_in(&folder).await;
        if !is_kept {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        ended
    }

    async fn run_in(&self, folder: &Path) -> anyhow::Result<()> {
        let ports = self.ports(folder)?;
        let mut nodes = Vec::new();
        // One listener for both waits: a signal may come as soon as the addresses are printed.
        let mut signals = StopSignals::listen()?;
        let started = tokio::select! {
            started = self.start_all(folder, &ports, &mut nodes) => Some(started),
            () = signals.next() => None,
        };
        let ended = match started {
            Some(Ok(())) => {
                signals.next().await;
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        stop_all(&mut nodes);
        ended
    }

    /// Returns the ports of all nodes: those of the last start in the folder, or new ones.
    fn ports(&self, folder: &Path) -> anyhow::Result<Vec<Ports>> {
        let file = folder.join(NODES);
        let count = usize::from(self.nodes);
        let known: Vec<Ports> = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("cannot read {}", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        if known.len() > count {
            bail!(
                "{} has a cluster of {} nodes: start as many, or choose another --dir",
                folder.display(),
                known.len()
            );
        }
        let mut ports = known;
        // All are held until the last is chosen, so that they differ.
        let mut held = Vec::new();
        while ports.len() < count {
            ports.push(match self.port {
                Some(first) => {
                    let offset = u16::try_from(ports.len() * 2).unwrap_or(u16::MAX);
                    let clients = first.checked_add(offset).filter(|port| *port < u16::MAX);
                    let clients = clients.with_context(|| format!("there are no {count} ports from {first} on"))?;
                    Ports { clients, nodes: clients + 1 }
                }
                None => Ports { clients: free_port(&mut held)?, nodes: free_port(&mut held)? },
            });
        }
        let text = serde_json::to_vec(&ports)?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(ports)
    }

    /// Starts all nodes, waits until they are in the cluster, and prints where they are.
    async fn start_all(&self, folder: &Path, ports: &[Ports], nodes: &mut Vec<Node>) -> anyhow::Result<()> {
        for (id, own) in (1..).zip(ports.iter().copied()) {
            let process = self.command(folder, id, own, ports).spawn().context("cannot start a node")?;
            nodes.push(Node { id, ports: own, process });
        }
        let addresses: Vec<_> = ports.iter().map(|ports| local(ports.clients)).collect();
        let addresses = addresses.join(",");
        wait_until_joined(folder, nodes, &addresses).await?;
        self.print(folder, nodes, &addresses)?;
        Ok(())
    }

    fn print(&self, folder: &Path, nodes: &[Node], addresses: &str) -> std::io::Result<()> {
        let log = |id: usize| folder.join(format!("node-{id}.log")).display().to_string();
        if self.json {
            let node = |Node { id, ports, process }: &Node| {
                let (address, pid) = (local(ports.clients), process.id());
                json!({ "id": id, "address": address, "pid": pid, "log": log(*id) })
            };
            let nodes: Vec<_> = nodes.iter().map(node).collect();
            return output::line(&json!({ "bootstrap": addresses, "nodes": nodes }).to_string());
        }
        let mut out = output::stdout();
        for Node { id, ports, process } in nodes {
            writeln!(out, "node {id}: {}  pid {}  log {}", local(ports.clients), process.id(), log(*id))?;
        }
        writeln!(out, "cluster of {} ready: {addresses}", nodes.len())?;
        out.flush()
    }

    fn command(&self, folder: &Path, id: usize, own: Ports, all: &[Ports]) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("millstream"));
        let mut command = Command::new(program);
        command.args(["serve", "--until-stdin-ends", "--node-id", &id.to_string()]);
        command.args(["--listen", &local(own.clients), "--cluster-listen", &local(own.nodes)]);
        // The first one forms the cluster.
        for node in all {
            command.args(["--join", &local(node.nodes)]);
        }
        command.arg("--data-dir").arg(folder.join(format!("node-{id}")));
        let replicas = all.len().min(3);
        for (key, value) in [
            ("default.replication.factor", replicas),
            ("offsets.topic.replication.factor", replicas),
            ("min.insync.replicas", replicas.div_ceil(2)),
        ] {
            command.args(["--set", &format!("{key}={value}")]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        match File::create(folder.join(format!("node-{id}.log"))) {
            Ok(log) => command.stderr(log),
            Err(_) => command.stderr(Stdio::null()),
        };
        command
    }
}

fn free_port(held: &mut Vec<TcpListener>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    let port = listener.local_addr()?.port();
    held.push(listener);
    Ok(port)
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl Node {
    /// Fails if the process of the node has ended.
    fn check(&mut self, folder: &Path) -> anyhow::Result<()> {
        if self.process.try_wait()?.is_none() {
            return Ok(());
        }
        let log = fs::read_to_string(folder.join(format!("node-{}.log", self.id))).unwrap_or_default();
        bail!("node {} does not start: {}", self.id, log.lines().last().unwrap_or("it has no log"));
    }
}

/// Waits until the cluster has all nodes as voters and as brokers that are alive.
async fn wait_until_joined(folder: &Path, nodes: &mut [Node], bootstrap: &str) -> anyhow::Result<()> {
    let mut config = ClientConfig::new(bootstrap);
    config.default_api_timeout = LOOK_TIMEOUT;
    let admin = Admin::new(config)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        nodes.iter_mut().try_for_each(|node| node.check(folder))?;
        let described = admin.describe_cluster().await;
        let brokers = described.as_ref().map_or(&[][..], |cluster| &cluster.brokers);
        let alive = brokers.iter().filter(|broker| !broker.fenced).count();
        let votes = alive == nodes.len()
            && admin.describe_quorum().await.is_ok_and(|quorum| quorum.voters.len() == nodes.len());
        if votes {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{alive} of {} nodes are in the cluster after {} s", nodes.len(), START_TIMEOUT.as_secs());
        }
        tokio::time::sleep(LOOK_AFTER).await;
    }
}

/// Stops all nodes, each by the end of its input.
fn stop_all(nodes: &mut [Node]) {
    nodes.iter_mut().for_each(|node| drop(node.process.stdin.take()));
    for node in nodes {
        // A node that was killed has nothing to wait for.
        let _ = node.process.wait();
    }
}
