//! The tools for topics, moves, elections and the quorum against a cluster of three.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use millstream_tests::{Cluster, wait_until};
use tempfile::TempDir;

use super::cluster::{FEATURES, LEADER_ELECTION, LOG_DIRS, QUORUM, REASSIGN, said};
use super::performance::PRODUCER;
use super::{TOPIC_COMMAND, Tools};

const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const VERIFICATION: &str = "org.apache.kafka.tools.ReplicaVerificationTool";

/// The time for a cluster to be whole again.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and the tools that talk to it.
pub(super) struct Nodes<'a> {
    pub(super) cluster: Cluster,
    pub(super) bootstrap: String,
    pub(super) tools: &'a Tools,
}

impl<'a> Nodes<'a> {
    fn start(tools: &'a Tools) -> Self {
        Self::of(Cluster::start(3, &[]), tools)
    }

    pub(super) fn of(cluster: Cluster, tools: &'a Tools) -> Self {
        Self { bootstrap: cluster.bootstrap(), cluster, tools }
    }

    /// Runs a tool to its end, and returns all its output.
    pub(super) fn run(&self, tool: &str, args: &[&str]) -> String {
        said(&self.tools.client_of(tool, &self.bootstrap).args(args).run())
    }

    /// Runs a tool, and returns its output if its exit code is 0.
    pub(super) fn succeed(&self, tool: &str, args: &[&str]) -> String {
        self.tools.client_of(tool, &self.bootstrap).args(args).succeed()
    }

    /// Returns the partitions that `--describe` lists with a filter, such as `orders-0`.
    fn listed(&self, filter: &str) -> BTreeSet<String> {
        let described = self.succeed(TOPIC_COMMAND, &["--describe", "--exclude-internal", filter]);
        described.lines().map(|line| format!("{}-{}", field(line, "Topic"), field(line, "Partition"))).collect()
    }

    /// Returns the line of a partition in `--describe`.
    pub(super) fn described(&self, topic: &str, partition: usize) -> String {
        let described = self.succeed(TOPIC_COMMAND, &["--describe", "--topic", topic]);
        described.lines().nth(partition + 1).expect("a line for the partition").to_owned()
    }
}

/// Returns what follows `NAME: ` in a line whose fields are separated by tabs.
pub(super) fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let fields = line.split('\t').filter_map(|field| field.split_once(": "));
    fields.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.trim()).expect(line)
}

fn set(partitions: &[&str]) -> BTreeSet<String> {
    partitions.iter().map(|&partition| partition.to_owned()).collect()
}

/// Creates topics with replicas that the cluster or a person chooses. A stopped node shows in each report, and leads
/// again after an election.
pub(super) fn topics(tools: &Tools) {
    let mut nodes = Nodes::start(tools);
    let create = |args: &[&str]| nodes.run(TOPIC_COMMAND, &[&["--create", "--topic"], args].concat());
    for args in [
        &["spread", "--partitions", "3", "--replication-factor", "3"][..],
        &["placed", "--replica-assignment", "2:3,3:1"],
        &["single", "--replica-assignment", "3", "--config", "min.insync.replicas=1"],
    ] {
        assert_eq!(create(args).trim(), format!("Created topic {}.", args[0]));
    }
    let rejected = create(&["wide", "--partitions", "1", "--replication-factor", "4"]);
    let words = "The target replication factor of 4 cannot be reached because only 3 broker(s) are registered or some \
                 brokers have all their log directories cordoned.";
    assert!(rejected.contains(words), "{rejected}");
    let rejected = create(&["misplaced", "--replica-assignment", "2:9"]);
    let words = "The manual partition assignment includes broker 9, but no such broker is registered.";
    assert!(rejected.contains(words), "{rejected}");
    let line = nodes.described("placed", 1);
    let fields = ["Leader", "Replicas", "Isr"].map(|name| field(&line, name));
    assert_eq!(fields, ["3", "3,1", "3,1"], "{line}");
    let spread = nodes.succeed(TOPIC_COMMAND, &["--describe", "--topic", "spread"]);
    let leaders: BTreeSet<&str> = spread.lines().skip(1).map(|line| field(line, "Leader")).collect();
    assert_eq!(leaders, BTreeSet::from(["1", "2", "3"]), "{spread}");
    let at_min = set(&["placed-0", "placed-1", "single-0"]);
    reports(&nodes, &set(&[]), &set(&[]), &set(&[]), &at_min);

    nodes.cluster.stop(3);
    let all = set(&["placed-0", "placed-1", "single-0", "spread-0", "spread-1", "spread-2"]);
    let under_min = set(&["placed-0", "placed-1", "single-0"]);
    reports(&nodes, &all, &set(&["single-0"]), &under_min, &set(&["spread-0", "spread-1", "spread-2"]));
    assert_eq!(field(&nodes.described("single", 0), "Leader"), "none");

    nodes.cluster.restart(3);
    wait_until("all replicas in sync", PATIENCE, || {
        nodes.listed("--under-replicated-partitions").is_empty().then_some(())
    });
    reports(&nodes, &set(&[]), &set(&[]), &set(&[]), &at_min);
    let elected = nodes.run(LEADER_ELECTION, &["--election-type", "preferred", "--all-topic-partitions"]);
    assert!(elected.contains("Successfully completed leader election (PREFERRED) for partitions"), "{elected}");
    assert!(elected.contains("placed-1"), "{elected}");
    assert_eq!(field(&nodes.described("placed", 1), "Leader"), "3");
}

