//! Stages that name a file on the broker's machine. The broker follows the file however it is replaced, even if it is
//! missing at first.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;

use super::*;
use crate::support::{Raw, Topic, alter, batch};

/// Returns the topic of these tests.
fn lines() -> Topic {
    Topic { name: "lines".into(), id: uuid::Uuid::nil() }
}

/// Replaces a file with another one.
type Replace = fn(&Path, &[u8]);

fn rename_over(folder: &Path, component: &[u8]) {
    fs::write(folder.join("aside"), component).expect("a file of the test's own");
    fs::rename(folder.join("aside"), folder.join("letters.wasm")).expect("renamed");
}

fn copy_over(folder: &Path, component: &[u8]) {
    fs::write(folder.join("aside"), component).expect("a file of the test's own");
    fs::copy(folder.join("aside"), folder.join("letters.wasm")).expect("copied");
}

/// Points a symbolic link to another target atomically.
fn relink(target: &Path, link: &Path) {
    let aside = link.with_file_name("aside");
    symlink(target, &aside).expect("a link");
    fs::rename(aside, link).expect("renamed");
}

/// Writes a component to a new folder beside the others: `DIGEST/letters.wasm`.
fn new_folder(folder: &Path, component: &[u8]) -> PathBuf {
    let new = PathBuf::from(Digest::of(component).to_string());
    fs::create_dir(folder.join(&new)).expect("a folder of the test's own");
    fs::write(folder.join(&new).join("letters.wasm"), component).expect("a file of the test's own");
    new
}

fn change_link(folder: &Path, component: &[u8]) {
    let new = new_folder(folder, component);
    relink(&new.join("letters.wasm"), &folder.join("letters.wasm"));
}

/// Replaces the file as Kubernetes changes a mounted ConfigMap.
fn change_config_map(folder: &Path, component: &[u8]) {
    let data = folder.join("..data");
    let before = fs::read_link(&data).ok();
    relink(&new_folder(folder, component), &data);
    match before {
        Some(before) => fs::remove_dir_all(folder.join(before)).expect("removed"),
        None => symlink("..data/letters.wasm", folder.join("letters.wasm")).expect("a link"),
    }
}

fn path_in(folder: &Path) -> String {
    folder.join("letters.wasm").to_str().expect("a path of ASCII").to_owned()
}

fn wait_for_refusal(broker: &Broker, topic: &str, letters: &str) {
    wait_until(&format!("{topic} to reject {letters}"), PATIENCE, || {
        (refused_letters(broker, topic) == letters).then_some(())
    });
}

#[test]
fn a_topic_follows_its_file_however_it_is_replaced() {
    let replaces: [(&str, Replace); 4] =
        [("renamed", rename_over), ("copied", copy_over), ("link", change_link), ("config-map", change_config_map)];
    let broker = Broker::start();
    broker.allow("a changed plug-in is not used");
    for (topic, replace) in replaces {
        let folder = broker.scratch().join(topic);
        fs::create_dir(&folder).expect("a folder of the test's own");
        replace(&folder, &filter("letters", 1).build());
        admit(&broker, topic, &path_in(&folder));
        assert_eq!(refused_letters(&broker, topic), "a");
        for (version, letter) in [(2, "b"), (3, "c")] {
            replace(&folder, &filter("letters", version).build());
            wait_for_refusal(&broker, topic, letter);
        }
        // A broken file leaves the version before it in use.
        replace(&folder, b"no component");
        wait_until("the broken file to be logged", PATIENCE, || {
            let log = broker.log();
            let mut lines = log.lines().filter(|line| line.contains(&path_in(&folder)));
            lines.any(|line| line.contains("not used")).then_some(())
        });
        assert_eq!(refused_letters(&broker, topic), "c");
        replace(&folder, &filter("letters", 4).build());
        wait_for_refusal(&broker, topic, "d");
    }
}

