//! Batches: built, read back, walked over and patched.

use millstream_record::validate::{RecordRules, check_records, validate_produce};
use millstream_record::*;

use crate::allocations::watch;
use crate::support::*;

#[test]
fn random_records_come_back_under_every_codec() {
    let mut random = Random(1);
    for round in 0..60 {
        let value_max = [10, 1_000, 100_000][round % 3];
        let records = random_records(&mut random, 30, value_max);
        let max_timestamp = records.iter().map(|record| record.timestamp).max().unwrap();
        for codec in Codec::ALL {
            let bytes = batch_of(codec, &records);
            let batch = validate_produce(&bytes, usize::MAX).unwrap();
            assert_eq!(batch.codec(), Ok(codec));
            assert_eq!(batch.count() as usize, records.len());
            assert_eq!(batch.base_timestamp(), records[0].timestamp);
            assert_eq!(batch.max_timestamp(), max_timestamp);
            assert_eq!(read_all(&batch), records);
            let summary = check_records(&batch, &RecordRules::NONE).unwrap();
            assert_eq!((summary.count as usize, summary.max_timestamp), (records.len(), max_timestamp));
            assert_eq!(summary.payload_bytes, batch.records(1 << 24).unwrap().payload().len());
            let null_keys = (0..).zip(&records).filter(|(_, record)| record.key.is_none()).map(|(index, _)| index);
            let rejected = check_records(&batch, &RecordRules { keys: true, ..RecordRules::NONE });
            let rejected = rejected.map_or_else(|error| error.record_errors(), |_| Vec::new());
            assert!(rejected.into_iter().map(|(index, _)| index).eq(null_keys), "{codec}");
        }
    }
}

#[test]
fn the_plain_path_allocates_nothing() {
    let bytes = batch_of(Codec::None, &random_records(&mut Random(2), 100, 1_000));
    let (records, seen) = watch(|| {
        let batch = validate_produce(&bytes, usize::MAX).unwrap();
        let walked = check_records(&batch, &RecordRules::NONE).unwrap();
        let mut bytes_seen = 0;
        for record in &batch.records(1 << 20).unwrap() {
            let record = record.unwrap();
            bytes_seen += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            bytes_seen += record.headers.map(|header| header.name.len()).sum::<usize>();
        }
        (walked.count, bytes_seen)
    });
    assert_eq!(seen.count, 0, "{seen:?}");
    assert!(records.0 > 0 && records.1 > 0);
}

#[test]
fn a_record_set_is_walked_batch_by_batch() {
    let mut random = Random(3);
    let mut set = Vec::new();
    let mut ends = Vec::new();
    for base_offset in [0, 100, 200] {
        let mut bytes = batch_of(Codec::None, &random_records(&mut random, 5, 30));
        patch::set_base_offset(&mut bytes, base_offset);
        set.extend(bytes);
        ends.push(set.len());
    }
    for cut in 0..=set.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let found: Vec<_> = batches(&set[..cut]).collect();
        let (sound, failed): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
        let offsets: Vec<_> = sound.into_iter().map(|batch| batch.unwrap().base_offset()).collect();
        assert_eq!(offsets, [0, 100, 200][..whole]);
        let at_an_end = cut == 0 || ends.contains(&cut);
        assert_eq!(failed.len(), usize::from(!at_an_end));
        for error in failed {
            assert!(matches!(error.unwrap_err(), BatchError::Truncated { .. }));
        }
    }
}

#[test]
fn offset_and_epoch_are_patched_outside_of_the_crc() {
    let original = batch_of(Codec::Zstd, &random_records(&mut Random(4), 5, 100));
    let mut bytes = original.clone();
    patch::set_base_offset(&mut bytes, 1 << 40);
    patch::set_leader_epoch(&mut bytes, 77);
    let batch = BatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!((batch.base_offset(), batch.leader_epoch()), (1 << 40, 77));
    assert_eq!(batch.last_offset(), (1 << 40) + i64::from(batch.count()) - 1);
    let first = batch.records(1 << 20).unwrap().iter().next().unwrap().unwrap().offset;
    assert_eq!(first, 1 << 40);
    patch::set_base_offset(&mut bytes, 0);
    patch::set_leader_epoch(&mut bytes, -1);
    assert_eq!(bytes, original);
}

#[test]
fn a_builder_keeps_the_offsets_of_a_batch_with_gaps() {
    let mut builder = BatchBuilder::new(Codec::Lz4, TimestampType::CreateTime);
    builder.base_offset(50);
    builder.append_at(2, 7, Some(b"a"), None, []).unwrap();
    builder.append_at(5, 9, None, Some(b"b"), [Header::new("h", None)]).unwrap();
    let refused = builder.append_at(5, 9, None, None, []);
    assert_eq!(refused, Err(BuildError::OffsetDelta { delta: 5, last: 5 }));
    builder.last_offset_delta(9).last_offset_delta(1);
    assert_eq!(builder.count(), 2);
    let bytes = builder.build().unwrap();
    let batch = BatchView::parse(&bytes).unwrap();
    assert_eq!((batch.last_offset(), batch.count()), (59, 2));
    let records = batch.records(100).unwrap();
    let offsets: Vec<_> = records.iter().map(|record| record.unwrap().offset).collect();
    assert_eq!(offsets, [52, 55]);
}

