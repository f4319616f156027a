//! The commands `millstream plugin push`, `activate`, `rollback`, `list`, `stats`, `history`, `logs` and `delete`.

use std::io::{BufRead, BufReader};
use std::thread;

use millstream_tests::{Broker, Tool, millstream, wait_until};

use super::*;
use crate::guests::{Guest, IMPORT_LOG};

/// Returns a plug-in's columns in the list: kind, active version, versions.
fn listed(broker: &Broker, name: &str) -> Vec<String> {
    let list = output(broker, &["plugin", "list"]);
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{list}"));
    line.split_whitespace().skip(1).take(3).map(str::to_owned).collect()
}

/// Returns the events of a history, without their times.
fn events(broker: &Broker, name: &str) -> Vec<String> {
    let history = output(broker, &["plugin", "history", name]);
    let words = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    history.lines().map(words).collect()
}

#[test]
fn from_push_to_delete() {
    let broker = Broker::start();
    broker.allow("a write to __millstream_plugins");
    assert_eq!(push(&broker, &filter("letters", 1)), "letters@1 pushed and active\n");
    assert_eq!(push(&broker, &filter("letters", 1)), "letters@1 already exists, active\n");
    admit(&broker, "follows", "letters");
    admit(&broker, "pinned", "letters@1");
    assert_eq!(refused_letters(&broker, "follows"), "a");
    assert_eq!(push(&broker, &filter("letters", 2)), "letters@2 pushed and active\n");
    assert_eq!((refused_letters(&broker, "follows"), refused_letters(&broker, "pinned")), ("b".into(), "a".into()));
    let stats: serde_json::Value =
        serde_json::from_str(&output(&broker, &["plugin", "stats", "--json"])).expect("JSON");
    let rejected = stats["rejected_producers"].as_array().expect("a list");
    let follows: Vec<_> = rejected.iter().filter(|producer| producer["topic"] == "follows").collect();
    assert!(!follows.is_empty() && follows.iter().all(|producer| producer["records"].as_u64() > Some(0)), "{stats}");
    assert!(
        stats["versions"].as_array().expect("a list").iter().any(|version| version["name"] == "letters"),
        "{stats}"
    );
    let third = write(&broker, "third.wasm", &filter("letters", 3));
    let third = third.to_str().expect("a path of ASCII");
    let stored = output(&broker, &["plugin", "push", third, "--no-activate"]);
    assert_eq!(stored, "letters@3 pushed, not active\n");
    assert_eq!(refused_letters(&broker, "follows"), "b");
    assert_eq!(output(&broker, &["plugin", "activate", "letters@3"]), "letters@3 is active\n");
    assert_eq!(refused_letters(&broker, "follows"), "c");
    assert_eq!(listed(&broker, "letters"), ["filter", "3", "1-3"]);
    assert_eq!(output(&broker, &["plugin", "rollback", "letters", "--reason", "a test"]), "letters@2 is active\n");
    assert_eq!((refused_letters(&broker, "follows"), refused_letters(&broker, "pinned")), ("b".into(), "a".into()));
    assert_eq!(
        events(&broker, "letters"),
        [
            "pushed letters@1 (1.0.0)",
            "activated letters@1 (1.0.0)",
            "pushed letters@2 (2.0.0)",
            "activated letters@2 (2.0.0)",
            "pushed letters@3 (3.0.0)",
            "activated letters@3 (3.0.0)",
            "rolled-back letters@2 (2.0.0) a test",
        ]
    );
    let pinned = refusal(&broker, &["plugin", "delete", "letters@1"]);
    assert!(pinned.contains("letters@1 is used by topic pinned, stage.admit"), "{pinned}");
    let followed = refusal(&broker, &["plugin", "delete", "letters"]);
    assert!(followed.contains("is used by topic"), "{followed}");
    let serves = refusal(&broker, &["plugin", "delete", "letters@2"]);
    assert!(serves.contains("version 2 of plug-in `letters` is active"), "{serves}");
    assert_eq!(output(&broker, &["plugin", "delete", "letters@3"]), "deleted letters@3\n");
    assert_eq!(listed(&broker, "letters"), ["filter", "2", "1,2"]);
    output(&broker, &["topic", "delete", "follows", "pinned"]);
    assert_eq!(output(&broker, &["plugin", "delete", "letters"]), "deleted letters\n");
    let list = output(&broker, &["plugin", "list"]);
    assert!(list.contains("letters@2") && list.contains("deleted"), "what it did is not forgotten: {list}");
    assert!(!list.contains("active"), "{list}");
    let gone = refusal(&broker, &["plugin", "history", "letters"]);
    assert!(gone.contains("has no plug-in `letters`"), "{gone}");
    let unknown = run(&broker, &["topic", "create", "again", "--config", "stage.admit=letters"]);
    assert!(unknown.stderr.contains("there is no plug-in `letters`"), "{}", unknown.stderr);
}

