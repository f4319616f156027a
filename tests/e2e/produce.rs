//! Produce: acknowledgements, stored bytes and rejections.

use millstream_record::{BatchView, Codec, TimestampType};
use millstream_tests::Broker;
use millstream_wire::messages::{ApiVersionsRequest, PartitionProduceData};
use millstream_wire::{ErrorCode, Records};

use crate::support::{At, Raw, Topic, batch, batch_at, builder, compressed, fetch_request, fetched, forge, now_ms};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn start(configs: &[(&str, &str)]) -> (Broker, Raw, Topic) {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 2, configs);
    (broker, raw, topic)
}

#[test]
fn acks_0_gets_no_response() {
    let (_broker, mut raw, topic) = start(&[]);
    for version in [3, 8, 9, 12, 13] {
        raw.send(version, &topic.produce_request(version, 0, 0, batch(&["silent"])));
        // The next response belongs to the next request, as its correlation id shows.
        raw.call(0, &ApiVersionsRequest::default());
    }
    assert_eq!(topic.read(&mut raw, 0), ["silent"; 5]);
}

#[test]
fn acks_1_and_all_get_the_base_offset() {
    let (_broker, mut raw, topic) = start(&[]);
    let mut next = 0;
    for version in 3..=13 {
        for acks in [1, -1] {
            let answer = raw.call(version, &topic.produce_request(version, acks, 0, batch(&["a", "b", "c"])));
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, ErrorCode::NONE, "acks={acks} v{version}");
            assert_eq!(answer.base_offset, next, "acks={acks} v{version}");
            assert_eq!(answer.log_append_time_ms, -1, "acks={acks} v{version}");
            assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 }, "acks={acks} v{version}");
            next += 3;
        }
    }
    assert_eq!(topic.end(&mut raw), next);
}

#[test]
fn other_acks_are_rejected() {
    let (_broker, mut raw, topic) = start(&[]);
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let answer = raw.call(9, &topic.produce_request(9, acks, 0, batch(&["value"])));
        let error = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(error, ErrorCode::INVALID_REQUIRED_ACKS, "acks={acks}");
    }
    assert_eq!(topic.end(&mut raw), 0);
}

#[test]
fn stored_bytes_are_the_sent_ones_but_for_base_offset_and_leader_epoch() {
    let (_broker, mut raw, topic) = start(&[]);
    for codec in CODECS {
        let mut builder = builder(codec, &["plain"]);
        let headers = [("h", Some(&b"1"[..])), ("h", None), ("", Some(&b""[..]))];
        let headers = headers.map(|(name, value)| millstream_record::Header::new(name, value));
        builder.append(now_ms(), Some(b""), None, headers).expect("room");
        let sent = builder.build().expect("a batch");
        let base = topic.produce(&mut raw, sent.clone());
        let stored = topic.fetch(&mut raw, base).records.as_bytes().expect("records").to_vec();
        assert_eq!(stored.len(), sent.len(), "{codec:?}");
        assert_eq!(stored[..8], base.to_be_bytes(), "{codec:?}");
        assert_eq!(stored[8..12], sent[8..12], "{codec:?}");
        assert_eq!(stored[16..], sent[16..], "{codec:?}");
    }
}

#[test]
fn log_append_time_is_the_broker_s() {
    let (_broker, mut raw, topic) = start(&[("message.timestamp.type", "LogAppendTime")]);
    for codec in CODECS {
        let before = now_ms();
        // The producer's timestamps do not matter, not even impossible ones.
        let answer = topic.produce_by(&mut raw, 9, batch_at(codec, &[1000, i64::MAX, 3000]));
        let after = now_ms();
        assert_eq!(answer.error_code, ErrorCode::NONE, "{codec:?}: {:?}", answer.error_message);
        let stamped = answer.log_append_time_ms;
        assert!((before..=after).contains(&stamped), "{codec:?}: {stamped} in {before}..={after}");
        let bytes = topic.fetch(&mut raw, answer.base_offset).records.as_bytes().expect("records").clone();
        let batch = BatchView::parse(&bytes).expect("a batch");
        batch.verify_crc().expect("a new CRC");
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime, "{codec:?}");
        assert_eq!(batch.max_timestamp(), stamped, "{codec:?}");
        let records = batch.records(1 << 20).expect("records");
        assert!(records.iter().all(|record| record.expect("a record").timestamp == stamped), "{codec:?}");
    }
}

