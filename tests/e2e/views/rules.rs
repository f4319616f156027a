//! Which topics can become views, and what happens to a view when its source changes or the broker restarts.

use std::path::Path;
use std::time::Duration;

use millstream_tests::{Broker, wait_until};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};
use rustix::process::Signal;

use super::{KEEP, alter, create, delete, view};
use crate::support::{Raw, SET, Topic, alter_request, batch};

fn refusal(raw: &mut Raw, name: &str, partitions: i32, configs: &[(&str, &str)]) -> (ErrorCode, String) {
    let created = create(raw, name, partitions, configs);
    (created.error_code, created.error_message.map_or_else(String::new, |message| message.to_string()))
}

/// Returns the folders of a topic's partitions, renamed ones included.
fn folders(data: &Path, topic: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data).expect("the data folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    names.filter(|name| name.starts_with(&format!("{topic}-"))).collect()
}

fn partitions_of(raw: &mut Raw, name: &str) -> usize {
    let asked = MetadataRequestTopic { name: Some(Str::from(name)), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: false, ..Default::default() };
    let found = raw.call(12, &request).topics.remove(0);
    assert_eq!((found.error_code, found.name), (ErrorCode::NONE, Some(Str::from(name))));
    found.partitions.len()
}

#[test]
fn invalid_views_are_rejected_with_the_reason() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "source", 3, &[]);
    view(&mut raw, "view", "source", KEEP);
    for (what, partitions, options, words) in [
        ("no source", -1, vec![("view.of", "none")], "view.of=none: there is no such topic"),
        ("itself", -1, vec![("view.of", "new")], "a view cannot show itself"),
        ("other partitions", 2, vec![("view.of", "source")], "source has 3, and here it would be 2"),
        ("no such plug-in", -1, vec![("view.of", "source"), ("stage.filter", "none")], "stage.filter: "),
        ("a plug-in of another kind", -1, vec![("view.of", "source"), ("stage.filter", "murmur2")], "stage.filter: "),
        ("a filter without view.of", -1, vec![("stage.filter", KEEP)], "set view.of as well"),
        ("an admit filter", -1, vec![("view.of", "source"), ("stage.admit", KEEP)], "stage.admit has no meaning"),
        ("retention", -1, vec![("view.of", "source"), ("retention.ms", "1")], "retention.ms has no meaning"),
        (
            "too many filters",
            -1,
            vec![
                ("view.of", "view"),
                (
                    "stage.filter",
                    concat!(
                        r#"contains{"text":"1"} | contains{"text":"2"} | contains{"text":"3"} | "#,
                        r#"contains{"text":"4"} | contains{"text":"5"} | contains{"text":"6"} | "#,
                        r#"contains{"text":"7"} | contains{"text":"8"}"#,
                    ),
                ),
            ],
            "9 filters, and 8 is the most",
        ),
    ] {
        let (code, message) = refusal(&mut raw, "new", partitions, &options);
        let expected =
            if what == "other partitions" { ErrorCode::INVALID_PARTITIONS } else { ErrorCode::INVALID_CONFIG };
        assert_eq!(code, expected, "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
    }
    for (partitions, name) in [(-1, "as-many"), (3, "said")] {
        assert_eq!(refusal(&mut raw, name, partitions, &[("view.of", "source")]), (ErrorCode::NONE, String::new()));
        assert_eq!(partitions_of(&mut raw, name), 3);
    }
    assert!(folders(broker.folder(), "view").is_empty());
}

#[test]
fn a_view_takes_no_records_and_stays_one() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view_topic = view(&mut raw, "view", "source", KEEP);
    view(&mut raw, "over", "view", KEEP);
    for version in [3, 9, 12, 13] {
        let answer = view_topic.produce_by(&mut raw, version, batch(&["keep"]));
        assert_eq!(answer.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION, "v{version}");
        if version >= 8 {
            let words = answer.error_message.expect("words");
            assert!(words.contains("view is a view of source and takes no records"), "{words:?}");
        }
    }
    assert_eq!(source.end(&mut raw), 0);
    Topic::create(&mut raw, "other", 1, &[]);
    for change in
        [("view.of", None), ("view.of", Some("other")), ("view.of", Some("")), ("cleanup.policy", Some("compact"))]
    {
        let (code, words) = alter(&mut raw, "view", &[change]);
        assert_eq!(code, ErrorCode::INVALID_CONFIG, "{change:?}: {words}");
        assert!(words.contains("view"), "{change:?}: {words}");
    }
    let (code, words) = alter(&mut raw, "source", &[("view.of", Some("over"))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(words.contains("source is a view of over is a view of view is a view of source"), "{words}");
    let grow = CreatePartitionsTopic { name: "view".into(), count: 2, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![grow], timeout_ms: 30_000, validate_only: false };
    let grown = raw.call(3, &request).results.remove(0);
    assert_eq!(grown.error_code, ErrorCode::INVALID_PARTITIONS);
    assert!(grown.error_message.expect("words").contains("it gets its partitions from source"));
}

#[test]
fn a_source_cannot_be_deleted_under_its_views() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 2, &[]);
    source.produce(&mut raw, batch(&["keep"]));
    view(&mut raw, "view", "source", KEEP);
    view(&mut raw, "over", "view", KEEP);
    let (code, words) = delete(&mut raw, "source");
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    assert!(words.contains("source is the source of the view") && words.contains("view"), "{words}");
    assert!(delete(&mut raw, "view").1.contains("over"));
    for name in ["over", "view"] {
        assert_eq!(delete(&mut raw, name), (ErrorCode::NONE, String::new()));
        assert_eq!(source.read(&mut raw, 0), ["keep"], "the records are the source's");
    }
    assert_eq!(delete(&mut raw, "source"), (ErrorCode::NONE, String::new()));
}

