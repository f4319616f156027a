//! Row 25: small payloads that decompress to huge ones.

use std::thread;

use millstream_record::{Codec, codec, varint};
use millstream_wire::ErrorCode;

use super::Victim;
use crate::support::{Memory, Raw, builder};

const MIB: usize = 1 << 20;

/// The decompressed size of a bomb, which is above the limit.
const BOMB: usize = 96 * MIB;
const CAP: usize = 4 * MIB;
const SETTINGS: [(&str, &str); 1] = [("socket.request.max.bytes", "4194304")];

/// Returns one record with a value of zeros, as it is encoded in a payload.
fn record_of_zeros(len: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 2, b'k'];
    varint::write_i64(&mut body, len as i64);
    body.resize(body.len() + len, 0);
    body.push(0);
    let mut record = Vec::with_capacity(body.len() + 5);
    varint::write_i64(&mut record, body.len() as i64);
    record.extend(body);
    record
}

/// Returns a batch of one record with this payload and codec.
fn with_payload(codec: Codec, payload: &[u8]) -> Vec<u8> {
    builder(codec, &["v"]).build_with_payload(codec, payload).expect("a batch")
}

/// Returns payloads with false sizes: raw snappy that claims 4 GiB, the same in xerial frames, and an lz4 and a zstd
/// frame.
fn liars() -> Vec<(&'static str, Codec, Vec<u8>)> {
    let raw = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 8]].concat();
    let mut xerial = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    xerial.extend((raw.len() as i32).to_be_bytes());
    xerial.extend(&raw);
    let mut block = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    block.extend(i32::MAX.to_be_bytes());
    block.extend([1, 0, b'a']);
    // A single-segment zstd frame with a content size of 8 bytes.
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 8], &[1, 0, 0]].concat();
    vec![
        ("raw snappy that claims 4 GiB", Codec::Snappy, raw),
        ("xerial snappy that claims 4 GiB", Codec::Snappy, xerial),
        ("a xerial block of INT_MAX", Codec::Snappy, block),
        ("a zstd frame that claims 2^64 - 1", Codec::Zstd, zstd),
        ("gzip that is none", Codec::Gzip, vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff]),
        ("lz4 that is none", Codec::Lz4, b"\x04\x22\x4d\x18\x70\x40\xad\xff\xff\xff\x7f".to_vec()),
    ]
}

