//! Plug-ins in the broker's store, with the real binary: from a push to a rollback.

mod commands;
mod deletions;
mod files;
mod folder;
mod inspect;
mod kills;
mod records;
mod rollback;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use millstream_stage::Digest;
use millstream_tests::{Broker, Finished, Tool, millstream};

use crate::guests::Guest;

/// Long enough for a slow machine; only a test that fails reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a filter with this name. Version 1 rejects values that begin with an `a`, version 2 with a `b`, and so on.
fn filter(name: &str, version: u8) -> Guest {
    let letter = format!("(i32.const {})", b'a' + version - 1);
    Guest::filter().name(name).version(&format!("{version}.0.0")).edit("(i32.const 120)", &letter)
}

/// Writes a component to a file for a command.
fn write(broker: &Broker, file: &str, guest: &Guest) -> PathBuf {
    let path = broker.scratch().join(file);
    fs::write(&path, guest.build()).expect("a file of the test's own");
    path
}

/// Runs a command of the binary against the broker.
fn run(broker: &Broker, args: &[&str]) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", &broker.bootstrap()]).limit(PATIENCE).run()
}

/// Runs a command that must succeed, and returns its standard output.
fn output(broker: &Broker, args: &[&str]) -> String {
    let end = run(broker, args);
    assert_eq!(end.code, Some(0), "{args:?}: {}{}", end.stdout, end.stderr);
    end.stdout
}

/// Runs a command that must fail, and returns its error.
fn refusal(broker: &Broker, args: &[&str]) -> String {
    let end = run(broker, args);
    assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{args:?}: {}", end.stderr);
    let errors: Vec<&str> = end.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", end.stderr);
    errors[0].to_owned()
}

fn push(broker: &Broker, guest: &Guest) -> String {
    let file = write(broker, "pushed.wasm", guest);
    output(broker, &["plugin", "push", file.to_str().expect("a path of ASCII")])
}

fn push_refused(broker: &Broker, guest: &Guest) -> String {
    let file = write(broker, "pushed.wasm", guest);
    refusal(broker, &["plugin", "push", file.to_str().expect("a path of ASCII")])
}

/// Creates a topic that rejects the records that a filter does not keep.
fn admit(broker: &Broker, topic: &str, stage: &str) {
    output(broker, &["topic", "create", topic, "-p", "1", "--config", &format!("stage.admit={stage}")]);
}

fn run_produce(broker: &Broker, topic: &str, value: &str) -> Finished {
    let tool = Tool::new(millstream()).args(["produce", topic, "-b", &broker.bootstrap()]);
    tool.input(format!("{value}\n")).limit(PATIENCE).run()
}

/// Returns the first letters that a topic rejects now. They tell the versions of [`filter`] apart.
fn refused_letters(broker: &Broker, topic: &str) -> String {
    let is_refused = |letter: &char| {
        let end = run_produce(broker, topic, &letter.to_string());
        assert!(end.code == Some(0) || end.stderr.contains("not stored"), "{letter}: {}", end.stderr);
        end.code != Some(0)
    };
    ('a'..='f').filter(is_refused).collect()
}

/// Returns the digests of the components that have chunks in the store.
fn stored_components(broker: &Broker) -> BTreeSet<String> {
    let records = output(broker, &["consume", "__millstream_plugins", "--from-beginning", "--json"]);
    let mut chunks = BTreeMap::new();
    for record in records.lines() {
        let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
        let key = record["key"].as_str().expect("a text");
        if let Some((digest, _)) = key.strip_prefix("chunk/").and_then(|place| place.split_once('/')) {
            let is_gone = record.get("value").is_some_and(serde_json::Value::is_null);
            chunks.insert(digest.to_owned(), !is_gone);
        }
    }
    chunks.into_iter().filter_map(|(digest, is_there)| is_there.then_some(digest)).collect()
}

fn digests(components: &[&[u8]]) -> BTreeSet<String> {
    components.iter().map(|component| Digest::of(component).to_string()).collect()
}
