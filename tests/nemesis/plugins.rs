//! Plug-ins of a cluster: every broker prepares a version before any uses it, and all end on the same one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use millstream_client::PartitionDescription;
use millstream_tests::{Cluster, Finished, Tool, millstream};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::checker::check;
use crate::faults::{TOPIC, admin};
use crate::guests::Guest;
use crate::workload::Workload;

/// Long enough for a slow machine; only a test that fails reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a filter whose version 1 rejects values that begin with an `a`, version 2 with a `b`, and so on.
pub(crate) fn filter(version: u8) -> Guest {
    let letter = format!("(i32.const {})", b'a' + version - 1);
    Guest::filter().name("letters").version(&format!("{version}.0.0")).edit("(i32.const 120)", &letter)
}

pub(crate) fn run(bootstrap: &str, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", bootstrap]).input(input).limit(PATIENCE).run()
}

pub(crate) fn output(bootstrap: &str, args: &[&str]) -> String {
    let end = run(bootstrap, args, "");
    assert_eq!(end.code, Some(0), "{args:?}: {}{}", end.stdout, end.stderr);
    end.stdout
}

pub(crate) fn json(bootstrap: &str, args: &[&str]) -> Value {
    serde_json::from_str(&output(bootstrap, args)).expect("JSON")
}

fn try_push(bootstrap: &str, folder: &Path, guest: &Guest) -> Finished {
    let file = folder.join("letters.wasm");
    fs::write(&file, guest.build()).expect("written");
    run(bootstrap, &["plugin", "push", file.to_str().expect("a path of ASCII")], "")
}

pub(crate) fn push(bootstrap: &str, folder: &TempDir, guest: &Guest) {
    let end = try_push(bootstrap, folder.path(), guest);
    assert_eq!(end.code, Some(0), "{}{}", end.stdout, end.stderr);
}

/// Creates a topic of one partition that a broker leads.
pub(crate) fn create_led_by(bootstrap: &str, topic: &str, leader: i32, configs: &[&str]) {
    let configs = configs.iter().flat_map(|config| ["--config", config]);
    output(bootstrap, &["topic", "create", topic, "-p", "1"].into_iter().chain(configs).collect::<Vec<_>>());
    lead(bootstrap, topic, leader);
}

/// Makes a broker the leader of the only partition of a topic.
pub(crate) fn lead(bootstrap: &str, topic: &str, leader: i32) {
    let others = (1..=3).filter(|id| *id != leader).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    output(bootstrap, &["cluster", "reassign", topic, "--to", &format!("{leader},{others}")]);
    let begun = Instant::now();
    while leader_of(bootstrap, topic) != Some(leader) {
        assert!(begun.elapsed() < PATIENCE, "broker {leader} does not lead {topic}");
        // It is rejected until the replica is in sync.
        run(bootstrap, &["cluster", "elect", topic], "");
        sleep(Duration::from_millis(50));
    }
}

/// Returns the only partition of a topic.
pub(crate) fn partition_of(bootstrap: &str, topic: &str) -> PartitionDescription {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let topics = runtime.block_on(async { admin(bootstrap).describe_topics(&[topic.to_owned()]).await });
    topics.expect("described")[0].partitions[0].clone()
}

fn leader_of(bootstrap: &str, topic: &str) -> Option<i32> {
    partition_of(bootstrap, topic).leader
}

fn is_rejected(bootstrap: &str, topic: &str, letter: char) -> bool {
    let end = run(bootstrap, &["produce", topic], &format!("{letter}\n"));
    assert!(end.code == Some(0) || end.stderr.contains("not stored"), "{}", end.stderr);
    end.code != Some(0)
}

/// Checks that a topic rejects this letter, and takes another one.
fn rejects(bootstrap: &str, topic: &str, letter: char, other: char) {
    assert!(is_rejected(bootstrap, topic, letter), "{topic} takes {letter}");
    assert!(!is_rejected(bootstrap, topic, other), "{topic} rejects {other}");
}

/// Waits until a topic rejects this letter, and takes another one.
fn comes_to_reject(bootstrap: &str, topic: &str, letter: char, other: char) {
    let begun = Instant::now();
    let rejected = |letter: char| run(bootstrap, &["produce", topic], &format!("{letter}\n")).code != Some(0);
    while !rejected(letter) || rejected(other) {
        assert!(begun.elapsed() < PATIENCE, "{topic} does not reject {letter} and take {other}");
    }
}

