//! Rows 18 to 24: record batches.

use millstream_record::{Codec, HEADER_LEN, varint};
use millstream_wire::{ErrorCode, Records};

use super::{PRODUCE_VERSIONS, Victim};
use crate::support::{At, batch, builder, compressed, forge};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn row_18_a_bad_crc() {
    let mut victim = Victim::start();
    for codec in CODECS {
        let sound = compressed(codec, &["some", "values"]);
        let wrong = (u32::from_be_bytes(sound[17..21].try_into().unwrap()) ^ 1).to_be_bytes();
        let what = format!("a wrong CRC, {codec:?}");
        victim.refuses(&what, &forge(sound.clone(), At::Crc, wrong), ErrorCode::CORRUPT_MESSAGE);
        // Flips one bit of what the CRC covers: at its first, a middle and its last byte.
        for place in [At::Attributes as usize + 1, HEADER_LEN, sound.len() - 1] {
            let mut flipped = sound.clone();
            flipped[place] ^= 0x40;
            victim.refuses(&format!("a bit flipped at {place}, {codec:?}"), &flipped, ErrorCode::CORRUPT_MESSAGE);
        }
    }
    victim.is_well("bad CRCs");
}

#[test]
fn row_19_a_wrong_batch_length() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    let sound = batch(&["some", "values"]);
    let right = sound.len() as i32 - 12;
    // The CRC does not cover the length, so nothing else is wrong.
    for length in [right - 1, right + 1, 49, 48, 1, 0, -1, i32::MIN, i32::MAX, right + (1 << 20)] {
        let forged = forge_length(&sound, length);
        victim.refuses(&format!("batch length {length} for {right}"), &forged, ErrorCode::CORRUPT_MESSAGE);
    }
    for cut in [1, 8, 11, 12, 16, 17, HEADER_LEN - 1, HEADER_LEN, sound.len() - 1] {
        victim.refuses(&format!("a batch cut to {cut} bytes"), &sound[..cut], ErrorCode::CORRUPT_MESSAGE);
    }
    memory.assert_grew_less_than(16 << 20, "wrong batch lengths");
    victim.is_well("wrong batch lengths");
}

fn forge_length(sound: &[u8], length: i32) -> Vec<u8> {
    let mut forged = sound.to_vec();
    forged[At::Length as usize..][..4].copy_from_slice(&length.to_be_bytes());
    forged
}

#[test]
fn row_20_another_magic() {
    let mut victim = Victim::start();
    for magic in [0_i8, 1, 3, 127, -1] {
        let forged = forge(batch(&["value"]), At::Magic, magic.to_be_bytes());
        let error = match magic {
            0 | 1 => ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            _ => ErrorCode::CORRUPT_MESSAGE,
        };
        victim.refuses(&format!("magic {magic}"), &forged, error);
    }
    victim.is_well("other magics");
}

/// Versions 0 to 2 are advertised, since librdkafka before 2.11.1 compresses only then. Record sets of these versions
/// are rejected.
#[test]
fn row_20_record_sets_of_old_versions() {
    let mut victim = Victim::start();
    let end = victim.topic.end(&mut victim.raw);
    for version in 0..=2 {
        for magic in [0_u8, 1] {
            let timestamp: &[u8] = if magic == 1 { &[0; 8] } else { &[] };
            let message = [&[0; 4][..], &[magic, 0], timestamp, &(-1_i32).to_be_bytes(), &[0, 0, 0, 1, b'v']].concat();
            let set = [&[0; 8][..], &(message.len() as i32).to_be_bytes(), &message].concat();
            let answer = victim.topic.produce_by(&mut victim.raw, version, set);
            let what = format!("magic {magic} by v{version}");
            assert_eq!(answer.error_code, ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT, "{what}");
            assert_eq!(victim.topic.end(&mut victim.raw), end, "{what}");
        }
    }
    victim.is_well("record sets of old versions");
}

