//! Records on which the filter of a view fails, by `stage.filter.failure.policy`.

use millstream_record::Codec;
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::{Seen, alter, create, delete, fetch, read_all};
use crate::support::{
    At, Memory, Neighbour, Raw, SET, TOPIC, Topic, alter_request, batch, compressed, creatable, forge,
};

const FILTER: &str = r#"json-compare{"path":"/n","op":">=","value":5}"#;

/// Values of which the fourth is not JSON.
const VALUES: [&str; 6] = [r#"{"n":1}"#, r#"{"n":6}"#, r#"{"n":7}"#, "no JSON", r#"{"n":8}"#, r#"{"n":2}"#];

fn start(policy: &str) -> (Broker, Raw, Topic) {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    // With checks turned off, damaged batches may be stored.
    let source = Topic::create(&mut raw, "source", 1, &[("compressed.records.validation", "none")]);
    let options = [("view.of", "source"), ("stage.filter", FILTER), ("stage.filter.failure.policy", policy)];
    let created = create(&mut raw, "view", -1, &options);
    assert_eq!(created.error_code, ErrorCode::NONE, "{:?}", created.error_message);
    source.produce(&mut raw, batch(&VALUES));
    (broker, raw, Topic { name: "view".into(), id: created.topic_id })
}

#[test]
fn skip_hides_what_the_filter_fails_on() {
    let (_broker, mut raw, view) = start("skip");
    assert_eq!(view.read(&mut raw, 0), [VALUES[1], VALUES[2], VALUES[4]]);
}

#[test]
fn pass_shows_it() {
    let (_broker, mut raw, view) = start("pass");
    assert_eq!(view.read(&mut raw, 0), [VALUES[1], VALUES[2], VALUES[3], VALUES[4]]);
}

#[test]
fn fail_shows_what_is_before_it_and_fails_at_its_offset() {
    let (broker, mut raw, view) = start("fail");
    broker.allow("the filter of view view fails");
    let found = fetch(&mut raw, &view, 0, 1 << 20, 0, 1);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((found.next, found.next_of_records), (3, 3));
    assert_eq!(view.fetch(&mut raw, 3).error_code, ErrorCode::CORRUPT_MESSAGE);
    assert!(broker.log().contains("the filter of view view fails at offset 3"), "{}", broker.log());
    // A client that seeks past it continues.
    let found = fetch(&mut raw, &view, 4, 1 << 20, 0, 1);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [4]);
    // So does one that changes the policy.
    assert_eq!(alter(&mut raw, "view", &[("stage.filter.failure.policy", None)]).1, "");
    assert_eq!(fetch(&mut raw, &view, 3, 1 << 20, 0, 1).records.len(), 1);
}

