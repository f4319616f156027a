//! Fetch: long polls that end with events, limits in bytes, and whole batches.

use std::time::{Duration, Instant};

use millstream_record::{BatchView, Codec, batches};
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::{DeleteTopicState, DeleteTopicsRequest, FetchRequest, MetadataRequest};

use crate::support::{Memory, Raw, Topic, batch, compressed, fetch_request, fetched, values};

/// Room for a loaded machine: what should happen at once may take this long.
const SLACK: Duration = Duration::from_secs(5);

/// Longer than any test waits.
const FOREVER_MS: i32 = 120_000;

fn start(partitions: i32) -> (Broker, Raw, Topic) {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", partitions, &[]);
    (broker, raw, topic)
}

/// A fetch that waits: sent, and still without a response.
struct Parked {
    raw: Raw,
    correlation: i32,
}

impl Parked {
    fn send(broker: &Broker, request: &FetchRequest) -> Self {
        let mut raw = Raw::connect(broker);
        let correlation = raw.send(12, request);
        assert!(raw.is_silent_for(Duration::from_millis(300)), "the fetch must wait");
        Self { raw, correlation }
    }

    fn answer(mut self) -> millstream_wire::messages::FetchResponse {
        self.raw.receive::<FetchRequest>(12, self.correlation)
    }
}

#[test]
fn a_long_poll_ends_when_a_record_arrives() {
    let (broker, mut raw, topic) = start(1);
    let fetch = fetch_request(12, &[(&topic, 0, 0, 1 << 20)], FOREVER_MS, 1);
    let parked = Parked::send(&broker, &fetch);
    let produced = Instant::now();
    topic.produce(&mut raw, batch(&["news"]));
    let data = fetched(parked.answer());
    assert!(produced.elapsed() < SLACK, "the response took {:?}", produced.elapsed());
    assert_eq!(values(data.records.as_bytes().expect("records"), 0), ["news"]);
}

#[test]
fn many_long_polls_end_with_one_record() {
    let (broker, mut raw, topic) = start(1);
    let fetch = fetch_request(12, &[(&topic, 0, 0, 1 << 20)], FOREVER_MS, 1);
    let mut parked: Vec<(Raw, i32)> = (0..100)
        .map(|_| {
            let mut raw = Raw::connect(&broker);
            let correlation = raw.send(12, &fetch);
            (raw, correlation)
        })
        .collect();
    assert!(parked[99].0.is_silent_for(Duration::from_millis(300)));
    let produced = Instant::now();
    topic.produce(&mut raw, batch(&["news"]));
    for (mut raw, correlation) in parked {
        let data = fetched(raw.receive::<FetchRequest>(12, correlation));
        assert!(!data.records.is_empty());
    }
    assert!(produced.elapsed() < SLACK, "the last response took {:?}", produced.elapsed());
}

#[test]
fn a_long_poll_without_news_ends_after_max_wait() {
    let (_broker, mut raw, topic) = start(1);
    for max_wait in [0, 200, 1500] {
        let sent = Instant::now();
        let data = fetched(raw.call(12, &fetch_request(12, &[(&topic, 0, 0, 1 << 20)], max_wait, 1)));
        let took = sent.elapsed();
        let max_wait = Duration::from_millis(max_wait as u64);
        assert!(took >= max_wait && took < max_wait + SLACK, "{took:?} for {max_wait:?}");
        assert_eq!(data.error_code, ErrorCode::NONE);
        assert!(data.records.is_empty());
    }
}

#[test]
fn min_bytes_counts_over_all_partitions() {
    let (broker, mut raw, topic) = start(2);
    let sent = batch(&["half of it"]);
    let targets = [(&topic, 0, 0, 1 << 20), (&topic, 1, 0, 1 << 20)];
    let fetch = fetch_request(12, &targets, FOREVER_MS, 2 * sent.len() as i32);
    let mut parked = Parked::send(&broker, &fetch);
    raw.call(9, &topic.produce_request(9, -1, 0, sent.clone()));
    assert!(parked.raw.is_silent_for(Duration::from_millis(500)), "half of min_bytes is not enough");
    raw.call(9, &topic.produce_request(9, -1, 1, sent.clone()));
    let answer = parked.answer();
    let sizes: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).map(|p| p.records.len()).collect();
    assert_eq!(sizes, [sent.len(), sent.len()]);
}

