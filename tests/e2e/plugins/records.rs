//! Hand-made records for the topic of plug-ins: the broker accepts correct ones and reports what is wrong with others.

use std::io::Write;

use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_stage::Digest;
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::PartitionProduceResponse;
use serde_json::{Value, json};

use super::*;
use crate::support::{Raw, Topic, now_ms};

const STORE: &str = "__millstream_plugins";

pub(super) struct Store {
    raw: Raw,
    topic: Topic,
}

impl Store {
    pub(super) fn create(broker: &Broker) -> Store {
        let mut raw = Raw::connect(broker);
        let topic = Topic::create(&mut raw, STORE, 1, &[("cleanup.policy", "compact")]);
        Store { raw, topic }
    }

    /// Produces records as one batch with a codec.
    pub(super) fn produce_as(&mut self, codec: Codec, records: &[(String, Option<&[u8]>)]) -> PartitionProduceResponse {
        self.produce_at(now_ms(), codec, records)
    }

    fn produce_at(
        &mut self,
        at_ms: i64,
        codec: Codec,
        records: &[(String, Option<&[u8]>)],
    ) -> PartitionProduceResponse {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        for (key, value) in records {
            builder.append(at_ms, Some(key.as_bytes()), *value, []).expect("room for a record");
        }
        self.topic.produce_by(&mut self.raw, 9, builder.build().expect("a batch"))
    }

    pub(super) fn produce(&mut self, records: &[(String, Option<&[u8]>)]) {
        let answer = self.produce_as(Codec::None, records);
        assert_eq!(answer.error_code, ErrorCode::NONE, "{:?}", answer.error_message);
    }

    /// Produces records of which the last one must be rejected. Returns its message.
    fn refused(&mut self, records: &[(String, Option<&[u8]>)]) -> String {
        let end = self.topic.end(&mut self.raw);
        let answer = self.produce_as(Codec::None, records);
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{records:?}");
        assert_eq!(self.topic.end(&mut self.raw), end, "nothing is appended");
        let blamed = &answer.record_errors[0];
        assert_eq!(blamed.batch_index as usize, records.len() - 1);
        blamed.batch_index_error_message.as_deref().expect("a message").to_owned()
    }
}

pub(super) fn chunk(component: &[u8]) -> String {
    format!("chunk/{}/0", Digest::of(component))
}

/// Returns a manifest with a version for each component. The last one is active.
fn manifest(revision: u64, components: &[&[u8]]) -> Value {
    let versions = components.iter().enumerate().map(|(index, component)| {
        let number = index + 1;
        json!({
            "number": number, "digest": Digest::of(component).to_string(), "size": component.len(), "chunks": 1,
            "version": format!("{number}.0.0"), "pushed_ms": 1, "bad": null,
        })
    });
    json!({
        "name": "letters", "revision": revision, "kind": "filter",
        "active": components.len(), "next": components.len() + 1,
        "versions": versions.collect::<Vec<_>>(), "history": [],
    })
}

fn plugin() -> String {
    "plugin/letters".to_owned()
}