#[test]
fn dead_letter_hides_it_and_keeps_a_copy_once_however_often_it_is_read() {
    let broker = Broker::builder().set("num.partitions", "1").start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let mut options =
        vec![("view.of", "source"), ("stage.filter", FILTER), ("stage.filter.failure.policy", "dead-letter")];
    let created = create(&mut raw, "view", -1, &options);
    assert_eq!(created.error_code, ErrorCode::INVALID_CONFIG, "without a topic for them");
    // If dead letters came back to the filter, they would become dead letters again.
    for circle in ["source", "view"] {
        let refused = create(&mut raw, "view", -1, &[&options[..], &[("stage.dead.letter.topic", circle)]].concat());
        assert_eq!(refused.error_code, ErrorCode::INVALID_CONFIG, "{circle}: {:?}", refused.error_message);
    }
    options.push(("stage.dead.letter.topic", "letters"));
    let created = create(&mut raw, "view", -1, &options);
    assert_eq!(created.error_code, ErrorCode::NONE, "{:?}", created.error_message);
    let view = Topic { name: "view".into(), id: created.topic_id };
    let over = create(&mut raw, "over", -1, &[("view.of", "view"), ("stage.filter", FILTER)]);
    let over = Topic { name: "over".into(), id: over.topic_id };
    source.produce(&mut raw, batch(&VALUES));
    source.produce(&mut raw, batch(&["no JSON either", VALUES[1]]));
    for _ in 0..3 {
        for (view, from) in [(&view, 0), (&over, 0), (&view, 3), (&view, 5)] {
            let shown = read_all(&mut raw, view, from, 1 << 20, |fetched| fetched.next);
            let offsets: Vec<i64> = shown.iter().map(|record| record.offset).collect();
            let wanted: Vec<i64> = [1, 2, 4, 7].into_iter().filter(|offset| *offset >= from).collect();
            assert_eq!(offsets, wanted);
        }
    }
    let letters = Topic { name: "letters".into(), id: uuid::Uuid::nil() };
    let letters = read_all(&mut raw, &letters, 0, 1 << 20, |fetched| fetched.next);
    let header = |letter: &Seen, name: &str| {
        let header = letter.headers.iter().find(|(known, _)| known == name.as_bytes());
        String::from_utf8_lossy(header.and_then(|(_, value)| value.as_deref()).unwrap_or_default()).into_owned()
    };
    let said: Vec<_> = letters
        .iter()
        .map(|letter| {
            let value = String::from_utf8_lossy(letter.value.as_deref().unwrap_or_default()).into_owned();
            let place =
                ["topic", "partition", "offset"].map(|name| header(letter, &format!("millstream.source.{name}")));
            (value, place.join("/"), header(letter, "millstream.plugin"))
        })
        .collect();
    let letter = |value: &str, place: &str| (value.to_owned(), place.to_owned(), "json-compare".to_owned());
    assert_eq!(said, [letter("no JSON", "source/0/3"), letter("no JSON either", "source/0/6")]);
    assert!(header(&letters[0], "millstream.error").contains("not JSON"), "{letters:?}");
}

/// Returns the configs of a view of `source` whose dead letters go to `letters`.
fn lettered_options<'a>(source: &'a str, letters: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("view.of", source),
        ("stage.filter", FILTER),
        ("stage.filter.failure.policy", "dead-letter"),
        ("stage.dead.letter.topic", letters),
    ]
}

/// Creates such a view. Returns the error code and message.
fn lettered(raw: &mut Raw, view: &str, source: &str, letters: &str) -> (ErrorCode, String, Topic) {
    let created = create(raw, view, -1, &lettered_options(source, letters));
    let message = created.error_message.map(|message| message.to_string()).unwrap_or_default();
    (created.error_code, message, Topic { name: view.into(), id: created.topic_id })
}

#[test]
fn configs_that_close_a_circle_are_rejected() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "a", 1, &[]);
    let b = Topic::create(&mut raw, "b", 1, &[]);
    assert_eq!(lettered(&mut raw, "va", "a", "b").0, ErrorCode::NONE);
    let path = "a circle: vb sends its dead letters to a, va is a view of a, va sends its dead letters to b, \
                vb is a view of b";
    let (code, message, _) = lettered(&mut raw, "vb", "b", "a");
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains(path), "{message}");
    // The same by an alteration, and through a view of a view.
    assert_eq!(lettered(&mut raw, "vb", "b", "c").0, ErrorCode::NONE);
    let (code, message) = alter(&mut raw, "vb", &[("stage.dead.letter.topic", Some("a"))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains(path), "{message}");
    let (code, message, _) = lettered(&mut raw, "over", "vb", "a");
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("over is a view of vb"), "{message}");
    // The same with the dead letters of an admission filter.
    let admission = [
        ("stage.admit", Some(FILTER)),
        ("stage.admit.failure.policy", Some("dead-letter")),
        ("stage.dead.letter.topic", Some("a")),
    ];
    let (code, message) = alter(&mut raw, &b.name, &admission);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("b sends its dead letters to a, va is a view of a"), "{message}");
}

const VIEW_AS_DEAD_LETTER_TOPIC: &str =
    "vv sends its dead letters to dl, dl is a view of vv, vv is a view of src, and a view stores nothing";

/// Asserts that a change is rejected because `dl` would be a view.
fn assert_no_view(what: &str, (code, message): (ErrorCode, String)) {
    assert_eq!(code, ErrorCode::INVALID_CONFIG, "{what}: {message}");
    assert!(message.contains(VIEW_AS_DEAD_LETTER_TOPIC), "{what}: {message}");
}