/// Starts a node again, and waits until it has its topics.
pub(crate) fn restart(cluster: &mut Cluster, id: i32, topic: &str) {
    cluster.restart(id);
    let (begun, own) = (Instant::now(), cluster.address(id).to_string());
    while run(&own, &["topic", "describe", topic], "").code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "node {id} has no topics");
    }
}

/// Creates three topics with the filter. Each has another leader, so that every broker runs it.
fn create_on_all(bootstrap: &str) -> Vec<String> {
    let topics: Vec<String> = (1..=3).map(|leader| format!("led-by-{leader}")).collect();
    for (topic, leader) in topics.iter().zip(1..) {
        create_led_by(bootstrap, topic, leader, &["stage.admit=letters"]);
    }
    topics
}

fn events(bootstrap: &str, event: &str) -> Vec<Value> {
    let history = json(bootstrap, &["plugin", "history", "letters", "--json"]);
    let events = history["history"].as_array().expect("a history").clone();
    events.into_iter().filter(|one| one["event"] == event).collect()
}

fn active(bootstrap: &str) -> u64 {
    json(bootstrap, &["plugin", "history", "letters", "--json"])["active"].as_u64().expect("a number")
}

#[test]
fn a_version_is_in_use_on_all_nodes() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'a', 'b'));
    // When the push returns, all use the version.
    push(&bootstrap, &folder, &filter(2));
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'b', 'a'));
    // The next push finds the new leader of the plug-ins' topic, and a node that comes back has missed it.
    cluster.kill(1);
    push(&bootstrap, &folder, &filter(3));
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'c', 'b'));
    restart(&mut cluster, 1, &topics[0]);
    cluster.kill(2);
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'c', 'b'));
}

/// Starts three nodes with a cache of compiled code each. The third one runs a program of its own.
fn start_apart(folder: &TempDir) -> (Cluster, PathBuf) {
    let program = folder.path().join("program");
    copy_program(&program);
    let cluster = Cluster::start_with(3, &[], |id, node| {
        let cache = folder.path().join(format!("cache-{id}"));
        let node = node.env("XDG_CACHE_HOME", cache.to_str().expect("a path of ASCII"));
        if id == 3 { node.program(&program) } else { node }
    });
    (cluster, program)
}

fn copy_program(to: &Path) {
    if fs::hard_link(millstream(), to).is_err() {
        fs::copy(millstream(), to).expect("copied");
    }
}

#[test]
fn a_version_that_one_broker_cannot_prepare_changes_nothing() {
    let folder = TempDir::new().expect("a folder");
    let (mut cluster, program) = start_apart(&folder);
    for id in 1..=3 {
        cluster.node_of(id).allow("a write to __millstream_plugins is rejected");
        cluster.node_of(id).allow("a change of the plug-ins cannot be prepared");
    }
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'a', 'b'));
    lead(&bootstrap, "__millstream_plugins", 1);
    // As if the package was removed: broker 3 cannot compile any more.
    fs::remove_file(&program).expect("removed");
    let end = try_push(&bootstrap, folder.path(), &filter(2));
    assert_eq!(end.code, Some(1), "{}", end.stdout);
    assert!(end.stderr.contains("broker 3: ") && end.stderr.contains("compile"), "{}", end.stderr);
    assert!(!end.stderr.contains("broker 1") && !end.stderr.contains("broker 2"), "{}", end.stderr);
    assert_eq!(active(&bootstrap), 1);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'a', 'b'));
    let refused = events(&bootstrap, "refused");
    assert!(refused.len() == 1 && refused[0]["reason"].to_string().contains("broker 3"), "{refused:?}");
    // A broker that is down is left out. It starts the version when it comes back.
    cluster.kill(3);
    push(&bootstrap, &folder, &filter(2));
    comes_to_reject(&bootstrap, &topics[2], 'b', 'a');
    copy_program(&program);
    restart(&mut cluster, 3, &topics[2]);
    lead(&bootstrap, &topics[2], 3);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'b', 'a'));
    assert_eq!(leader_of(&bootstrap, &topics[2]), Some(3));
}

