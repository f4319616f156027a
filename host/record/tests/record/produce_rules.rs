//! What Produce refuses, and as what: the error kinds that a broker turns into Kafka's codes.

use millstream_record::layout::NO_TIMESTAMP;
use millstream_record::validate::{ProduceRules, TimestampBounds, check_records, validate_produce};
use millstream_record::*;

use crate::support::*;

const NOW: i64 = 1_700_000_000_000;
const BOUNDS: TimestampBounds = TimestampBounds { now_ms: NOW, before_ms_max: i64::MAX, after_ms_max: 3_600_000 };
const RULES: ProduceRules = ProduceRules { batch_bytes_max: 1 << 20, timestamps: Some(BOUNDS) };

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

/// A sound batch with some fields written over and a CRC that is right again.
fn with(codec: Codec, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut batch = sound(codec);
    for (at, bytes) in fields {
        batch[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    patch::refresh_crc(&mut batch);
    batch
}

fn refused(batch: &[u8]) -> BatchError {
    validate_produce(batch, &RULES).expect_err("it should have been refused")
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
        // Two batches, the first of which says that it is longer: still corrupt.
        let two = [batch, sound(Codec::None)].concat();
        assert_eq!(kind(&two), ErrorKind::Corrupt, "{length}, two");
    }
}

#[test]
fn other_record_formats_are_refused_by_name() {
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
            // Also when the last offset delta agrees.
            let delta = count.wrapping_sub(1).to_be_bytes();
            let batch = with(codec, &[(COUNT, &count.to_be_bytes()), (LAST_OFFSET_DELTA, &delta)]);
            if count == 500 && codec != Codec::None {
                // So many could be in there: only a look at the records can tell.
                let batch = validate_produce(&batch, &RULES).unwrap();
                let error = check_records(&batch, 1 << 20, None).unwrap_err();
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
    let batch = validate_produce(&batch, &RULES).unwrap();
    let error = check_records(&batch, 1 << 20, None).unwrap_err();
    assert!(matches!(error, BatchError::Invalid { index: None, fault: RecordFault::BatchTrailing(_) }), "{error:?}");
}

#[test]
fn exactly_one_batch_is_allowed() {
    assert_eq!(refused(&[]), BatchError::Invalid { index: None, fault: RecordFault::NoBatch });
    let one = sound(Codec::Gzip);
    validate_produce(&one, &RULES).unwrap();
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
        validate_produce(&producer(id, epoch, sequence, attributes), &RULES).unwrap();
    }
    for (id, epoch, sequence, attributes) in
        [(9, -1, 0, 0), (9, 0, -1, 0), (-2, -1, -1, 0), (i64::MIN, 0, 0, 0), (-1, -1, -1, 0x10)]
    {
        assert_eq!(kind(&producer(id, epoch, sequence, attributes)), ErrorKind::InvalidRecord);
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
    let rules = |batch_bytes_max| ProduceRules { batch_bytes_max, timestamps: None };
    validate_produce(&batch, &rules(batch.len())).unwrap();
    let error = validate_produce(&batch, &rules(batch.len() - 1)).unwrap_err();
    assert_eq!(error, BatchError::TooLarge { size: batch.len(), max: batch.len() - 1 });
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn timestamps_out_of_bounds_are_refused_in_the_header() {
    let stamped = |base: i64, max: i64| {
        with(Codec::None, &[(BASE_TIMESTAMP, &base.to_be_bytes()), (MAX_TIMESTAMP, &max.to_be_bytes())])
    };
    for (base, max) in [(NOW, i64::MAX), (i64::MIN, NOW), (i64::MAX, i64::MAX), (NOW, -2), (NOW, NOW + 3_600_001)] {
        assert_eq!(kind(&stamped(base, max)), ErrorKind::InvalidTimestamp, "{base} {max}");
        // Where the broker stamps its own time, the producer's does not matter.
        let own_clock = ProduceRules { timestamps: None, ..RULES };
        validate_produce(&stamped(base, max), &own_clock).unwrap();
    }
    for (base, max) in [(0, NOW), (NO_TIMESTAMP, NO_TIMESTAMP), (NOW, NOW + 3_600_000)] {
        validate_produce(&stamped(base, max), &RULES).unwrap();
    }
    let strict = TimestampBounds { before_ms_max: 1_000, ..BOUNDS };
    let strict = ProduceRules { timestamps: Some(strict), ..RULES };
    validate_produce(&stamped(NOW - 1_000, NOW), &strict).unwrap();
    let error = validate_produce(&stamped(NOW - 1_001, NOW), &strict).unwrap_err();
    assert!(error.to_string().contains("message.timestamp.before.max.ms"), "{error}");

    let mut append_time = sound(Codec::None);
    patch::set_log_append_time(&mut append_time, NOW);
    assert_eq!(kind(&append_time), ErrorKind::InvalidTimestamp);
}

#[test]
fn timestamps_are_checked_by_record() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        for timestamp in [NOW, NOW + 1, i64::MIN, NOW] {
            builder.append(timestamp, None, Some(b"value"), []).unwrap();
        }
        let bytes = builder.build().unwrap();
        // The header looks sound: base and max are.
        let batch = validate_produce(&bytes, &RULES).unwrap();
        let error = check_records(&batch, 1 << 20, RULES.timestamps).unwrap_err();
        assert_eq!((error.kind(), error.record_index()), (ErrorKind::InvalidTimestamp, Some(2)), "{codec}");
        assert!(error.to_string().starts_with("record 2: timestamp -9223372036854775808 "), "{error}");
        check_records(&batch, 1 << 20, None).unwrap();
    }
}

/// One record by hand; its length in front, and around it a batch.
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
        check_records(&BatchView::parse(&fine).unwrap(), 1 << 20, None).unwrap();
        for (what, body) in &cases {
            let bytes = batch_of_body(codec, body);
            let batch = BatchView::parse(&bytes).unwrap();
            batch.verify_crc().unwrap();
            let error = check_records(&batch, 1 << 20, None).expect_err(what);
            assert_eq!((error.kind(), error.record_index()), (ErrorKind::InvalidRecord, Some(0)), "{what}: {error}");
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
    let error = check_records(&BatchView::parse(&bytes).unwrap(), 0, None).unwrap_err();
    let fault = RecordFault::OffsetDelta { delta: 2, expected: 1 };
    assert_eq!(error, BatchError::Invalid { index: Some(1), fault });
}
