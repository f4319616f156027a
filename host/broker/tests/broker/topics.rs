//! Topics and their configs.

use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};

use super::client::{Client, batch, broker};

fn creatable(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor: -1, ..Default::default() }
}

async fn metadata(client: &mut Client, name: &str, create: bool) -> MetadataResponseTopic {
    let asked = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request =
        MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: create, ..Default::default() };
    client.ask(12, &request).await.topics.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_topic_of_a_request_succeeds_or_fails_by_itself() {
    let broker = broker(&["num.partitions=3"]).await;
    let mut client = broker.connect().await;
    client.create("there", 1, &[]).await;
    let bad_config = CreatableTopicConfig { name: "retention.ms".into(), value: Some("soon".into()) };
    let assignment = |broker_ids| CreatableReplicaAssignment { partition_index: 0, broker_ids };
    let topics = vec![
        creatable("good", -1),
        creatable("there", 1),
        creatable("bad/name", 1),
        creatable("..", 1),
        creatable("none", 0),
        CreatableTopic { replication_factor: 3, ..creatable("copies", 1) },
        CreatableTopic { configs: vec![bad_config], ..creatable("config", 1) },
        CreatableTopic { assignments: vec![assignment(vec![0])], ..creatable("assigned", -1) },
        CreatableTopic { assignments: vec![assignment(vec![5])], ..creatable("elsewhere", -1) },
        creatable("twice", 1),
        creatable("twice", 1),
        creatable("th.ere", 1),
        creatable("th_ere", 1),
    ];
    let mut request = CreateTopicsRequest { topics, ..Default::default() };
    let expected = [
        ErrorCode::NONE,
        ErrorCode::TOPIC_ALREADY_EXISTS,
        ErrorCode::INVALID_TOPIC_EXCEPTION,
        ErrorCode::INVALID_TOPIC_EXCEPTION,
        ErrorCode::INVALID_PARTITIONS,
        ErrorCode::INVALID_REPLICATION_FACTOR,
        ErrorCode::INVALID_CONFIG,
        ErrorCode::NONE,
        ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::NONE,
        // Its name collides with that of the topic before it.
        ErrorCode::INVALID_TOPIC_EXCEPTION,
    ];
    request.validate_only = true;
    let codes = |response: &CreateTopicsResponse| -> Vec<ErrorCode> {
        response.topics.iter().map(|topic| topic.error_code).collect()
    };
    assert_eq!(codes(&client.ask(7, &request).await), expected);
    assert_eq!(metadata(&mut client, "good", false).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    request.validate_only = false;
    request.topics.pop();
    let response = client.ask(7, &request).await;
    assert_eq!(codes(&response), expected[..12]);
    let good = &response.topics[0];
    assert_eq!((good.num_partitions, good.replication_factor), (3, 1));
    let configs = good.configs.as_ref().expect("configs");
    let policy = configs.iter().find(|config| config.name == "cleanup.policy").expect("listed");
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
    let described = metadata(&mut client, "good", false).await;
    assert_eq!((described.topic_id, described.partitions.len()), (good.topic_id, 3));
    // The other one of two names that differ only in dots and underscores.
    let response =
        client.ask(7, &CreateTopicsRequest { topics: vec![creatable("th_ere", 1)], ..Default::default() }).await;
    assert_eq!(codes(&response), [ErrorCode::INVALID_TOPIC_EXCEPTION]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_creates_only_what_it_may() {
    let broker = broker(&["num.partitions=2"]).await;
    let mut client = broker.connect().await;
    assert_eq!(metadata(&mut client, "a", false).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let created = metadata(&mut client, "a", true).await;
    assert_eq!((created.error_code, created.partitions.len()), (ErrorCode::NONE, 2));
    assert_eq!(metadata(&mut client, "a/b", true).await.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    // Empty asks for all in version 0, and for none later.
    let empty = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    assert_eq!(client.ask(0, &empty).await.topics.len(), 1);
    assert_eq!(client.ask(1, &empty).await.topics.len(), 0);
    let all = client.ask(12, &MetadataRequest { topics: None, ..Default::default() }).await;
    assert_eq!((all.topics.len(), all.brokers.len()), (1, 1));
    assert_eq!(all.brokers[0].port, i32::from(broker.running.local_addr().port()));
    let by_id = MetadataRequestTopic { topic_id: created.topic_id, name: None };
    let found = client.ask(12, &MetadataRequest { topics: Some(vec![by_id]), ..Default::default() }).await;
    assert_eq!(found.topics[0].name.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_grow_and_are_deleted() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[("file.delete.delay.ms", "0")]).await;
    client.produce("t", 0, batch(&[b"kept"])).await;
    for (count, expected) in [(1, ErrorCode::INVALID_PARTITIONS), (3, ErrorCode::NONE)] {
        let topics = vec![CreatePartitionsTopic { name: "t".into(), count, assignments: None }];
        let request = CreatePartitionsRequest { topics, timeout_ms: 1000, validate_only: false };
        assert_eq!(client.ask(3, &request).await.results[0].error_code, expected);
    }
    assert_eq!(client.produce("t", 2, batch(&[b"new"])).await.error_code, ErrorCode::NONE);
    assert_eq!(client.offset("t", 0, -1).await.0, 1);
    let id = metadata(&mut client, "t", false).await.topic_id;
    let by_id = |topic_id| {
        let topics = vec![DeleteTopicState { name: None, topic_id }];
        DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }
    };
    let deleted = client.ask(6, &by_id(id)).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.name.as_deref()), (ErrorCode::NONE, Some("t")));
    assert_eq!(client.ask(6, &by_id(id)).await.responses[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    let by_name = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
    assert_eq!(client.ask(1, &by_name).await.responses[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    client.create("t", 1, &[]).await;
    assert_eq!(client.offset("t", 0, -1).await.0, 0, "a new topic of the old name is empty");
    assert_ne!(metadata(&mut client, "t", false).await.topic_id, id);
}

async fn alter(client: &mut Client, topic: &str, changes: &[(&str, i8, Option<&str>)]) -> ErrorCode {
    let configs = changes.iter().map(|&(name, config_operation, value)| IncrementalAlterableConfig {
        name: name.into(),
        config_operation,
        value: value.map(Str::from),
    });
    let resource =
        IncrementalAlterConfigsResource { resource_type: 2, resource_name: topic.into(), configs: configs.collect() };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    client.ask(1, &request).await.responses[0].error_code
}

async fn option(client: &mut Client, topic: &str, name: &str) -> (Option<String>, i8, Vec<(String, i8)>) {
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic.into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, ..Default::default() };
    let mut result = client.ask(4, &request).await.results.remove(0);
    assert_eq!(result.error_code, ErrorCode::NONE);
    let config = result.configs.remove(0);
    let synonyms = config.synonyms.iter().map(|synonym| (synonym.name.as_str().to_owned(), synonym.source)).collect();
    (config.value.map(String::from), config.config_source, synonyms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configs_are_in_force_at_once_and_name_their_source() {
    let broker = broker(&["log.retention.hours=1"]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let (value, source, synonyms) = option(&mut client, "t", "retention.ms").await;
    assert_eq!((value.as_deref(), source), (Some("3600000"), 4));
    assert_eq!(synonyms, [("log.retention.hours".to_owned(), 4), ("log.retention.hours".to_owned(), 5)]);

    assert_eq!(alter(&mut client, "t", &[("max.message.bytes", 0, Some("100"))]).await, ErrorCode::NONE);
    assert_eq!(client.produce("t", 0, batch(&[&[0; 200]])).await.error_code, ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(alter(&mut client, "t", &[("max.message.bytes", 1, None)]).await, ErrorCode::NONE);
    assert_eq!(client.produce("t", 0, batch(&[&[0; 200]])).await.error_code, ErrorCode::NONE);

    assert_eq!(alter(&mut client, "t", &[("cleanup.policy", 2, Some("compact"))]).await, ErrorCode::NONE);
    assert_eq!(option(&mut client, "t", "cleanup.policy").await.0.as_deref(), Some("delete,compact"));
    assert_eq!(alter(&mut client, "t", &[("cleanup.policy", 3, Some("delete"))]).await, ErrorCode::NONE);
    assert_eq!(option(&mut client, "t", "cleanup.policy").await.0.as_deref(), Some("compact"));

    for (changes, expected) in [
        (&[("retention.ms", 2, Some("1"))][..], ErrorCode::INVALID_CONFIG),
        (&[("retention.ms", 0, Some("x"))], ErrorCode::INVALID_CONFIG),
        (&[("no.such.option", 0, Some("x"))], ErrorCode::INVALID_CONFIG),
        (&[("retention.ms", 0, None)], ErrorCode::INVALID_REQUEST),
        (&[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)], ErrorCode::INVALID_REQUEST),
    ] {
        assert_eq!(alter(&mut client, "t", changes).await, expected, "{changes:?}");
    }
    assert_eq!(alter(&mut client, "nowhere", &[]).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);

    // AlterConfigs resets the configs that it does not name.
    let configs = vec![AlterableConfig { name: "retention.ms".into(), value: Some("5".into()) }];
    let resource = AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs };
    let response = client.ask(2, &AlterConfigsRequest { resources: vec![resource], validate_only: false }).await;
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
    assert_eq!(option(&mut client, "t", "retention.ms").await.1, 1);
    assert_eq!(option(&mut client, "t", "cleanup.policy").await.0.as_deref(), Some("delete"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_describes_every_config_and_no_secret() {
    let broker = broker(&["num.partitions=7"]).await;
    let mut client = broker.connect().await;
    let resource = DescribeConfigsResource { resource_type: 4, resource_name: "0".into(), configuration_keys: None };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_documentation: true, ..Default::default() };
    let result = client.ask(4, &request).await.results.remove(0);
    assert!(result.configs.len() > 300);
    let find = |name: &str| result.configs.iter().find(|config| config.name == name).expect("listed");
    let partitions = find("num.partitions");
    assert_eq!((partitions.value.as_deref(), partitions.config_source, partitions.config_type), (Some("7"), 4, 3));
    assert!(partitions.documentation.is_some());
    let secret = find("ssl.key.password");
    assert!(secret.is_sensitive && secret.value.is_none());
}