#[test]
fn row_21_a_wrong_record_count() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    let sound = || batch(&["one", "two", "three"]);
    for count in [-1, 0, 1, 2, 4, i32::MIN, i32::MAX] {
        let forged = forge(sound(), At::Count, count.to_be_bytes());
        victim.refuses(&format!("record count {count} of 3"), &forged, ErrorCode::INVALID_RECORD);
    }
    for delta in [-1, 0, 1, 3, i32::MIN, i32::MAX] {
        let forged = forge(sound(), At::LastOffsetDelta, delta.to_be_bytes());
        victim.refuses(&format!("last offset delta {delta} of 2"), &forged, ErrorCode::INVALID_RECORD);
    }
    // Both counts agree with each other but not with the records.
    for count in [1, 2, 4, i32::MAX] {
        for codec in [Codec::None, Codec::Gzip] {
            let forged = forge(compressed(codec, &["one", "two", "three"]), At::Count, count.to_be_bytes());
            let forged = forge(forged, At::LastOffsetDelta, (count - 1).to_be_bytes());
            if codec == Codec::None || count == i32::MAX {
                let what = format!("{count} records of 3, {codec:?}");
                victim.refuses(&what, &forged, ErrorCode::INVALID_RECORD);
            }
        }
    }
    memory.assert_grew_less_than(16 << 20, "wrong record counts");
    victim.is_well("wrong record counts");
}

#[test]
fn row_21_no_batch_at_all() {
    let mut victim = Victim::start();
    victim.refuses("no bytes", &[], ErrorCode::INVALID_RECORD);
    let end = victim.topic.end(&mut victim.raw);
    for version in PRODUCE_VERSIONS {
        let mut request = victim.topic.produce_request(version, -1, 0, Vec::new());
        request.topic_data[0].partition_data[0].records = Records::Null;
        let answer = victim.raw.call(version, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "null, v{version}");
        assert_eq!(victim.topic.end(&mut victim.raw), end, "null, v{version}");
    }
    victim.is_well("no batch at all");
}

/// A batch with one record whose lengths and counts can be set.
struct Forgery {
    /// The difference to the record's true length.
    length: i64,
    key: i64,
    value: i64,
    headers: i64,
    /// The bytes in place of the first header.
    rest: Vec<u8>,
}

impl Default for Forgery {
    fn default() -> Self {
        Self { length: 0, key: -1, value: 1, headers: 0, rest: Vec::new() }
    }
}

impl Forgery {
    fn payload(&self) -> Vec<u8> {
        let mut body = vec![0]; // attributes
        for delta in [0, 0] {
            varint::write_i64(&mut body, delta);
        }
        varint::write_i64(&mut body, self.key);
        varint::write_i64(&mut body, self.value);
        body.push(b'v');
        varint::write_i64(&mut body, self.headers);
        body.extend(&self.rest);
        let mut payload = Vec::new();
        varint::write_i64(&mut payload, body.len() as i64 + self.length);
        payload.extend(body);
        payload
    }

    fn batch(&self) -> Vec<u8> {
        builder(Codec::None, &["v"]).build_with_payload(Codec::None, &self.payload()).expect("a batch")
    }

    fn compressed(&self, codec: Codec) -> Vec<u8> {
        let payload = millstream_record::codec::compress(codec, None, &self.payload()).expect("a payload");
        builder(codec, &["v"]).build_with_payload(codec, &payload).expect("a batch")
    }
}

fn forgeries() -> Vec<(String, Forgery)> {
    let huge = i64::from(i32::MAX);
    let mut all = Vec::new();
    for headers in [-1, -100, i64::from(i32::MIN), 1, 2, 1000, huge, huge + 1, i64::MAX] {
        all.push((format!("header count {headers}"), Forgery { headers, ..Default::default() }));
    }
    for name in [-1, -2, 2, huge] {
        let mut rest = Vec::new();
        varint::write_i64(&mut rest, name);
        rest.extend(b"n\x01");
        all.push((format!("header name of {name}"), Forgery { headers: 1, rest, ..Default::default() }));
    }
    for value in [-2, 2, 1000, huge] {
        all.push((format!("value of {value}"), Forgery { value, ..Default::default() }));
        all.push((format!("key of {value}"), Forgery { key: value, ..Default::default() }));
        all.push((format!("record longer by {value}"), Forgery { length: value, ..Default::default() }));
    }
    all.push(("a negative record length".to_owned(), Forgery { length: -100, ..Default::default() }));
    all.push(("bytes after the last header".to_owned(), Forgery { rest: vec![0; 9], ..Default::default() }));
    all
}

