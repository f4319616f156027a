//! Several data folders of a node, with Kafka's tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_tests::{Broker, Cluster, wait_until};
use tempfile::TempDir;

use super::cluster::{LOG_DIRS, REASSIGN, said};
use super::performance::PRODUCER;
use super::{CONFIG_COMMAND, TOPIC_COMMAND, Tools};

const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the partitions of a topic in each folder of a broker, as `kafka-log-dirs` describes them. A copy that is not
/// complete has the suffix `-future`.
fn described(tools: &Tools, bootstrap: &str, broker: i32, topic: &str) -> Vec<(PathBuf, Option<String>, Vec<String>)> {
    let args = ["--describe", "--topic-list", topic, "--broker-list", &broker.to_string()];
    let output = tools.client_of(LOG_DIRS, bootstrap).args(args).succeed();
    let json: serde_json::Value =
        output.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a line of JSON");
    let folders = json["brokers"][0]["logDirs"].as_array().expect("folders");
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let describe = |folder: &serde_json::Value| {
        let partitions = folder["partitions"].as_array().expect("partitions").iter().map(|one| {
            let suffix = if one["isFuture"].as_bool() == Some(true) { "-future" } else { "" };
            format!("{}{suffix}", one["partition"].as_str().expect("a name"))
        });
        let mut partitions: Vec<String> = partitions.collect();
        partitions.sort();
        (PathBuf::from(text(&folder["logDir"]).expect("a path")), text(&folder["error"]), partitions)
    };
    let mut folders: Vec<_> = folders.iter().map(describe).collect();
    folders.sort();
    folders
}

