//! Every message at every version, with generated values by Kafka's schemas: the values that are decoded are those that
//! were written, and so are those of the encoded message.

use std::sync::LazyLock;

use bolero::{TypeGenerator, produce};

use crate::TEST_TIME;
use crate::schemas::{RoundTrip, Schema, ours, schemas};

static SCHEMAS: LazyLock<Vec<(Schema, RoundTrip)>> = LazyLock::new(|| {
    let ours = ours();
    let of = |name: &str| ours.iter().find(|(known, ..)| *known == name).expect("every schema has a type").1;
    let with_type = |schema: Schema| {
        let round_trip = of(schema.name);
        (schema, round_trip)
    };
    schemas().into_iter().map(with_type).collect()
});

/// A message of any schema and version.
#[derive(Clone, Debug, TypeGenerator)]
struct Message {
    schema: u16,
    version: u8,
    #[generator(produce::<Vec<u8>>().with().len(0..1500usize))]
    choices: Vec<u8>,
}

#[test]
fn what_is_written_is_read() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|input: &Message| {
        let (schema, round_trip) = &SCHEMAS[usize::from(input.schema) % SCHEMAS.len()];
        let (first, last) = (*schema.versions.start(), *schema.versions.end());
        let version = first + i16::from(input.version) % (last - first + 1);
        let sample = schema.chosen(version, &input.choices);
        let what = format!("{} v{version}", schema.name);
        let read = round_trip(sample.bytes, version).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((read.debug.as_str(), read.left), (sample.debug.as_str(), 0), "{what}");
        let again = round_trip(read.bytes.clone(), version).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((again.debug, again.left, again.bytes), (sample.debug, 0, read.bytes), "{what}");
    });
}
