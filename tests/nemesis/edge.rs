//! The edge on a cluster: counters and logs are those of all brokers, and dead letters and views work whichever broker
//! leads.

use std::thread::sleep;
use std::time::{Duration, Instant};

use millstream_tests::{Cluster, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::guests::{Guest, IMPORT_LOG};
use crate::plugins::{PATIENCE, create_led_by, filter, json, lead, output, partition_of, push, restart, run};

fn consume(bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let read = output(bootstrap, &["consume", topic, "--from-beginning", "-n", &count]);
    let mut lines: Vec<String> = read.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn produce(bootstrap: &str, topic: &str, line: &str) {
    let end = run(bootstrap, &["produce", topic], &format!("{line}\n"));
    assert_eq!(end.code, Some(0), "{line} to {topic}: {}", end.stderr);
}

fn calls(versions: &Value) -> u64 {
    let versions = versions.as_array().expect("a list").iter().filter(|one| one["name"] == "letters");
    versions.map(|one| one["calls"].as_u64().expect("a number")).sum()
}

#[test]
fn counters_are_those_of_all_brokers_that_are_alive() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    for leader in 1..=3 {
        let topic = format!("led-by-{leader}");
        create_led_by(&bootstrap, &topic, leader, &["stage.admit=letters"]);
        produce(&bootstrap, &topic, "z");
    }
    assert_eq!(calls(&json(&bootstrap, &["plugin", "list", "--json"])), 3);
    let stats = json(&bootstrap, &["plugin", "stats", "--json"]);
    assert_eq!(calls(&stats["versions"]), 3);
    let brokers = stats["brokers"].as_array().expect("a list");
    assert_eq!(brokers.iter().map(|broker| calls(&broker["versions"])).collect::<Vec<_>>(), [1, 1, 1], "{stats}");
    assert_eq!(stats["not_reached"], Value::Array(Vec::new()));
    // A broker that is down is named, and the others are counted.
    cluster.kill(3);
    for args in [&["plugin", "list"][..], &["plugin", "stats"], &["plugin", "list", "--json"]] {
        let end = run(&bootstrap, args, "");
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        assert!(end.stderr.contains("warning: broker 3 is not reached"), "{}", end.stderr);
    }
    let stats = json(&bootstrap, &["plugin", "stats", "--json"]);
    assert_eq!((calls(&stats["versions"]), &stats["not_reached"][0]["id"]), (2, &3.into()), "{stats}");
}

#[test]
fn log_lines_of_all_brokers_are_in_one_log() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    (1..=3).for_each(|id| cluster.node_of(id).allow("letters@"));
    let bootstrap = cluster.bootstrap();
    let log = "(call $log (i32.const 1) (i32.const 192) (i32.const 4))";
    let guest: Guest = filter(1).text("rows").import(IMPORT_LOG).hook_with_rows("filter", log);
    push(&bootstrap, &folder, &guest);
    for leader in 1..=3 {
        create_led_by(&bootstrap, &format!("led-by-{leader}"), leader, &["stage.admit=letters"]);
    }
    for leader in 1..=3 {
        produce(&bootstrap, &format!("led-by-{leader}"), "z");
    }
    let begun = Instant::now();
    loop {
        let lines = output(&bootstrap, &["plugin", "logs", "letters"]);
        if lines.lines().count() == 3 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE && lines.lines().count() < 3, "{lines}");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn dead_letters_are_kept_whichever_broker_leads_their_topic() {
    let folder = TempDir::new().expect("a folder");
    // The default is one replica, and the source has three.
    let mut cluster = Cluster::start(3, &[("default.replication.factor", "1"), ("min.insync.replicas", "1")]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let configs = [
        "stage.admit=letters",
        "stage.admit.failure.policy=dead-letter",
        "stage.dead.letter.topic=refused",
        "min.insync.replicas=2",
    ];
    let configs: Vec<&str> = configs.iter().flat_map(|config| ["--config", *config]).collect();
    let create = ["topic", "create", "lines", "-p", "1", "-r", "3"];
    output(&bootstrap, &[&create[..], &configs].concat());
    lead(&bootstrap, "lines", 1);
    produce(&bootstrap, "lines", "a 1");
    assert_eq!(partition_of(&bootstrap, "refused").replicas.len(), 3);
    let described = output(&bootstrap, &["topic", "describe", "refused"]);
    assert!(described.contains("min.insync.replicas"), "{described}");
    lead(&bootstrap, "refused", 2);
    produce(&bootstrap, "lines", "a 2");
    produce(&bootstrap, "lines", "z 1");
    assert_eq!(consume(&bootstrap, "refused", 2), ["a 1", "a 2"]);
    // The leader of the dead letters dies.
    cluster.kill(2);
    produce(&bootstrap, "lines", "a 3");
    assert_eq!(consume(&bootstrap, "refused", 3), ["a 1", "a 2", "a 3"]);
    assert_eq!(consume(&bootstrap, "lines", 1), ["z 1"]);
    cluster.restart(2);
}

#[test]
fn a_dead_letter_topic_that_is_made_without_a_broker_has_a_replica_there_later() {
    let folder = TempDir::new().expect("a folder");
    let settings = [("default.replication.factor", "1"), ("min.insync.replicas", "1")];
    let mut cluster = Cluster::start(3, &settings);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let configs = ["stage.admit=letters", "stage.admit.failure.policy=dead-letter", "stage.dead.letter.topic=refused"];
    let configs: Vec<&str> = configs.iter().flat_map(|config| ["--config", *config]).collect();
    output(&bootstrap, &[&["topic", "create", "lines", "-p", "1", "-r", "3"], &configs[..]].concat());
    lead(&bootstrap, "lines", 1);
    cluster.kill(3);
    while json(&bootstrap, &["cluster", "describe", "--json"])["nodes"][2]["state"] != "fenced" {
        sleep(Duration::from_millis(50));
    }
    produce(&bootstrap, "lines", "a 1");
    let made = partition_of(&bootstrap, "refused");
    assert_eq!((made.replicas.len(), made.in_sync.contains(&3)), (3, false), "{made:?}");
    cluster.restart(3);
    let begun = Instant::now();
    while partition_of(&bootstrap, "refused").in_sync.len() < 3 {
        assert!(begun.elapsed() < PATIENCE, "the replica is not in sync");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_view_is_read_from_the_leaders_of_its_source() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    output(&bootstrap, &["topic", "create", "lines", "-p", "6"]);
    output(&bootstrap, &["view", "create", "shown", "--of", "lines", "--filter", "letters"]);
    let lines: Vec<String> =
        (0..60).map(|number| format!("{}{number}", if number % 2 == 0 { "a" } else { "b" })).collect();
    let keyed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let end = run(&bootstrap, &["produce", "lines"], &keyed);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    let mut expected: Vec<String> = lines.into_iter().filter(|line| line.starts_with('b')).collect();
    expected.sort();
    assert_eq!(consume(&bootstrap, "shown", 30), expected);
    for node in 1..=3 {
        cluster.kill(node);
        assert_eq!(consume(&bootstrap, "shown", 30), expected, "without node {node}");
        restart(&mut cluster, node, "shown");
        // Otherwise the next node may be the last one in sync.
        wait_until("all replicas to be in sync", PATIENCE, || {
            let described = json(&bootstrap, &["cluster", "describe", "--json"]);
            described["under_replicated"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
    }
}