/// Checks the four reports of `--describe`.
fn reports(
    nodes: &Nodes<'_>,
    under_replicated: &BTreeSet<String>,
    unavailable: &BTreeSet<String>,
    under_min: &BTreeSet<String>,
    at_min: &BTreeSet<String>,
) {
    for (filter, wanted) in [
        ("--under-replicated-partitions", under_replicated),
        ("--unavailable-partitions", unavailable),
        ("--under-min-isr-partitions", under_min),
        ("--at-min-isr-partitions", at_min),
    ] {
        assert_eq!(&nodes.listed(filter), wanted, "{filter}");
    }
}

/// Moves partitions with records to other nodes, as the tool proposes. All replicas hold the same records after it.
pub(super) fn moves(tools: &Tools) {
    let nodes = Nodes::start(tools);
    let scratch = TempDir::new().expect("a temporary folder");
    nodes.succeed(TOPIC_COMMAND, &["--create", "--topic", "placed", "--replica-assignment", "2:3,3:1"]);
    let args = ["--topic", "placed", "--num-records", "20000", "--record-size", "100", "--throughput", "-1"];
    let report = nodes.succeed(PRODUCER, &args);
    assert!(report.contains("20000 records sent"), "{report}");

    let topics = scratch.path().join("topics.json");
    fs::write(&topics, r#"{"version":1,"topics":[{"topic":"placed"}]}"#).expect("a file of the test's own");
    let topics = topics.to_str().expect("a path in UTF-8");
    let args = ["--generate", "--broker-list", "1,2", "--topics-to-move-json-file", topics];
    let proposed = nodes.succeed(REASSIGN, &args);
    let json = proposed.lines().rfind(|line| line.starts_with('{')).expect("a line of JSON");
    let moves = scratch.path().join("moves.json");
    fs::write(&moves, json).expect("a file of the test's own");
    let moves = moves.to_str().expect("a path in UTF-8");
    let reassign = |action: &str| nodes.succeed(REASSIGN, &[action, "--reassignment-json-file", moves]);
    let executed = reassign("--execute");
    assert!(executed.contains("Successfully started partition reassignments for placed-0,placed-1"), "{executed}");
    let verified = wait_until("the end of the moves", PATIENCE, || {
        let verified = reassign("--verify");
        (verified.matches(" is completed.").count() == 2).then_some(verified)
    });
    // The tool removes throttles, though none was set.
    assert!(verified.contains("Clearing broker-level throttles on brokers 1,2,3"), "{verified}");
    assert_eq!(nodes.succeed(REASSIGN, &["--list"]).trim(), "No partition reassignments found.");
    let cancelled = reassign("--cancel");
    assert!(cancelled.contains("None of the specified partition reassignments are active."), "{cancelled}");
    for partition in 0..2 {
        let line = nodes.described("placed", partition);
        let in_sync: BTreeSet<&str> = field(&line, "Isr").split(',').collect();
        assert_eq!(in_sync, BTreeSet::from(["1", "2"]), "{line}");
    }
    let ends = nodes.succeed(OFFSETS, &["--topic", "placed"]);
    let ends = ends.lines().filter_map(|line| line.rsplit(':').next()?.parse::<u32>().ok());
    assert_eq!(ends.sum::<u32>(), 20_000);
    replicas_are_equal(&nodes);
}

/// Lets the verification tool read all replicas from their start, until it has compared all of them.
fn replicas_are_equal(nodes: &Nodes<'_>) {
    let mut child = nodes
        .tools
        .tool(VERIFICATION)
        .args(["--broker-list", &nodes.bootstrap, "--topics-include", "placed", "--time", "-2"])
        .args(["--report-interval-ms", "500"])
        .spawn();
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut reports = output.lines().map_while(Result::ok).filter(|line| line.contains("max lag is")).take(20);
    let mut last = String::new();
    let compared = reports.any(|line| {
        last = line;
        last.contains("max lag is 0 ") && !last.contains("at offset 0 ")
    });
    child.kill().ok();
    child.wait().ok();
    assert!(compared, "the last report: {last}");
}

/// Checks what the tools print about the nodes. A node that is taken out of the quorum goes on as an observer, and
/// becomes a voter again.
pub(super) fn nodes(tools: &Tools) {
    let nodes = Nodes::start(tools);
    nodes.succeed(TOPIC_COMMAND, &["--create", "--topic", "spread", "--replica-assignment", "1:2:3"]);
    let tool = |action: &str| tools.tool(CLUSTER).args([action, "--bootstrap-server", &nodes.bootstrap]).succeed();
    let id = tool("cluster-id");
    let cluster_id = id.trim().strip_prefix("Cluster ID: ").expect(&id).to_owned();
    let endpoints = tool("list-endpoints");
    assert_eq!(endpoints.matches("unfenced").count(), 3, "{endpoints}");

    let status = nodes.succeed(QUORUM, &["describe", "--status"]);
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned();
    assert_eq!((line("ClusterId:"), line("MaxFollowerLag:")), (cluster_id.clone(), "0".to_owned()), "{status}");
    let voters: serde_json::Value = serde_json::from_str(&line("CurrentVoters:")).expect(&status);
    assert_eq!(voters.as_array().expect(&status).len(), 3, "{status}");
    let leader: i64 = line("LeaderId:").parse().expect("an id");
    let replication = nodes.succeed(QUORUM, &["describe", "--replication"]);
    assert_eq!(replication.matches("Follower").count(), 2, "{replication}");
    let features = nodes.succeed(FEATURES, &["describe"]);
    assert!(features.contains("Feature: millstream.version"), "{features}");
    assert!(!features.contains("UNKNOWN"), "{features}");
    let dirs = nodes.succeed(LOG_DIRS, &["--describe", "--topic-list", "spread"]);
    assert!(dirs.contains("Received log directory information from brokers 1,2,3"), "{dirs}");
    assert_eq!(dirs.matches(r#""partition":"spread-0""#).count(), 3, "{dirs}");

    let voters = voters.as_array().expect(&status).iter();
    let follower = voters.clone().find(|voter| voter["id"] != leader).expect("a follower");
    remove_and_add(&nodes, &cluster_id, follower);
}

/// Removes a voter, and adds it again.
fn remove_and_add(nodes: &Nodes<'_>, cluster_id: &str, voter: &serde_json::Value) {
    let (id, directory) = (voter["id"].to_string(), voter["directoryId"].as_str().expect("an id"));
    let members = || {
        let replication = nodes.succeed(QUORUM, &["describe", "--replication"]);
        let line = replication.lines().find(|line| line.contains(directory)).expect(&replication);
        line.split('\t').map(str::trim).nth(6).expect("a status").to_owned()
    };
    let args = ["remove-controller", "--controller-id", &id, "--controller-directory-id", directory];
    let removed = nodes.succeed(QUORUM, &args);
    let words = format!("Removed KRaft controller {id} with directory id {directory}");
    assert!(removed.contains(&words), "{removed}");
    assert_eq!(members(), "Observer");
    let again = nodes.run(QUORUM, &args);
    assert!(again.contains("VoterNotFoundException"), "{again}");
    // The broker of the node follows the metadata as before.
    let others = ["1", "2", "3"].into_iter().filter(|&other| other != id);
    let replicas = [id.as_str()].into_iter().chain(others).collect::<Vec<_>>().join(":");
    let create = ["--create", "--topic", "later", "--replica-assignment", &replicas];
    nodes.succeed(TOPIC_COMMAND, &create);
    let line = nodes.described("later", 0);
    assert_eq!((field(&line, "Leader"), field(&line, "Isr").len()), (id.as_str(), 5), "{line}");

    let scratch = TempDir::new().expect("a temporary folder");
    let write =
        |name: &str, text: String| fs::write(scratch.path().join(name), text).expect("a file of the test's own");
    write("meta.properties", format!("version=1\ncluster.id={cluster_id}\nnode.id={id}\ndirectory.id={directory}\n"));
    let endpoint = voter["endpoints"][0].as_str().expect("an endpoint");
    let (name, _) = endpoint.split_once("://").expect("a listener");
    let folder = scratch.path().display();
    write(
        "node.properties",
        format!(
            "node.id={id}\nprocess.roles=controller\nlog.dirs={folder}\nlisteners={endpoint}\n\
             controller.listener.names={name}\nlistener.security.protocol.map={name}:PLAINTEXT\n\
             controller.quorum.bootstrap.servers={}\n",
            endpoint.trim_start_matches(name).trim_start_matches("://")
        ),
    );
    let file = scratch.path().join("node.properties");
    let args = ["--command-config", file.to_str().expect("a path in UTF-8"), "add-controller"];
    let added = nodes.succeed(QUORUM, &args);
    assert!(added.contains(&format!("Added controller {id} with directory id {directory}")), "{added}");
    assert_eq!(members(), "Follower");
}
