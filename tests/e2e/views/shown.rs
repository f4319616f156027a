//! A view shows exactly the records of the source that its filter keeps.

use millstream_record::{BatchBuilder, Codec, Header, TimestampType, batches};
use millstream_tests::Broker;
use millstream_wire::messages::{
    FetchRequest, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::{Fetched, KEEP, Seen, alter, fetch, push, read_all, seen, view};
use crate::guests::Guest;
use crate::support::{Raw, Topic, batch, compressed, fetch_request, fetched, now_ms};

/// SplitMix64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Returns a batch of which one record in `one_in` is kept, or none for 0.
fn random_batch(random: &mut Random, number: u64, one_in: u64) -> Vec<u8> {
    let codec = Codec::ALL[random.below(5) as usize];
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    for _ in 0..1 + random.below(40) {
        let kept = one_in > 0 && random.below(one_in) == 0;
        let word = if kept { "keep" } else { "drop" };
        let value = format!("{word} {number} {}", "x".repeat(random.below(200) as usize));
        let key = format!("key-{}", random.below(9));
        let key = (random.below(3) > 0).then_some(key.as_bytes());
        // A tombstone has no text, so it is never kept.
        let value = (kept || random.below(9) > 0).then_some(value.as_bytes());
        let headers = [Header::new("n", Some(b"1")), Header::new("n", None)];
        let headers = &headers[..random.below(3) as usize];
        builder.append(now_ms() - random.below(10_000) as i64, key, value, headers.iter().copied()).expect("room");
    }
    builder.build().expect("a batch")
}

fn is_kept(record: &Seen) -> bool {
    record.value.as_ref().is_some_and(|value| value.starts_with(b"keep"))
}

/// Reads from every start, with every limit in bytes, in both ways that clients continue.
#[test]
fn a_view_is_its_source_without_what_the_filter_drops() {
    let broker = Broker::builder().set("log.segment.bytes", "1048576").set("log.index.interval.bytes", "200").start();
    let mut raw = Raw::connect(&broker);
    let mut random = Random(1);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    for number in 0..300 {
        // Stretches of which much, little, all or nothing is kept.
        let one_in = [2, 30, 1, 0, 0, 200][number as usize / 10 % 6];
        let batch = random_batch(&mut random, number, one_in);
        source.produce(&mut raw, batch);
    }
    let expected: Vec<Seen> =
        read_all(&mut raw, &source, 0, 1 << 20, |fetched| fetched.next).into_iter().filter(is_kept).collect();
    let end = source.end(&mut raw);
    assert!(expected.len() > 500 && end > 5_000, "{} of {end}", expected.len());
    let after_batch: fn(&Fetched) -> i64 = |fetched| fetched.next;
    let after_record: fn(&Fetched) -> i64 = |fetched| fetched.next_of_records;
    for max_bytes in [1, 700, 5_000, 1 << 20] {
        for next in [after_batch, after_record] {
            assert_eq!(read_all(&mut raw, &view, 0, max_bytes, next), expected, "{max_bytes} bytes at most");
        }
    }
    for _ in 0..300 {
        let from = random.below(end as u64) as i64;
        let found = fetch(&mut raw, &view, from, 1 + random.below(3_000) as i32, 0, 0);
        let wanted: Vec<&Seen> = expected.iter().filter(|record| (from..found.next).contains(&record.offset)).collect();
        assert_eq!(found.records.iter().collect::<Vec<_>>(), wanted, "from {from}");
        assert!(found.next > from, "from {from}");
    }
}

#[test]
fn a_batch_that_is_shown_whole_goes_out_byte_for_byte_and_others_keep_their_header() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    for codec in Codec::ALL {
        let whole = source.produce(&mut raw, compressed(codec, &["keep a", "keep b"]));
        let shown = |raw: &mut Raw, offset| view.fetch(raw, offset).records.as_bytes().expect("records").clone();
        assert_eq!(shown(&mut raw, whole), source.fetch(&mut raw, whole).records.as_bytes().expect("records"));
        let part = source.produce(&mut raw, compressed(codec, &["drop", "keep c", "drop", "keep d", "drop"]));
        let (stored, shown) = (source.fetch(&mut raw, part), shown(&mut raw, part));
        let stored = batches(stored.records.as_bytes().expect("records")).next().expect("one").expect("sound").header();
        let stored = format!("{stored:?}");
        let shown = batches(&shown).next().expect("one").expect("sound");
        assert_eq!((shown.count(), shown.codec()), (2, Ok(codec)));
        // Only the size, the count and the CRC differ.
        for field in format!("{:?}", shown.header()).split(", ").filter(|field| {
            !["size", "crc", "count"].iter().any(|name| field.trim_start_matches("BatchHeader { ").starts_with(name))
        }) {
            assert!(stored.contains(field.trim_end_matches(" }")), "{field} is not in {stored}");
        }
    }
}

