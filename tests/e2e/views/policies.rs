//! Records on which the filter of a view fails, by `stage.filter.failure.policy`.

use millstream_tests::Broker;
use millstream_wire::ErrorCode;

use super::{Seen, alter, create, fetch, read_all};
use crate::support::{Raw, Topic, batch};

const FILTER: &str = r#"json-compare{"path":"/n","op":">=","value":5}"#;

/// Values of which the fourth is no JSON.
const VALUES: [&str; 6] = [r#"{"n":1}"#, r#"{"n":6}"#, r#"{"n":7}"#, "no JSON", r#"{"n":8}"#, r#"{"n":2}"#];

fn start(policy: &str) -> (Broker, Raw, Topic) {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
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
    let found = fetch(&mut raw, &view, 0, 1 << 20, 0, 1);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((found.next, found.next_of_records), (3, 3));
    assert_eq!(view.fetch(&mut raw, 3).error_code, ErrorCode::CORRUPT_MESSAGE);
    assert!(broker.log().contains("the filter of view view fails at offset 3"), "{}", broker.log());
    // Who seeks past it goes on.
    let found = fetch(&mut raw, &view, 4, 1 << 20, 0, 1);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [4]);
    // And who changes the policy, too.
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
    // Letters that come back to the filter would be letters again.
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