#[test]
fn a_hand_made_push_serves_and_a_wrong_one_is_rejected_with_its_reason() {
    let broker = Broker::start();
    broker.allow("a write to __millstream_plugins");
    let mut store = Store::create(&broker);
    let (one, two) = (filter("letters", 1).build(), filter("letters", 2).build());
    let first = manifest(1, &[&one]).to_string();
    let missing = store.refused(&[(plugin(), Some(first.as_bytes()))]);
    assert!(missing.contains("chunk 0 of 1 is missing"), "{missing}");
    // Chunk and manifest are in one compressed batch.
    let pushed = store.produce_as(Codec::Zstd, &[(chunk(&one), Some(&one)), (plugin(), Some(first.as_bytes()))]);
    assert_eq!(pushed.error_code, ErrorCode::NONE, "{:?}", pushed.error_message);
    admit(&broker, "lines", "letters");
    assert_eq!(refused_letters(&broker, "lines"), "a");

    let second = manifest(2, &[&one, &two]);
    let mut refused = |change: &dyn Fn(&mut Value)| {
        let mut changed = second.clone();
        change(&mut changed);
        let changed = changed.to_string();
        store.refused(&[(chunk(&two), Some(&two)), (plugin(), Some(changed.as_bytes()))])
    };
    type Change<'c> = &'c dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 10] = [
        (&|json| json["revision"] = 1.into(), "changed meanwhile"),
        (&|json| json["revision"] = 7.into(), "changed meanwhile"),
        (&|json| json["kind"] = "compressor".into(), "cannot become"),
        (&|json| json["versions"][0]["digest"] = Digest::of(b"x").to_string().into(), "immutable"),
        (&|json| json["versions"][1]["digest"] = Digest::of(b"x").to_string().into(), "is missing"),
        (&|json| json["versions"][1]["size"] = 7.into(), "instead of the 7 in the manifest"),
        (&|json| json["versions"][1]["version"] = "9.9.9".into(), "calls its version 2.0.0"),
        (&|json| json["versions"][1]["chunks"] = 4_000_000_000_u32.into(), "chunks"),
        (&|json| json["active"] = 3.into(), "active but does not exist"),
        (&|json| json["versions"] = vec![json["versions"][0].clone(); 2_000].into(), "at most"),
    ];
    for (change, reason) in cases {
        let message = refused(change);
        assert!(message.contains(reason), "{reason}: {message}");
    }
    for (key, value, reason) in [
        ("plugin/letters", "{", "JSON"),
        ("plugin/other", &*first, "has the name"),
        ("chunk/xyz/0", "x", "SHA-256"),
        ("topic/lines", "{\"stage.serializer\":\"a b\"}", "stage.serializer"),
        ("garbage", "x", "is not plugin/NAME"),
    ] {
        let message = store.refused(&[(key.to_owned(), Some(value.as_bytes()))]);
        assert!(message.contains(reason), "{key}: {message}");
    }
    let wrong = store.refused(&[(chunk(&one), Some(&two))]);
    assert!(wrong.contains("letters@1 is immutable"), "{wrong}");
    let needed = store.refused(&[(chunk(&one), None)]);
    assert!(needed.contains("letters@1 needs"), "{needed}");
    let used = store.refused(&[(plugin(), None)]);
    assert!(used.contains("topic lines, stage.admit"), "{used}");
    // Pushing the same bytes again changes nothing. A correct version is still accepted after all of that.
    store.produce(&[(chunk(&one), Some(&one))]);
    let second = second.to_string();
    store.produce(&[(chunk(&two), Some(&two))]);
    store.produce(&[(plugin(), Some(second.as_bytes()))]);
    assert_eq!(refused_letters(&broker, "lines"), "b");
}

#[test]
fn bytes_that_are_no_plug_in_are_not_a_version() {
    let broker = Broker::start();
    broker.allow("a write to __millstream_plugins");
    let mut store = Store::create(&broker);
    let text = b"no component".to_vec();
    let manifest = manifest(1, &[&text]).to_string();
    store.produce(&[(chunk(&text), Some(&text))]);
    let refused = store.refused(&[(plugin(), Some(manifest.as_bytes()))]);
    assert!(refused.contains("letters@1"), "{refused}");
    // A digest that does not match its bytes.
    let lie = format!("chunk/{}/0", Digest::of(b"a lie"));
    store.produce(&[(lie, Some(&text))]);
    let mut lying: Value = serde_json::from_str(&manifest).expect("JSON");
    lying["versions"][0]["digest"] = Digest::of(b"a lie").to_string().into();
    let refused = store.refused(&[(plugin(), Some(lying.to_string().as_bytes()))]);
    assert!(refused.contains("digest"), "{refused}");
}