#[test]
fn bounds_in_bytes_hold_and_the_first_batch_comes_whole() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 2, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let kept = batch(&[&format!("keep {}", "x".repeat(1_000))]);
    let size = kept.len() as i32;
    for partition in [0, 1] {
        for _ in 0..10 {
            raw.call(9, &source.produce_request(9, -1, partition, batch(&["drop"])));
            raw.call(9, &source.produce_request(9, -1, partition, kept.clone()));
        }
    }
    for (partition_max, whole) in [(0, 1), (1, 1), (size, 1), (2 * size, 2), (3 * size - 1, 2), (1 << 20, 10)] {
        for version in [4, 11, 12, 13, 18] {
            let data = fetched(raw.call(version, &fetch_request(version, &[(&view, 0, 0, partition_max)], 0, 1)));
            let found = seen(data, 0);
            assert_eq!(found.records.len(), whole, "partition_max_bytes {partition_max} of {size}, v{version}");
            // The next kept record does not fit, and is not skipped.
            assert!(found.records.last().is_some_and(|last| found.next <= last.offset + 2), "v{version}");
        }
    }
    let targets = [(&view, 0, 0, 1 << 20), (&view, 1, 0, 1 << 20)];
    for (max, whole) in [(1, [1, 0]), (size, [1, 0]), (12 * size, [10, 2]), (1 << 20, [10, 10])] {
        let request = FetchRequest { max_bytes: max, ..fetch_request(12, &targets, 0, 1) };
        let answer = raw.call(12, &request);
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        let found: Vec<usize> = partitions.map(|data| seen(data, 0).records.len()).collect();
        assert_eq!(found, whole, "max_bytes {max} of batches of {size}");
    }
    // A plain topic beside a view gets the bytes that the view leaves, and its own first batch.
    let mixed = [(&source, 1, 0, 1 << 20), (&view, 0, 0, 1 << 20)];
    let answer = raw.call(12, &fetch_request(12, &mixed, 0, 1));
    let partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
    let found: Vec<usize> = partitions.map(|data| seen(data, 0).records.len()).collect();
    assert_eq!(found, [20, 10]);
}