#[test]
fn row_22_header_counts_and_lengths_within_a_record() {
    let mut victim = Victim::start();
    let sound = Forgery::default().batch();
    assert_eq!(victim.topic.produce(&mut victim.raw, sound), 3, "the forgery is sound until something is forged");
    let memory = victim.memory();
    for (what, forgery) in forgeries() {
        victim.refuses(&what, &forgery.batch(), ErrorCode::INVALID_RECORD);
    }
    memory.assert_grew_less_than(16 << 20, "forged lengths");
    victim.is_well("forged lengths");
}

/// Where the broker reads compressed records (a compacted topic, one that recodes), it finds the same faults.
#[test]
fn row_22_the_same_under_compression_where_records_are_read() {
    for config in [("compression.type", "zstd"), ("cleanup.policy", "compact")] {
        let mut victim = Victim::with(&[], &[config]);
        let memory = victim.memory();
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4] {
            for (what, forgery) in forgeries() {
                let what = format!("{what}, {codec:?}, {config:?}");
                victim.refuses(&what, &forgery.compressed(codec), ErrorCode::INVALID_RECORD);
            }
        }
        memory.assert_grew_less_than(32 << 20, "forged lengths under compression");
        victim.is_well("forged lengths under compression");
    }
}

/// On a plain topic a compressed payload is opaque to the broker. Any code that reads it later must cope with it.
#[test]
fn row_22_a_poisoned_payload_that_was_stored_harms_only_its_reader() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    for (_, forgery) in forgeries() {
        victim.topic.produce_by(&mut victim.raw, 9, forgery.compressed(Codec::Gzip));
    }
    for timestamp in [-3, 0, crate::support::now_ms()] {
        // A response with an error or without one, but always a response.
        victim.topic.offset_for(&mut victim.raw, 0, timestamp);
    }
    memory.assert_grew_less_than(32 << 20, "poisoned payloads");
    victim.is_well("poisoned payloads");
    let end = victim.topic.end(&mut victim.raw);
    victim.broker.kill();
    victim.broker.restart();
    victim.raw = crate::support::Raw::connect(&victim.broker);
    assert_eq!(victim.topic.end(&mut victim.raw), end, "a poisoned payload may not stop recovery");
}

#[test]
fn row_23_a_control_batch() {
    let mut victim = Victim::start();
    for codec in CODECS {
        let mut control = builder(codec, &[]);
        control.control(true);
        // An abort marker as a coordinator writes it: version 0, type 0.
        control.append(crate::support::now_ms(), Some(&[0; 4]), Some(&[0; 6]), []).expect("room");
        let control = control.build().expect("a batch");
        victim.refuses(&format!("a control batch, {codec:?}"), &control, ErrorCode::INVALID_RECORD);
    }
    victim.is_well("control batches");
}

#[test]
fn row_24_two_batches() {
    let mut victim = Victim::start();
    let two = [batch(&["one"]), batch(&["two"])].concat();
    victim.refuses("two batches", &two, ErrorCode::INVALID_RECORD);
    let many = batch(&["one"]).repeat(100);
    victim.refuses("a hundred batches", &many, ErrorCode::INVALID_RECORD);
    let more = [batch(&["one"]), vec![0; 7]].concat();
    victim.refuses("a batch and seven bytes", &more, ErrorCode::INVALID_RECORD);
    let second = [batch(&["one"]), forge_length(&batch(&["two"]), -1)].concat();
    victim.refuses("a sound batch and one that is not", &second, ErrorCode::INVALID_RECORD);
    victim.is_well("two batches");
}
