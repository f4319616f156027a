//! The automatic rollback: a version that fails under load is rolled back, and no record is lost or delayed.

use std::collections::BTreeSet;
use std::time::Instant;

use millstream_client::{Producer, ProducerConfig, ProducerRecord};
use millstream_record::Codec;
use millstream_tests::{Broker, wait_until};
use serde_json::Value;

use super::*;
use crate::support::{Raw, Topic, compressed};

/// Returns a version that traps on every sixth call of an instance.
fn trapping(version: u8) -> Guest {
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))";
    let trap = "(if (i32.gt_u (global.get $calls) (i32.const 5)) (then unreachable))";
    filter("letters", version)
        .hook("module", "(global $calls (mut i32) (i32.const 0))")
        .hook_with_rows("filter", &format!("{count} {trap}"))
}

fn history(broker: &Broker) -> Value {
    serde_json::from_str(&output(broker, &["plugin", "history", "letters", "--json"])).expect("JSON")
}

fn rolled_back(history: &Value) -> Vec<(u64, String)> {
    let events = history["history"].as_array().expect("a history").iter();
    let back = events.filter(|event| event["event"] == "rolled-back");
    back.map(|event| {
        (event["version"].as_u64().expect("a number"), event["reason"].as_str().expect("a text").to_owned())
    })
    .collect()
}

#[test]
fn a_version_that_traps_under_load_is_rolled_back() {
    let mut broker = Broker::start();
    broker.allow("fails too often");
    broker.allow("rolled back");
    push(&broker, &filter("letters", 1));
    push(&broker, &filter("letters", 2));
    output(
        &broker,
        &[
            "topic",
            "create",
            "lines",
            "-p",
            "1",
            "--config",
            "stage.admit=letters",
            "--config",
            "stage.admit.failure.policy=dead-letter",
            "--config",
            "stage.dead.letter.topic=refused",
        ],
    );
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let sent = runtime.block_on(async {
        let producer = Producer::builder(ProducerConfig::new(&broker.bootstrap())).build().expect("a producer");
        let end = Instant::now() + PATIENCE;
        let mut number = 0;
        let mut pushed = false;
        loop {
            let value = format!("z {number}");
            // Each record is a batch and a call of its own.
            let stored =
                producer.send(ProducerRecord::new("lines").value(value.as_bytes())).await.expect("a record is taken");
            producer.flush().await;
            stored.await.expect("a failing version does not block the producer");
            number += 1;
            if number == 50 {
                tokio::task::block_in_place(|| push(&broker, &trapping(3)));
                pushed = true;
            }
            if pushed && number % 20 == 0 {
                let back = tokio::task::block_in_place(|| rolled_back(&history(&broker)));
                if let [(version, reason)] = &back[..] {
                    assert_eq!((*version, reason.as_str()), (2, "3 traps in 60 s"));
                    break;
                }
            }
            assert!(Instant::now() < end, "no rollback: {}", broker.log());
        }
        producer.close(PATIENCE).await.expect("all is delivered");
        number
    });
    // The version before it serves, also after a restart.
    for _ in 0..2 {
        assert_eq!(history(&broker)["active"], 2);
        assert!(history(&broker)["versions"][2]["bad"].as_str().is_some_and(|why| why.contains("traps")));
        let list = output(&broker, &["plugin", "list", "--json"]);
        let list: Vec<Value> = serde_json::from_str(&list).expect("JSON");
        if let Some(counts) = list.iter().find(|counts| counts["name"] == "letters" && counts["number"] == 3) {
            assert_eq!(counts["rollbacks"], 1, "{counts}");
            assert!(counts["traps"].as_u64().is_some_and(|traps| traps >= 3), "{counts}");
        }
        let mut raw = Raw::connect(&broker);
        let mut all = BTreeSet::new();
        for topic in ["lines", "refused"] {
            let known = output(&broker, &["topic", "list"]).lines().any(|line| line == topic);
            let topic = Topic { name: topic.into(), id: Default::default() };
            all.extend(if known { topic.read(&mut raw, 0) } else { Vec::new() });
        }
        assert_eq!(all, (0..sent).map(|number| format!("z {number}")).collect());
        broker.kill();
        broker.restart();
    }
    assert!(broker.log().contains("rolled back: 3 traps in 60 s"), "{}", broker.log());
    // A bad version that is activated by hand serves again, and is rolled back again.
    output(&broker, &["plugin", "activate", "letters@3"]);
    assert_eq!(history(&broker)["versions"][2]["bad"], Value::Null);
    let end = Instant::now() + PATIENCE;
    while rolled_back(&history(&broker)).len() < 2 {
        assert!(Instant::now() < end, "no second rollback: {}", broker.log());
        refused_letters(&broker, "lines");
    }
    assert_eq!(history(&broker)["active"], 2);
}