#[test]
fn a_dead_letter_topic_cannot_become_a_view() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let src = Topic::create(&mut raw, "src", 1, &[]);
    let (_, message, vv) = lettered(&mut raw, "vv", "src", "dl");
    assert_eq!(message, "");
    let dl = [("view.of", "vv"), ("stage.filter", FILTER)];
    let create_dl = |raw: &mut Raw| {
        let created = create(raw, "dl", -1, &dl);
        (created.error_code, created.error_message.map(|message| message.to_string()).unwrap_or_default())
    };
    assert_no_view("before it exists", create_dl(&mut raw));
    Topic::create(&mut raw, "dl", 1, &[]);
    let altered = dl.map(|(name, value)| (name, Some(value)));
    assert_no_view("by IncrementalAlterConfigs", alter(&mut raw, "dl", &altered));
    let configs = dl.map(|(name, value)| AlterableConfig { name: name.into(), value: Some(value.into()) });
    let resource = AlterConfigsResource { resource_type: TOPIC, resource_name: "dl".into(), configs: configs.into() };
    let altered = raw.call(2, &AlterConfigsRequest { resources: vec![resource], validate_only: false });
    let altered = &altered.responses[0];
    let message = altered.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
    assert_no_view("by AlterConfigs", (altered.error_code, message));
    assert_eq!(delete(&mut raw, "dl").0, ErrorCode::NONE);
    assert_no_view("after its deletion", create_dl(&mut raw));
    // The dead letters are stored in a topic that is no view.
    src.produce(&mut raw, batch(&VALUES));
    assert_eq!(vv.read(&mut raw, 0), [VALUES[1], VALUES[2], VALUES[4]]);
    let dl = Topic { name: "dl".into(), id: uuid::Uuid::nil() };
    assert_eq!(dl.read(&mut raw, 0), ["no JSON"]);
}

/// The outcome is the same in either order. The second of the two is rejected.
#[test]
fn a_dead_letter_topic_and_a_view_of_that_name_in_one_request() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "src", 1, &[]);
    Topic::create(&mut raw, "other", 1, &[]);
    let sender = creatable("vv", -1, &lettered_options("src", "dl"));
    let view = creatable("dl", -1, &[("view.of", "src"), ("stage.filter", FILTER)]);
    let path = "vv sends its dead letters to dl, dl is a view of src, and a view stores nothing";
    for topics in [vec![sender.clone(), view.clone()], vec![view, sender]] {
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
        let created = raw.call(7, &request).topics;
        let codes: Vec<_> = created.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [ErrorCode::NONE, ErrorCode::INVALID_CONFIG]);
        let refused = created.iter().find(|topic| topic.error_code == ErrorCode::INVALID_CONFIG).expect("rejected");
        let message = refused.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(message.contains(path), "{message}");
        for topic in created.iter().filter(|topic| topic.error_code == ErrorCode::NONE) {
            assert_eq!(delete(&mut raw, &topic.name).0, ErrorCode::NONE);
        }
    }
    for name in ["vv", "dl"] {
        Topic::create(&mut raw, name, 1, &[]);
    }
    let set = |topic: &str, configs: &[(&str, &str)]| {
        let changes: Vec<_> = configs.iter().map(|(name, value)| (*name, SET, Some(*value))).collect();
        alter_request(topic, &changes).resources.remove(0)
    };
    let sender = set("vv", &[("stage.admit", FILTER), ("stage.dead.letter.topic", "dl")]);
    let view = set("dl", &[("view.of", "src")]);
    for resources in [vec![sender.clone(), view.clone()], vec![view, sender]] {
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let codes: Vec<_> = raw.call(1, &request).responses.iter().map(|response| response.error_code).collect();
        assert_eq!(codes, [ErrorCode::NONE, ErrorCode::INVALID_CONFIG]);
        alter(&mut raw, "vv", &[("stage.admit", None), ("stage.dead.letter.topic", None)]);
    }
}

