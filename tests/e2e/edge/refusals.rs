//! Invalid configs: each is rejected with a message that names the fault, and nothing changes.

use millstream_tests::Broker;
use millstream_wire::ErrorCode;

use super::{NOT_NEGATIVE, alter, set};
use crate::support::{Raw, Topic, compressed};

#[test]
fn bad_configs_are_rejected_by_name() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    set(&mut raw, &topic, &[("stage.admit", NOT_NEGATIVE)]);
    let nine = [r#"contains{"text":"a"}"#; 9].join(" | ");
    let cases: [((&str, &str), &[&str]); 14] = [
        (("stage.admit", "no-such-filter"), &["stage.admit", "no-such-filter", "contains"]),
        (("stage.admit", "contains@99"), &["stage.admit", "contains", "99"]),
        (("stage.admit", "murmur2"), &["stage.admit", "murmur2", "partitioner", "filter"]),
        (("stage.admit", r#"contains{"text":""}"#), &["stage.admit", "contains", "/text", "empty"]),
        (("stage.admit", r#"contains{"text":7}"#), &["stage.admit", "contains", "/text"]),
        (("stage.admit", r#"contains{"text":"#), &["stage.admit", "JSON"]),
        (("stage.admit", &nine), &["stage.admit", "at most 8"]),
        (("stage.admit.failure.policy", "perhaps"), &["stage.admit.failure.policy", "perhaps", "dead-letter"]),
        (("stage.admit.failure.policy", "dead-letter"), &["stage.admit.failure.policy", "stage.dead.letter.topic"]),
        (("stage.dead.letter.topic", "topic"), &["stage.dead.letter.topic", "itself"]),
        (("stage.dead.letter.topic", "no/name"), &["stage.dead.letter.topic", "no/name"]),
        (("stage.dead.letter.topic", "__consumer_offsets"), &["stage.dead.letter.topic", "belongs to the broker"]),
        (("stage.compressor", NOT_NEGATIVE), &["stage.compressor", "filter", "compressor"]),
        (("stage.compressor", "lz4 | gzip"), &["stage.compressor", "one stage"]),
    ];
    for ((option, value), words) in cases {
        let (code, message) = alter(&mut raw, &topic.name, &[(option, Some(value))]);
        assert_eq!(code, ErrorCode::INVALID_CONFIG, "{option}={value}: {message}");
        for word in words {
            assert!(message.contains(word), "{option}={value}: {message:?} does not name {word:?}");
        }
        // The earlier configs are still in force.
        let answer = topic.produce_by(&mut raw, 9, compressed(millstream_record::Codec::None, &["no json"]));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{option}={value}");
    }
    let (code, message) = alter(&mut raw, "__consumer_offsets", &[("stage.admit", Some(NOT_NEGATIVE))]);
    assert!(code.is_err(), "{message}");
}
