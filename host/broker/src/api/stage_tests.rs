//! Produce to topics with stages, and fetch from views, through the handlers alone.

use std::sync::Arc;

use bytes::Bytes;
use millstream_metadata::MetadataRecord;
use millstream_record::{BatchBuilder, BatchView, Codec, TimestampType};
use millstream_stage::{Engine, EngineConfig, Library};
use millstream_wire::frame::decode_response;
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Request};

use super::handler::Started;
use super::handler_tests::{Fixture, LATEST};
use super::{fetch, produce};
use crate::edge::plugins::Plugins;

/// Keeps the values that contain `good`.
const ADMIT: (&str, &str) = ("stage.admit", r#"contains{"text":"good"}"#);

/// The most bytes that a batch of these tests decompresses to.
const PAYLOAD_MAX: usize = 1 << 20;

fn fixture() -> Fixture {
    fixture_with(&[])
}

/// Opens a broker in a folder that already holds these topics of one partition.
fn fixture_with(stored: &[(&str, &[(&str, &str)])]) -> Fixture {
    let library = || {
        let engine = Engine::new(EngineConfig::default()).map_err(|error| error.to_string())?;
        let library = Library::new(engine);
        for plugin in &millstream_plugins::DEFAULTS {
            library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
        }
        Ok(Arc::new(library))
    };
    let created = |(name, configs): &(&str, &[(&str, &str)])| MetadataRecord::TopicCreated {
        name: (*name).to_owned(),
        id: uuid::Uuid::new_v4(),
        partitions: 1,
        configs: configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        replicas: Vec::new(),
    };
    let stored: Vec<_> = stored.iter().map(created).collect();
    Fixture::with_metadata(&["flush.mode=page-cache"], Plugins::new(library), &stored)
}

/// Returns a batch of these values.
fn batch(values: &[&str], producer: Option<(i64, i32)>) -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for value in values {
        let now = millstream_partition::now_ms();
        batch.append(now, None, Some(value.as_bytes()), std::iter::empty()).expect("room for a record");
    }
    if let Some((id, sequence)) = producer {
        batch.producer(id, 0, sequence);
    }
    batch.build().expect("a batch").into()
}

/// Returns the response, however late it comes.
async fn response<R: Request>(started: Started, version: i16) -> R::Response {
    let outgoing = match started {
        Started::Ready(outgoing) => Some(outgoing),
        Started::Later(answer) => answer.await.expect("the connection stays open"),
        Started::Alone(work) => {
            let answer = work.await.expect("the connection stays open");
            answer.await.expect("the connection stays open")
        }
        Started::Silent => None,
    };
    let frame = outgoing.expect("a response").to_bytes();
    decode_response::<R>(frame.slice(4..), version).expect("a response that clients can read").1
}

async fn produce(fixture: &Fixture, topic: &str, records: Bytes) -> PartitionProduceResponse {
    let partition_data = vec![PartitionProduceData { index: 0, records: Records::Bytes(records) }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data, ..Default::default() };
    let started = fixture.start::<produce::Produce>(12, request);
    response::<ProduceRequest>(started, 12).await.responses.remove(0).partition_responses.remove(0)
}

/// Returns the bytes that a fetch from offset 0 gets.
async fn fetched(fixture: &Fixture, topic: &str) -> Bytes {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { max_wait_ms: 1000, min_bytes: 1, max_bytes: 1 << 20, topics, ..Default::default() };
    let started = fixture.start::<fetch::Fetch>(12, request);
    let mut response = response::<FetchRequest>(started, 12).await;
    let partition = response.responses.remove(0).partitions.remove(0);
    assert_eq!(partition.error_code, ErrorCode::NONE);
    partition.records.as_bytes().cloned().unwrap_or_default()
}

/// Returns the offsets and the values of batches.
fn records(mut bytes: &[u8]) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    while let Ok(batch) = BatchView::parse(bytes) {
        for record in batch.records(PAYLOAD_MAX).expect("records").iter() {
            let record = record.expect("a record");
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            records.push((record.offset, value));
        }
        bytes = &bytes[batch.size()..];
    }
    records
}

