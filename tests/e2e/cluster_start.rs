//! `millstream cluster start`: a cluster on this machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use millstream_tests::{Tool, millstream};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A cluster that runs until it is stopped.
struct Started {
    process: Child,
    bootstrap: String,
}

impl Started {
    /// Starts a cluster, and waits until it is ready.
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(millstream());
        command.args(["cluster", "start", "--set", "num.partitions=3", "--dir"]).arg(folder);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines: Vec<String> = BufReader::new(process.stdout.take().expect("a pipe"))
            .lines()
            .map(|line| line.expect("text"))
            .inspect(|line| println!("{line}"))
            .take(4)
            .collect();
        let ready = lines.last().and_then(|line| line.strip_prefix("cluster of 3 ready: "));
        let bootstrap = ready.unwrap_or_else(|| panic!("it is not ready: {lines:?}")).to_owned();
        Self { process, bootstrap }
    }

    fn run(&self, arguments: &[&str]) -> String {
        Tool::new(millstream()).args(arguments).args(["-b", &self.bootstrap]).succeed()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it runs");
        assert!(self.process.wait().expect("it ends").success());
    }
}

#[test]
fn where_the_nodes_are_is_printed_as_json() {
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(millstream());
    command.args(["cluster", "start", "--nodes", "1", "--json", "--dir"]).arg(folder.path());
    let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
    let printed: Value = serde_json::from_str(&line).expect("a JSON object");
    let node = &printed["nodes"][0];
    assert_eq!((&node["id"], &node["address"]), (&Value::from(1), &printed["bootstrap"]), "{printed}");
    assert!(node["pid"].is_u64() && Path::new(node["log"].as_str().expect("a path")).exists(), "{printed}");
    let stopped = Started { process, bootstrap: String::new() };
    stopped.stop();
}

#[test]
fn three_nodes_are_one_cluster_that_can_be_stopped_and_started() {
    let folder = TempDir::new().expect("a folder");
    let first = Started::start(folder.path());
    let described = first.run(&["cluster", "describe", "--json"]);
    let described: Value = serde_json::from_str(&described).expect("a JSON object");
    let nodes = described["nodes"].as_array().expect("a list");
    let states: Vec<(i64, &str)> =
        nodes.iter().map(|node| (node["id"].as_i64().expect("an id"), node["state"].as_str().expect("text"))).collect();
    assert_eq!(states, [(1, "alive"), (2, "alive"), (3, "alive")]);
    first.run(&["topic", "create", "orders"]);
    let topic = first.run(&["topic", "describe", "orders"]);
    assert!(topic.contains("PartitionCount: 3") && topic.contains("ReplicationFactor: 3"), "{topic}");
    let addresses = first.bootstrap.clone();
    first.stop();

    let again = Started::start(folder.path());
    assert_eq!(again.bootstrap, addresses);
    assert_eq!(again.run(&["topic", "list"]), "orders\n");
    again.stop();
}
