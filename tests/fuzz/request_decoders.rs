//! The decoders of every message at every version: requests and responses, records of internal topics, and the requests
//! between voters.

use std::sync::LazyLock;

use bolero::{TypeGenerator, produce};
use bytes::Bytes;
use millstream_quorum::{Request, Response};
use millstream_wire::records::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use millstream_wire::{Reader, RequestHeader, ResponseHeader, frame};

use crate::TEST_TIME;
use crate::allocations::peak;
use crate::damage::{Damage, damaged};
use crate::schemas::{Decode, RoundTrip, Sample, ours, samples, schemas};

/// The most memory for a byte on the wire: an empty compact string. Text that is not UTF-8 is copied.
const DENSEST: usize = 32 + 2;
/// What else a decoder may hold: the texts of an error.
const FIXED: usize = 4 << 10;

/// A message at one of its versions.
struct Versioned {
    name: &'static str,
    version: i16,
    round_trip: RoundTrip,
    decode: Decode,
}

static MESSAGES: LazyLock<Vec<Versioned>> = LazyLock::new(|| {
    let ours = ours();
    let of = |name: &str| *ours.iter().find(|(known, ..)| *known == name).expect("every schema has a type");
    let versions = schemas().into_iter().flat_map(|schema| schema.versions.map(move |version| (schema.name, version)));
    let message = |(name, version)| {
        let (name, round_trip, decode) = of(name);
        Versioned { name, version, round_trip, decode }
    };
    versions.map(message).collect()
});

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(samples);

#[test]
fn arbitrary_bytes_are_rejected_or_read() {
    type Input = (u16, Vec<u8>);
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|(message, bytes): &Input| {
        check(&MESSAGES[usize::from(*message) % MESSAGES.len()], bytes);
        headers(bytes);
    });
}

#[derive(Clone, Debug, TypeGenerator)]
struct DamagedSample {
    sample: u16,
    #[generator(produce::<Vec<Damage>>().with().len(0..5usize))]
    damages: Vec<Damage>,
}

#[test]
fn damaged_messages_are_rejected_or_read() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|input: &DamagedSample| {
        let sample = &SAMPLES[usize::from(input.sample) % SAMPLES.len()];
        let mut messages = MESSAGES.iter();
        let message = messages.find(|message| (message.name, message.version) == (sample.name, sample.version));
        check(message.expect("every sample is of a message"), &damaged(&sample.bytes, &input.damages));
    });
}

/// Decodes bytes. What can be decoded is encoded, and decodes to an equal message again.
fn check(message: &Versioned, bytes: &[u8]) {
    let Versioned { name, version, round_trip, decode } = message;
    let bytes = Bytes::copy_from_slice(bytes);
    let (held, decoded) = peak(|| decode(bytes.clone(), *version));
    assert!(held <= DENSEST * bytes.len() + FIXED, "{name} v{version}: {held} bytes were held for {}", bytes.len());
    match decoded {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(()) => {
            let once = round_trip(bytes, *version).unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
            let again =
                round_trip(once.bytes.clone(), *version).unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
            assert_eq!((again.debug, again.left, again.bytes), (once.debug, 0, once.bytes), "{name} v{version}");
        }
    }
}

/// Decodes what stands around the messages of a client, and what only passes through the broker.
fn headers(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(header) = RequestHeader::decode(&mut Reader::new(bytes.clone())) {
        assert!(header.client_id.is_none_or(|id| id.len() <= bytes.len()));
    }
    for version in [0, 1] {
        let _ = ResponseHeader::decode(&mut Reader::new(bytes.clone()), version);
    }
    if let Some(length) = bytes.first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        assert_eq!(frame::check_frame_length(length, 1 << 20).is_ok(), (1..=1 << 20).contains(&length));
    }
    let _ = ConsumerProtocolSubscription::from_bytes(bytes.clone());
    let _ = ConsumerProtocolAssignment::from_bytes(bytes.clone());
    if let Ok(request) = Request::decode(&bytes) {
        Request::decode(&request.encode()).expect("it was just encoded");
    }
    if let Ok(response) = Response::decode(&bytes) {
        Response::decode(&response.encode()).expect("it was just encoded");
    }
}
