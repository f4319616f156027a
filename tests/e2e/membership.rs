//! Nodes that join, move, stop and leave.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millstream_client::{Admin, ClientConfig, Error};
use millstream_tests::{Broker, Cluster, Tool, free_ports, millstream, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    ApiVersionsRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest,
    MetadataRequestTopic,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Raw;

/// The limit of every wait. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command on the cluster.
fn run(bootstrap: &str, arguments: &[&str]) -> Tool {
    Tool::new(millstream()).args(arguments).args(["-b", bootstrap]).limit(PATIENCE)
}

/// Returns the output of a command on the cluster.
fn json(bootstrap: &str, arguments: &[&str]) -> Value {
    serde_json::from_str(&run(bootstrap, arguments).arg("--json").succeed()).expect("JSON")
}

/// Returns the ids of the nodes of the quorum in a role that `wanted` selects.
fn members(bootstrap: &str, wanted: impl Fn(&str) -> bool) -> Vec<i64> {
    let quorum = json(bootstrap, &["cluster", "quorum"]);
    let nodes = quorum["nodes"].as_array().expect("a list").iter();
    let chosen = nodes.filter(|node| wanted(node["role"].as_str().expect("a role")));
    chosen.map(|node| node["id"].as_i64().expect("an id")).collect()
}

/// Removes a node as soon as the cluster knows that it has ended.
fn remove(bootstrap: &str, id: &str) {
    wait_until("the removal", PATIENCE, || {
        let removed = run(bootstrap, &["cluster", "remove", id]).run();
        assert!(removed.code == Some(0) || removed.stderr.contains("is running"), "{}", removed.stderr);
        (removed.code == Some(0)).then_some(())
    });
}

/// Creates a topic as soon as it can have three replicas.
fn create(bootstrap: &str, name: &str, partitions: &str, replicas: &str) {
    wait_until("the topic to be created", PATIENCE, || {
        let create = ["topic", "create", name, "--partitions", partitions, "--replication-factor", replicas];
        (run(bootstrap, &create).run().code == Some(0)).then_some(())
    });
}

#[test]
fn all_nodes_stop_at_once() {
    let mut cluster = Cluster::start(3, &[]);
    create(&cluster.bootstrap(), "t", "12", "3");
    let took = cluster.stop_all();
    println!("three nodes stopped in {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    for id in 1..=3 {
        assert!(cluster.node_of(id).folder().join(".kafka_cleanshutdown").exists(), "node {id} stopped cleanly");
    }
}

/// Clients of Kafka 4.4 name the cluster and node that they expect at an address. A node knows both before it has the
/// metadata.
#[test]
fn a_node_that_starts_again_knows_its_cluster() {
    let mut cluster = Cluster::start(3, &[]);
    let mut raw = Raw::to(cluster.address(1));
    let id = raw.call(9, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).cluster_id;
    let id = id.expect("a cluster id");
    let address = cluster.address(3);
    cluster.kill(3);
    std::thread::scope(|scope| {
        let restarted = scope.spawn(|| cluster.restart(3));
        let mut responses = 0;
        while responses == 0 || !restarted.is_finished() {
            if TcpStream::connect(address).is_err() {
                continue;
            }
            let mut raw = Raw::to(address);
            let request = ApiVersionsRequest {
                client_software_name: "raw".into(),
                client_software_version: "1".into(),
                cluster_id: Some(id.clone()),
                node_id: 3,
            };
            assert_eq!(raw.call(5, &request).error_code, ErrorCode::NONE, "after {responses} responses");
            let metadata = raw.call(9, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
            assert_eq!(metadata.cluster_id.as_deref(), Some(&*id));
            responses += 1;
        }
    });
}

#[test]
fn a_node_that_starts_again_never_misses_a_topic() {
    let mut cluster = Cluster::start(3, &[]);
    create(&cluster.bootstrap(), "t", "100", "3");
    for id in [3, 1, 2] {
        cluster.kill(id);
        cluster.restart(id);
        let mut raw = Raw::to(cluster.address(id));
        let name = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        for topics in [Some(vec![name]), None] {
            let found = raw.call(12, &MetadataRequest { topics, ..Default::default() }).topics;
            let topic = found.iter().find(|topic| topic.name.as_deref() == Some("t")).expect("the topic");
            assert!(topic.error_code.is_ok() && topic.partitions.len() == 100, "{topic:?}");
        }
        let partitions = vec![ListOffsetsPartition { timestamp: -1, current_leader_epoch: -1, ..Default::default() }];
        let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let code = raw.call(7, &request).topics[0].partitions[0].error_code;
        assert!(code.is_ok() || code.retriable(), "{code}");
        wait_until("all replicas to be in sync", PATIENCE, || {
            let described = json(&cluster.bootstrap(), &["cluster", "describe"]);
            described["under_replicated"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
    }
}

#[test]
fn voters_come_back_with_other_addresses() {
    let mut cluster = Cluster::start(3, &[]);
    create(&cluster.bootstrap(), "t", "3", "3");
    let voters = |cluster: &Cluster, id: i32| members(&cluster.address(id).to_string(), |role| role != "observer");
    cluster.stop(2);
    cluster.renumber(&[2]);
    cluster.restart(2);
    // Without the first node, the second one is needed.
    cluster.kill(1);
    wait_until("a controller", PATIENCE, || {
        let quorum = run(&cluster.address(2).to_string(), &["cluster", "quorum"]).run();
        (quorum.code == Some(0) && !quorum.stdout.contains("Leader: 1 ")).then_some(())
    });
    assert_eq!(voters(&cluster, 3), [1, 2, 3]);
    // All have other addresses, and no log names one that is right.
    cluster.stop(2);
    cluster.kill(3);
    cluster.renumber(&[1, 2, 3]);
    (1..=3).for_each(|id| cluster.restart(id));
    wait_until("all replicas to be in sync", PATIENCE, || {
        let described = run(&cluster.bootstrap(), &["cluster", "describe", "--json"]).run();
        let described: Value = serde_json::from_str(&described.stdout).ok()?;
        described["under_replicated"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert_eq!(voters(&cluster, 1), [1, 2, 3]);
    // They keep them without the ports of the configuration.
    cluster.kill(1);
    create(&cluster.address(3).to_string(), "later", "1", "2");
}

#[test]
fn a_removed_node_says_what_to_do() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    wait_until("three brokers", PATIENCE, || {
        let described = json(&bootstrap, &["cluster", "describe"]);
        let nodes = described["nodes"].as_array().expect("a list");
        (nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "alive")).then_some(())
    });
    cluster.stop(3);
    remove(&bootstrap, "3");
    assert_eq!(members(&bootstrap, |_| true), [1, 2]);
    let folder = cluster.node_of(3).folder().to_owned();
    let node = Cluster::node(3, cluster.node_port(3), cluster.node_port(1), &[]);
    let words = node.folder(&folder).rejected();
    assert!(words.contains("was removed from the cluster: start it on an empty data folder"), "{words}");
    fs::remove_dir_all(&folder).expect("removable");
    cluster.restart(3);
    wait_until("the node to vote", PATIENCE, || (members(&bootstrap, |_| true) == [1, 2, 3]).then_some(()));
}

#[test]
fn a_dead_observer_is_removed() {
    let cluster = Cluster::start(1, &[]);
    let bootstrap = cluster.bootstrap();
    let mut observer = Cluster::node(2, 0, cluster.node_port(1), &[("process.roles", "broker")]).start();
    wait_until("an observer", PATIENCE, || (members(&bootstrap, |role| role == "observer") == [2]).then_some(()));
    observer.kill();
    remove(&bootstrap, "2");
    assert_eq!(members(&bootstrap, |_| true), [1]);
}

#[test]
fn the_directory_id_is_that_of_the_quorum() {
    let cluster = Cluster::start(2, &[]);
    let quorum = json(&cluster.bootstrap(), &["cluster", "quorum"]);
    for (id, node) in (1..).zip(quorum["nodes"].as_array().expect("a list")) {
        let folder = cluster.folder(id);
        let text = fs::read_to_string(folder.join("meta.properties")).expect("a file");
        let line = format!("directory.id={}\n", node["directory_id"].as_str().expect("an id"));
        assert!(text.contains(&line), "{line} {text}");
    }
}

#[test]
fn the_last_node_goes_on_after_the_others_are_lost() {
    let mut cluster = Cluster::start(2, &[("default.replication.factor", "1"), ("min.insync.replicas", "1")]);
    create(&cluster.bootstrap(), "t", "1", "1");
    cluster.kill(2);
    fs::remove_dir_all(cluster.folder(2)).expect("removable");
    let recover = |folder: &std::path::Path| {
        Tool::new(millstream()).args(["cluster", "recover", "--data-dir"]).arg(folder).limit(PATIENCE)
    };
    let words = recover(cluster.folder(1)).run().stderr;
    assert!(words.contains("is in use by another broker"), "{words}");
    cluster.kill(1);
    let asked = recover(cluster.folder(1)).run();
    assert_eq!(asked.code, Some(1));
    for words in
        ["node 1 becomes the only voter", "from the quorum: 2\n", "log of node 1 ends at ", "confirm with --yes"]
    {
        assert!(asked.stderr.contains(words), "{words}: {}", asked.stderr);
    }
    // Each time the log is the same: nothing has changed.
    assert_eq!(recover(cluster.folder(1)).run().stderr, asked.stderr);
    let words = recover(cluster.folder(1)).arg("--yes").succeed();
    assert!(words.contains("node 1 is the only voter"), "{words}");
    cluster.restart(1);
    let first = cluster.address(1).to_string();
    create(&first, "later", "1", "1");
    assert_eq!(members(&first, |_| true), [1]);
    // The lost node joins as a new one.
    cluster.restart(2);
    wait_until("two voters", PATIENCE, || (members(&first, |role| role != "observer") == [1, 2]).then_some(()));
    let words = recover(cluster.node_of(1).scratch()).run().stderr;
    assert!(words.contains("has no data of a node of a cluster"), "{words}");
}

#[test]
fn a_node_stops_without_a_controller() {
    let mut cluster = Cluster::start(2, &[]);
    create(&cluster.bootstrap(), "t", "2", "2");
    cluster.kill(1);
    let begun = Instant::now();
    let node: &mut Broker = cluster.node_of(2);
    assert!(node.stop(Signal::TERM).success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn stages_start_on_brokers_when_the_controller_is_none() {
    let folder = TempDir::new().expect("a temporary folder");
    let port = free_ports(1)[0];
    let file = folder.path().join("controller.properties");
    let address = format!("127.0.0.1:{port}");
    let text = format!(
        "process.roles=controller\nnode.id=1\nlisteners=NODES://{address}\ncontroller.listener.names=NODES\n\
         controller.quorum.bootstrap.servers={address}\n"
    );
    fs::write(&file, text).expect("written");
    let mut controller = Broker::builder().config(&file).start();
    let settings = [("process.roles", "broker"), ("default.replication.factor", "1"), ("min.insync.replicas", "1")];
    let mut broker = Cluster::node(2, 0, port, &settings).start();
    let bootstrap = broker.bootstrap();
    let create = |name: &str, stage: &str| {
        run(&bootstrap, &["topic", "create", name, "--config", &format!("stage.admit={stage}")]).run()
    };
    wait_until("the topic to be created", PATIENCE, || {
        let created = create("checked", r#"contains{"text":"yes"}"#);
        (created.code == Some(0)).then_some(())
    });
    let rejected = create("other", "no-such-plugin");
    assert!(rejected.code != Some(0) && rejected.stderr.contains("no-such-plugin"), "{}", rejected.stderr);
    let produce = |text: &str| run(&bootstrap, &["produce", "checked"]).input(text).run().code;
    assert_eq!(produce("yes\n"), Some(0));
    assert_ne!(produce("no\n"), Some(0));
    assert_eq!(run(&bootstrap, &["consume", "checked", "--from-beginning"]).succeed(), "yes\n");
    controller.stop(Signal::TERM);
    controller.restart();
    wait_until("the controller", PATIENCE, || {
        (create("again", r#"contains{"text":"yes"}"#).code == Some(0)).then_some(())
    });
    let described = json(&bootstrap, &["cluster", "describe"]);
    assert_eq!(described["controller"], 1);
    // The broker takes another port for nodes, where the controller finds it.
    broker.kill();
    broker.restart();
    wait_until("the broker to lead", PATIENCE, || {
        let described = json(&bootstrap, &["cluster", "describe"]);
        (described["nodes"][0]["leaders"] == 2).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_rejects_the_removal_of_a_voter_that_does_not_exist() {
    let cluster = Cluster::start(3, &[]);
    for id in 1..=3 {
        // One of them is the leader of the quorum, and the others ask it.
        let admin = Admin::new(ClientConfig::new(&cluster.address(id).to_string())).expect("valid configs");
        let error = admin.remove_voter(9, uuid::Uuid::from_u128(9)).await.expect_err("there is no node 9");
        assert!(matches!(error, Error::Broker { code: ErrorCode::VOTER_NOT_FOUND, .. }), "node {id}: {error}");
    }
}

#[test]
fn nodes_that_are_not_reached_are_named_at_once() {
    let mut cluster = Cluster::start(3, &[]);
    create(&cluster.bootstrap(), "t", "3", "3");
    let first = cluster.address(1).to_string();
    wait_until("three brokers", PATIENCE, || {
        let nodes = json(&first, &["cluster", "describe"])["nodes"].take();
        let nodes = nodes.as_array().expect("a list");
        (nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "alive")).then_some(())
    });
    // One does not accept a connection, and the other one does not respond.
    cluster.kill(2);
    rustix::process::kill_process(cluster.node_of(3).pid(), Signal::STOP).expect("a process");

    let begun = Instant::now();
    let described = run(&first, &["cluster", "describe", "--json"]).run();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let found: Value = serde_json::from_str(&described.stdout).expect("JSON");
    let unreached: Vec<_> = found["not_reached"].as_array().expect("a list").iter().map(|node| &node["id"]).collect();
    assert_eq!(unreached, [2, 3], "{found}");
    let states: Vec<_> = found["nodes"].as_array().expect("a list").iter().map(|node| &node["state"]).collect();
    assert_eq!(states, ["alive", "unreachable", "unreachable"]);
    assert!(described.stderr.contains("warning: node 2 is not reached"), "{}", described.stderr);

    let begun = Instant::now();
    let quorum = run(&first, &["cluster", "quorum"]).run();
    println!("describe took {took:?}, quorum {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(quorum.code, Some(1));
    for words in ["node 2 is not reached: ", "node 3 is not reached: "] {
        assert!(quorum.stderr.contains(words), "{}", quorum.stderr);
    }
    rustix::process::kill_process(cluster.node_of(3).pid(), Signal::CONT).expect("a process");
}