#[test]
fn a_topic_whose_file_is_missing_at_the_start_recovers_by_itself() {
    let mut broker = Broker::start();
    broker.allow("a stage cannot be started");
    broker.allow("a stage still cannot be started");
    let folder = broker.scratch().join("mount");
    fs::create_dir(&folder).expect("a folder of the test's own");
    rename_over(&folder, &filter("letters", 1).build());
    let path = path_in(&folder);
    admit(&broker, "lines", &path);
    output(&broker, &["view", "create", "shown", "--of", "lines", "--filter", &path]);
    output(&broker, &["topic", "create", "plain", "-p", "1"]);
    assert_eq!(run_produce(&broker, "lines", "b").code, Some(0));
    // The whole folder is missing, such as a volume that is mounted late.
    let away = broker.scratch().join("away");
    fs::rename(&folder, &away).expect("renamed");
    broker.kill();
    broker.restart();

    // Other topics work. This one rejects records with an error that clients retry and that names the file.
    assert_eq!(run_produce(&broker, "plain", "b").code, Some(0));
    let mut raw = Raw::connect(&broker);
    let topic = lines();
    let rejected = topic.produce_by(&mut raw, 9, batch(&["b"]));
    let message = rejected.error_message.as_deref().unwrap_or_default();
    assert_eq!(rejected.error_code, ErrorCode::KAFKA_STORAGE_ERROR, "{message}");
    assert!(message.contains("stage.admit") && message.contains(&path), "{message}");
    // An alteration that changes nothing reports it too.
    let (code, message) = alter(&mut raw, "lines", &[("stage.admit", Some(&path))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG, "{message}");
    assert!(message.contains("stage.admit") && message.contains(&path), "{message}");
    // Other configs can be changed.
    let (code, message) = alter(&mut raw, "lines", &[("retention.ms", Some("3600000"))]);
    assert_eq!(code, ErrorCode::NONE, "{message}");

    // A producer retries, and succeeds once the file is there.
    let waiting = std::thread::scope(|scope| {
        let produce = scope.spawn(|| run_produce(&broker, "lines", "c"));
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(!produce.is_finished(), "it gave up");
        fs::rename(&away, &folder).expect("renamed");
        produce.join().expect("no panic")
    });
    assert_eq!(waiting.code, Some(0), "{}", waiting.stderr);
    assert_eq!(refused_letters(&broker, "lines"), "a");
    let shown = output(&broker, &["consume", "shown", "--from-beginning"]);
    assert!(shown.lines().any(|line| line == "c"), "{shown}");
    // The broker follows it after that.
    rename_over(&folder, &filter("letters", 2).build());
    wait_for_refusal(&broker, "lines", "b");
}

#[test]
fn an_alter_with_the_same_text_starts_stages_whose_file_is_back() {
    let mut broker = Broker::start();
    broker.allow("a stage cannot be started");
    broker.allow("a stage still cannot be started");
    let path = write(&broker, "letters.wasm", &filter("letters", 1));
    let path = path.to_str().expect("a path of ASCII").to_owned();
    admit(&broker, "lines", &path);
    let away = broker.scratch().join("away");
    fs::rename(&path, &away).expect("renamed");
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    let topic = lines();
    assert_eq!(topic.produce_by(&mut raw, 9, batch(&["b"])).error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    fs::rename(&away, &path).expect("renamed");
    let (code, message) = alter(&mut raw, "lines", &[("stage.admit", Some(&path))]);
    assert_eq!(code, ErrorCode::NONE, "{message}");
    assert_eq!(topic.produce_by(&mut raw, 9, batch(&["b"])).error_code, ErrorCode::NONE);
    assert_eq!(topic.produce_by(&mut raw, 9, batch(&["a"])).error_code, ErrorCode::INVALID_RECORD);
}

/// Without a folder for the cache of compiled code, stages still run.
#[test]
fn stages_run_without_a_folder_for_the_cache() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    for home in [file.path().to_str().expect("a path of ASCII"), "/dev/full", "/proc"] {
        let broker = Broker::builder().env("HOME", home).env("XDG_CACHE_HOME", "").start();
        broker.allow("the cache of compiled plug-ins is off");
        push(&broker, &filter("letters", 1));
        admit(&broker, "lines", "letters");
        admit(&broker, "embedded", r#"contains{"text":"b"}"#);
        assert_eq!(refused_letters(&broker, "lines"), "a");
        assert_eq!(refused_letters(&broker, "embedded"), "acdef");
        let log = broker.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("the cache of compiled plug-ins")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains(home), "{}", warnings[0]);
        let inspect = Tool::new(millstream()).args(["plugin", "inspect", "murmur2"]);
        let inspected = inspect.env("HOME", home).env("XDG_CACHE_HOME", "").run();
        assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    }
}

#[test]
fn a_file_that_is_broken_at_the_start_has_no_version_that_stays_in_use() {
    let mut broker = Broker::start();
    for expected in ["a stage cannot be started", "a stage still cannot be started", "a plug-in is not used"] {
        broker.allow(expected);
    }
    let path = write(&broker, "letters.wasm", &filter("letters", 1));
    let path = path.to_str().expect("a path of ASCII").to_owned();
    admit(&broker, "lines", &path);
    broker.kill();
    fs::write(&path, b"no component").expect("a file of the test's own");
    broker.restart();
    wait_until("the broken file to be logged", PATIENCE, || {
        broker.log().lines().any(|line| line.contains("not used") && line.contains(&path)).then_some(())
    });
    assert!(broker.log().contains("no version is in use"), "{}", broker.log());
    assert!(!broker.log().contains("stays in use"), "{}", broker.log());
    fs::write(&path, filter("letters", 2).build()).expect("a file of the test's own");
    wait_for_refusal(&broker, "lines", "b");
}
