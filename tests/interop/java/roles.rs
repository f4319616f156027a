//! Nodes with one role, with the sample files of Apache Kafka's `config` folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_tests::{Broker, free_ports, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

use super::cluster::QUORUM;
use super::three_nodes::field;
use super::{TOPIC_COMMAND, Tools};

const PATIENCE: Duration = Duration::from_secs(60);

/// What Kafka's sample files have in common, apart from comments and sizes.
const COMMON: &str = "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\ncontroller.listener.names=CONTROLLER\nnum.network.threads=3\n\
num.io.threads=8\nsocket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
socket.request.max.bytes=104857600\nnum.partitions=1\nnum.recovery.threads.per.data.dir=1\n\
offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
share.coordinator.state.topic.min.isr=1\ntransaction.state.log.replication.factor=1\n\
transaction.state.log.min.isr=1\nlog.retention.hours=168\nlog.segment.bytes=1073741824\n\
log.retention.check.interval.ms=300000\n";

/// A cluster of nodes with one role each. The controllers have the first ids.
struct Nodes {
    controllers: Vec<Broker>,
    _brokers: Vec<Broker>,
    ports: Vec<u16>,
    _folder: TempDir,
}

impl Nodes {
    fn start(controllers: usize, brokers: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let ports = free_ports(controllers + brokers);
        let servers: Vec<String> = ports[..controllers].iter().map(|port| format!("localhost:{port}")).collect();
        let servers = servers.join(",");
        let file = |id: usize, text: &str| {
            let path = folder.path().join(format!("{id}.properties"));
            fs::write(&path, format!("{text}node.id={id}\ncontroller.quorum.bootstrap.servers={servers}\n{COMMON}"))
                .expect("written");
            path
        };
        let start = |path: &Path| {
            Broker::builder()
                .config(path)
                .allow("is a valid key of Kafka that has no effect here")
                .allow("cannot fetch from the leader")
                .start()
        };
        // A controller waits until a majority of them is up.
        let controllers: Vec<Broker> = std::thread::scope(|scope| {
            let started = (1..=controllers).map(|id| {
                let port = ports[id - 1];
                let path = file(
                    id,
                    &format!(
                        "process.roles=controller\nlisteners=CONTROLLER://:{port}\n\
                         advertised.listeners=CONTROLLER://localhost:{port}\n"
                    ),
                );
                scope.spawn(move || start(&path))
            });
            let started: Vec<_> = started.collect();
            started.into_iter().map(|one| one.join().expect("started")).collect()
        });
        let brokers = (controllers.len() + 1..=controllers.len() + brokers).map(|id| {
            let port = ports[id - 1];
            let path = file(
                id,
                &format!(
                    "process.roles=broker\nlisteners=PLAINTEXT://localhost:{port}\n\
                     inter.broker.listener.name=PLAINTEXT\nadvertised.listeners=PLAINTEXT://localhost:{port}\n"
                ),
            );
            start(&path)
        });
        Self { _brokers: brokers.collect(), controllers, ports, _folder: folder }
    }

    fn bootstrap(&self) -> String {
        self.ports[self.controllers.len()..]
            .iter()
            .map(|port| format!("localhost:{port}"))
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// Waits until `kafka-metadata-quorum` shows this many nodes of each status.
fn quorum_becomes(tools: &Tools, args: &[&str], followers: usize, observers: usize) -> String {
    wait_until("the nodes of the quorum", PATIENCE, || {
        let shown = tools.tool(QUORUM).args(args).args(["describe", "--replication"]).run().stdout;
        let counts = ["Leader", "Follower", "Observer"]
            .map(|status| shown.lines().filter(|line| line.split('\t').any(|field| field.trim() == status)).count());
        (counts == [1, followers, observers]).then_some(shown)
    })
}

/// Produces and consumes one record.
fn round_trip(tools: &Tools, nodes: &Nodes, topic: &str) {
    let produce = tools.tool("org.apache.kafka.tools.ConsoleProducer");
    produce.args(["--bootstrap-server", &nodes.bootstrap(), "--topic", topic]).input(b"hello\n").succeed();
    let consume = tools.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
    let args = ["--topic", topic, "--from-beginning", "--max-messages", "1", "--bootstrap-server"];
    assert_eq!(consume.args(args).arg(nodes.bootstrap()).succeed(), "hello\n");
}

pub(super) fn one_controller(tools: &Tools) {
    let mut nodes = Nodes::start(1, 2);
    let bootstrap = nodes.bootstrap();
    let brokers = ["--bootstrap-server", &bootstrap];
    quorum_becomes(tools, &brokers, 0, 2);
    let controller = format!("localhost:{}", nodes.ports[0]);
    quorum_becomes(tools, &["--bootstrap-controller", &controller], 0, 2);
    let topic = |args: &[&str]| tools.client_of(TOPIC_COMMAND, &bootstrap).args(args).succeed();
    topic(&["--create", "--topic", "t", "--partitions", "2", "--replication-factor", "2"]);
    let described = topic(&["--describe", "--topic", "t"]);
    assert!(described.lines().skip(1).all(|line| field(line, "Isr").len() == 3), "{described}");
    round_trip(tools, &nodes, "t");
    // Without the controller, brokers serve what they lead. It comes back with its metadata.
    nodes.controllers[0].stop(Signal::TERM);
    round_trip(tools, &nodes, "t");
    nodes.controllers[0].restart();
    topic(&["--create", "--topic", "later", "--replication-factor", "2"]);
    round_trip(tools, &nodes, "later");
}

pub(super) fn three_controllers(tools: &Tools) {
    let mut nodes = Nodes::start(3, 2);
    let bootstrap = nodes.bootstrap();
    let brokers = ["--bootstrap-server", &bootstrap];
    quorum_becomes(tools, &brokers, 2, 2);
    let status = tools.tool(QUORUM).args(brokers).args(["describe", "--status"]).succeed();
    let leader = status.lines().find_map(|line| line.strip_prefix("LeaderId:")).expect("a leader").trim().to_owned();
    let leader: usize = leader.parse().expect("an id");
    assert!(leader <= 3, "{status}");
    let topic = |args: &[&str]| tools.client_of(TOPIC_COMMAND, &bootstrap).args(args).succeed();
    topic(&["--create", "--topic", "t", "--replication-factor", "2"]);
    nodes.controllers[leader - 1].kill();
    topic(&["--create", "--topic", "later", "--replication-factor", "2"]);
    round_trip(tools, &nodes, "later");
    nodes.controllers[leader - 1].restart();
    quorum_becomes(tools, &brokers, 2, 2);
}