fn owned(records: &[(i64, &str)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_fail_names_each_record_and_stores_nothing() {
    let fixture = fixture();
    assert_eq!(fixture.create(&[("t", 1, &[ADMIT])]).await, [ErrorCode::NONE]);
    let rejected = produce(&fixture, "t", batch(&["good 0", "bad 1", "bad 2"], None)).await;
    assert_eq!(rejected.error_code, ErrorCode::INVALID_RECORD);
    let indexes: Vec<_> = rejected.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(indexes, [1, 2]);
    assert_eq!(fixture.offset("t", 0, LATEST).await, (ErrorCode::NONE, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_passes_is_stored_byte_for_byte() {
    let fixture = fixture();
    fixture.create(&[("t", 1, &[ADMIT])]).await;
    let sent = batch(&["good 0", "good 1"], None);
    assert_eq!(produce(&fixture, "t", sent.clone()).await.base_offset, 0);
    let stored = fetched(&fixture, "t").await;
    // The broker writes the base offset and the leader epoch, which the CRC does not cover.
    assert_eq!((stored.len(), &stored[16..]), (sent.len(), &sent[16..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_skip_keeps_the_offsets_of_the_others() {
    let fixture = fixture();
    fixture.create(&[("t", 1, &[ADMIT, ("stage.admit.failure.policy", "skip")])]).await;
    produce(&fixture, "t", batch(&["good 0", "bad 1", "good 2"], None)).await;
    produce(&fixture, "t", batch(&["bad 3"], None)).await;
    let last = produce(&fixture, "t", batch(&["good 4"], None)).await;
    assert_eq!((last.error_code, last.base_offset), (ErrorCode::NONE, 4));
    assert_eq!(records(&fetched(&fixture, "t").await), owned(&[(0, "good 0"), (2, "good 2"), (4, "good 4")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_makes_no_second_dead_letter() {
    let fixture = fixture();
    let policy = ("stage.admit.failure.policy", "dead-letter");
    let configs = [ADMIT, policy, ("stage.dead.letter.topic", "rejected")];
    assert_eq!(fixture.create(&[("t", 1, &configs)]).await, [ErrorCode::NONE]);
    let sent = batch(&["bad 0", "good 1"], Some((7, 0)));
    for _ in 0..2 {
        let stored = produce(&fixture, "t", sent.clone()).await;
        assert_eq!((stored.error_code, stored.base_offset), (ErrorCode::NONE, 0));
    }
    assert_eq!(records(&fetched(&fixture, "t").await), owned(&[(1, "good 1")]));
    assert_eq!(records(&fetched(&fixture, "rejected").await), owned(&[(0, "bad 0")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_what_its_filter_keeps_and_takes_no_records() {
    let fixture = fixture();
    let view = [("view.of", "t"), ("stage.filter", r#"contains{"text":"good"}"#)];
    assert_eq!(fixture.create(&[("t", 1, &[]), ("v", -1, &view)]).await, [ErrorCode::NONE; 2]);
    produce(&fixture, "t", batch(&["good 0", "bad 1", "good 2"], None)).await;
    assert_eq!(records(&fetched(&fixture, "v").await), owned(&[(0, "good 0"), (2, "good 2")]));
    assert_eq!(fixture.offset("v", 0, LATEST).await, (ErrorCode::NONE, 3));
    let rejected = produce(&fixture, "v", batch(&["good"], None)).await;
    assert_eq!(rejected.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
}

/// An older version accepted a view as the dead letter topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_dead_letter_topic_that_is_a_view_rejects_only_bad_records() {
    let policy = ("stage.admit.failure.policy", "dead-letter");
    let fixture = fixture_with(&[
        ("t", &[ADMIT, policy, ("stage.dead.letter.topic", "v")]),
        ("v", &[("view.of", "t"), ("stage.filter", ADMIT.1)]),
    ]);
    assert_eq!(produce(&fixture, "t", batch(&["good 0"], None)).await.error_code, ErrorCode::NONE);
    let rejected = produce(&fixture, "t", batch(&["good 1", "bad 2"], None)).await;
    assert_eq!(rejected.error_code, ErrorCode::INVALID_RECORD);
    let message = rejected.error_message.as_deref().unwrap_or_default();
    assert!(message.contains("t sends its dead letters to v, v is a view of t"), "{message}");
    assert_eq!(records(&fetched(&fixture, "v").await), owned(&[(0, "good 0")]));
}

/// The same for a view that sends its dead letters to another view. What is before the bad record is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_stops_before_a_batch_whose_dead_letters_cannot_be_stored() {
    let filter = r#"json-compare{"path":"/n","op":">=","value":0}"#;
    let fixture = fixture_with(&[
        ("t", &[]),
        (
            "sender",
            &[
                ("view.of", "t"),
                ("stage.filter", filter),
                ("stage.filter.failure.policy", "dead-letter"),
                ("stage.dead.letter.topic", "v"),
            ],
        ),
        ("v", &[("view.of", "sender"), ("stage.filter", ADMIT.1)]),
    ]);
    for value in [r#"{"n":1}"#, "no json", r#"{"n":2}"#] {
        assert_eq!(produce(&fixture, "t", batch(&[value], None)).await.error_code, ErrorCode::NONE);
    }
    for _ in 0..3 {
        assert_eq!(records(&fetched(&fixture, "sender").await), owned(&[(0, r#"{"n":1}"#)]));
    }
}