/// Creates a topic that skips the records on which a version of `letters` fails. Version 2, which serves, reports the
/// values that begin with a p as bad.
fn failing(settings: &[(&str, &str)]) -> (Broker, Raw, Topic) {
    let builder = settings.iter().fold(Broker::builder(), |builder, (key, value)| builder.set(key, value));
    let broker = builder.start();
    push(&broker, &filter("letters", 1));
    admit(&broker, "lines", "letters");
    output(&broker, &["topic", "alter", "lines", "--config", "stage.admit.failure.policy=skip"]);
    push(&broker, &filter("letters", 2).text("poisoned").naming_bad_rows());
    let raw = Raw::connect(&broker);
    (broker, raw, Topic { name: "lines".into(), id: Default::default() })
}

/// Sends 500 records. In each group of five, `bad_of_five` are bad.
fn send(raw: &mut Raw, topic: &Topic, bad_of_five: usize) {
    let values: Vec<&str> = (0..500).map(|row| if row % 5 < bad_of_five { "poison" } else { "good" }).collect();
    topic.produce(raw, compressed(Codec::None, &values));
}

fn send_until_rolled_back(broker: &Broker, raw: &mut Raw, topic: &Topic, bad_of_five: usize) -> (u64, u64) {
    let end = Instant::now() + PATIENCE;
    let back = loop {
        send(raw, topic, bad_of_five);
        let back = rolled_back(&history(broker));
        if !back.is_empty() {
            break back;
        }
        assert!(Instant::now() < end, "no rollback: {}", broker.log());
    };
    let [(1, reason)] = &back[..] else { panic!("{back:?}") };
    let words: Vec<&str> = reason.split_whitespace().collect();
    let [bad, "of", all, "records", "failed", "in", "60", "s"] = words[..] else { panic!("{reason}") };
    // The rollback is counted before it is logged.
    let line = format!("rolled back: {reason}");
    wait_until("the rollback to be logged", PATIENCE, || broker.log().contains(&line).then_some(()));
    (bad.parse().expect("a number"), all.parse().expect("a number"))
}

#[test]
fn a_version_that_fails_for_most_records_is_rolled_back() {
    let (broker, mut raw, topic) = failing(&[]);
    broker.allow("fails too often");
    broker.allow("rolled back");
    for _ in 0..4 {
        send(&mut raw, &topic, 2);
    }
    // Two of five are less than half.
    assert_eq!((rolled_back(&history(&broker)), &history(&broker)["active"]), (Vec::new(), &2.into()));
    let (bad, all) = send_until_rolled_back(&broker, &mut raw, &topic, 4);
    assert!(bad * 2 > all && all >= 1_000, "{bad} of {all}");
    let history = history(&broker);
    assert_eq!(history["active"], 1);
    assert!(history["versions"][1]["bad"].as_str().is_some_and(|why| why.contains("records failed")), "{history}");
    let list = output(&broker, &["plugin", "list"]);
    let line = list.lines().find(|line| line.trim_start().starts_with("letters@2")).expect("the bad version");
    let words: Vec<&str> = line.split_whitespace().collect();
    // The list has the state and the rollback count. Every record counts once.
    assert_eq!((words[2], words[words.len() - 1]), ("bad", "1"), "{list}");
    assert_eq!(words[4].parse::<usize>().expect("a count") % 500, 0, "{list}");
    // The records that the version before admits are stored.
    let stored = topic.end(&mut raw);
    send(&mut raw, &topic, 5);
    assert_eq!(topic.end(&mut raw), stored + 500);
    assert_eq!(topic.read(&mut raw, stored), vec!["poison"; 500]);
}

#[test]
fn the_failure_rate_for_a_rollback_is_a_config_of_the_broker() {
    let settings = [("plugin.rollback.error.share", "0.2"), ("plugin.rollback.records.min", "100")];
    let (broker, mut raw, topic) = failing(&settings);
    broker.allow("fails too often");
    broker.allow("rolled back");
    let (bad, all) = send_until_rolled_back(&broker, &mut raw, &topic, 2);
    assert_eq!(bad * 5, all * 2);
}

