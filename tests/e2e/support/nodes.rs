//! A cluster of real processes on this machine.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use millstream_tests::millstream;
use tempfile::TempDir;

/// How long a node may take to start and to join. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a cluster is formed if a node does not join.
const ATTEMPTS: usize = 3;

/// The ports of a node: for clients, and for the other nodes.
type Ports = [u16; 2];

/// Nodes with the ids 1, 2 and so on. Dropping them kills the processes and removes their folders.
pub(crate) struct Nodes {
    folder: TempDir,
    ports: Vec<Ports>,
    processes: Vec<Option<Child>>,
}

impl Nodes {
    /// Starts nodes that join the first one, and waits until each has joined.
    pub(crate) fn start(count: usize) -> Self {
        for _ in 1..ATTEMPTS {
            match Self::form(count) {
                Ok(nodes) => return nodes,
                Err(log) => eprintln!("a cluster is formed once more: {log}"),
            }
        }
        Self::form(count).unwrap_or_else(|log| panic!("{log}"))
    }

    fn form(count: usize) -> Result<Self, String> {
        // All ports are held until the last is chosen, so that they differ.
        let held: Vec<_> = (0..count * 2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |index: usize| held[index].local_addr().expect("bound").port();
        let ports = (0..count).map(|node| [port(2 * node), port(2 * node + 1)]).collect();
        drop(held);
        let folder = TempDir::new().expect("a folder");
        let mut nodes = Self { folder, ports, processes: (0..count).map(|_| None).collect() };
        (1..=count).try_for_each(|id| nodes.try_launch(id))?;
        Ok(nodes)
    }

    /// Starts a node that does not run.
    pub(crate) fn launch(&mut self, id: usize) {
        self.try_launch(id).unwrap_or_else(|log| panic!("{log}"));
    }

    /// Starts a node and waits until its listener is open. The error is its log.
    fn try_launch(&mut self, id: usize) -> Result<(), String> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let [clients, others] = self.ports[id - 1];
        let mut command = Command::new(millstream());
        command.args(["serve", "--node-id", &id.to_string(), "--listen", &address(clients)]);
        command.args(["--cluster-listen", &address(others), "--set", "offsets.topic.replication.factor=3"]);
        command.arg("--data-dir").arg(self.folder.path().join(format!("node-{id}")));
        if id > 1 {
            command.args(["--join", &address(self.ports[0][1])]);
        }
        let log = self.folder.path().join(format!("node-{id}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.processes[id - 1] = Some(process.expect("the node starts"));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address(clients)).is_err() {
            if Instant::now() > deadline {
                return Err(format!("node {id} does not start:\n{}", self.log(id)));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the process of a node with SIGKILL.
    pub(crate) fn kill(&mut self, id: usize) {
        let mut process = self.processes[id - 1].take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it has ended");
    }

    /// Returns the addresses of all nodes for clients.
    pub(crate) fn bootstrap(&self) -> String {
        self.ports.iter().map(|[clients, _]| format!("127.0.0.1:{clients}")).collect::<Vec<_>>().join(",")
    }

    /// Returns the log of a node.
    pub(crate) fn log(&self, id: usize) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("node-{id}.log"))).unwrap_or_default()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for mut process in self.processes.iter_mut().filter_map(Option::take) {
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            (1..=self.ports.len()).for_each(|id| eprintln!("node {id}:\n{}", self.log(id)));
        }
    }
}