#[test]
fn min_bytes_that_is_never_reached_ends_with_what_there_is() {
    let (_broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["little"]));
    let sent = Instant::now();
    let data = fetched(raw.call(12, &fetch_request(12, &[(&topic, 0, 0, 1 << 20)], 700, 1 << 20)));
    assert!(sent.elapsed() >= Duration::from_millis(700) && sent.elapsed() < SLACK, "{:?}", sent.elapsed());
    assert_eq!(values(data.records.as_bytes().expect("records"), 0), ["little"]);
}

#[test]
fn an_error_ends_a_long_poll_at_once() {
    let (broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["one"]));
    let sent = Instant::now();
    for offset in [2, 100, -1, i64::MAX] {
        let data = fetched(raw.call(12, &fetch_request(12, &[(&topic, 0, offset, 1 << 20)], FOREVER_MS, 1)));
        assert_eq!(data.error_code, ErrorCode::OFFSET_OUT_OF_RANGE, "offset {offset}");
    }
    assert!(sent.elapsed() < SLACK);
    // The end of the log is not an error: new records arrive there.
    let parked = Parked::send(&broker, &fetch_request(12, &[(&topic, 0, 1, 1 << 20)], FOREVER_MS, 1));
    topic.produce(&mut raw, batch(&["two"]));
    assert_eq!(values(fetched(parked.answer()).records.as_bytes().expect("records"), 1), ["two"]);
}

#[test]
fn a_long_poll_on_a_topic_that_is_deleted_ends_at_once() {
    let (broker, mut raw, topic) = start(1);
    let parked = Parked::send(&broker, &fetch_request(12, &[(&topic, 0, 0, 1 << 20)], FOREVER_MS, 1));
    let sent = Instant::now();
    let state = DeleteTopicState { name: Some(topic.name.clone()), ..Default::default() };
    raw.call(6, &DeleteTopicsRequest { topics: vec![state], timeout_ms: 30_000, ..Default::default() });
    let data = fetched(parked.answer());
    assert!(sent.elapsed() < SLACK);
    let gone = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NOT_LEADER_OR_FOLLOWER];
    assert!(gone.contains(&data.error_code), "{:?}", data.error_code);
}

#[test]
fn the_bounds_in_bytes_give_whole_batches_and_always_the_first() {
    let (_broker, mut raw, topic) = start(2);
    let size = batch(&[&"x".repeat(1000)]).len() as i32;
    for partition in [0, 1] {
        for _ in 0..10 {
            raw.call(9, &topic.produce_request(9, -1, partition, batch(&[&"x".repeat(1000)])));
        }
    }
    for (partition_max, whole) in
        [(0, 1), (1, 1), (size - 1, 1), (size, 1), (2 * size, 2), (3 * size - 1, 2), (1 << 20, 10)]
    {
        for version in [4, 11, 12, 13, 18] {
            let data = fetched(raw.call(version, &fetch_request(version, &[(&topic, 0, 3, partition_max)], 0, 1)));
            let bytes = data.records.as_bytes().cloned().unwrap_or_default();
            let found: Vec<_> = batches(&bytes).map(|batch| batch.expect("a whole batch").base_offset()).collect();
            let expected: Vec<i64> = (3..10).take(whole).collect();
            assert_eq!(found, expected, "partition_max_bytes {partition_max} of batches of {size}, v{version}");
        }
    }
    // The limit of the whole response: the first partition with records gets a batch, the next one may get nothing.
    let targets = [(&topic, 0, 0, 1 << 20), (&topic, 1, 0, 1 << 20)];
    for (max, whole) in [(1, [1, 0]), (size, [1, 0]), (12 * size, [10, 2]), (1 << 20, [10, 10])] {
        let request = FetchRequest { max_bytes: max, ..fetch_request(12, &targets, 0, 1) };
        let answer = raw.call(12, &request);
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let found: Vec<_> = partitions.map(|partition| partition.records.len() as i32 / size).collect();
        assert_eq!(found, whole, "max_bytes {max} of batches of {size}");
    }
}