#[test]
fn a_broker_that_dies_during_a_push_does_not_block_it() {
    let folder = TempDir::new().expect("a folder");
    let (mut cluster, _program) = start_apart(&folder);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    lead(&bootstrap, "__millstream_plugins", 1);
    // First a follower of the plug-ins' topic dies, then its leader.
    for (version, (dies, after_ms)) in (2..).zip([(2, 0), (3, 150), (1, 150)]) {
        let pushed = scope(|scope| {
            let pushing = scope.spawn(|| try_push(&bootstrap, folder.path(), &filter(version)));
            sleep(Duration::from_millis(after_ms));
            cluster.kill(dies);
            pushing.join().expect("no panic")
        });
        assert_eq!(pushed.code, Some(0), "{}{}", pushed.stdout, pushed.stderr);
        let (now, before) = (char::from(b'a' + version - 1), char::from(b'a' + version - 2));
        topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, now, before));
        restart(&mut cluster, dies, &topics[0]);
        lead(&bootstrap, &topics[usize::try_from(dies).expect("an id") - 1], dies);
        topics.iter().for_each(|topic| rejects(&bootstrap, topic, now, before));
    }
    assert_eq!(active(&bootstrap), 4);
}

#[test]
fn a_broker_that_hangs_during_a_push_is_left_out_when_it_is_fenced() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[("broker.session.timeout.ms", "1500")]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    lead(&bootstrap, "__millstream_plugins", 1);
    let pid = cluster.node_of(3).pid();
    kill_process(pid, Signal::STOP).expect("paused");
    let others = format!("{},{}", cluster.address(1), cluster.address(2));
    let pushed = try_push(&others, folder.path(), &filter(2));
    assert_eq!(pushed.code, Some(0), "{}{}", pushed.stdout, pushed.stderr);
    comes_to_reject(&others, &topics[2], 'b', 'a');
    kill_process(pid, Signal::CONT).expect("resumed");
    lead(&bootstrap, &topics[2], 3);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'b', 'a'));
}

#[test]
fn a_version_that_the_records_of_another_broker_need_is_not_deleted() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    for id in 1..=3 {
        cluster.node_of(id).allow("a write to __millstream_plugins is rejected");
        cluster.node_of(id).allow("a change of the plug-ins cannot be prepared");
    }
    let bootstrap = cluster.bootstrap();
    let compressor = |number: u8| Guest::compressor().name("packer").version(&format!("{number}.0.0"));
    push(&bootstrap, &folder, &compressor(1));
    lead(&bootstrap, "__millstream_plugins", 1);
    let create = ["topic", "create", "packed", "-p", "1", "-r", "1", "--config", "stage.compressor=packer"];
    output(&bootstrap, &[&create[..], &["--config", "min.insync.replicas=1"]].concat());
    output(&bootstrap, &["cluster", "reassign", "packed", "--to", "2"]);
    let begun = Instant::now();
    while leader_of(&bootstrap, "packed") != Some(2) {
        assert!(begun.elapsed() < PATIENCE, "broker 2 does not lead");
    }
    assert_eq!(run(&bootstrap, &["produce", "packed"], "z\n").code, Some(0));
    push(&bootstrap, &folder, &compressor(2));
    let end = run(&bootstrap, &["plugin", "delete", "packer@1"], "");
    assert_eq!(end.code, Some(1), "{}", end.stdout);
    assert!(end.stderr.contains("broker 2: packer@1 is needed to read what topic packed holds"), "{}", end.stderr);
    output(&bootstrap, &["topic", "delete", "packed"]);
    output(&bootstrap, &["plugin", "delete", "packer@1"]);
}

#[test]
fn failures_on_one_broker_roll_back_all_of_them_once() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    for id in 1..=3 {
        cluster.node_of(id).allow("fails too often");
        cluster.node_of(id).allow("rolled back");
    }
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    lead(&bootstrap, "__millstream_plugins", 1);
    push(&bootstrap, &folder, &filter(2).hook_with_rows("filter", "unreachable"));
    let begun = Instant::now();
    while active(&bootstrap) != 1 {
        assert!(begun.elapsed() < PATIENCE, "no rollback");
        run(&bootstrap, &["produce", &topics[1]], "z\n");
    }
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'a', 'b'));
    let rolled_back = events(&bootstrap, "rolled-back");
    assert_eq!(rolled_back.len(), 1, "{rolled_back:?}");
    assert_eq!(rolled_back[0]["reason"], "3 traps in 60 s on broker 2");
    let listed = json(&bootstrap, &["plugin", "list", "--json"]);
    let bad = listed.as_array().expect("a list").iter().find(|one| one["name"] == "letters" && one["number"] == 2);
    let bad = bad.unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(bad["rollbacks"], 1, "{bad}");
    assert!(bad["traps"].as_u64() >= Some(3), "{bad}");
    // It survives its leader.
    cluster.kill(1);
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'a', 'b'));
    cluster.restart(1);
}