/// Makes a guest accept no configuration but `{}`.
fn picky(guest: Guest) -> Guest {
    guest.hook("configure", "(if (i32.gt_u (local.get $length) (i32.const 2)) (then unreachable))")
}

/// Gives a topic that follows the plug-in a configuration that a picky version does not accept.
fn reconfigure(broker: &Broker, name: &str) {
    let stage = format!("stage.admit={name}{{\"text\":\"e\"}}");
    output(broker, &["topic", "alter", "lines", "--config", &stage]);
}

/// Returns the events of a plug-in about rejected and rolled back versions: kind, version, reason.
fn events(broker: &Broker, name: &str) -> Vec<(String, u64, String)> {
    let manifest = output(broker, &["plugin", "history", name, "--json"]);
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let events = manifest["history"].as_array().expect("a history").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let events = events
        .map(|event| (text(&event["event"]), event["version"].as_u64().expect("a number"), text(&event["reason"])));
    events.filter(|(event, ..)| event != "pushed" && event != "activated").collect()
}

/// Makes the active version trap until that event appears.
fn trap_until(broker: &Broker, name: &str, event: &str) -> Vec<(String, u64, String)> {
    let end = Instant::now() + PATIENCE;
    loop {
        refused_letters(broker, "lines");
        let events = events(broker, name);
        if events.iter().any(|(kind, ..)| kind == event) {
            return events;
        }
        assert!(Instant::now() < end, "no {event}: {}", broker.log());
    }
}

#[test]
fn a_version_that_no_longer_fits_is_skipped() {
    let broker = Broker::start();
    broker.allow("fails too often");
    broker.allow("rolled back");
    broker.allow("a write to __millstream_plugins");
    push(&broker, &filter("letters", 1));
    admit(&broker, "lines", "letters");
    push(&broker, &picky(filter("letters", 2)));
    push(&broker, &filter("letters", 3).hook_with_rows("filter", "unreachable"));
    reconfigure(&broker, "letters");
    let events = trap_until(&broker, "letters", "rolled-back");
    let [(refused, 2, why), (back, 1, reason)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&**refused, &**back, &**reason), ("refused", "rolled-back", "3 traps in 60 s"));
    assert!(why.contains("letters@2") && why.contains("topic lines, stage.admit"), "{why}");
    assert_eq!(refused_letters(&broker, "lines"), "a");
    assert_eq!(history(&broker)["versions"][1]["bad"], Value::Null, "it is good for others");
}

#[test]
fn the_last_to_roll_back_to_is_the_built_in_plug_in() {
    let broker = Broker::start();
    broker.allow("fails too often");
    broker.allow("rolled back");
    broker.allow("a write to __millstream_plugins");
    push(&broker, &picky(filter("contains", 1)));
    admit(&broker, "lines", "contains");
    push(&broker, &filter("contains", 2).hook_with_rows("filter", "unreachable"));
    reconfigure(&broker, "contains");
    let events = trap_until(&broker, "contains", "rolled-back");
    let kinds: Vec<_> = events.iter().map(|(event, version, _)| (&**event, *version)).collect();
    assert_eq!(kinds, [("refused", 1), ("rolled-back", 0)]);
    assert_eq!(refused_letters(&broker, "lines"), "abcdf");
}

#[test]
fn without_a_version_that_fits_nothing_changes_and_it_is_recorded_once() {
    let broker = Broker::start();
    broker.allow("fails too often");
    broker.allow("there is no rollback");
    broker.allow("a write to __millstream_plugins");
    push(&broker, &picky(filter("letters", 1)));
    admit(&broker, "lines", "letters");
    push(&broker, &filter("letters", 2).hook_with_rows("filter", "unreachable"));
    reconfigure(&broker, "letters");
    let told = trap_until(&broker, "letters", "not-rolled-back");
    let [(refused, 1, _), (_, 2, why)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(refused, "refused");
    assert_eq!(why, "3 traps in 60 s, and no other version works for all that use it");
    assert_eq!((&history(&broker)["active"], &history(&broker)["versions"][1]["bad"]), (&2.into(), &Value::Null));
    refused_letters(&broker, "lines");
    assert_eq!(events(&broker, "letters"), told);
    let line = "3 traps in 60 s, and there is no rollback";
    wait_until("the log to say so", PATIENCE, || broker.log().contains(line).then_some(()));
    assert_eq!(broker.log().matches(line).count(), 1, "{}", broker.log());
}
