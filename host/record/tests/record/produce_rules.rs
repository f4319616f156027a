//! Batches that Produce rejects, and the error kinds that a broker maps to Kafka's codes.

use millstream_record::layout::NO_TIMESTAMP;
use millstream_record::validate::{
    RecordRules, TimestampBounds, check_framing, check_header_timestamps, check_records, check_records_up_to,
    validate_built, validate_produce,
};
use millstream_record::*;

use crate::support::*;

const NOW: i64 = 1_700_000_000_000;
const BOUNDS: TimestampBounds = TimestampBounds { now_ms: NOW, before_ms_max: i64::MAX, after_ms_max: 3_600_000 };
const BATCH_BYTES_MAX: usize = 1 << 20;
const RULES: RecordRules = RecordRules { timestamps: Some(BOUNDS), ..RecordRules::NONE };

// Offsets of the header's fields; the crate's docs have the table.
const BATCH_LENGTH: usize = 8;
const MAGIC_AT: usize = 16;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const BASE_SEQUENCE: usize = 53;
const COUNT: usize = 57;

fn sound(codec: Codec) -> Vec<u8> {
    batch_of(codec, &random_records(&mut Random(11), 10, 50))
}

/// Overwrites some fields of a valid batch and recomputes the CRC.
fn with(codec: Codec, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut batch = sound(codec);
    for (at, bytes) in fields {
        batch[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    patch::refresh_crc(&mut batch);
    batch
}

fn refused(batch: &[u8]) -> BatchError {
    validate_produce(batch, BATCH_BYTES_MAX).expect_err("it should have been rejected")
}

fn kind(batch: &[u8]) -> ErrorKind {
    refused(batch).kind()
}

#[test]
fn a_bad_crc_is_corrupt() {
    let mut batch = sound(Codec::None);
    *batch.last_mut().unwrap() ^= 1;
    let error = refused(&batch);
    assert!(matches!(error, BatchError::CrcMismatch { .. }) && error.kind() == ErrorKind::Corrupt);
    assert!(error.to_string().starts_with("CRC-32C mismatch: the batch says 0x"), "{error}");
}

#[test]
fn a_wrong_batch_length_is_corrupt_whichever_way() {
    let right = sound(Codec::None).len() as i32 - 12;
    for length in [i32::MIN, -1, 0, 48, 49, right - 1, right + 1, right * 2, i32::MAX - 12, i32::MAX] {
        let mut batch = sound(Codec::None);
        batch[BATCH_LENGTH..BATCH_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(kind(&batch), ErrorKind::Corrupt, "{length}");
        // Two batches, the first of which claims to be longer: still corrupt.
        let two = [batch, sound(Codec::None)].concat();
        assert_eq!(kind(&two), ErrorKind::Corrupt, "{length}, two");
    }
}

#[test]
fn other_record_formats_are_rejected_by_name() {
    for magic in [0i8, 1, 3, 127, -1, i8::MIN] {
        let batch = with(Codec::None, &[(MAGIC_AT, &magic.to_be_bytes())]);
        assert_eq!(refused(&batch), BatchError::UnsupportedMagic { magic });
        // A message of the old formats is shorter than our header.
        assert_eq!(refused(&batch[..30]), BatchError::UnsupportedMagic { magic });
    }
    assert_eq!(kind(&with(Codec::None, &[(MAGIC_AT, &[1])])), ErrorKind::UnsupportedMagic);
}

#[test]
fn a_record_count_that_does_not_fit_is_invalid() {
    for codec in Codec::ALL {
        for count in [i32::MIN, -1, 0, 500, i32::MAX] {
            let batch = with(codec, &[(COUNT, &count.to_be_bytes())]);
            assert_eq!(kind(&batch), ErrorKind::InvalidRecord, "{count}");
            // Also if the last offset delta agrees.
            let delta = count.wrapping_sub(1).to_be_bytes();
            let batch = with(codec, &[(COUNT, &count.to_be_bytes()), (LAST_OFFSET_DELTA, &delta)]);
            if count == 500 && codec != Codec::None {
                // That count would fit: only a walk over the records finds the error.
                let batch = validate_produce(&batch, BATCH_BYTES_MAX).unwrap();
                let error = check_records(&batch, &RecordRules::NONE).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidRecord);
            } else {
                assert_eq!(kind(&batch), ErrorKind::InvalidRecord, "{codec} {count}");
            }
        }
        let batch = with(codec, &[(LAST_OFFSET_DELTA, &0i32.to_be_bytes())]);
        assert_eq!(kind(&batch), ErrorKind::InvalidRecord);
    }
}

#[test]
fn fewer_records_than_there_are_is_invalid() {
    let count = 2i32;
    let fields = [(COUNT, &count.to_be_bytes()[..]), (LAST_OFFSET_DELTA, &1i32.to_be_bytes())];
    let batch = with(Codec::Snappy, &fields);
    let batch = validate_produce(&batch, BATCH_BYTES_MAX).unwrap();
    let error = check_records(&batch, &RecordRules::NONE).unwrap_err();
    assert!(matches!(error, BatchError::Invalid { index: None, fault: RecordFault::BatchTrailing(_) }), "{error:?}");
}

#[test]
fn exactly_one_batch_is_allowed() {
    assert_eq!(refused(&[]), BatchError::Invalid { index: None, fault: RecordFault::NoBatch });
    let one = sound(Codec::Gzip);
    validate_produce(&one, BATCH_BYTES_MAX).unwrap();
    let two = [one.clone(), one.clone()].concat();
    let fault = RecordFault::MoreThanOneBatch { trailing: one.len() };
    assert_eq!(refused(&two), BatchError::Invalid { index: None, fault });
    assert_eq!(kind(&[one, vec![0]].concat()), ErrorKind::InvalidRecord);
}

#[test]
fn clients_write_no_control_batches_and_start_at_offset_zero() {
    let control = with(Codec::None, &[(ATTRIBUTES, &0x20i16.to_be_bytes())]);
    assert_eq!(refused(&control), BatchError::Invalid { index: None, fault: RecordFault::Control });
    let mut offset = sound(Codec::None);
    patch::set_base_offset(&mut offset, 5);
    assert_eq!(refused(&offset), BatchError::Invalid { index: None, fault: RecordFault::BaseOffset(5) });
}

#[test]
fn producer_fields_go_together() {
    let producer = |id: i64, epoch: i16, sequence: i32, attributes: i16| {
        with(
            Codec::None,
            &[
                (ATTRIBUTES, &attributes.to_be_bytes()),
                (PRODUCER_ID, &id.to_be_bytes()),
                (PRODUCER_ID + 8, &epoch.to_be_bytes()),
                (BASE_SEQUENCE, &sequence.to_be_bytes()),
            ],
        )
    };
    for (id, epoch, sequence, attributes) in [(-1, -1, -1, 0), (0, 0, 0, 0), (9, 1, i32::MAX, 0x10)] {
        validate_produce(&producer(id, epoch, sequence, attributes), BATCH_BYTES_MAX).unwrap();
    }
    for (id, epoch, sequence, attributes) in
        [(9, -1, 0, 0), (9, 0, -1, 0), (-2, -1, -1, 0), (i64::MIN, 0, 0, 0), (-1, -1, -1, 0x10)]
    {
        assert_eq!(kind(&producer(id, epoch, sequence, attributes)), ErrorKind::InvalidRecord);
    }
    // What a broker has built for a producer has no sequences.
    for (id, epoch, sequence, attributes) in [(-1, -1, -1, 0), (9, 1, -1, 0x10)] {
        validate_built(&producer(id, epoch, sequence, attributes), BATCH_BYTES_MAX).unwrap();
    }
    for (id, epoch, sequence, attributes) in [(9, -1, -1, 0x10), (9, 0, 0, 0x10), (-1, -1, -1, 0x10)] {
        let error = validate_built(&producer(id, epoch, sequence, attributes), BATCH_BYTES_MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
    }
}

#[test]
fn unknown_codecs_are_named() {
    for id in [5i16, 6, 7] {
        let batch = with(Codec::None, &[(ATTRIBUTES, &id.to_be_bytes())]);
        let error = refused(&batch);
        assert_eq!(error, BatchError::Codec(CodecError::UnknownId(id)));
        assert_eq!(error.kind(), ErrorKind::UnsupportedCodec);
    }
}

#[test]
fn the_size_cap_counts_the_whole_batch() {
    let batch = sound(Codec::None);
    validate_produce(&batch, batch.len()).unwrap();
    let error = validate_produce(&batch, batch.len() - 1).unwrap_err();
    assert_eq!(error, BatchError::TooLarge { size: batch.len(), max: batch.len() - 1 });
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn timestamps_out_of_range_are_seen_in_the_header() {
    let check = |base: i64, max: i64, bounds: &TimestampBounds| {
        let fields = [(BASE_TIMESTAMP, &base.to_be_bytes()[..]), (MAX_TIMESTAMP, &max.to_be_bytes())];
        let bytes = with(Codec::None, &fields);
        check_header_timestamps(&validate_produce(&bytes, BATCH_BYTES_MAX).unwrap(), bounds)
    };
    for (base, max) in [(NOW, i64::MAX), (i64::MIN, NOW), (i64::MAX, i64::MAX), (NOW, NOW + 3_600_001)] {
        let error = check(base, max, &BOUNDS).unwrap_err();
        assert_eq!((error.kind(), error.record_errors()), (ErrorKind::InvalidTimestamp, vec![]), "{base} {max}");
    }
    for (base, max) in [(0, NOW), (-1000, NOW), (NO_TIMESTAMP, NO_TIMESTAMP), (NOW, NOW + 3_600_000)] {
        check(base, max, &BOUNDS).unwrap();
    }
    let strict = TimestampBounds { before_ms_max: 1_000, ..BOUNDS };
    check(NOW - 1_000, NOW, &strict).unwrap();
    let error = check(NOW - 1_001, NOW, &strict).unwrap_err().to_string();
    assert!(error.contains(&format!("should be within [{}, {}]", NOW - 1_000, NOW + 3_600_000)), "{error}");
}

#[test]
fn a_producer_does_not_set_the_brokers_timestamp_type() {
    let mut append_time = sound(Codec::None);
    patch::set_log_append_time(&mut append_time, NOW);
    let error = refused(&append_time);
    assert_eq!(error.kind(), ErrorKind::InvalidTimestamp);
    let count = BatchView::parse(&append_time).unwrap().count() as u32;
    let named: Vec<u32> = error.record_errors().into_iter().map(|(index, _)| index).collect();
    assert_eq!(named, (0..count).collect::<Vec<_>>());
}

fn with_timestamps(codec: Codec, timestamps: &[i64]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    for timestamp in timestamps {
        builder.append(*timestamp, None, Some(b"value"), []).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn every_record_with_a_timestamp_out_of_range_is_named() {
    for codec in Codec::ALL {
        for (timestamps, bad) in [
            (&[NOW, NOW + 1, i64::MIN, NOW][..], &[2][..]),
            (&[NOW, NOW + 7_200_000, NOW], &[1]),
            (&[NOW + 7_200_000, NOW, NOW + 3_600_001], &[0, 2]),
        ] {
            let bytes = with_timestamps(codec, timestamps);
            let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
            let error = check_records(&batch, &RULES).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTimestamp);
            assert_eq!(error.to_string(), "One or more records have been rejected due to invalid timestamp");
            let message = |index: u32| {
                let (timestamp, latest) = (timestamps[index as usize], NOW + 3_600_000);
                let earliest = NOW - i64::MAX;
                format!(
                    "Timestamp {timestamp} of message with offset {index} is out of range. \
                     The timestamp should be within [{earliest}, {latest}]"
                )
            };
            let expected: Vec<_> = bad.iter().map(|index| (*index, message(*index))).collect();
            assert_eq!(error.record_errors(), expected, "{codec}");
            // If the broker sets its own time, the producer's does not matter.
            check_records(&batch, &RecordRules::NONE).unwrap();
        }
    }
}

#[test]
fn a_record_from_before_1970_is_like_any_other() {
    for codec in Codec::ALL {
        let bytes = with_timestamps(codec, &[-1000, -2]);
        let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
        assert_eq!(check_records(&batch, &RULES).unwrap().count, 2);
    }
}

#[test]
fn every_record_without_a_key_is_named_where_keys_are_needed() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        for key in [None, Some(&b"k"[..]), Some(b""), None] {
            builder.append(NOW, key, Some(b"v"), []).unwrap();
        }
        let bytes = builder.build().unwrap();
        let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
        check_records(&batch, &RULES).unwrap();
        let error = check_records(&batch, &RecordRules { keys: true, ..RULES }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
        let message = "Compacted topic cannot accept message without key".to_owned();
        assert_eq!(error.record_errors(), [(0, message.clone()), (3, message)], "{codec}");
        assert!(error.to_string().starts_with("One or more records have been rejected due to 2 record errors"));
    }
}

#[test]
fn the_largest_record_of_a_compressed_batch_has_a_limit_and_others_have_none() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        for len in [10, 200_000, 10] {
            builder.append(NOW, None, Some(&vec![b'x'; len]), []).unwrap();
        }
        let bytes = builder.build().unwrap();
        let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
        let check = |record_bytes_max| check_records(&batch, &RecordRules { record_bytes_max, ..RULES });
        check(200_010).unwrap();
        if codec == Codec::None {
            check(100).unwrap();
            continue;
        }
        let error = check(200_000).unwrap_err();
        assert_eq!((error.kind(), error.record_errors()), (ErrorKind::InvalidRecord, vec![]), "{codec}");
        assert!(error.to_string().contains("record 1 has 200008 bytes uncompressed"), "{codec}: {error}");
    }
}

#[test]
fn a_payload_that_cannot_be_decompressed_is_invalid() {
    let noise: Vec<u8> = (0..100u8).map(|at| at.wrapping_mul(97) ^ 0x5a).collect();
    for codec in Codec::ALL.into_iter().skip(1) {
        let build = |payload: &[u8]| {
            let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
            (0..5).for_each(|_| builder.append(NOW, None, Some(b"value"), []).unwrap());
            builder.build_with_payload(codec, payload).unwrap()
        };
        let sound = sound(codec);
        let payload = BatchView::parse(&sound).unwrap().payload();
        for payload in [&noise[..], &payload[..payload.len() - 1], &payload[..payload.len() / 2]] {
            let bytes = build(payload);
            let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
            let error = check_records(&batch, &RULES).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRecord, "{codec}: {error}");
            // Gzip has its length only at its end, and a raw block of snappy has no framing.
            let is_cut = batch.payload() != noise;
            if codec != (if is_cut { Codec::Gzip } else { Codec::Snappy }) {
                let error = check_framing(&batch).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidRecord, "{codec}: {error}");
            }
        }
        // One record more than there is, and one less.
        for (change, count) in [(-1, 9i32), (1, 11)] {
            let bytes = with(codec, &[(COUNT, &count.to_be_bytes()), (LAST_OFFSET_DELTA, &(count - 1).to_be_bytes())]);
            let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
            let error = check_records(&batch, &RecordRules::NONE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRecord, "{codec} {change}: {error}");
        }
    }
}