#[test]
fn failures_on_several_brokers_add_up() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    (1..=3).for_each(|id| cluster.node_of(id).allow("rolled back"));
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    let topics = create_on_all(&bootstrap);
    push(&bootstrap, &folder, &filter(2).hook_with_rows("filter", "unreachable"));
    // One trap on each broker: none of them reaches the limit of three.
    for topic in &topics {
        assert_eq!(active(&bootstrap), 2);
        assert_ne!(run(&bootstrap, &["produce", topic], "z\n").code, Some(0));
    }
    let begun = Instant::now();
    while active(&bootstrap) != 1 {
        assert!(begun.elapsed() < PATIENCE, "no rollback");
        sleep(Duration::from_millis(20));
    }
    println!("rolled back after {:?}", begun.elapsed());
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'a', 'b'));
    let rolled_back = events(&bootstrap, "rolled-back");
    assert_eq!(rolled_back.len(), 1, "{rolled_back:?}");
    assert_eq!(rolled_back[0]["reason"], "3 traps in 60 s on brokers 1, 2, 3");
    let stats = json(&bootstrap, &["plugin", "stats", "--json"]);
    for broker in stats["brokers"].as_array().expect("a list") {
        let mut versions = broker["versions"].as_array().expect("a list").iter();
        let bad = versions.find(|one| one["name"] == "letters" && one["number"] == 2);
        // The call with the batch, and one that looks for the bad row, which does not count.
        assert_eq!(bad.map(|bad| &bad["traps"]), Some(&2.into()), "{broker}");
    }
}

#[test]
fn a_broker_that_joins_has_the_plug_ins_before_it_leads() {
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    create_led_by(&bootstrap, "lines", 1, &["stage.admit=letters"]);
    let fourth = Cluster::node(4, 0, cluster.node_port(1), &[]).start();
    let begun = Instant::now();
    // It is unfenced when it has a replica of the plug-ins' topic, and may lead at once.
    while run(&bootstrap, &["cluster", "reassign", "lines", "--to", "4,1,2"], "").code != Some(0)
        || run(&bootstrap, &["cluster", "elect", "lines"], "").code != Some(0)
        || leader_of(&bootstrap, "lines") != Some(4)
    {
        assert!(begun.elapsed() < PATIENCE, "broker 4 does not lead:\n{}", fourth.log());
        sleep(Duration::from_millis(50));
    }
    rejects(&bootstrap, "lines", 'a', 'b');
    assert!(partition_of(&bootstrap, "__millstream_plugins").replicas.contains(&4));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_change_under_load_without_an_error() {
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    tokio::task::block_in_place(|| {
        push(&bootstrap, &folder, &filter(1));
        output(&bootstrap, &["topic", "create", TOPIC, "-p", "3", "--config", "stage.admit=letters"]);
    });
    let workload = Workload::start(&bootstrap, TOPIC, 2, 300);
    for version in 2..=6 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::block_in_place(|| push(&bootstrap, &folder, &filter(version)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = workload.stop().await;
    let errors: Vec<&String> = seen.iter().flat_map(|seen| &seen.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let acknowledged = check(&bootstrap, TOPIC, &seen).await;
    assert!(acknowledged > 300, "too little happened: {acknowledged}");
    let stats = tokio::task::block_in_place(|| json(&bootstrap, &["plugin", "list", "--json"]));
    let calls = |number: u64| {
        stats.as_array().expect("a list").iter().any(|one| one["number"] == number && one["calls"].as_u64() > Some(0))
    };
    assert!((1..=6).all(calls), "a version has seen no batch: {stats}");
}

#[test]
fn a_folder_of_plug_ins_on_every_node_is_pushed_once() {
    let folder = TempDir::new().expect("a folder");
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins).expect("a folder");
    fs::write(plugins.join("letters.wasm"), filter(1).build()).expect("written");
    let cluster = Cluster::start_with(3, &[], |_, node| node.plugins(&plugins));
    let bootstrap = cluster.bootstrap();
    let begun = Instant::now();
    while run(&bootstrap, &["plugin", "history", "letters"], "").code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "the folder is not pushed");
        sleep(Duration::from_millis(100));
    }
    let topics = create_on_all(&bootstrap);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'a', 'b'));
    fs::write(plugins.join("letters.wasm"), filter(2).build()).expect("written");
    topics.iter().for_each(|topic| comes_to_reject(&bootstrap, topic, 'b', 'a'));
    assert_eq!((events(&bootstrap, "pushed").len(), active(&bootstrap)), (2, 2));
}