#[test]
fn a_dead_letter_does_not_become_a_dead_letter_of_another_topic() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let [a, b, c] = ["a", "b", "c"].map(|name| Topic::create(&mut raw, name, 1, &[]));
    let (_, message, va) = lettered(&mut raw, "va", "a", "b");
    assert_eq!(message, "");
    let (_, message, vb) = lettered(&mut raw, "vb", "b", "c");
    assert_eq!(message, "");
    a.produce(&mut raw, batch(&VALUES));
    assert_eq!(va.read(&mut raw, 0), [VALUES[1], VALUES[2], VALUES[4]]);
    assert_eq!(b.read(&mut raw, 0), ["no JSON"]);
    b.produce(&mut raw, batch(&["no JSON of its own", VALUES[1]]));
    assert_eq!(vb.read(&mut raw, 0), [VALUES[1]]);
    assert_eq!(c.read(&mut raw, 0), ["no JSON of its own"]);
    assert_eq!(b.end(&mut raw), 3);
}

/// Without validation, a topic may have batches that do not decompress.
#[test]
fn a_batch_that_cannot_be_decompressed_is_a_failure_of_all_its_records() {
    for (policy, shown) in [("skip", 1), ("pass", 1), ("fail", 0)] {
        let (broker, mut raw, view) = start(policy);
        broker.allow("at a batch that cannot be read");
        broker.allow("a view does not show a batch");
        let source = Topic { name: "source".into(), ..view.clone() };
        let mut damaged = compressed(Codec::Gzip, &VALUES);
        let length = damaged.len();
        damaged[length - 20..].fill(0xff);
        // The CRC is correct: the batch is as its producer sent it.
        let damaged = forge(damaged, At::Attributes, 1i16.to_be_bytes());
        let at = source.produce(&mut raw, damaged.clone());
        source.produce(&mut raw, batch(&[VALUES[1]]));
        let data = view.fetch(&mut raw, at);
        view.fetch(&mut raw, at);
        match policy {
            // Java's consumer reports this code with the offset. With INVALID_RECORD it ends without one.
            "fail" => assert_eq!(data.error_code, ErrorCode::CORRUPT_MESSAGE),
            "pass" => {
                let bytes = data.records.as_bytes().expect("records").clone();
                let first = millstream_record::BatchView::parse(&bytes).expect("a batch");
                assert_eq!(first.payload(), &damaged[millstream_record::HEADER_LEN..], "as it lies");
            }
            _ => {
                let found = super::seen(data, at);
                assert_eq!(found.records.len(), shown);
            }
        }
        // Once, however often it is read.
        let log = broker.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("a batch that cannot be read")).collect();
        assert_eq!(lines.len(), usize::from(policy != "pass"), "{log}");
        for part in ["WARN", "view=", "source=", "partition=0", &format!("offset={at}")] {
            assert!(lines.iter().all(|line| line.contains(part)), "{part}: {lines:?}");
        }
        assert_eq!(fetch(&mut raw, &view, at + 6, 1 << 20, 0, 1).records.len(), 1, "{policy}: behind it all is well");
    }
}

#[test]
fn bombs_take_no_more_memory_than_one_request_may() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let mut neighbour = Neighbour::of(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = super::view(&mut raw, "view", "source", super::KEEP);
    // One huge record, and very many tiny ones.
    let huge = compressed(Codec::Zstd, &[&"x".repeat(60 << 20)]);
    let tiny = compressed(Codec::Zstd, &vec![""; 1_200_000]);
    assert!(huge.len() < 1 << 20 && tiny.len() < 1 << 20, "{} and {}", huge.len(), tiny.len());
    for bomb in [huge, tiny] {
        for _ in 0..3 {
            source.produce(&mut raw, bomb.clone());
        }
    }
    let at = source.produce(&mut raw, batch(&["keep"]));
    let memory = Memory::watch(&broker);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (mut raw, view) = (Raw::connect(&broker), view.clone());
            std::thread::spawn(move || fetch(&mut raw, &view, 0, 1 << 20, 60_000, 1))
        })
        .collect();
    for reader in readers {
        let found = reader.join().expect("a reader");
        assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [at]);
    }
    memory.assert_grew_less_than(400 << 20, "six bombs and four readers");
    neighbour.is_served(&mut broker, "bombs under a view");
}
