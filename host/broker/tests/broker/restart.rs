//! What survives a stop, and what only one broker may do.

use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::client::{batch, broker, fetch_request, start_in, try_start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_configs_records_and_producer_ids_survive() {
    let first = broker(&[]).await;
    let mut client = first.connect().await;
    client.create("t", 3, &[("retention.ms", "86400000")]).await;
    client.produce("t", 2, batch(&[b"one", b"two"])).await;
    let id = client.ask(4, &InitProducerIdRequest::default()).await.producer_id;
    let described = |response: MetadataResponse| (response.cluster_id, response.topics);
    let all = MetadataRequest { topics: None, ..Default::default() };
    let before = described(client.ask(12, &all).await);

    let second = start_in(first.stop().await, &[]).await;
    let mut client = second.connect().await;
    assert_eq!(described(client.ask(12, &all).await), before);
    assert_eq!((client.offset("t", 2, -1).await.0, client.offset("t", 1, -1).await.0), (2, 0));
    assert!(client.ask(4, &InitProducerIdRequest::default()).await.producer_id > id);
    let resource = DescribeConfigsResource { resource_type: 2, resource_name: "t".into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let configs = client.ask(4, &request).await.results.remove(0).configs;
    let retention = configs.iter().find(|config| config.name == "retention.ms").expect("listed");
    assert_eq!(retention.value.as_deref(), Some("86400000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_quick_with_waiting_clients_and_a_second_broker_is_rejected() {
    let first = broker(&[]).await;
    let mut client = first.connect().await;
    client.create("t", 1, &[]).await;
    client.send(12, &fetch_request(&[("t", 0, 0)], 60_000, 1)).await;
    let refusal = try_start(&first.folder, &[]).await.expect_err("rejected");
    assert!(refusal.contains("in use by another broker"), "{refusal}");
    let started = std::time::Instant::now();
    first.stop().await;
    assert!(started.elapsed().as_secs() < 10);
    assert_eq!(client.frame().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_was_not_clean_raises_the_leader_epoch() {
    let first = broker(&[]).await;
    let mut client = first.connect().await;
    client.create("t", 1, &[]).await;
    client.produce("t", 0, batch(&[b"one"])).await;
    let folder = first.stop().await;
    std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).expect("there");
    let second = start_in(folder, &[]).await;
    let mut client = second.connect().await;
    client.produce("t", 0, batch(&[b"two"])).await;
    let mut request = fetch_request(&[("t", 0, 0)], 0, 1);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let fenced = client.ask(12, &request).await.responses[0].partitions[0].error_code;
    assert_eq!(fenced, ErrorCode::FENCED_LEADER_EPOCH);
    let partitions = vec![OffsetForLeaderPartition { partition: 0, current_leader_epoch: 1, leader_epoch: 0 }];
    let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions }];
    let response = client.ask(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics }).await;
    let end = &response.topics[0].partitions[0];
    assert_eq!((end.leader_epoch, end.end_offset), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_partition_is_offline_and_the_rest_is_served() {
    let first = broker(&[]).await;
    let mut client = first.connect().await;
    client.create("bad", 1, &[]).await;
    client.create("good", 1, &[]).await;
    for topic in ["bad", "good"] {
        client.produce(topic, 0, batch(&[b"one"])).await;
        client.produce(topic, 0, batch(&[b"two"])).await;
    }
    let folder = first.stop().await;
    std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).expect("there");
    let segment = folder.path().join("bad-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("read");
    bytes[70] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    // Without the checkpoint, the damage could count as a torn tail only if no good batch came after it.
    let second = start_in(folder, &[]).await;
    let mut client = second.connect().await;
    assert_eq!(client.produce("bad", 0, batch(&[b"x"])).await.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(client.fetch("bad", 0, 0).await.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(client.produce("good", 0, batch(&[b"x"])).await.base_offset, 2);
}
