//! Bytes that no correct client sends: rows 12 to 15 and 17 of the table of hostile clients.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_wire::messages::*;
use millstream_wire::{Message, Reader, RequestHeader, WireError, WireErrorKind, codec};

use support::{ours, samples};

fn refused<M: Message + std::fmt::Debug>(bytes: &[u8], version: i16) -> WireError {
    codec::from_bytes::<M>(Bytes::copy_from_slice(bytes), version).unwrap_err()
}

/// Row 12.
#[test]
fn a_count_that_cannot_fit_is_rejected_by_name() {
    // This body of five bytes makes other codecs ask for 154 GB.
    let error = refused::<MetadataRequest>(&[0x7f, 0xff, 0xff, 0xff, 0], 1);
    assert_eq!(error.kind(), &WireErrorKind::Count { count: i32::MAX as usize, least: 2, left: 1 });
    assert_eq!(
        error.to_string(),
        "MetadataRequest v1: topics: 2147483647 elements of at least 2 bytes do not fit in the 1 bytes that are left"
    );
    let error = refused::<MetadataRequest>(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 9);
    assert!(matches!(error.kind(), WireErrorKind::Count { count, .. } if *count == u32::MAX as usize - 1), "{error}");
    // One more element than the remaining bytes can hold: 16 bytes each in this version.
    let error = refused::<FetchRequest>(&[&[0; 17][..], &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2], &[0; 31]].concat(), 4);
    assert_eq!(error.path(), "topics[0].partitions");
    assert_eq!(error.kind(), &WireErrorKind::Count { count: 2, least: 16, left: 31 });
}

/// Row 13.
#[test]
fn compact_lengths() {
    // Length 0 is a null, which a group id may not be.
    assert_eq!(refused::<HeartbeatRequest>(&[0], 4).kind(), &WireErrorKind::Null);
    // A varint of six bytes, and one of five with a 33rd bit.
    let six = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01, b'g'];
    assert_eq!(refused::<HeartbeatRequest>(&six, 4).kind(), &WireErrorKind::Varint);
    let overflow = [0xff, 0xff, 0xff, 0xff, 0x1f, b'g'];
    assert_eq!(refused::<HeartbeatRequest>(&overflow, 4).kind(), &WireErrorKind::Varint);
    // The largest number of 32 bits.
    let error = refused::<HeartbeatRequest>(&[0xff, 0xff, 0xff, 0xff, 0x0f, b'g'], 4);
    assert!(matches!(error.kind(), WireErrorKind::TooLong { .. }), "{error}");
    let error = refused::<SyncGroupResponse>(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1], 5);
    assert!(matches!(error.kind(), WireErrorKind::Truncated { left: 1, .. }), "{error}");
}

/// Row 14.
#[test]
fn tagged_fields() {
    // The header of a flexible request ends in tagged fields, before the body.
    let header = [0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff];
    let with = |tags: &[u8]| {
        let mut reader = Reader::new([&header[..], tags].concat().into());
        RequestHeader::decode(&mut reader).map_err(|error| error.kind().clone())
    };
    assert!(with(&[0]).is_ok());
    assert!(with(&[2, 5, 1, 0xaa, 9, 0]).is_ok(), "unknown tags are skipped");
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let count = with(&huge).unwrap_err();
    assert_eq!(count, WireErrorKind::Count { count: u32::MAX as usize, least: 2, left: 0 });
    let size = with(&[&[1, 0][..], &huge].concat()).unwrap_err();
    assert_eq!(size, WireErrorKind::Truncated { needed: u32::MAX as usize, left: 0 });
    assert_eq!(with(&[2, 5, 0, 5, 0]).unwrap_err(), WireErrorKind::TagOrder { previous: 5, tag: 5 });
    assert_eq!(with(&[2, 5, 0, 4, 0]).unwrap_err(), WireErrorKind::TagOrder { previous: 5, tag: 4 });
}