/// Configs that use the name of a built-in plug-in keep their meaning.
#[test]
fn a_name_of_the_binary_keeps_its_kind() {
    let broker = Broker::start();
    broker.allow("a write to __millstream_plugins");
    let file = write(&broker, "pushed.wasm", &filter("letters", 1));
    let file = file.to_str().expect("a path of ASCII");
    let refused = refusal(&broker, &["plugin", "push", file, "--name", "json"]);
    assert!(refused.contains("plug-in json is a serializer in the binary, and this is a filter"), "{refused}");
    assert_eq!(output(&broker, &["plugin", "push", file, "--name", "contains"]), "contains@1 pushed and active\n");
    let none = refusal(&broker, &["plugin", "activate", "letters@0"]);
    assert!(none.contains("letters@0 means the letters in the binary, but the binary has no such plug-in"), "{none}");
    let nothing = run(&broker, &["plugin", "logs", "letters"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""));
    assert!(nothing.stderr.contains("hint: the brokers have no log lines of letters"), "{}", nothing.stderr);
}

#[test]
fn what_serves_is_there_after_a_restart() {
    let mut broker = Broker::start();
    push(&broker, &filter("letters", 1));
    push(&broker, &filter("letters", 2));
    admit(&broker, "lines", "letters");
    output(&broker, &["plugin", "rollback", "letters"]);
    for _ in 0..2 {
        broker.kill();
        broker.restart();
        assert_eq!(refused_letters(&broker, "lines"), "a");
        assert_eq!(listed(&broker, "letters"), ["filter", "1", "1,2"]);
    }
}

