//! Records on which the filter of a view fails, by `stage.filter.failure.policy`.

use millstream_tests::Broker;
use millstream_wire::ErrorCode;

use super::{alter, create, fetch};
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
