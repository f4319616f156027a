//! Plug-ins of a cluster: a version that is pushed through one node is in use on all of them.

use std::fs;
use std::time::{Duration, Instant};

use millstream_tests::{Cluster, Finished, Tool, millstream};
use tempfile::TempDir;

use crate::guests::Guest;

/// Long enough for a slow machine; only a test that fails reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a filter whose version 1 rejects values that begin with an `a`, version 2 with a `b`, and so on.
fn filter(version: u8) -> Guest {
    let letter = format!("(i32.const {})", b'a' + version - 1);
    Guest::filter().name("letters").version(&format!("{version}.0.0")).edit("(i32.const 120)", &letter)
}

fn run(bootstrap: &str, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", bootstrap]).input(input).limit(PATIENCE).run()
}

fn output(bootstrap: &str, args: &[&str]) -> String {
    let end = run(bootstrap, args, "");
    assert_eq!(end.code, Some(0), "{args:?}: {}{}", end.stdout, end.stderr);
    end.stdout
}

fn push(bootstrap: &str, folder: &TempDir, version: u8) {
    let file = folder.path().join("letters.wasm");
    fs::write(&file, filter(version).build()).expect("written");
    output(bootstrap, &["plugin", "push", file.to_str().expect("a path of ASCII")]);
}

/// Waits until a topic rejects this letter, and takes another one.
fn rejects(bootstrap: &str, topic: &str, letter: char, other: char) {
    let begun = Instant::now();
    let rejected = |letter: char| run(bootstrap, &["produce", topic], &format!("{letter}\n")).code != Some(0);
    while !rejected(letter) || rejected(other) {
        assert!(begun.elapsed() < PATIENCE, "{topic} does not reject {letter} and take {other}");
    }
}

#[test]
fn a_version_is_in_use_on_all_nodes() {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(3, &[]);
    for id in 1..=3 {
        // A node may hear of a topic before it has the plug-in of its stage.
        cluster.node_of(id).allow("a stage cannot be started");
    }
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, 1);
    // The three partitions have three leaders, so that each node runs the filter.
    let topics: Vec<String> = (1..=3).map(|leader| format!("led-by-{leader}")).collect();
    for topic in &topics {
        let config = "stage.admit=letters";
        output(&bootstrap, &["topic", "create", topic, "-p", "1", "--config", config]);
    }
    for (topic, leader) in topics.iter().zip(1..) {
        let others = (1..=3).filter(|id| *id != leader).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        output(&bootstrap, &["cluster", "reassign", topic, "--to", &format!("{leader},{others}")]);
        let elected = run(&bootstrap, &["cluster", "elect", topic], "");
        assert!(elected.code == Some(0), "{}", elected.stderr);
        rejects(&bootstrap, topic, 'a', 'b');
    }
    push(&bootstrap, &folder, 2);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'b', 'a'));
    // The next push finds the new leader of the plug-ins' topic, and a node that comes back has missed it.
    cluster.kill(1);
    push(&bootstrap, &folder, 3);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'c', 'b'));
    cluster.restart(1);
    cluster.kill(2);
    topics.iter().for_each(|topic| rejects(&bootstrap, topic, 'c', 'b'));
}