#[test]
fn a_version_that_does_not_fit_one_topic_changes_none() {
    let broker = Broker::start();
    broker.allow("a write to __millstream_plugins");
    push(&broker, &filter("letters", 1));
    admit(&broker, "orders", "letters");
    admit(&broker, "strict", "letters{\"text\":\"strict\"}");
    // It accepts only the configuration `{}`.
    let code = "(if (i32.gt_u (local.get $length) (i32.const 2)) (then unreachable))";
    let refused = push_refused(&broker, &filter("letters", 2).hook("configure", code));
    assert!(refused.contains("topic strict, stage.admit"), "{refused}");
    assert!(refused.contains("nothing is changed"), "{refused}");
    assert_eq!((refused_letters(&broker, "orders"), refused_letters(&broker, "strict")), ("a".into(), "a".into()));
    assert_eq!(listed(&broker, "letters"), ["filter", "1", "1"]);
    // It is in the history, once however often it is tried.
    push_refused(&broker, &filter("letters", 2).hook("configure", code));
    let history = events(&broker, "letters");
    assert_eq!(history.len(), 3, "{history:?}");
    let why = "refused letters@2 plug-in letters@2 (version 2.0.0) cannot be activated: topic strict, stage.admit: ";
    assert!(history[2].starts_with(why), "{history:?}");
    assert_eq!(stored_components(&broker), digests(&[&filter("letters", 1).build()]));
    // Its bytes are removed too, and the next version gets its number.
    assert_eq!(push(&broker, &filter("letters", 3)), "letters@2 pushed and active\n");
    let no_plugin = write(&broker, "text.wasm", &filter("letters", 1));
    fs::write(&no_plugin, "no component").expect("a file of the test's own");
    let refused = refusal(&broker, &["plugin", "push", no_plugin.to_str().expect("a path of ASCII")]);
    assert!(refused.contains("text.wasm"), "{refused}");
    // A pipe can be read only once.
    let piped = ["plugin", "push", "/dev/stdin", "--name", "piped", "-b", &broker.bootstrap()];
    let piped = Tool::new(millstream()).args(piped).input(filter("letters", 1).build()).succeed();
    assert_eq!(piped, "piped@1 pushed and active\n");
    let other_kind = push_refused(&broker, &Guest::compressor().name("letters"));
    assert!(other_kind.contains("is a filter in the cluster, and this is a compressor"), "{other_kind}");
    let wrong = refusal(&broker, &["plugin", "activate", "letters"]);
    assert!(wrong.contains("letters@NUMBER"), "{wrong}");
    let wrong = refusal(&broker, &["plugin", "activate", "letters@9"]);
    assert!(wrong.contains("has no version 9; it has: 1, 2"), "{wrong}");
    // The same holds for a version that was stored earlier.
    let stored = write(&broker, "stored.wasm", &filter("letters", 4).hook("configure", code));
    output(&broker, &["plugin", "push", stored.to_str().expect("a path of ASCII"), "--no-activate"]);
    let refused = refusal(&broker, &["plugin", "activate", "letters@3"]);
    assert!(refused.contains("topic strict, stage.admit"), "{refused}");
    let history = events(&broker, "letters");
    assert!(history[history.len() - 1].starts_with("refused letters@3"), "{history:?}");
    assert_eq!(listed(&broker, "letters"), ["filter", "2", "1-3"]);
}

#[test]
fn a_version_replaces_the_built_in_plug_in_until_it_is_deleted() {
    let broker = Broker::start();
    admit(&broker, "lines", "contains{\"text\":\"e\"}");
    assert_eq!(refused_letters(&broker, "lines"), "abcdf");
    push(&broker, &filter("contains", 1));
    assert_eq!(refused_letters(&broker, "lines"), "a");
    let back = output(&broker, &["plugin", "rollback", "contains"]);
    assert_eq!(back, "contains (the one in the binary) is active\n");
    assert_eq!(refused_letters(&broker, "lines"), "abcdf");
    output(&broker, &["plugin", "delete", "contains"]);
    assert_eq!(refused_letters(&broker, "lines"), "abcdf");
}

#[test]
fn a_plug_in_that_stored_data_needs_is_not_deleted() {
    let broker = Broker::start();
    broker.allow("is needed to read what topic");
    // It writes a private format, so stored batches need this very version.
    let packer = |version: u8| Guest::compressor().name("packer").version(&format!("{version}.0.0"));
    push(&broker, &packer(1));
    output(&broker, &["topic", "create", "packed", "-p", "1", "--config", "stage.compressor=packer"]);
    let lines = Tool::new(millstream()).args(["produce", "packed", "-b", &broker.bootstrap()]).input("one\ntwo\n");
    lines.succeed();
    push(&broker, &packer(2));
    let needed = refusal(&broker, &["plugin", "delete", "packer@1"]);
    assert!(needed.contains("packer@1 is needed to read what topic packed holds"), "{needed}");
    assert_eq!(output(&broker, &["consume", "packed", "--from-beginning"]), "one\ntwo\n");
    // The same bytes under another name work as well.
    let same = write(&broker, "same.wasm", &packer(1));
    output(&broker, &["plugin", "push", same.to_str().expect("a path of ASCII"), "--name", "other"]);
    output(&broker, &["plugin", "delete", "packer@1"]);
    assert_eq!(output(&broker, &["consume", "packed", "--from-beginning"]), "one\ntwo\n");
}