/// Runs the tool for moves. `log_dirs` are those of the replicas.
fn reassign(tools: &Tools, bootstrap: &str, action: &str, topic: &str, replicas: &[i32], log_dirs: &[&str]) -> String {
    let scratch = TempDir::new().expect("a temporary folder");
    let file = scratch.path().join("moves.json");
    let moved = serde_json::json!({ "topic": topic, "partition": 0, "replicas": replicas, "log_dirs": log_dirs });
    let moves = serde_json::json!({ "version": 1, "partitions": [moved] });
    fs::write(&file, moves.to_string()).expect("a file of the test's own");
    said(&tools.client_of(REASSIGN, bootstrap).arg(action).arg("--reassignment-json-file").arg(&file).run())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Describes two folders of one node, moves a replica between them, and describes them when one is offline.
pub(super) fn one_node(tools: &Tools) {
    let temporary = TempDir::new().expect("a temporary folder");
    let [a, b] = ["a", "b"].map(|name| temporary.path().join(name));
    let mut broker = Broker::builder().folder(&a).more_folder(&b).allow("is offline").allow("cannot be used").start();
    let bootstrap = broker.bootstrap();
    tools.create_topic(&broker, "orders", 2);
    let args = ["--topic", "orders", "--num-records", "5000", "--record-size", "1000", "--throughput", "-1"];
    tools.client(PRODUCER, &broker).args(args).succeed();
    let before = described(tools, &bootstrap, 0, "orders");
    assert_eq!(before.iter().map(|(path, ..)| path.clone()).collect::<Vec<_>>(), [a.clone(), b.clone()]);
    assert!(before.iter().all(|(_, error, partitions)| error.is_none() && partitions.len() == 1), "{before:?}");

    let (here, there) = if before[0].2 == ["orders-0"] { (&a, &b) } else { (&b, &a) };
    let unknown = reassign(tools, &bootstrap, "--execute", "orders", &[0], &["/no/such/folder"]);
    assert!(unknown.contains("LogDirNotFoundException"), "{unknown}");
    let any = reassign(tools, &bootstrap, "--execute", "orders", &[0], &["any"]);
    assert!(any.contains("Successfully started partition reassignment for orders-0"), "{any}");
    let moved = reassign(tools, &bootstrap, "--execute", "orders", &[0], &[text(there)]);
    let words = format!("Successfully started moving log directory to {} for replica orders-0", text(there));
    assert!(moved.contains(&words), "{moved}");
    wait_until("the end of the move", PATIENCE, || {
        let verified = reassign(tools, &bootstrap, "--verify", "orders", &[0], &[text(there)]);
        verified.contains("Reassignment of replica orders-0-0 completed successfully.").then_some(())
    });
    let after = described(tools, &bootstrap, 0, "orders");
    let in_folder = |folder: &Path| after.iter().find(|(path, ..)| path == folder).map(|found| found.2.clone());
    assert_eq!(in_folder(here), Some(Vec::new()), "{after:?}");
    assert_eq!(in_folder(there), Some(vec!["orders-0".to_owned(), "orders-1".to_owned()]), "{after:?}");

    // A folder that cannot be opened is offline.
    broker.stop(rustix::process::Signal::TERM);
    let away = temporary.path().join("away");
    fs::rename(&b, &away).expect("renamed");
    fs::write(&b, "not a folder").expect("a file");
    broker.restart();
    let offline = described(tools, &bootstrap, 0, "orders");
    assert!(offline[0].1.is_none(), "{offline:?}");
    assert!(offline[1].1.as_ref().is_some_and(|error| error.contains("KafkaStorageException")), "{offline:?}");
}

/// Moves a replica to a folder of another node that is named before the replica is there. A cordoned folder gets no new
/// partitions.
pub(super) fn three_nodes(tools: &Tools) {
    let temporary = TempDir::new().expect("a temporary folder");
    let folder = |id: usize| temporary.path().join(format!("more-{id}"));
    let cluster = Cluster::start_with(3, &[], |id, node| node.more_folder(folder(id)));
    let bootstrap = cluster.bootstrap();
    let create = ["--create", "--topic", "orders", "--replica-assignment", "1:2"];
    tools.client_of(TOPIC_COMMAND, &bootstrap).args(create).succeed();
    let args = ["--topic", "orders", "--num-records", "5000", "--record-size", "1000", "--throughput", "-1"];
    tools.client_of(PRODUCER, &bootstrap).args(args).succeed();
    for target in [folder(3), cluster.folder(3).to_path_buf()] {
        let log_dirs = ["any", text(&target)];
        let moved = reassign(tools, &bootstrap, "--execute", "orders", &[1, 3], &log_dirs);
        assert!(moved.contains("Successfully started partition reassignment for orders-0"), "{moved}");
        wait_until("the end of the move", PATIENCE, || {
            let verified = reassign(tools, &bootstrap, "--verify", "orders", &[1, 3], &log_dirs);
            let is_done = verified.contains("Reassignment of partition orders-0 is completed.")
                && verified.contains("Reassignment of replica orders-0-3 completed successfully.");
            is_done.then_some(())
        });
        let folders = described(tools, &bootstrap, 3, "orders");
        let found = folders.iter().find(|(_, _, partitions)| !partitions.is_empty());
        assert_eq!(found.map(|(path, ..)| path), Some(&target), "{folders:?}");
    }
    let entity = ["--entity-type", "brokers", "--entity-name", "3"];
    let cordon = |folders: &str| {
        let alter = ["--alter", "--add-config", &format!("cordoned.log.dirs=[{folders}]")];
        said(&tools.client_of(CONFIG_COMMAND, &bootstrap).args(entity).args(alter).run())
    };
    let unknown = cordon("/no/such/folder");
    assert!(unknown.contains("the folders in log.dirs of this broker are"), "{unknown}");
    let cordoned = cordon(text(&folder(3)));
    assert!(cordoned.contains("Completed updating config for broker 3."), "{cordoned}");
    let create = ["--create", "--topic", "next", "--partitions", "3", "--replication-factor", "3"];
    tools.client_of(TOPIC_COMMAND, &bootstrap).args(create).succeed();
    let next = described(tools, &bootstrap, 3, "next");
    let sizes = next.iter().map(|(path, _, partitions)| (*path == folder(3), partitions.len()));
    assert!(sizes.clone().all(|(is_cordoned, count)| count == if is_cordoned { 0 } else { 3 }), "{next:?}");
}