#[test]
fn max_message_bytes_is_exact_to_the_byte() {
    let (_broker, mut raw, topic) = start(&[("max.message.bytes", "1000")]);
    let of_size = |size: usize| {
        let found = (1..size).map(|len| batch(&[&"x".repeat(len)])).find(|batch| batch.len() == size);
        found.expect("a batch of this size")
    };
    let answer = topic.produce_by(&mut raw, 9, of_size(1001));
    assert_eq!(answer.error_code, ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(topic.end(&mut raw), 0);
    assert_eq!(topic.produce(&mut raw, of_size(1000)), 0);
    // The limit applies to the batch as sent: a compressed batch may become larger.
    let packed = compressed(Codec::Gzip, &[&"x".repeat(100_000)]);
    assert!(packed.len() < 1000);
    assert_eq!(topic.produce(&mut raw, packed), 1);
}

#[test]
fn each_partition_has_its_own_result() {
    let (_broker, mut raw, topic) = start(&[]);
    let mut request = topic.produce_request(9, -1, 0, batch(&["one"]));
    let corrupt = forge(batch(&["two"]), At::Crc, [1, 2, 3, 4]);
    for (index, records) in [(1, corrupt), (7, batch(&["three"])), (-1, batch(&["four"]))] {
        let data = PartitionProduceData { index, records: Records::Bytes(records.into()) };
        request.topic_data[0].partition_data.push(data);
    }
    let answer = raw.call(9, &request);
    let results: Vec<_> = answer.responses[0]
        .partition_responses
        .iter()
        .map(|partition| (partition.index, partition.error_code, partition.base_offset))
        .collect();
    assert_eq!(
        results,
        [
            (0, ErrorCode::NONE, 0),
            (1, ErrorCode::CORRUPT_MESSAGE, -1),
            (7, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1),
            (-1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1),
        ]
    );
    assert_eq!(topic.read(&mut raw, 0), ["one"]);
    let empty = fetched(raw.call(12, &fetch_request(12, &[(&topic, 1, 0, 1 << 20)], 0, 0)));
    assert!(empty.records.is_empty());
}

#[test]
fn timestamps_out_of_bounds_are_rejected() {
    let (_broker, mut raw, topic) = start(&[]);
    for time in [i64::MAX, i64::MIN, now_ms() + 2 * 3_600_000] {
        let answer = topic.produce_by(&mut raw, 9, batch_at(Codec::None, &[time]));
        assert_eq!(answer.error_code, ErrorCode::INVALID_TIMESTAMP, "{time}: {:?}", answer.error_message);
    }
    // No timestamp, before 1970, long ago, and within the hour that is allowed.
    for time in [-1, -1000, -2, 0, 1000, now_ms() + 600_000] {
        let answer = topic.produce_by(&mut raw, 9, batch_at(Codec::None, &[time]));
        assert_eq!(answer.error_code, ErrorCode::NONE, "{time}: {:?}", answer.error_message);
    }
}

#[test]
fn every_record_with_a_timestamp_out_of_range_is_named() {
    let (_broker, mut raw, topic) = start(&[]);
    let now = now_ms();
    let ahead = now + 2 * 3_600_000;
    for codec in CODECS {
        for (times, bad) in [(&[now, ahead, now][..], &[1][..]), (&[ahead, now, ahead], &[0, 2])] {
            let answer = topic.produce_by(&mut raw, 9, batch_at(codec, times));
            assert_eq!(answer.error_code, ErrorCode::INVALID_TIMESTAMP, "{codec:?}");
            let message = answer.error_message.as_deref();
            assert_eq!(message, Some("One or more records have been rejected due to invalid timestamp"));
            let named: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
            assert_eq!(named, bad, "{codec:?}");
            for error in &answer.record_errors {
                let start = format!("Timestamp {ahead} of message with offset {} is out of range.", error.batch_index);
                let message = error.batch_index_error_message.as_deref().unwrap_or_default();
                assert!(message.starts_with(&start), "{message}");
            }
        }
    }
    assert_eq!(topic.end(&mut raw), 0);
}

/// Returns 100 bytes that no codec has written.
fn noise() -> Vec<u8> {
    (0..100u8).map(|at| at.wrapping_mul(97) ^ 0xfa).collect()
}

/// Returns batches of five records that have a correct CRC but do not decompress.
fn unreadable(codec: Codec) -> Vec<(&'static str, Vec<u8>)> {
    let values = ["a", "b", "c", "d", "e"];
    let sound = compressed(codec, &values);
    let payload = BatchView::parse(&sound).expect("a batch").payload();
    let with = |payload: &[u8]| builder(codec, &values).build_with_payload(codec, payload).expect("a batch");
    let counted = |count: i32| {
        let batch = forge(sound.clone(), At::Count, count.to_be_bytes());
        forge(batch, At::LastOffsetDelta, (count - 1).to_be_bytes())
    };
    vec![
        ("noise", with(&noise())),
        ("cut by one byte", with(&payload[..payload.len() - 1])),
        ("cut in half", with(&payload[..payload.len() / 2])),
        ("one record too few", counted(6)),
        ("one record too many", counted(4)),
    ]
}

#[test]
fn full_validation_rejects_batches_that_do_not_decompress() {
    let (_broker, mut raw, topic) = start(&[("compressed.records.validation", "full")]);
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        for (what, batch) in unreadable(codec) {
            let answer = topic.produce_by(&mut raw, 9, batch);
            assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{codec:?} {what}: {:?}", answer.error_message);
        }
    }
    assert_eq!(topic.end(&mut raw), 0);
    // Correct batches are accepted, small and large.
    let large = "a line that repeats, ".repeat(40_000);
    for (at, codec) in (0..).zip(CODECS) {
        assert_eq!(topic.produce(&mut raw, compressed(codec, &["a", "b"])), 3 * at, "{codec:?}");
        assert_eq!(topic.produce(&mut raw, compressed(codec, &[&large])), 3 * at + 2, "{codec:?}");
    }
}