#[test]
fn an_empty_topic_becomes_a_view_by_its_configs_and_one_with_records_does_not() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 2, &[]);
    source.produce(&mut raw, batch(&["keep", "drop"]));
    let empty = Topic::create(&mut raw, "empty", 2, &[]);
    let used = Topic::create(&mut raw, "used", 2, &[]);
    Topic::create(&mut raw, "narrow", 1, &[]);
    used.produce(&mut raw, batch(&["keep"]));
    let options = [("view.of", Some("source")), ("stage.filter", Some(KEEP))];

    let (code, words) = alter(&mut raw, "used", &options);
    assert_eq!(code, ErrorCode::INVALID_CONFIG, "{words}");
    assert!(words.contains("partition 0 ends at offset 1"), "{words}");
    used.produce(&mut raw, batch(&["goes on"]));
    assert_eq!(used.read(&mut raw, 0), ["keep", "goes on"]);
    assert_eq!(alter(&mut raw, "narrow", &options).0, ErrorCode::INVALID_PARTITIONS);

    assert_eq!(alter(&mut raw, "empty", &options), (ErrorCode::NONE, String::new()));
    assert_eq!(empty.read(&mut raw, 0), ["keep"]);
    assert_eq!(empty.produce_by(&mut raw, 9, batch(&["x"])).error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    wait_until("its own logs to go", Duration::from_secs(30), || {
        folders(broker.folder(), "empty").is_empty().then_some(())
    });
}

#[test]
fn a_view_grows_with_its_source() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    view(&mut raw, "view", "source", KEEP);
    let over = view(&mut raw, "over", "view", KEEP);
    let grow = CreatePartitionsTopic { name: "source".into(), count: 3, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![grow], timeout_ms: 30_000, validate_only: false };
    assert_eq!(raw.call(3, &request).results[0].error_code, ErrorCode::NONE);
    assert_eq!((partitions_of(&mut raw, "view"), partitions_of(&mut raw, "over")), (3, 3));
    raw.call(9, &source.produce_request(9, -1, 2, batch(&["keep"])));
    assert_eq!(over.offset_for(&mut raw, 2, -1).offset, 1);
}

#[test]
fn views_are_there_again_after_a_stop_and_after_a_kill() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    // The view's name comes first in the list, but the view must not be opened before its source.
    let source = Topic::create(&mut raw, "source", 2, &[]);
    let first = view(&mut raw, "a", "source", KEEP);
    let second = view(&mut raw, "0", "a", r#"contains{"text":"2"}"#);
    source.produce(&mut raw, batch(&["keep 1", "drop", "keep 2"]));
    for kill in [false, true, true] {
        if kill {
            broker.kill();
        } else {
            broker.stop(Signal::TERM);
        }
        broker.restart();
        let mut raw = Raw::connect(&broker);
        assert_eq!(first.read(&mut raw, 0), ["keep 1", "keep 2"]);
        assert_eq!(second.read(&mut raw, 0), ["keep 2"]);
        assert_eq!(delete(&mut raw, "source").0, ErrorCode::INVALID_REQUEST);
        assert!(folders(broker.folder(), "a").is_empty() && folders(broker.folder(), "0").is_empty());
    }
    // A checkpoint has each partition once, with the name of the topic that has the log.
    broker.stop(Signal::TERM);
    let points =
        std::fs::read_to_string(broker.folder().join("recovery-point-offset-checkpoint")).expect("it is there");
    assert_eq!(points.lines().filter(|line| line.starts_with("source ")).count(), 2, "{points}");
    assert_eq!(points.lines().filter(|line| line.starts_with("a ") || line.starts_with("0 ")).count(), 0, "{points}");
}

/// A kill while a topic becomes a view leaves a complete topic or a complete view.
#[test]
fn a_kill_while_a_topic_becomes_a_view_leaves_one_or_the_other() {
    for delay_ms in [0, 1, 2, 4, 8, 16] {
        let mut broker = Broker::start();
        broker.allow("belongs to no partition of this broker");
        let mut raw = Raw::connect(&broker);
        let source = Topic::create(&mut raw, "source", 1, &[]);
        let topic = Topic::create(&mut raw, "topic", 1, &[]);
        source.produce(&mut raw, batch(&["keep"]));
        // The sandbox is started before, since that takes longest.
        view(&mut raw, "other", "source", KEEP);
        let options = [("view.of", SET, Some("source")), ("stage.filter", SET, Some(KEEP))];
        raw.send(1, &alter_request("topic", &options));
        std::thread::sleep(Duration::from_millis(delay_ms));
        broker.kill();
        broker.restart();
        let mut raw = Raw::connect(&broker);
        let produced = topic.produce_by(&mut raw, 9, batch(&["new"])).error_code;
        match produced {
            ErrorCode::NONE => assert_eq!(topic.read(&mut raw, 0), ["new"]),
            ErrorCode::INVALID_TOPIC_EXCEPTION => assert_eq!(topic.read(&mut raw, 0), ["keep"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(source.read(&mut raw, 0), ["keep"]);
    }
}