fn bombs() -> impl Iterator<Item = (Codec, Vec<u8>)> {
    let zeros = record_of_zeros(BOMB);
    [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().map(move |codec| {
        let bomb = with_payload(codec, &codec::compress(codec, None, &zeros).expect("zeros can be compressed"));
        // Snappy reaches 21:1 at best, the others from 250:1 to 30,000:1.
        assert!(bomb.len() * 20 < BOMB, "{codec:?}: {}", bomb.len());
        (codec, bomb)
    })
}

fn stays_below_the_cap(memory: &Memory, what: &str) {
    // The limit covers the frames, the data that is decompressed (in a lookup by time up to the log's 16 MiB), and the
    // allocator's overhead.
    memory.assert_grew_less_than(BOMB / 2, what);
}

/// A topic that recodes holds the records in memory and stops at the limit. A topic that only checks them, such as a
/// compacted one, holds no records.
#[test]
fn row_25_a_bomb_where_records_are_read() {
    for config in [
        ("compression.type", "gzip"),
        ("compression.type", "lz4"),
        ("cleanup.policy", "compact"),
        ("compressed.records.validation", "full"),
    ] {
        let mut victim = Victim::with(&SETTINGS, &[config, ("max.message.bytes", "8388608")]);
        let memory = victim.memory();
        for (codec, bomb) in bombs().filter(|(_, bomb)| bomb.len() < CAP) {
            let recoded = config == ("compression.type", "gzip") && codec == Codec::Gzip
                || config == ("compression.type", "lz4") && codec == Codec::Lz4;
            let what = format!("a bomb of {codec:?} on {config:?}");
            if config.0 != "compression.type" {
                let answer = victim.topic.produce_by(&mut victim.raw, 9, bomb);
                assert_eq!(answer.error_code, ErrorCode::NONE, "{what}: {:?}", answer.error_message);
                stays_below_the_cap(&memory, &what);
            } else if !recoded {
                refuses_without_zstd_before_v7(&mut victim, &what, codec, &bomb, ErrorCode::MESSAGE_TOO_LARGE);
                stays_below_the_cap(&memory, &what);
            }
        }
        victim.is_well("bombs");
    }
}

/// Checks that Produce before version 7, which came with zstd, rejects zstd as such.
fn refuses_without_zstd_before_v7(victim: &mut Victim, what: &str, codec: Codec, records: &[u8], error: ErrorCode) {
    if codec != Codec::Zstd {
        return victim.refuses(what, records, error);
    }
    let end = victim.topic.end(&mut victim.raw);
    for (version, error) in [(3, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE), (9, error)] {
        let answer = victim.topic.produce_by(&mut victim.raw, version, records.to_vec());
        assert_eq!(answer.error_code, error, "{what}, v{version}: {:?}", answer.error_message);
        assert_eq!(victim.topic.end(&mut victim.raw), end, "{what}, v{version}");
    }
}

/// On a plain topic the payload is not decompressed, so the size of a bomb does no harm. A lookup by time must
/// decompress it, and stops at the limit too.
#[test]
fn row_25_a_bomb_that_was_stored_harms_no_client() {
    let mut victim = Victim::with(&SETTINGS, &[("max.message.bytes", "8388608")]);
    let memory = victim.memory();
    for (codec, bomb) in bombs().filter(|(_, bomb)| bomb.len() < CAP) {
        let what = format!("a bomb of {codec:?}");
        let answer = victim.topic.produce_by(&mut victim.raw, 9, bomb.clone());
        assert_eq!(answer.error_code, ErrorCode::NONE, "{what}: {:?}", answer.error_message);
        for timestamp in [-3, 0, crate::support::now_ms() - 1000] {
            // A response with an error or without one, but always a response.
            victim.topic.offset_for(&mut victim.raw, 0, timestamp);
        }
        let data = victim.topic.fetch(&mut victim.raw, answer.base_offset);
        assert_eq!(data.error_code, ErrorCode::NONE, "{what}");
        assert_eq!(data.records.len(), bomb.len(), "{what}: what is fetched is what was sent");
        stays_below_the_cap(&memory, &what);
    }
    victim.is_well("bombs that were taken");
}

#[test]
fn row_25_sizes_that_a_payload_only_claims() {
    for config in [("compression.type", "gzip"), ("cleanup.policy", "compact")] {
        let mut victim = Victim::with(&SETTINGS, &[config]);
        let memory = victim.memory();
        for (what, codec, payload) in liars() {
            if codec == Codec::Gzip && config.0 == "compression.type" {
                continue; // Stored unchanged: the broker does not read the payload.
            }
            let batch = with_payload(codec, &payload);
            let end = victim.topic.end(&mut victim.raw);
            let answer = victim.topic.produce_by(&mut victim.raw, 9, batch);
            let error = answer.error_code;
            let fitting = [ErrorCode::CORRUPT_MESSAGE, ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::INVALID_RECORD];
            assert!(fitting.contains(&error), "{what}: {error:?} {:?}", answer.error_message);
            assert_eq!(victim.topic.end(&mut victim.raw), end, "{what}");
        }
        memory.assert_grew_less_than(4 * CAP, "claims");
        victim.is_well("claims");
    }
}

/// Many bombs at once take no more memory than a few: decompressed records count towards the memory for requests.
#[test]
fn row_25_many_bombs_at_once() {
    // Recoding to gzip takes time.
    let mut victim = Victim::with(&[], &[("compression.type", "gzip"), ("compression.gzip.level", "9")]);
    let payload = codec::compress(Codec::Zstd, None, &record_of_zeros(BOMB)).expect("zeros can be compressed");
    let bomb = with_payload(Codec::Zstd, &payload);
    let memory = victim.memory();
    let senders: Vec<_> = (0..24)
        .map(|_| {
            let mut raw = Raw::connect(&victim.broker);
            let (topic, bomb) = (victim.topic.clone(), bomb.clone());
            thread::spawn(move || topic.produce_by(&mut raw, 9, bomb).error_code)
        })
        .collect();
    victim.neighbour.is_served(&mut victim.broker, "the first of many bombs");
    for sender in senders {
        let error = sender.join().expect("a response");
        assert!([ErrorCode::NONE, ErrorCode::MESSAGE_TOO_LARGE].contains(&error), "{error:?}");
    }
    memory.assert_grew_less_than(256 * MIB, "24 bombs at once");
    victim.is_well("many bombs at once");
}

/// Many concurrent lookups by time in a stored bomb take no more memory either.
#[test]
fn row_25_many_lookups_in_a_bomb_at_once() {
    let mut victim = Victim::start();
    let payload = codec::compress(Codec::Gzip, None, &record_of_zeros(BOMB)).expect("zeros can be compressed");
    victim.topic.produce(&mut victim.raw, with_payload(Codec::Gzip, &payload));
    let memory = victim.memory();
    let lookers: Vec<_> = (0..20)
        .map(|_| {
            let mut raw = Raw::connect(&victim.broker);
            let topic = victim.topic.clone();
            thread::spawn(move || topic.offset_for(&mut raw, 0, -3).error_code)
        })
        .collect();
    victim.neighbour.is_served(&mut victim.broker, "the first of many look-ups");
    for looker in lookers {
        assert_eq!(looker.join().expect("a response"), ErrorCode::NONE);
    }
    memory.assert_grew_less_than(BOMB / 2, "20 lookups at once");
    victim.is_well("many look-ups at once");
}