#[test]
fn bytes_after_the_end_of_gzip_data_are_named() {
    let sound = sound(Codec::Gzip);
    let payload = BatchView::parse(&sound).unwrap().payload();
    let twice = [payload, payload].concat();
    for (start, after) in [(payload, &b"\xff\xff"[..]), (&twice, b"\xff\xff"), (payload, &[0xff; 40])] {
        let mut builder = BatchBuilder::new(Codec::Gzip, TimestampType::CreateTime);
        builder.append(NOW, None, Some(b"value"), []).unwrap();
        let bytes = builder.build_with_payload(Codec::Gzip, &[start, after].concat()).unwrap();
        let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
        let reason = format!(
            "corrupt gzip data: after the end of the compressed data, {} bytes follow that are not gzip",
            after.len()
        );
        for error in [
            check_framing(&batch).unwrap_err(),
            check_records(&batch, &RecordRules::NONE).unwrap_err(),
            batch.records(1 << 20).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), reason);
        }
    }
}

#[test]
fn the_framing_of_sound_batches_is_sound() {
    let mut random = Random(12);
    for codec in Codec::ALL {
        for len in [1, 10, 1000] {
            let bytes = batch_of(codec, &random_records(&mut random, len, 300));
            check_framing(&validate_produce(&bytes, BATCH_BYTES_MAX).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_check_can_stop_early() {
    let bytes = with_timestamps(Codec::Gzip, &[NOW; 1000]);
    let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
    let all = check_records(&batch, &RULES).unwrap().payload_bytes;
    check_records_up_to(&batch, &RULES, all).unwrap();
    let error = check_records_up_to(&batch, &RULES, all - 1).unwrap_err();
    assert_eq!(error, BatchError::Codec(CodecError::TooLarge { max: all - 1 }));
}

/// Encodes one record by hand with its length, and puts it into a batch.
fn batch_of_body(codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    varint::write_i32(&mut payload, body.len() as i32);
    payload.extend_from_slice(body);
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    builder.append(NOW, None, None, []).unwrap();
    builder.build_with_payload(codec, &codec::compress(codec, None, &payload).unwrap()).unwrap()
}

#[test]
fn header_counts_and_lengths_of_a_record_are_invalid_not_trusted() {
    let zigzag = |value: i32| {
        let mut out = Vec::new();
        varint::write_i32(&mut out, value);
        out
    };
    // attributes, timestamp delta, offset delta, null key, null value
    let start: &[u8] = &[0, 0, 0, 1, 1];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("header count huge", [start, &zigzag(i32::MAX)].concat()),
        ("header count over what is left", [start, &zigzag(2), &[0, 1, 0]].concat()),
        ("header count negative", [start, &zigzag(-1)].concat()),
        ("header count least", [start, &zigzag(i32::MIN)].concat()),
        ("header name null", [start, &zigzag(1), &[1, 1]].concat()),
        ("header name too long", [start, &zigzag(1), &zigzag(100), &[1]].concat()),
        ("header value too long", [start, &zigzag(1), &[0], &zigzag(i32::MAX)].concat()),
        ("key too long", [&[0, 0, 0][..], &zigzag(i32::MAX), &[1, 0]].concat()),
        ("key length below null", [&[0, 0, 0][..], &zigzag(-2), &[1, 0]].concat()),
        ("value too long", [&[0, 0, 0, 1][..], &zigzag(50), &[0]].concat()),
        ("varint without an end", [start, &[0xFF; 6]].concat()),
        ("timestamp delta without an end", [&[0][..], &[0xFF; 12]].concat()),
        ("offset delta other than 0", vec![0, 0, 2, 1, 1, 0]),
        ("offset delta negative", vec![0, 0, 1, 1, 1, 0]),
        ("bytes after the headers", [start, &[0, 0]].concat()),
        ("nothing at all", vec![]),
    ];
    for codec in Codec::ALL {
        let fine = batch_of_body(codec, &[start, &[0]].concat());
        check_records(&BatchView::parse(&fine).unwrap(), &RecordRules::NONE).unwrap();
        for (what, body) in &cases {
            let bytes = batch_of_body(codec, body);
            let batch = BatchView::parse(&bytes).unwrap();
            batch.verify_crc().unwrap();
            let error = check_records(&batch, &RecordRules::NONE).expect_err(what);
            let named: Vec<u32> = error.record_errors().into_iter().map(|(index, _)| index).collect();
            assert_eq!((error.kind(), named), (ErrorKind::InvalidRecord, vec![0]), "{codec} {what}: {error}");
        }
    }
}

#[test]
fn offsets_of_a_produced_batch_have_no_gaps() {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.append_at(0, NOW, None, None, []).unwrap();
    builder.append_at(2, NOW, None, None, []).unwrap();
    let bytes = builder.build().unwrap();
    assert_eq!(kind(&bytes), ErrorKind::InvalidRecord);
    let error = check_records(&BatchView::parse(&bytes).unwrap(), &RecordRules::NONE).unwrap_err();
    let fault = RecordFault::OffsetDelta { delta: 2, expected: 1 };
    assert_eq!(error, BatchError::Invalid { index: Some(1), fault });
}
