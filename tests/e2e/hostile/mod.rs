//! Hostile clients: bytes that no correct client sends. The row numbers are those of the project's table of hostile
//! clients. Each row is one test (or several, by aspect) against the real process.
//!
//! After every row the process lives, a neighbour is served at once, and nothing of a rejected request is appended.
//! Memory stays within a small multiple of the bytes that really arrived.

mod batches;
mod bombs;
mod frames;
mod messages;
mod sequences;

use millstream_tests::Broker;
use millstream_wire::ErrorCode;

use crate::support::{Memory, Neighbour, Raw, Topic, batch};

/// Produce versions that differ in form: the oldest, the last before flexible ones, the first flexible one, the first
/// with topic ids.
const PRODUCE_VERSIONS: [i16; 4] = [3, 8, 9, 13];

/// A broker under attack, with a topic of three records, a connection for the attacker and a neighbour.
struct Victim {
    broker: Broker,
    raw: Raw,
    topic: Topic,
    neighbour: Neighbour,
}

impl Victim {
    fn start() -> Self {
        Self::with(&[], &[])
    }

    /// Starts a broker with these configs, and creates the topic with those.
    fn with(settings: &[(&str, &str)], configs: &[(&str, &str)]) -> Self {
        let builder = settings.iter().fold(Broker::builder(), |builder, (key, value)| builder.set(key, value));
        let broker = builder.start();
        let mut raw = Raw::connect(&broker);
        let topic = Topic::create(&mut raw, "victim", 1, configs);
        let mut sound = crate::support::builder(millstream_record::Codec::None, &[]);
        for value in ["one", "two", "three"] {
            let (key, value) = (Some(&b"key"[..]), Some(value.as_bytes()));
            sound.append(crate::support::now_ms(), key, value, []).expect("room for a record");
        }
        assert_eq!(topic.produce(&mut raw, sound.build().expect("a batch")), 0);
        let neighbour = Neighbour::of(&broker);
        Self { broker, raw, topic, neighbour }
    }

    fn memory(&self) -> Memory {
        Memory::watch(&self.broker)
    }

    /// Checks that every version of Produce rejects a record set with this error, and that nothing of it is appended.
    fn refuses(&mut self, what: &str, records: &[u8], error: ErrorCode) {
        let end = self.topic.end(&mut self.raw);
        for version in PRODUCE_VERSIONS {
            let answer = self.topic.produce_by(&mut self.raw, version, records.to_vec());
            let words = answer.error_message.as_deref().unwrap_or_default();
            assert_eq!(answer.error_code, error, "{what}, v{version}: {words}");
            assert_eq!(answer.base_offset, -1, "{what}, v{version}");
            assert!(version < 8 || !words.is_empty(), "{what}, v{version}: the error must have a message");
            assert_eq!(self.topic.end(&mut self.raw), end, "{what}, v{version}: something was appended");
        }
        self.refuses_silently(what, records, end);
    }

    /// Checks that with acks=0 the connection ends without a response, as in Kafka.
    fn refuses_silently(&mut self, what: &str, records: &[u8], end: i64) {
        let mut raw = Raw::connect(&self.broker);
        raw.send(9, &self.topic.produce_request(9, 0, 0, records.to_vec()));
        raw.assert_closed(&format!("{what}, acks=0"));
        assert_eq!(self.topic.end(&mut self.raw), end, "{what}, acks=0: something was appended");
    }

    /// Checks that the victim serves its neighbour and accepts a correct batch from the attacker. Every row ends with
    /// this.
    fn is_well(&mut self, after: &str) {
        self.neighbour.is_served(&mut self.broker, after);
        let end = self.topic.end(&mut self.raw);
        let mut sound = crate::support::builder(millstream_record::Codec::None, &[]);
        sound.append(crate::support::now_ms(), Some(b"key"), Some(b"sound"), []).expect("room for a record");
        assert_eq!(self.topic.produce(&mut self.raw, sound.build().expect("a batch")), end, "after {after}");
        assert!(!self.broker.log().contains("panicked"), "after {after}:\n{}", self.broker.log());
    }
}

#[test]
fn every_version_accepts_a_correct_batch() {
    let mut victim = Victim::start();
    for version in PRODUCE_VERSIONS {
        let answer = victim.topic.produce_by(&mut victim.raw, version, batch(&["sound"]));
        assert_eq!(answer.error_code, ErrorCode::NONE, "v{version}: {:?}", answer.error_message);
    }
    assert_eq!(victim.topic.end(&mut victim.raw), 3 + PRODUCE_VERSIONS.len() as i64);
    victim.is_well("sound batches");
}