#[test]
fn pushes_at_the_same_time_all_become_versions() {
    let broker = Broker::start();
    broker.allow("was changed meanwhile");
    push(&broker, &filter("letters", 1));
    admit(&broker, "lines", "letters");
    let printed: Vec<String> = thread::scope(|scope| {
        let pushers: Vec<_> = (2..=6)
            .map(|version| {
                let file = write(&broker, &format!("{version}.wasm"), &filter("letters", version));
                let broker = &broker;
                scope.spawn(move || output(broker, &["plugin", "push", file.to_str().expect("a path of ASCII")]))
            })
            .collect();
        pushers.into_iter().map(|pusher| pusher.join().expect("a pusher does not panic")).collect()
    });
    let mut numbers: Vec<&str> = printed.iter().filter_map(|line| line.split(['@', ' ']).nth(1)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["2", "3", "4", "5", "6"], "{printed:?}");
    assert_eq!(listed(&broker, "letters"), ["filter", "6", "1-6"]);
    // The version that is last in the log is active, whichever it is.
    let history = output(&broker, &["plugin", "history", "letters", "--json"]);
    let history: serde_json::Value = serde_json::from_str(&history).expect("JSON");
    let own = history["versions"][5]["version"].as_str().expect("a version").to_owned();
    let letter = char::from(b'a' + own[..1].parse::<u8>().expect("a number") - 1);
    assert_eq!(refused_letters(&broker, "lines"), letter.to_string());
}

#[test]
fn what_a_plug_in_logs_is_read_and_followed() {
    let broker = Broker::start();
    broker.allow("talkative@");
    let text = "three \u{1b}[31m rows";
    // Level 1 is a warning.
    let log = format!("(call $log (i32.const 1) (i32.const 192) (i32.const {}))", text.len());
    let guest = filter("talkative", 1).text(text).import(IMPORT_LOG).hook_with_rows("filter", &log);
    assert_eq!(output(&broker, &["plugin", "logs", "talkative"]), "");
    push(&broker, &guest);
    admit(&broker, "lines", "talkative");
    let mut follower =
        Tool::new(millstream()).args(["plugin", "logs", "talkative", "-f", "-b", &broker.bootstrap()]).spawn();
    refused_letters(&broker, "lines");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("a line");
    assert!(line.ends_with("warn  talkative@1  three \\u{1b}[31m rows"), "{line}");
    follower.kill().expect("the follower runs");
    follower.wait().expect("the follower ends");
    let read = wait_until("the lines to be there", PATIENCE, || {
        Some(output(&broker, &["plugin", "logs", "talkative"])).filter(|read| read.lines().count() >= 6)
    });
    assert!(read.lines().all(|line| line.contains("warn")), "{read}");
    assert_eq!(output(&broker, &["plugin", "logs", "other"]), "");
}

#[test]
fn calls_records_and_errors_are_counted_by_version() {
    let broker = Broker::start();
    push(&broker, &filter("letters", 1));
    admit(&broker, "lines", "letters");
    refused_letters(&broker, "lines");
    push(&broker, &filter("letters", 2));
    refused_letters(&broker, "lines");
    // The error names the version as the store does.
    let refused = run_produce(&broker, "lines", "b");
    assert!(refused.stderr.contains("rejected by filter letters@2"), "{}", refused.stderr);
    let stats = output(&broker, &["plugin", "list", "--json"]);
    let stats: Vec<serde_json::Value> = serde_json::from_str(&stats).expect("JSON");
    for (number, calls) in [(1, 6), (2, 7)] {
        let counts = stats.iter().find(|counts| counts["name"] == "letters" && counts["number"] == number);
        let counts = counts.unwrap_or_else(|| panic!("no version {number} in {stats:?}"));
        assert_eq!((&counts["calls"], &counts["records"]), (&calls.into(), &calls.into()), "{counts}");
        assert_eq!((&counts["traps"], &counts["rollbacks"]), (&0.into(), &0.into()), "{counts}");
    }
    let list = output(&broker, &["plugin", "list"]);
    let lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let lines: Vec<String> = lines.filter(|line| line.starts_with("letters")).collect();
    assert_eq!(
        lines,
        ["letters filter 2 1,2 13 13 0 0 0 0", "letters@1 1.0.0 6 6 0 0 0 0", "letters@2 2.0.0 active 7 7 0 0 0 0"]
    );
}
