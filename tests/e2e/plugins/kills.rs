//! SIGKILL at many moments of a push, an activation and a change in a watched folder, under load. After each restart
//! exactly one complete version serves. It is the one that the store calls active, and records flow.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use millstream_client::{Producer, ProducerConfig, ProducerRecord};
use millstream_tests::{Broker, Tool, millstream, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::support::{Raw, Topic};

const KILLS: u32 = 30;

/// The kills are spread over this time after the start of an operation. A push takes about half of it here.
const SPREAD: Duration = Duration::from_millis(150);

/// Sends records until `stop`, with acks=all and idempotence over all kills. No version rejects their first bytes.
/// `stored` counts the acknowledged ones.
fn load(bootstrap: &str, stop: &AtomicBool, stored: &Arc<AtomicU64>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let producer = Producer::builder(ProducerConfig::new(bootstrap)).build().expect("a producer");
        let mut number = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            let value = format!("z {number}");
            number += 1;
            let stored = Arc::clone(stored);
            let count = move |verdict: Result<_, millstream_client::Error>| {
                verdict.expect("no record is lost to a kill");
                stored.fetch_add(1, Ordering::SeqCst);
            };
            let record = ProducerRecord::new("load").value(value.as_bytes());
            producer.send_with_callback(record, count).await.expect("a record is taken");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        producer.close(PATIENCE).await.expect("all is delivered");
    });
}

/// Returns a new version, and the letter that it rejects.
fn version(round: u32) -> Guest {
    let letter = (round % 6) as u8 + 1;
    filter("letters", letter).version(&format!("{letter}.0.{round}"))
}

/// Returns the manifest in the store.
fn manifest(broker: &Broker) -> Value {
    serde_json::from_str(&output(broker, &["plugin", "history", "letters", "--json"])).expect("JSON")
}

/// Checks that the version that serves is complete, and is the active one.
fn check(broker: &Broker, after: &str) {
    let manifest = manifest(broker);
    let versions = manifest["versions"].as_array().expect("versions");
    let active = versions.iter().find(|version| version["number"] == manifest["active"]);
    let own = active.unwrap_or_else(|| panic!("after {after}: {manifest}"))["version"].as_str().expect("a version");
    let letter = char::from(b'a' + own[..1].parse::<u8>().expect("a number") - 1);
    assert_eq!(refused_letters(broker, "lines"), letter.to_string(), "after {after}: {own} is active");
}

fn push_in_background(broker: &Broker, round: u32) -> std::process::Child {
    let file = write(broker, &format!("{round}.wasm"), &version(round));
    Tool::new(millstream()).args(["plugin", "push", "-b", &broker.bootstrap()]).arg(file).spawn()
}

fn activate_in_background(broker: &Broker, round: u32) -> std::process::Child {
    let manifest = manifest(broker);
    let versions = manifest["versions"].as_array().expect("versions");
    let other = &versions[round as usize % versions.len()]["number"];
    Tool::new(millstream()).args(["plugin", "activate", &format!("letters@{other}"), "-b", &broker.bootstrap()]).spawn()
}

fn change_file(folder: &Path, round: u32) {
    let aside = folder.join("aside");
    fs::write(&aside, version(round).build()).expect("a file of the test's own");
    fs::rename(aside, folder.join("letters.wasm")).expect("a file of the test's own");
}

#[test]
fn one_whole_version_serves_after_any_kill() {
    let (folder, cache) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    change_file(folder.path(), 0);
    let cache = cache.path().to_str().expect("a path of ASCII");
    // A cache of its own, so that every version is compiled here for the first time.
    let mut broker = Broker::builder().plugins(folder.path()).env("XDG_CACHE_HOME", cache).start();
    admit(&broker, "lines", "letters");
    admit(&broker, "load", "letters");
    let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loader = thread::spawn({
        let (bootstrap, stop, stored) = (broker.bootstrap(), Arc::clone(&stop), Arc::clone(&stored));
        move || load(&bootstrap, &stop, &stored)
    });
    for round in 1..=KILLS {
        let operation = match round % 3 {
            0 => Some(activate_in_background(&broker, round)),
            1 => Some(push_in_background(&broker, round)),
            _ => None,
        };
        if operation.is_none() {
            change_file(folder.path(), round);
        }
        // The kill comes at a different moment in each round.
        thread::sleep(SPREAD * round / KILLS);
        broker.kill();
        broker.restart();
        if let Some(mut operation) = operation {
            // The command ends by itself, with success or not, since the broker is back.
            wait_until("the command to end", PATIENCE, || operation.try_wait().expect("a child"));
        }
        check(&broker, &format!("kill {round}"));
        let before = stored.load(Ordering::SeqCst);
        wait_until("records to flow on", PATIENCE, || (stored.load(Ordering::SeqCst) > before).then_some(()));
    }
    stop.store(true, Ordering::SeqCst);
    loader.join().expect("the load ends well");
    let mut raw = Raw::connect(&broker);
    let read = Topic { name: "load".into(), id: Default::default() }.read(&mut raw, 0);
    let distinct: BTreeSet<&String> = read.iter().collect();
    assert_eq!(read.len() as u64, stored.load(Ordering::SeqCst), "what was acknowledged is there once");
    assert_eq!(distinct.len(), read.len());
    let manifest = manifest(&broker);
    let versions = manifest["versions"].as_array().expect("versions").len();
    assert!(versions > KILLS as usize / 3, "most operations came to something: {versions} versions");
}