#[test]
fn what_a_batch_retains_stays_as_it_was() {
    let mut random = Random(6);
    for codec in Codec::ALL {
        let records = random_records(&mut random, 40, 300);
        let mut bytes = batch_of(codec, &records);
        patch::set_base_offset(&mut bytes, 1_000);
        patch::set_leader_epoch(&mut bytes, 3);
        patch::set_producer(&mut bytes, 9, 1, 50);
        let batch = BatchView::parse(&bytes).unwrap();
        let decoded = batch.records(1 << 20).unwrap();
        let whole = retain(&batch, &decoded, codec, None, |_, _| true).unwrap();
        assert_eq!(read_all(&BatchView::parse(&whole).unwrap()), records);
        let kept: Vec<usize> = (0..records.len()).filter(|_| random.below(3) == 0).collect();
        for to in [codec, Codec::None, Codec::Lz4] {
            let thinned = retain(&batch, &decoded, to, None, |place, _| kept.contains(&place)).unwrap();
            let thinned = BatchView::parse(&thinned).unwrap();
            thinned.verify_crc().unwrap();
            assert_eq!(thinned.codec(), Ok(if kept.is_empty() { Codec::None } else { to }));
            let header = |batch: &BatchView<'_>| {
                let producer = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
                (batch.base_offset(), batch.last_offset(), batch.leader_epoch(), batch.base_timestamp(), producer)
            };
            assert_eq!(header(&thinned), header(&batch));
            assert_eq!(thinned.count() as usize, kept.len());
            let expected: Vec<_> = kept.iter().map(|place| records[*place].clone()).collect();
            assert_eq!(read_all(&thinned), expected);
            assert_eq!(thinned.max_timestamp(), expected.iter().map(|record| record.timestamp).max().unwrap_or(-1));
            let offsets: Vec<_> =
                thinned.records(1 << 20).unwrap().iter().map(|record| record.unwrap().offset - 1_000).collect();
            assert_eq!(offsets, kept.iter().map(|place| *place as i64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_brokers_time_stays_that_of_the_batch() {
    let mut bytes = batch_of(Codec::None, &random_records(&mut Random(7), 9, 30));
    patch::set_log_append_time(&mut bytes, 77);
    let batch = BatchView::parse(&bytes).unwrap();
    let thinned = retain(&batch, &batch.records(0).unwrap(), Codec::None, None, |place, _| place == 0).unwrap();
    let thinned = BatchView::parse(&thinned).unwrap();
    assert_eq!((thinned.max_timestamp(), thinned.timestamp_type()), (77, TimestampType::LogAppendTime));
    assert_eq!(thinned.records(0).unwrap().iter().next().unwrap().unwrap().timestamp, 77);
}

#[test]
fn headers_keep_their_order_and_repeat() {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let headers = [Header::new("k", Some(b"1")), Header::new("other", None), Header::new("k", Some(b"2"))];
    builder.append(0, None, None, headers).unwrap();
    let not_text = Header { name: &[b'x', 0xFF], value: Some(b"3") };
    builder.append(0, None, None, [not_text]).unwrap();
    let bytes = builder.build().unwrap();
    let records = BatchView::parse(&bytes).unwrap().records(0).unwrap();
    let read: Vec<_> = records.iter().map(|record| record.unwrap().headers).collect();
    assert_eq!(read[0].collect::<Vec<_>>(), headers);
    assert_eq!((read[0].len(), read[0].last_header("k"), read[0].last_header("none")), (3, Some(headers[2]), None));
    assert_eq!(read[1].last_header("x"), None);
    assert_eq!(read[1].collect::<Vec<_>>()[0].name_lossy(), "x\u{FFFD}");

    // Read records can be written again without collecting them.
    let mut again = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for record in &records {
        let record = record.unwrap();
        again.append(record.timestamp, record.key, record.value, record.headers).unwrap();
    }
    assert_eq!(again.build().unwrap(), bytes);
}

#[test]
fn a_builder_knows_its_size_before_and_after() {
    let mut random = Random(5);
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    assert!(builder.is_empty());
    for record in random_records(&mut random, 50, 300) {
        let headers = record.headers.iter().map(|(name, value)| Header::new(name, value.as_deref()));
        let most =
            builder.size() + BatchBuilder::record_size_max(record.key.as_deref(), record.value.as_deref(), headers);
        record.append_to(&mut builder);
        assert!(builder.size() <= most && most - builder.size() < 26);
    }
    let size = builder.size();
    assert_eq!(builder.payload().len() + HEADER_LEN, size);
    assert_eq!(builder.build().unwrap().len(), size);
}

#[test]
fn a_builder_rejects_what_cannot_be() {
    let empty = || BatchBuilder::new(Codec::Gzip, TimestampType::CreateTime);
    assert_eq!(empty().build(), Err(BuildError::Empty));
    assert_eq!(empty().build_with_payload(Codec::Gzip, b"x"), Err(BuildError::Empty));
    let mut full = empty();
    full.append_at(i32::MAX, 0, None, None, []).unwrap();
    assert_eq!(full.append(0, None, None, []), Err(BuildError::TooLarge));
    let mut wrong_level = empty();
    wrong_level.level(Some(10)).append(0, None, Some(b"v"), []).unwrap();
    let error = CodecError::Level { codec: Codec::Gzip, level: 10 };
    assert_eq!(error.to_string(), "gzip has no compression level 10: use 1 to 9");
    assert_eq!(wrong_level.build(), Err(BuildError::Codec(error)));
}

#[test]
fn extreme_timestamps_survive_a_round_trip() {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let timestamps = [i64::MAX, i64::MIN, -1, 0];
    for timestamp in timestamps {
        builder.append(timestamp, None, None, []).unwrap();
    }
    let bytes = builder.build().unwrap();
    let batch = BatchView::parse(&bytes).unwrap();
    assert_eq!(batch.max_timestamp(), i64::MAX);
    let records = batch.records(0).unwrap();
    assert_eq!(records.iter().map(|record| record.unwrap().timestamp).collect::<Vec<_>>(), timestamps);
}
