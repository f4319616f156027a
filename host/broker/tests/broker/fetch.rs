//! Fetch: whole batches, long polls, limits, epochs.

use std::time::{Duration, Instant};

use millstream_record::{BatchView, batches};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::client::{batch, broker, fetch_request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_bytes_are_sent_bytes_but_for_offset_and_epoch() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let sent = [batch(&[b"one", b"two"]), batch(&[&vec![7; 300_000]]), batch(&[b"three"])];
    for batch in &sent {
        client.produce("t", 0, batch.clone()).await;
    }
    // A fetch from the middle of a batch returns the whole batch.
    let data = client.fetch("t", 0, 1).await;
    assert_eq!((data.error_code, data.high_watermark, data.log_start_offset), (ErrorCode::NONE, 4, 0));
    let stored = data.records.as_bytes().expect("records").clone();
    let views: Vec<BatchView<'_>> = batches(&stored).map(|batch| batch.expect("sound")).collect();
    assert_eq!(views.iter().map(|view| view.base_offset()).collect::<Vec<_>>(), [0, 2, 3]);
    for (view, sent) in views.iter().zip(&sent) {
        assert_eq!(view.bytes()[8..12], sent[8..12]);
        assert_eq!(view.bytes()[16..], sent[16..]);
    }
    assert!(client.fetch("t", 0, 4).await.records.is_empty());
    for outside in [-1, 5] {
        assert_eq!(client.fetch("t", 0, outside).await.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    assert_eq!(client.fetch("t", 1, 0).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_enough_bytes_in_all_partitions_together() {
    let broker = broker(&[]).await;
    let (mut reader, mut writer) = (broker.connect().await, broker.connect().await);
    writer.create("a", 1, &[]).await;
    writer.create("b", 1, &[]).await;
    let one = batch(&[&[1; 100]]);
    let both = i32::try_from(2 * one.len()).expect("small");
    let request = fetch_request(&[("a", 0, 0), ("b", 0, 0)], 60_000, both);
    let started = Instant::now();
    reader.send(12, &request).await;
    writer.produce("a", 0, one.clone()).await;
    // Half of the bytes do not wake the reader: nothing arrives for a while.
    assert!(tokio::time::timeout(Duration::from_millis(300), reader.stream.readable()).await.is_err());
    writer.produce("b", 0, one).await;
    let (_, response) = reader.receive::<FetchRequest>(12).await;
    assert!(started.elapsed() < Duration::from_secs(50));
    let bytes: usize = response.responses.iter().map(|topic| topic.partitions[0].records.len()).sum();
    assert_eq!(bytes as i32, both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_at_its_time_and_when_the_topic_is_deleted() {
    let broker = broker(&[]).await;
    let (mut reader, mut writer) = (broker.connect().await, broker.connect().await);
    writer.create("t", 1, &[]).await;
    let started = Instant::now();
    let response = reader.ask(12, &fetch_request(&[("t", 0, 0)], 200, 1)).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::NONE);
    // Fewer bytes than requested come at the end of the wait.
    writer.produce("t", 0, batch(&[b"x"])).await;
    let response = reader.ask(12, &fetch_request(&[("t", 0, 0)], 100, 1 << 20)).await;
    assert!(!response.responses[0].partitions[0].records.is_empty());

    reader.send(12, &fetch_request(&[("t", 0, 1)], 60_000, 1)).await;
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 1000, ..Default::default() };
    assert_eq!(writer.ask(5, &delete).await.responses[0].error_code, ErrorCode::NONE);
    let (_, response) = reader.receive::<FetchRequest>(12).await;
    assert!(response.responses[0].partitions[0].error_code.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_hold_but_the_first_batch_always_comes() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 2, &[]).await;
    let large = batch(&[&vec![1; 5000]]);
    for partition in [0, 1] {
        for _ in 0..3 {
            client.produce("t", partition, large.clone()).await;
        }
    }
    let lens = |response: FetchResponse| -> Vec<usize> {
        response.responses.iter().map(|topic| topic.partitions[0].records.len()).collect()
    };
    let targets = [("t", 0, 0), ("t", 1, 0)];
    let mut request = fetch_request(&targets, 0, 1);
    request.max_bytes = 10;
    assert_eq!(lens(client.ask(12, &request).await), [large.len(), 0]);
    request.max_bytes = i32::MAX;
    for topic in &mut request.topics {
        topic.partitions[0].partition_max_bytes = 2 * large.len() as i32 + 10;
    }
    assert_eq!(lens(client.ask(12, &request).await), [2 * large.len(), 2 * large.len()]);
    request.max_bytes = 3 * large.len() as i32;
    assert_eq!(lens(client.ask(12, &request).await), [2 * large.len(), large.len()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_ids_and_sessions() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let with_epoch = |epoch| {
        let mut request = fetch_request(&[("t", 0, 0)], 0, 1);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request
    };
    for (epoch, expected) in [(-1, ErrorCode::NONE), (0, ErrorCode::NONE), (7, ErrorCode::UNKNOWN_LEADER_EPOCH)] {
        let response = client.ask(12, &with_epoch(epoch)).await;
        assert_eq!(response.responses[0].partitions[0].error_code, expected, "{epoch}");
    }
    let mut by_id = fetch_request(&[("", 0, 0)], 60_000, 1);
    by_id.topics[0].topic_id = uuid::Uuid::from_u128(99);
    let response = client.ask(13, &by_id).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    let session = FetchRequest { session_id: 5, session_epoch: 1, ..fetch_request(&[], 0, 1) };
    assert_eq!(client.ask(12, &session).await.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    // A session needs no partitions in the next request, and its response has only news.
    let session = FetchRequest { session_epoch: 0, ..fetch_request(&[("t", 0, 0)], 0, 1) };
    let first = client.ask(12, &session).await;
    assert_eq!((first.session_id > 0, first.responses.len()), (true, 1));
    let next = |session_epoch| {
        let request = fetch_request(&[], 0, 1);
        FetchRequest { session_id: first.session_id, session_epoch, topics: Vec::new(), ..request }
    };
    let second = client.ask(12, &next(1)).await;
    assert_eq!((second.session_id, second.responses.len()), (first.session_id, 0));
    client.produce("t", 0, batch(&[b"news"])).await;
    let third = client.ask(12, &next(2)).await;
    assert!(!third.responses[0].partitions[0].records.is_empty());
    assert_eq!(client.ask(12, &next(2)).await.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_slot_a_client_works_without_a_session() {
    let broker = broker(&["max.incremental.fetch.session.cache.slots=0"]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let session = FetchRequest { session_epoch: 0, ..fetch_request(&[("t", 0, 0)], 0, 1) };
    let response = client.ask(12, &session).await;
    assert_eq!((response.session_id, response.responses.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_by_time_and_by_epoch() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    assert_eq!(client.offset("t", 0, 5).await, (-1, -1));
    assert_eq!(client.offset("t", 0, -3).await, (-1, -1));
    let mut builder = super::client::builder(millstream_record::Codec::Lz4);
    for timestamp in [100, 300, 200] {
        builder.append(timestamp, None, Some(b"v"), []).expect("appended");
    }
    assert_eq!(client.produce("t", 0, builder.build().expect("built")).await.error_code, ErrorCode::NONE);
    for (time, found) in
        [(0, (0, 100)), (100, (0, 100)), (101, (1, 300)), (300, (1, 300)), (301, (-1, -1)), (-3, (1, 300))]
    {
        assert_eq!(client.offset("t", 0, time).await, found, "{time}");
    }
    assert_eq!((client.offset("t", 0, -1).await.0, client.offset("t", 0, -2).await.0), (3, 0));
    let partitions =
        [0, 5].map(|leader_epoch| OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch });
    let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: partitions.to_vec() }];
    let response = client.ask(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics }).await;
    let found = &response.topics[0].partitions;
    assert_eq!((found[0].error_code, found[0].leader_epoch, found[0].end_offset), (ErrorCode::NONE, 0, 3));
    assert_eq!((found[1].leader_epoch, found[1].end_offset), (-1, -1));
}