#[test]
fn a_known_tagged_field_fills_its_size() {
    // An ApiVersions response of version 3: no error, no APIs, no throttling, then tag 1, an epoch of 8 bytes.
    let body = |size: u8, value: &[u8]| [&[0, 0, 1, 0, 0, 0, 0, 1, 1, size][..], value].concat();
    let answer: ApiVersionsResponse = codec::from_bytes(body(8, &7i64.to_be_bytes()).into(), 3).unwrap();
    assert_eq!(answer.finalized_features_epoch, 7);
    let error = refused::<ApiVersionsResponse>(&body(9, &[0; 9]), 3);
    assert_eq!(error.kind(), &WireErrorKind::TagSize { tag: 1, left: 1 });
    let error = refused::<ApiVersionsResponse>(&body(7, &[0; 9]), 3);
    assert_eq!(error.kind(), &WireErrorKind::Truncated { needed: 8, left: 7 });
    assert_eq!(error.path(), "finalized_features_epoch");
}

/// Row 15.
#[test]
fn negative_lengths() {
    let error = refused::<HeartbeatRequest>(&[0xff, 0xfe], 0);
    assert_eq!(error.kind(), &WireErrorKind::NegativeLength(-2));
    assert_eq!(refused::<HeartbeatRequest>(&[0xff, 0xff], 0).kind(), &WireErrorKind::Null);
    let error = refused::<MetadataRequest>(&[0x80, 0, 0, 0], 1);
    assert_eq!(error.kind(), &WireErrorKind::NegativeLength(i32::MIN.into()));
    // Acks, timeout, one topic "t", one partition 0, records of length -2.
    let produce = [&[0; 6][..], &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]].concat();
    let error = refused::<ProduceRequest>(&produce, 0);
    assert_eq!(error.kind(), &WireErrorKind::NegativeLength(-2));
    assert_eq!(error.path(), "topic_data[0].partition_data[0].records");
}

/// Row 16, as far as the codec is concerned: it does not check whether a name is valid.
#[test]
fn invalid_utf8_is_read_with_marks() {
    let bytes = Bytes::from_static(&[0, 2, b'g', 0xc3, 0, 0, 0, 1, 0, 0]);
    let request: HeartbeatRequest = codec::from_bytes(bytes, 0).expect("a request");
    assert_eq!(request.group_id, "g?");
}

/// Row 17: bytes after the end are ignored, as in Kafka.
#[test]
fn trailing_bytes_are_ignored() {
    for sample in samples() {
        let (_, round_trip, _) = ours().into_iter().find(|(name, ..)| *name == sample.name).unwrap();
        let longer = Bytes::from([&sample.bytes[..], &[1, 2, 3]].concat());
        let read = round_trip(longer, sample.version).unwrap();
        assert_eq!((read.left, read.bytes), (3, sample.bytes));
    }
}

#[test]
fn versions_out_of_range_are_rejected() {
    let supported = WireErrorKind::UnsupportedVersion { version: 99, first: 4, last: 18 };
    assert_eq!(refused::<FetchRequest>(&[0; 100], 99).kind(), &supported);
    assert!(codec::to_bytes(&FetchRequest::default(), 3).is_err());
}

/// Every truncation of every message is rejected, since nothing at the end is optional.
#[test]
fn truncations() {
    for sample in samples() {
        let (_, _, decode) = ours().into_iter().find(|(name, ..)| *name == sample.name).unwrap();
        for length in 0..sample.bytes.len() {
            let result = decode(sample.bytes.slice(..length), sample.version);
            assert!(result.is_err(), "{} v{} of {length} bytes", sample.name, sample.version);
        }
    }
}

/// Changed, removed, inserted and random bytes never panic. Every message that decodes can be encoded again.
#[test]
fn mutations() {
    let ours: BTreeMap<_, _> = ours().into_iter().map(|(name, round_trip, _)| (name, round_trip)).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut decoded = 0;
    let samples = samples();
    // Version 0 of ApiVersions has no body, so there is nothing to change.
    for sample in samples.iter().filter(|sample| !sample.bytes.is_empty()) {
        for _ in 0..40 {
            let mut bytes = sample.bytes.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(5) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    2 => bytes.insert(at, random.below(256) as u8),
                    3 if bytes.len() > 4 => drop(bytes.remove(at)),
                    _ => {
                        let end = bytes.len().min(at + 4);
                        bytes[at..end].fill(0xff);
                    }
                }
            }
            match ours[sample.name](bytes.into(), sample.version) {
                Ok(_) => decoded += 1,
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        let noise: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
        drop(ours[sample.name](noise.into(), sample.version));
    }
    assert!(decoded > samples.len(), "the mutations are too coarse to reach deep: {decoded} decoded");
}

/// SplitMix64: the same run every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
