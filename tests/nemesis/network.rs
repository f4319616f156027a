//! Partitions of the network. Each node runs in a network namespace of its own.
//!
//! Namespaces need root and the program `ip`. Without them this test has nothing to run on, and says so.

use std::process::Command;
use std::time::{Duration, Instant};

use millstream_tests::Cluster;
use tokio::time::sleep;

use crate::faults::{TOPIC, assert_no_errors, controller, create, finish, leader_of, whole};
use crate::workload::Workload;

/// Set in the process that runs inside of the hub.
const INSIDE: &str = "MILLSTREAM_NEMESIS_HUB";

/// A hub with a bridge, for the clients, and a namespace for each node.
struct Network {
    prefix: String,
}

impl Network {
    const NODES: usize = 3;

    fn new(prefix: &str) -> Option<Self> {
        let network = Self { prefix: prefix.to_owned() };
        network.build().then_some(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn node(&self, id: i32) -> String {
        format!("{}-{id}", self.prefix)
    }

    fn address(id: i32) -> String {
        format!("10.77.0.{id}")
    }

    fn build(&self) -> bool {
        let hub = self.hub();
        let mut is_built = ip(&["netns", "add", &hub])
            && ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])
            && ip(&["-n", &hub, "addr", "add", "10.77.0.254/24", "dev", "bridge"])
            && ip(&["-n", &hub, "link", "set", "bridge", "up"])
            && ip(&["-n", &hub, "link", "set", "lo", "up"]);
        for id in 1..=Self::NODES as i32 {
            let (node, port, address) = (self.node(id), format!("port{id}"), format!("{}/24", Self::address(id)));
            is_built = is_built
                && ip(&["netns", "add", &node])
                && ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &node])
                && ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])
                && ip(&["-n", &node, "addr", "add", &address, "dev", "eth0"])
                && ip(&["-n", &node, "link", "set", "eth0", "up"])
                && ip(&["-n", &node, "link", "set", "lo", "up"]);
        }
        is_built
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for id in 1..=Self::NODES as i32 {
            ip(&["netns", "del", &self.node(id)]);
        }
        ip(&["netns", "del", &self.hub()]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Builds the network, and runs this test again inside of the hub.
#[test]
fn nothing_is_lost_when_the_network_is_cut() {
    if let Ok(prefix) = std::env::var(INSIDE) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(cut_the_network(&prefix));
    }
    let prefix = format!("mill{}", std::process::id());
    let Some(network) = Network::new(&prefix) else {
        return println!("not run: network namespaces need root and the program ip");
    };
    let test = std::env::current_exe().expect("a test knows its own path");
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &network.hub()]).arg(test);
    inside.args(["--exact", "network::nothing_is_lost_when_the_network_is_cut", "--nocapture"]);
    let status = inside.env(INSIDE, &prefix).status().expect("it can be started");
    assert!(status.success(), "inside of the network: {status}");
}

/// Which way packets of a node are dropped.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Nothing reaches the node, and nothing leaves it.
    Isolated,
    /// The node and the other two do not reach each other; clients reach all.
    FromNodes,
    /// The node cannot send to the other two; they can send to it.
    OneWay,
    /// The node and one other do not reach each other.
    FromOne,
}

async fn cut_the_network(prefix: &str) {
    let network = std::mem::ManuallyDrop::new(Network { prefix: prefix.to_owned() });
    let namespaces: Vec<_> = (1..=3).map(|id| (network.node(id), Network::address(id))).collect();
    let settings = [("broker.session.timeout.ms", "1500"), ("broker.heartbeat.interval.ms", "300")];
    let cluster = Cluster::start_in(&namespaces, &settings);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 100);
    let started = Instant::now();
    for (round, cut) in [Cut::Isolated, Cut::FromNodes, Cut::OneWay, Cut::FromOne].into_iter().enumerate() {
        sleep(Duration::from_millis(500)).await;
        let victim = if round % 2 == 0 { controller(&bootstrap).await } else { leader_of(&bootstrap, 0).await };
        let begun = Instant::now();
        apply(&network, cut, victim, true);
        sleep(Duration::from_secs(4)).await;
        apply(&network, cut, victim, false);
        whole(&bootstrap).await;
        println!(
            "{cut:?} of node {victim} from {:?} on: whole after {:?}",
            begun.duration_since(started),
            begun.elapsed()
        );
    }
    assert_no_errors(&finish(&cluster, workload).await);
}

fn apply(network: &Network, cut: Cut, victim: i32, is_cut: bool) {
    let others = (1..=3).filter(|id| *id != victim);
    let drop = |at: i32, to: i32| {
        let verb = if is_cut { "add" } else { "del" };
        let route = format!("{}/32", Network::address(to));
        assert!(ip(&["-n", &network.node(at), "route", verb, "blackhole", &route]), "{verb} {at} to {to}");
    };
    match cut {
        Cut::Isolated => {
            let state = if is_cut { "down" } else { "up" };
            assert!(ip(&["-n", &network.hub(), "link", "set", &format!("port{victim}"), state]));
        }
        Cut::FromNodes => others.for_each(|other| {
            drop(victim, other);
            drop(other, victim);
        }),
        Cut::OneWay => others.for_each(|other| drop(victim, other)),
        Cut::FromOne => {
            let other = victim % 3 + 1;
            drop(victim, other);
            drop(other, victim);
        }
    }
}
