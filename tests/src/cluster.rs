//! A cluster under test: real processes on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Broker, BrokerBuilder, free_ports, wait_until};

/// How long a node may take to join. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The warnings of a node whose peers end or are paused.
const PEERS_FAIL: [&str; 5] = [
    "cannot fetch from the leader",
    "the leader has no listener for other brokers",
    "cannot follow its leader",
    "the node comes back without its log",
    "cannot write to __consumer_offsets: only",
];

/// The nodes of a cluster, from id 1 on. The first one forms it, and the others join.
pub struct Cluster {
    nodes: Vec<Broker>,
    /// The port of each node for other nodes.
    ports: Vec<u16>,
}

impl Cluster {
    /// Starts nodes with these configs, on top of three replicas for every topic.
    pub fn start(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_with(count, settings, |_, node| node)
    }

    /// Starts nodes as [`Self::start`] does. `more` configures each of them further, by its id.
    pub fn start_with(
        count: usize,
        settings: &[(&str, &str)],
        more: impl Fn(usize, BrokerBuilder) -> BrokerBuilder,
    ) -> Self {
        let ports = free_ports(count);
        let start = |(id, port): (usize, &u16)| more(id, Self::node(id, *port, ports[0], settings)).start();
        Self { nodes: (1..).zip(&ports).map(start).collect(), ports }.voting()
    }

    /// Waits until all nodes vote: until then, the end of one may leave no majority. And until all may lead partitions:
    /// those of a topic that is created before get other leaders than their first replicas.
    fn voting(self) -> Self {
        let wait = |node: &Broker, what, line| wait_until(what, PATIENCE, || node.log().contains(line).then_some(()));
        for node in &self.nodes[1..] {
            wait(node, "the node to vote", "is a voter of the quorum");
        }
        for node in &self.nodes {
            wait(node, "the node to lead", "changed fenced=false");
        }
        self
    }

    /// Returns the port at which other nodes reach a node.
    pub fn node_port(&self, id: i32) -> u16 {
        self.ports[usize::try_from(id).expect("an id") - 1]
    }

    /// Starts nodes that each run in a network namespace of their own, with an address of it.
    pub fn start_in(namespaces: &[(String, String)], settings: &[(&str, &str)]) -> Self {
        const PORTS: [u16; 2] = [9092, 9093];
        let first = format!("{}:{}", namespaces[0].1, PORTS[1]);
        let start = |(id, (namespace, host)): (usize, &(String, String))| {
            let [clients, nodes] = PORTS.map(|port| format!("{host}:{port}"));
            Self::node_at(id, &nodes, &first, settings).listen(&clients).namespace(namespace).start()
        };
        Self { nodes: (1..).zip(namespaces).map(start).collect(), ports: vec![PORTS[1]; namespaces.len()] }.voting()
    }

    /// Returns a node that listens on `port` for other nodes, and looks for the cluster at the port `first`.
    pub fn node(id: usize, port: u16, first: u16, settings: &[(&str, &str)]) -> BrokerBuilder {
        Self::node_at(id, &format!("127.0.0.1:{port}"), &format!("127.0.0.1:{first}"), settings)
    }

    fn node_at(id: usize, address: &str, first: &str, settings: &[(&str, &str)]) -> BrokerBuilder {
        let mut node = Broker::builder()
            .set("node.id", &id.to_string())
            .set("listeners", &format!("PLAINTEXT://127.0.0.1:0,NODES://{address}"))
            .set("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,NODES:PLAINTEXT")
            .set("controller.listener.names", "NODES")
            .set("controller.quorum.bootstrap.servers", first)
            .set("default.replication.factor", "3")
            .set("offsets.topic.replication.factor", "3")
            .set("offsets.topic.num.partitions", "4")
            .set("min.insync.replicas", "2")
            .set("group.initial.rebalance.delay.ms", "100");
        for (key, value) in settings {
            node = node.set(key, value);
        }
        PEERS_FAIL.into_iter().fold(node, BrokerBuilder::allow)
    }

    /// Returns the addresses of all nodes, as clients take them.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns a node by its id.
    pub fn node_of(&mut self, id: i32) -> &mut Broker {
        &mut self.nodes[usize::try_from(id).expect("an id") - 1]
    }

    /// Returns the address of a node.
    pub fn address(&self, id: i32) -> SocketAddr {
        self.nodes[usize::try_from(id).expect("an id") - 1].address()
    }

    /// Returns the data folder of a node.
    pub fn folder(&self, id: i32) -> &Path {
        self.nodes[usize::try_from(id).expect("an id") - 1].folder()
    }

    /// Gives stopped nodes other ports for other nodes. The configs of all stopped nodes name all ports.
    pub fn renumber(&mut self, ids: &[i32]) {
        for (id, port) in ids.iter().zip(free_ports(ids.len())) {
            self.ports[usize::try_from(*id).expect("an id") - 1] = port;
            let address = self.address(*id);
            self.node_of(*id).set("listeners", &format!("PLAINTEXT://{address},NODES://127.0.0.1:{port}"));
        }
        let servers: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        self.nodes.iter_mut().for_each(|node| node.set("controller.quorum.bootstrap.servers", &servers.join(",")));
    }

    /// Ends the process of a node with SIGKILL.
    pub fn kill(&mut self, id: i32) {
        self.node_of(id).kill();
    }

    /// Stops a node with SIGTERM, and waits for its end.
    pub fn stop(&mut self, id: i32) {
        let status = self.node_of(id).stop(Signal::TERM);
        assert!(status.success(), "node {id} stops with {status}");
    }

    /// Starts a node that was killed or stopped.
    pub fn restart(&mut self, id: i32) {
        self.node_of(id).restart();
    }

    /// Stops all nodes at the same moment with SIGTERM. Returns how long the last of them took.
    pub fn stop_all(&mut self) -> Duration {
        let begun = Instant::now();
        thread::scope(|scope| {
            for node in &mut self.nodes {
                scope.spawn(|| assert!(node.stop(Signal::TERM).success(), "a node stops with an error"));
            }
        });
        begun.elapsed()
    }

    /// Ends all processes with SIGKILL.
    pub fn kill_all(&mut self) {
        self.nodes.iter_mut().for_each(Broker::kill);
    }
}
