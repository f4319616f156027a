//! Every advertised version of every API is served.

use std::fmt::Debug;

use millstream_tests::Broker;
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, ErrorCode, Request};

use crate::support::{Raw, Topic, Visitor, batch, minimal};

/// The APIs of a single node with their versions, as in Kafka 4.4.
const ADVERTISED: [(ApiKey, i16, i16); 52] = [
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 11),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 10),
    (ApiKey::OffsetFetch, 1, 10),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 5),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::WriteTxnMarkers, 1, 2),
    (ApiKey::TxnOffsetCommit, 0, 6),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 2),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::DescribeAcls, 1, 3),
    (ApiKey::AlterReplicaLogDirs, 1, 2),
    (ApiKey::DescribeLogDirs, 1, 5),
    (ApiKey::DeleteGroups, 0, 3),
    (ApiKey::ElectLeaders, 0, 2),
    (ApiKey::ListPartitionReassignments, 0, 0),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeClientQuotas, 0, 1),
    (ApiKey::DescribeUserScramCredentials, 0, 0),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::ConsumerGroupHeartbeat, 0, 1),
    (ApiKey::ConsumerGroupDescribe, 0, 1),
    (ApiKey::ListConfigResources, 0, 1),
    (ApiKey::DescribeTopicPartitions, 0, 0),
    (ApiKey::AlterPartitionReassignments, 0, 1),
    (ApiKey::DescribeQuorum, 0, 2),
    (ApiKey::UpdateFeatures, 0, 2),
    (ApiKey::UnregisterBroker, 0, 0),
    (ApiKey::UnregisterController, 0, 0),
    (ApiKey::AddRaftVoter, 0, 1),
    (ApiKey::RemoveRaftVoter, 0, 0),
];

fn software(name: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: name.into(),
        client_software_version: "1.0-beta".into(),
        ..Default::default()
    }
}

#[test]
fn the_versions_of_kafka_are_advertised() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    for version in 0..=5 {
        let answer = raw.call(version, &software(if version < 3 { "" } else { "raw.client-1" }));
        assert_eq!(answer.error_code, ErrorCode::NONE, "v{version}");
        let mut listed: Vec<_> =
            answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        listed.sort_unstable();
        for (api, min, max) in ADVERTISED {
            assert!(listed.contains(&(api as i16, min, max)), "{api} {min} to {max} by v{version}: {listed:?}");
        }
        assert!(listed.windows(2).all(|pair| pair[0].0 < pair[1].0), "an API twice by v{version}: {listed:?}");
    }
}

#[test]
fn an_invalid_software_name_is_an_invalid_request() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    for name in ["", "-", "a b", "ä", ".x", "x\n"] {
        let answer = raw.call(3, &software(name));
        assert_eq!(answer.error_code, ErrorCode::INVALID_REQUEST, "{name:?}");
    }
    assert_eq!(raw.call(3, &software("fine")).error_code, ErrorCode::NONE);
}

/// Clients of Kafka 4.4 name the cluster and node that they expect at an address.
#[test]
fn a_client_of_another_cluster_starts_over() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let metadata = raw.call(9, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
    let cluster = metadata.cluster_id.expect("a cluster id");
    let mut ask = |cluster_id: Option<&str>, node_id: i32| {
        let cluster_id = cluster_id.map(Into::into);
        raw.call(5, &ApiVersionsRequest { cluster_id, node_id, ..software("raw") })
    };
    let same = ask(Some(&cluster), metadata.brokers[0].node_id);
    assert_eq!((same.error_code, same.api_keys.len()), (ErrorCode::NONE, ADVERTISED.len()));
    let other = ask(Some("another-cluster-0000000"), metadata.brokers[0].node_id);
    assert_eq!((other.error_code, other.api_keys.len()), (ErrorCode::REBOOTSTRAP_REQUIRED, 0));
    let half = ask(Some(&cluster), -1);
    assert_eq!((half.error_code, half.api_keys.len()), (ErrorCode::INVALID_REQUEST, 0));
}

/// Sends a request and reads its response to the last byte.
struct Call<'a>(&'a mut Raw);

impl Visitor for Call<'_> {
    type Outcome = ();
    fn visit<R: Request>(&mut self, version: i16, request: R) {
        self.0.call(version, &request);
    }
}

#[test]
fn every_version_of_every_api_has_a_response() {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch(&["first"]));
    let served = raw.call(0, &ApiVersionsRequest::default()).api_keys;
    let mut answered = 0;
    for api in &served {
        let Ok(key) = ApiKey::try_from(api.api_key) else { continue };
        // All requests use one connection: a response that is too long or too short would corrupt the next one.
        for version in api.min_version..=api.max_version {
            minimal(key, version, &topic, &mut Call(&mut raw));
            answered += 1;
        }
    }
    let expected: i16 = ADVERTISED.iter().map(|(_, min, max)| max - min + 1).sum();
    assert_eq!(answered, expected);
    assert!(!broker.log().contains("ERROR"), "{}", broker.log());
}

/// Unknown topics, partitions and offsets are errors within the response; the connection stays open.
#[test]
fn an_unknown_topic_is_an_error_within_the_response() {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    let mut raw = Raw::connect(&broker);
    let absent = Topic { name: "absent".into(), id: uuid::Uuid::from_u128(77) };
    let served = raw.call(0, &ApiVersionsRequest::default()).api_keys;
    for api in &served {
        let Ok(key) = ApiKey::try_from(api.api_key) else { continue };
        for version in api.min_version..=api.max_version {
            // Metadata would create the topic.
            if key != ApiKey::Metadata {
                minimal(key, version, &absent, &mut Call(&mut raw));
            }
        }
    }
    for version in 3..=13 {
        let answer = absent.produce_by(&mut raw, version, batch(&["lost"]));
        let expected = if version >= 13 { ErrorCode::UNKNOWN_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
        assert_eq!(answer.error_code, expected, "Produce v{version}");
    }
    for version in 4..=18 {
        let request = crate::support::fetch_request(version, &[(&absent, 0, 0, 1000)], 0, 0);
        let answer = raw.call(version, &request);
        let expected = if version >= 13 { ErrorCode::UNKNOWN_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
        assert_eq!(answer.responses[0].partitions[0].error_code, expected, "Fetch v{version}");
    }
}

/// Unlike a malformed request, an empty request gets an empty response.
#[test]
fn empty_requests_get_empty_responses() {
    fn answers<R: Request<Response: Debug> + Default>(raw: &mut Raw, versions: std::ops::RangeInclusive<i16>) {
        for version in versions {
            raw.call(version, &R::default());
        }
    }
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    answers::<FetchRequest>(&mut raw, 4..=18);
    answers::<ListOffsetsRequest>(&mut raw, 1..=11);
    answers::<CreateTopicsRequest>(&mut raw, 2..=7);
    answers::<DeleteTopicsRequest>(&mut raw, 1..=6);
    answers::<DescribeConfigsRequest>(&mut raw, 1..=4);
    answers::<OffsetForLeaderEpochRequest>(&mut raw, 2..=4);
    for version in 2..=10 {
        let request = OffsetCommitRequest {
            group_id: "nothing".into(),
            topics: Vec::<OffsetCommitRequestTopic>::new(),
            ..Default::default()
        };
        assert!(raw.call(version, &request).topics.is_empty());
    }
}