#[test]
fn a_fetch_from_the_middle_of_a_batch_gives_the_whole_batch() {
    let (_broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["0", "1"]));
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let base = topic.produce(&mut raw, compressed(codec, &["a", "b", "c", "d"]));
        for offset in base..base + 4 {
            let bytes = topic.fetch(&mut raw, offset).records.as_bytes().expect("records").clone();
            let first = BatchView::parse(&bytes).expect("a whole batch");
            assert_eq!((first.base_offset(), first.count()), (base, 4), "{codec:?}, offset {offset}");
            let left = &["a", "b", "c", "d"][(offset - base) as usize..];
            assert_eq!(values(&bytes, offset), left, "{codec:?}");
        }
    }
}

#[test]
fn the_response_has_the_ends_of_the_log_and_the_high_watermark() {
    let (_broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["0", "1", "2"]));
    for version in 4..=18 {
        for isolation_level in [0, 1] {
            let request = FetchRequest { isolation_level, ..fetch_request(version, &[(&topic, 0, 0, 1 << 20)], 0, 1) };
            let data = fetched(raw.call(version, &request));
            assert_eq!((data.high_watermark, data.last_stable_offset), (3, 3), "v{version}");
            assert_eq!(data.log_start_offset, if version >= 5 { 0 } else { -1 }, "v{version}");
            // Null unless the client asks for it, as in Kafka; librdkafka and Java accept both.
            let aborted = data.aborted_transactions.as_ref().is_none_or(Vec::is_empty);
            assert!(aborted, "v{version}");
        }
    }
}

#[test]
fn leader_epochs_are_checked() {
    let (_broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["0"]));
    let metadata = raw.call(12, &MetadataRequest { topics: None, ..Default::default() });
    let current = metadata.topics[0].partitions[0].leader_epoch;
    let mut request = fetch_request(12, &[(&topic, 0, 0, 1 << 20)], 0, 1);
    for (epoch, error) in [
        (-1, ErrorCode::NONE),
        (current, ErrorCode::NONE),
        (current + 1, ErrorCode::UNKNOWN_LEADER_EPOCH),
        (i32::MAX, ErrorCode::UNKNOWN_LEADER_EPOCH),
    ] {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = raw.call(12, &request);
        assert_eq!(response.responses[0].partitions[0].error_code, error, "epoch {epoch} of {current}");
    }
}

/// A client that asks for a session gets one, or a response without one. It must get a response.
#[test]
fn a_client_that_asks_for_a_session_can_read_on() {
    let (_broker, mut raw, topic) = start(1);
    topic.produce(&mut raw, batch(&["0"]));
    for version in 7..=18 {
        let request = FetchRequest { session_epoch: 0, ..fetch_request(version, &[(&topic, 0, 0, 1 << 20)], 0, 1) };
        let response = raw.call(version, &request);
        let session_id = response.session_id;
        assert!(!fetched(response).records.is_empty(), "v{version}");
        if session_id == 0 {
            let unknown = FetchRequest { session_id: 77, session_epoch: 1, ..request };
            let error = raw.call(version, &unknown).error_code;
            assert_eq!(error, ErrorCode::FETCH_SESSION_ID_NOT_FOUND, "v{version}");
        }
    }
}

/// File ranges go from the file to the socket: fetched records do not pass through the process.
#[test]
fn a_large_response_takes_no_memory() {
    let (broker, mut raw, topic) = start(1);
    let large = "x".repeat(1_000_000);
    for _ in 0..48 {
        topic.produce(&mut raw, batch(&[&large]));
    }
    let memory = Memory::watch(&broker);
    let data = fetched(raw.call(12, &fetch_request(12, &[(&topic, 0, 0, 64 << 20)], 0, 1)));
    assert!(data.records.len() > 47_000_000, "{}", data.records.len());
    memory.assert_grew_less_than(8 << 20, "a response of 48 MB");
}