#[test]
fn a_view_of_a_view_passes_both_filters_and_follows_changes_of_either() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let first = view(&mut raw, "first", "source", r#"contains{"text":"a"} | contains{"text":"b"}"#);
    let second = view(&mut raw, "second", "first", r#"contains{"text":"c"}"#);
    source.produce(&mut raw, batch(&["a", "ab", "abc", "bc", "abcd", "c"]));
    assert_eq!(first.read(&mut raw, 0), ["ab", "abc", "abcd"]);
    assert_eq!(second.read(&mut raw, 0), ["abc", "abcd"]);
    assert_eq!(alter(&mut raw, "first", &[("stage.filter", Some(r#"contains{"text":"d"}"#))]).1, "");
    assert_eq!((first.read(&mut raw, 0), second.read(&mut raw, 0)), (vec!["abcd".to_owned()], vec!["abcd".to_owned()]));
    // Without a filter a view shows all of its source.
    assert_eq!(alter(&mut raw, "second", &[("stage.filter", None)]).1, "");
    assert_eq!(alter(&mut raw, "first", &[("stage.filter", None)]).1, "");
    assert_eq!(second.read(&mut raw, 0), source.read(&mut raw, 0));
}

#[test]
fn lookups_by_time_and_the_ends_are_those_of_the_source() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let base = now_ms() - 10_000;
    for n in 0..50 {
        let mut builder = BatchBuilder::new(Codec::Lz4, TimestampType::CreateTime);
        for at in 0..4 {
            let value = if at == 2 { "keep" } else { "drop" };
            builder.append(base + 10 * n + at, None, Some(value.as_bytes()), []).expect("room");
        }
        source.produce(&mut raw, builder.build().expect("a batch"));
    }
    for time in (0..520).map(|n| base + n).chain([-1, -2, -3]) {
        let (one, other) = (view.offset_for(&mut raw, 0, time), source.offset_for(&mut raw, 0, time));
        assert_eq!(one, other, "{time}");
    }
    // A lookup finds the first record of that time, shown or not.
    let found = view.offset_for(&mut raw, 0, base + 101);
    assert_eq!(fetch(&mut raw, &view, found.offset, 1 << 20, 0, 0).records[0].timestamp, base + 102);
    let epoch_end = |raw: &mut Raw, topic: &Topic, leader_epoch: i32| {
        let asked = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch };
        let topics = vec![OffsetForLeaderTopic { topic: topic.name.clone(), partitions: vec![asked] }];
        let answer = raw.call(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics }).topics.remove(0);
        assert_eq!(answer.topic, topic.name);
        answer.partitions[0].clone()
    };
    for epoch in [-1, 0, 1, 7] {
        assert_eq!(epoch_end(&mut raw, &view, epoch), epoch_end(&mut raw, &source, epoch), "epoch {epoch}");
    }
    for isolation_level in [0, 1] {
        let request = FetchRequest { isolation_level, ..fetch_request(12, &[(&view, 0, 0, 1 << 20)], 0, 1) };
        let data = fetched(raw.call(12, &request));
        assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (200, 200, 0));
        assert_eq!(data.aborted_transactions.is_some(), isolation_level == 1);
        assert_eq!(seen(data, 0).records.len(), 50);
    }
}

/// The source has gaps as compaction leaves them, batches without a record, and a private format that only its plug-in
/// reads.
#[test]
fn a_source_with_gaps_and_a_private_format_is_shown_like_any_other() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let mut random = Random(2);
    push(&broker, &Guest::compressor().name("own-format"));
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let admit = [("stage.admit", Some(r#"contains{"text":"e"}"#)), ("stage.admit.failure.policy", Some("skip"))];
    let mut produce = |raw: &mut Raw, number: usize| {
        let codec = Codec::ALL[random.below(5) as usize];
        let words: Vec<String> = (0..1 + random.below(20))
            .map(|_| {
                format!("{} {number}", ["keep", "let", "drop", "drop"][random.below([4, 1, 4][number % 3]) as usize])
            })
            .map(|word| if number % 7 == 6 { "drop".to_owned() } else { word })
            .collect();
        source.produce(raw, compressed(codec, &words.iter().map(String::as_str).collect::<Vec<_>>()));
    };
    (0..30).for_each(|number| produce(&mut raw, number));
    assert_eq!(alter(&mut raw, "source", &admit).1, "");
    (30..80).for_each(|number| produce(&mut raw, number));
    assert_eq!(alter(&mut raw, "source", &[("stage.compressor", Some("own-format"))]).1, "");
    (80..130).for_each(|number| produce(&mut raw, number));
    let stored = std::fs::read(broker.folder().join("source-0/00000000000000000000.log")).expect("the segment");
    let stored: Vec<_> = batches(&stored).map(|batch| batch.expect("a sound batch").header()).collect();
    assert!(stored.iter().any(|batch| batch.codec().is_err()), "a format of its own");
    assert!(stored.iter().any(|batch| batch.count() == 0), "a batch without a record");
    assert!(stored.iter().any(|batch| (0..batch.last_offset_delta()).contains(&batch.count())), "a batch with gaps");

    let all = read_all(&mut raw, &source, 0, 1 << 20, |fetched| fetched.next);
    let expected: Vec<Seen> = all.into_iter().filter(is_kept).collect();
    assert!(expected.len() > 200, "{}", expected.len());
    let after_batch: fn(&Fetched) -> i64 = |fetched| fetched.next;
    let after_record: fn(&Fetched) -> i64 = |fetched| fetched.next_of_records;
    for max_bytes in [1, 300, 1 << 20] {
        for next in [after_batch, after_record] {
            assert_eq!(read_all(&mut raw, &view, 0, max_bytes, next), expected, "{max_bytes} bytes at most");
        }
    }
    let time = expected[expected.len() / 2].timestamp;
    assert_eq!(view.offset_for(&mut raw, 0, time), source.offset_for(&mut raw, 0, time));
}