#[test]
fn the_topic_cannot_be_made_into_something_that_loses_plug_ins() {
    let broker = Broker::start();
    for config in [&["-p", "2", "--config", "cleanup.policy=compact"][..], &["-p", "1"]] {
        let refused = refusal(&broker, &[&["topic", "create", STORE], config].concat());
        assert!(refused.contains("one partition and cleanup.policy=compact"), "{refused}");
    }
    push(&broker, &filter("letters", 1));
    for change in [&["alter", STORE, "--config", "cleanup.policy=delete"][..], &["delete", STORE]] {
        let refused = refusal(&broker, &[&["topic"], change].concat());
        assert!(refused.contains("POLICY_VIOLATION"), "{refused}");
    }
    assert!(output(&broker, &["plugin", "list"]).contains("letters"));
}

/// Appends records to the end of the log without any check, as in a folder that was copied or tampered with.
fn smuggle(broker: &Broker, end: i64, records: &[(&str, Option<&[u8]>)]) {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.base_offset(end).leader_epoch(0);
    for (key, value) in records {
        builder.append(now_ms(), Some(key.as_bytes()), *value, []).expect("room for a record");
    }
    let path = broker.folder().join(format!("{STORE}-0")).join("00000000000000000000.log");
    let mut file = fs::File::options().append(true).open(path).expect("the log of the store");
    file.write_all(&builder.build().expect("a batch")).expect("room on the disk");
}

#[test]
fn records_that_no_check_has_seen_are_ignored_at_the_start() {
    let mut broker = Broker::start();
    broker.allow("a record of __millstream_plugins is ignored");
    push(&broker, &filter("letters", 1));
    push(&broker, &filter("letters", 2));
    admit(&broker, "lines", "letters");
    let mut raw = Raw::connect(&broker);
    let end = Topic { name: STORE.into(), id: Default::default() }.end(&mut raw);
    broker.kill();
    let late = manifest(1, &[&filter("letters", 1).build()]).to_string();
    let foreign = format!("chunk/{}/0", Digest::of(b"somebody else's"));
    smuggle(
        &broker,
        end,
        &[
            ("garbage", Some(b"x")),
            ("plugin/letters", Some(b"{\"name\":")),
            ("plugin/letters", Some(late.as_bytes())),
            ("plugin/other", Some(late.as_bytes())),
            (&foreign, Some(b"no component")),
            ("chunk/zz/99999999999", Some(b"x")),
            ("topic/lines", Some(b"[]")),
        ],
    );
    broker.restart();
    assert_eq!(refused_letters(&broker, "lines"), "b");
    let ignored = broker.log().matches("a record of __millstream_plugins is ignored").count();
    assert_eq!(ignored, 6, "{}", broker.log());
    assert_eq!(push(&broker, &filter("letters", 3)), "letters@3 pushed and active\n");
    assert_eq!(refused_letters(&broker, "lines"), "c");
    broker.kill();
    broker.restart();
    assert_eq!(refused_letters(&broker, "lines"), "c");
}

#[test]
fn files_of_unfinished_operations_are_removed() {
    const TWO_HOURS_MS: i64 = 2 * 3_600_000;
    let broker = Broker::start();
    let mut store = Store::create(&broker);
    let old: Vec<Vec<u8>> = (0..3).map(|number| vec![number; 10]).collect();
    let young = b"a push that is on its way".to_vec();
    let leave = |store: &mut Store, component: &[u8], at_ms| {
        let answer = store.produce_at(at_ms, Codec::None, &[(chunk(component), Some(component))]);
        assert_eq!(answer.error_code, ErrorCode::NONE, "{:?}", answer.error_message);
    };
    leave(&mut store, &young, now_ms());
    leave(&mut store, &old[0], now_ms() - TWO_HOURS_MS);
    leave(&mut store, &old[1], now_ms() - TWO_HOURS_MS);
    let (one, two) = (filter("letters", 1).build(), filter("letters", 2).build());
    leave(&mut store, &one, now_ms() - TWO_HOURS_MS);
    // The records of an existing version stay, however old it is.
    push(&broker, &filter("letters", 1));
    assert_eq!(stored_components(&broker), digests(&[&young, &one]));
    push(&broker, &filter("letters", 2));
    leave(&mut store, &old[2], now_ms() - TWO_HOURS_MS);
    output(&broker, &["plugin", "delete", "letters@1"]);
    assert_eq!(stored_components(&broker), digests(&[&young, &two]));
}
