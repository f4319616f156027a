//! Compares with batches of Apache Kafka 4.2's client library. `GoldenBatches.java` makes them and explains how.

use millstream_record::*;

use crate::support::*;

const TIMESTAMP: i64 = 1_700_000_000_000;

fn golden(name: &str) -> Vec<u8> {
    let line = include_str!("golden_batches.txt")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no batch {name}"));
    line.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// Returns the records of `GoldenBatches.java`.
fn expected(long_value: usize) -> Vec<OwnedRecord> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let record = |timestamp, key, value, headers| OwnedRecord { timestamp, key, value, headers };
    vec![
        record(
            TIMESTAMP,
            text("key-0"),
            text("value-0"),
            vec![
                ("trace".to_owned(), text("one")),
                ("trace".to_owned(), text("two")),
                ("none".to_owned(), None),
                (String::new(), text("")),
            ],
        ),
        record(TIMESTAMP + 1000, None, text(""), vec![]),
        record(TIMESTAMP - 1000, text(""), None, vec![]),
        record(TIMESTAMP + 70_000, text("long"), Some((0..long_value).map(|i| (i % 251) as u8).collect()), vec![]),
    ]
}

fn builder(codec: Codec, timestamp_type: TimestampType) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, timestamp_type);
    builder.producer(4242, 7, i32::MAX - 1).transactional(true).leader_epoch(5);
    builder
}

#[test]
fn reads_what_java_writes_under_every_codec() {
    for codec in Codec::ALL {
        let bytes = golden(codec.name());
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.size(), bytes.len());
        batch.verify_crc().unwrap();
        assert_eq!(batch.codec(), Ok(codec));
        assert_eq!((batch.magic(), batch.base_offset(), batch.last_offset(), batch.next_offset()), (2, 0, 3, 4));
        assert_eq!((batch.leader_epoch(), batch.count(), batch.last_offset_delta()), (5, 4, 3));
        assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (TIMESTAMP, TIMESTAMP + 70_000));
        assert_eq!((batch.producer_id(), batch.producer_epoch()), (4242, 7));
        // The sequence wraps inside of the batch: MAX - 1, MAX, 0, 1.
        assert_eq!((batch.base_sequence(), batch.last_sequence()), (i32::MAX - 1, 1));
        assert_eq!((batch.is_transactional(), batch.is_control()), (true, false));
        assert_eq!((batch.timestamp_type(), batch.delete_horizon_ms()), (TimestampType::CreateTime, None));

        let expected = expected(if codec == Codec::None { 300 } else { 70_000 });
        assert_eq!(read_all(&batch), expected);

        let mut ours = builder(codec, TimestampType::CreateTime);
        expected.iter().for_each(|record| record.append_to(&mut ours));
        assert_eq!(batch.records(1 << 20).unwrap().payload(), ours.payload(), "{codec}");
    }
}

#[test]
fn writes_the_same_bytes_as_java() {
    let mut ours = builder(Codec::None, TimestampType::CreateTime);
    expected(300).iter().for_each(|record| record.append_to(&mut ours));
    assert_eq!(ours.build().unwrap(), golden("none"));

    let mut marker = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    marker.producer(4242, 7, -1).transactional(true).control(true).base_offset(41).leader_epoch(5);
    // Control record: version 0, type 1 (commit); version 0, coordinator epoch 9.
    marker.append(TIMESTAMP, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 9]), []).unwrap();
    assert_eq!(marker.build().unwrap(), golden("commit-marker"));

    let mut emptied = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    emptied.producer(4242, 7, 10).base_offset(100).leader_epoch(5).last_offset_delta(19);
    let mut emptied = emptied.build().unwrap();
    patch::set_max_timestamp(&mut emptied, TIMESTAMP);
    assert_eq!(emptied, golden("emptied"));
}

#[test]
fn compressed_batches_differ_from_javas_in_the_payload_alone() {
    for codec in Codec::ALL {
        let theirs = golden(codec.name());
        let mut ours = builder(codec, TimestampType::CreateTime);
        expected(70_000).iter().for_each(|record| record.append_to(&mut ours));
        let rebuilt = ours.build_with_payload(codec, &theirs[HEADER_LEN..]).unwrap();
        assert_eq!(rebuilt, theirs, "{codec}");
    }
}

#[test]
fn log_append_time_holds_for_every_record() {
    let bytes = golden("log-append-time");
    let batch = BatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.max_timestamp(), TIMESTAMP + 500);
    for record in &batch.records(0).unwrap() {
        assert_eq!(record.unwrap().timestamp, TIMESTAMP + 500);
    }

    // A leader that sets its time in a producer's batch gets a batch that Java's reader accepts.
    let mut ours = builder(Codec::None, TimestampType::CreateTime);
    expected(3).iter().for_each(|record| record.append_to(&mut ours));
    let mut ours = ours.build().unwrap();
    patch::set_log_append_time(&mut ours, TIMESTAMP + 500);
    let ours = BatchView::parse(&ours).unwrap();
    ours.verify_crc().unwrap();
    assert_eq!(ours.attributes(), batch.attributes());
    assert_eq!(read_all(&ours), read_all(&batch));
}

#[test]
fn a_batch_that_compaction_emptied_has_offsets_and_no_records() {
    let bytes = golden("emptied");
    let batch = BatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!((batch.base_offset(), batch.last_offset(), batch.count()), (100, 119, 0));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (10, 29));
    assert_eq!(batch.records(0).unwrap().iter().count(), 0);
}
