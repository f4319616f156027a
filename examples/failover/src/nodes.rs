//! The nodes: the real binary, one process for each.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The configs of every node: three copies of everything, and a write counts when two nodes have it.
const CONFIGS: [&str; 4] = [
    "default.replication.factor=3",
    "offsets.topic.replication.factor=3",
    "offsets.topic.num.partitions=3",
    "min.insync.replicas=2",
];

/// A node, ended when this is dropped.
pub(crate) struct Node {
    id: i32,
    process: Child,
    /// The address for clients.
    pub(crate) clients: String,
    /// The address for the other nodes.
    pub(crate) nodes: String,
}

impl Node {
    /// Starts a node on free ports. Without the address of another node in `join` it forms a cluster.
    ///
    /// # Errors
    /// The node does not start.
    pub(crate) fn start(id: i32, join: Option<&str>, work: &Path) -> Result<Self> {
        Self::start_at(id, "127.0.0.1:0", "127.0.0.1:0", join, work)
    }

    fn start_at(id: i32, clients: &str, nodes: &str, join: Option<&str>, work: &Path) -> Result<Self> {
        let log = log_of(id, work)?;
        let mut command = Command::new("millstream");
        command.args(["serve", "--node-id", &id.to_string(), "--listen", clients, "--cluster-listen", nodes]);
        command.arg("--data-dir").arg(work.join(format!("node-{id}")));
        for config in CONFIGS {
            command.args(["--set", config]);
        }
        if let Some(join) = join {
            command.args(["--join", join]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().context("cannot start the program millstream")?;
        let output = process.stdout.take().context("the standard output is a pipe")?;
        let mut lines = BufReader::new(output).lines();
        match (address(&mut lines), address(&mut lines)) {
            (Some(clients), Some(nodes)) => Ok(Self { id, process, clients, nodes }),
            _ => {
                process.kill().ok();
                process.wait().ok();
                bail!("node {id} does not start")
            }
        }
    }

    /// Ends the process with SIGKILL.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts a node that was killed, with its data and its addresses.
    ///
    /// # Errors
    /// The node does not start.
    pub(crate) fn restart(&mut self, join: &str, work: &Path) -> Result<()> {
        *self = Self::start_at(self.id, &self.clients, &self.nodes, Some(join), work)?;
        Ok(())
    }

    /// Returns the id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its data is removed next, so it need not stop in order.
        self.kill().ok();
    }
}

fn address(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    Some(lines.next()?.ok()?.strip_prefix("listening on ")?.to_owned())
}

fn log_of(id: i32, work: &Path) -> Result<File> {
    let path = work.join(format!("node-{id}.log"));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the last lines of each node's log, for an example that has failed.
pub(crate) fn print_logs(ids: impl Iterator<Item = i32>, work: &Path) {
    const LINES: usize = 20;
    for id in ids {
        let log = std::fs::read_to_string(work.join(format!("node-{id}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the end of the log of node {id}:");
        lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| eprintln!("  {line}"));
    }
}