#[test]
fn the_default_validation_rejects_what_the_framing_shows() {
    let (_broker, mut raw, topic) = start(&[]);
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        for (what, batch) in unreadable(codec).into_iter().take(3) {
            // A raw block of snappy has no framing, and gzip has its length only at the end.
            if (codec, what == "noise") == (Codec::Snappy, true) || (codec, what == "noise") == (Codec::Gzip, false) {
                continue;
            }
            let answer = topic.produce_by(&mut raw, 9, batch);
            assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{codec:?} {what}: {:?}", answer.error_message);
        }
    }
    assert_eq!(topic.end(&mut raw), 0);
}

#[test]
fn without_validation_any_payload_is_stored() {
    let (_broker, mut raw, topic) = start(&[("compressed.records.validation", "none")]);
    for (_, batch) in unreadable(Codec::Gzip) {
        topic.produce(&mut raw, batch);
    }
}

#[test]
fn the_largest_record_of_a_compressed_batch_has_a_limit() {
    let (_broker, mut raw, topic) = start(&[("max.decompressed.message.bytes", "1000")]);
    let (large, small) = ("x".repeat(1000), "x".repeat(900));
    for codec in CODECS {
        let answer = topic.produce_by(&mut raw, 9, compressed(codec, &["a", &large]));
        let expected = if codec == Codec::None { ErrorCode::NONE } else { ErrorCode::INVALID_RECORD };
        assert_eq!(answer.error_code, expected, "{codec:?}: {:?}", answer.error_message);
        assert!(answer.record_errors.is_empty());
        // The total of a batch has no limit.
        let answer = topic.produce_by(&mut raw, 9, compressed(codec, &[small.as_str(); 20]));
        assert_eq!(answer.error_code, ErrorCode::NONE, "{codec:?}: {:?}", answer.error_message);
    }
    assert_eq!(topic.end(&mut raw), 2 + 5 * 20);
}

#[test]
fn a_compacted_topic_rejects_records_without_keys_and_names_them() {
    let (_broker, mut raw, topic) = start(&[("cleanup.policy", "compact")]);
    for codec in CODECS {
        let mut builder = builder(codec, &[]);
        builder.append(now_ms(), Some(b"key"), Some(b"value"), []).expect("room");
        builder.append(now_ms(), None, Some(b"value"), []).expect("room");
        builder.append(now_ms(), None, Some(b"value"), []).expect("room");
        let answer = topic.produce_by(&mut raw, 9, builder.build().expect("a batch"));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{codec:?}");
        let blamed: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(blamed, [1, 2], "{codec:?}");
        for error in &answer.record_errors {
            let message = error.batch_index_error_message.as_deref();
            assert_eq!(message, Some("Compacted topic cannot accept message without key in topic partition topic-0"));
        }
    }
    assert_eq!(topic.end(&mut raw), 0);
}

#[test]
fn the_least_replicas_in_sync_are_at_most_those_of_the_topic() {
    let (_broker, mut raw, topic) = start(&[("min.insync.replicas", "2")]);
    let answer = topic.produce_by(&mut raw, 9, batch(&["value"]));
    assert_eq!(answer.error_code, ErrorCode::NONE);
    assert_eq!(topic.end(&mut raw), 1);
}

#[test]
fn compression_type_recodes_and_keeps_the_records() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let values: Vec<String> = (0..50).map(|number| format!("value {number}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let targets = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    for (target, stored_as) in targets.into_iter().zip(CODECS) {
        let topic = Topic::create(&mut raw, &format!("in-{target}"), 1, &[("compression.type", target)]);
        for codec in CODECS {
            let base = topic.produce(&mut raw, compressed(codec, &values));
            let bytes = topic.fetch(&mut raw, base).records.as_bytes().expect("records").clone();
            let stored = BatchView::parse(&bytes).expect("a batch");
            assert_eq!(stored.codec(), Ok(stored_as), "{codec:?} to {target}");
            assert_eq!(crate::support::values(&bytes, base), values, "{codec:?} to {target}");
        }
    }
}
