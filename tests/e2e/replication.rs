//! What followers of a cluster do for consumers, and how fast they copy what they lack.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millstream_client::{
    Admin, BrokerDescription, ClientConfig, Consumer, ConsumerConfig, NewTopic, Producer, ProducerConfig,
    ProducerRecord, TopicPartition,
};
use millstream_tests::{BrokerBuilder, Cluster, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use rustix::process::{Signal, kill_process};
use uuid::Uuid;

use crate::support::Raw;

/// The limit of every wait. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The value of `replica.selector.class` by which consumers read from a replica in their rack.
const BY_RACK: (&str, &str) = ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");

/// Returns the first partition of a topic, once it has this number of replicas in sync, and the id of the topic.
fn partition(address: SocketAddr, topic: &str, in_sync: usize) -> (Uuid, MetadataResponsePartition) {
    wait_until("replicas in sync", PATIENCE, || {
        let mut raw = Raw::to(address);
        let topics = vec![MetadataRequestTopic { name: Some(topic.into()), ..Default::default() }];
        let found = raw.call(12, &MetadataRequest { topics: Some(topics), ..Default::default() }).topics.remove(0);
        let first = found.partitions.into_iter().next()?;
        (first.isr_nodes.len() == in_sync).then_some((found.topic_id, first))
    })
}

fn fetch(address: SocketAddr, version: i16, rack: &str, target: (Uuid, FetchPartition)) -> PartitionData {
    let (topic_id, partition) = target;
    let topics = vec![FetchTopic { topic: "t".into(), topic_id, partitions: vec![partition] }];
    let (max_bytes, rack_id) = (1 << 20, rack.into());
    let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes, rack_id, topics, ..Default::default() };
    let mut response = Raw::to(address).call(version, &request);
    response.responses.remove(0).partitions.remove(0)
}

/// Creates the topic `t` with one partition, and produces ten records.
fn topic_with_records(cluster: &Cluster) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let admin = Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("valid configs");
        create(&admin, 1, 3, 3).await;
        produce(cluster, 10, 1).await;
    });
}

/// Creates a view of `t` that shows all records, and returns its id.
fn create_view(cluster: &Cluster) -> Uuid {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let configs = [("view.of", "t"), ("stage.filter", r#"contains{"text":"x"}"#)];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let view = NewTopic { name: "v".to_owned(), partitions: None, replication_factor: None, configs };
    runtime.block_on(async {
        let admin = Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("valid configs");
        admin.create_topics(&[view]).await.expect("created").remove(0)
    })
}

/// Creates the topic `t` when all brokers are there.
async fn create(admin: &Admin, partitions: i32, factor: i16, brokers: usize) {
    let deadline = Instant::now() + PATIENCE;
    let alive = |brokers: &[BrokerDescription]| brokers.iter().filter(|broker| !broker.fenced).count();
    while alive(&admin.describe_cluster().await.expect("a cluster").brokers) < brokers {
        assert!(Instant::now() < deadline, "a broker is missing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (name, partitions, replication_factor) = ("t".to_owned(), Some(partitions), Some(factor));
    let topic = NewTopic { name, partitions, replication_factor, configs: Default::default() };
    admin.create_topics(&[topic]).await.expect("created");
}

/// Produces records of this size, each in a batch of its own.
async fn produce(cluster: &Cluster, records: usize, bytes: usize) {
    let mut config = ProducerConfig::new(&cluster.bootstrap());
    config.linger = Duration::ZERO;
    let producer = Producer::builder(config).build().expect("valid configs");
    let value = vec![b'x'; bytes];
    for _ in 0..records {
        producer.send(ProducerRecord::new("t").value(&value)).await.expect("buffered").await.expect("stored");
    }
}

/// Returns the number of connections to a port of this machine.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections of this machine");
    let remote = format!(":{port:04X}");
    // The columns are a number, the local address, the remote address and the state.
    let established = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|address| address.ends_with(&remote)) && columns.next() == Some("01")
    };
    table.lines().filter(established).count()
}

#[test]
fn several_fetchers_share_the_partitions_of_a_leader() {
    const FETCHERS: usize = 16;
    let mut cluster = Cluster::start(3, &[("num.replica.fetchers", &FETCHERS.to_string())]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin = runtime.block_on(async {
        let admin = Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("valid configs");
        create(&admin, 40, 3, 3).await;
        produce(&cluster, 200, 100).await;
        admin
    });
    for id in 1..=3 {
        // The others fetch over all their connections, and have some more.
        wait_until("the fetchers", PATIENCE, || (connections_to(cluster.node_port(id)) >= 2 * FETCHERS).then_some(()));
    }
    cluster.kill(1);
    runtime.block_on(produce(&cluster, 200, 100));
    cluster.restart(1);
    wait_until("all partitions to be in sync", PATIENCE, || {
        let found = runtime.block_on(admin.describe_topics(&["t".to_owned()])).ok()?;
        found[0].partitions.iter().all(|partition| partition.in_sync.len() == 3).then_some(())
    });
}

#[test]
fn a_consumer_reads_from_a_replica_in_its_rack() {
    let cluster = Cluster::start_with(3, &[BY_RACK], |id, node| node.set("broker.rack", &format!("r{id}")));
    topic_with_records(&cluster);
    let (id, found) = partition(cluster.address(1), "t", 3);
    let (leader, epoch) = (found.leader_id, found.leader_epoch);
    let follower = found.isr_nodes.iter().copied().find(|node| *node != leader).expect("a follower");
    let at = |fetch_offset, current_leader_epoch| {
        let bytes = 1 << 20;
        let target =
            FetchPartition { fetch_offset, current_leader_epoch, partition_max_bytes: bytes, ..Default::default() };
        (id, target)
    };
    let near = |node: i32| format!("r{node}");

    let sent = wait_until("the follower to have fetched", PATIENCE, || {
        let sent = fetch(cluster.address(leader), 18, &near(follower), at(0, epoch));
        (sent.preferred_read_replica >= 0).then_some(sent)
    });
    assert_eq!((sent.preferred_read_replica, sent.error_code), (follower, ErrorCode::NONE));
    assert_eq!((sent.records.len(), sent.log_start_offset), (0, 0), "the leader sends nothing itself");
    for (rack, version) in [(near(leader), 18), ("elsewhere".to_owned(), 18), (String::new(), 18), (near(follower), 10)]
    {
        let target = (if version < 13 { Uuid::nil() } else { id }, at(0, epoch).1);
        let own = fetch(cluster.address(leader), version, &rack, target);
        assert_eq!(own.preferred_read_replica, -1, "{rack} {version}");
        assert!(!own.records.is_empty(), "{rack} {version}");
    }

    let read = wait_until("the follower to know what is committed", PATIENCE, || {
        let read = fetch(cluster.address(follower), 18, &near(follower), at(0, epoch));
        (read.high_watermark == 10).then_some(read)
    });
    assert!(!read.records.is_empty());
    assert_eq!((read.error_code, read.preferred_read_replica), (ErrorCode::NONE, -1));
    let codes = [(10, epoch), (11, epoch), (0, epoch - 1), (0, epoch + 1)]
        .map(|(offset, epoch)| fetch(cluster.address(follower), 18, "", at(offset, epoch)).error_code);
    let expected = [
        ErrorCode::NONE,
        ErrorCode::OFFSET_OUT_OF_RANGE,
        if epoch > 0 { ErrorCode::FENCED_LEADER_EPOCH } else { ErrorCode::NONE },
        ErrorCode::UNKNOWN_LEADER_EPOCH,
    ];
    assert_eq!(codes, expected);
    // A view is there as well.
    let view = create_view(&cluster);
    let of_view = |node: i32| {
        wait_until("the view on the node", PATIENCE, || {
            let read = fetch(cluster.address(node), 18, &near(follower), (view, at(0, epoch).1));
            (read.error_code == ErrorCode::NONE).then_some(read)
        })
    };
    let sent = of_view(leader);
    assert_eq!((sent.preferred_read_replica, sent.records.len()), (follower, 0));
    assert!(!of_view(follower).records.is_empty());
    let old = fetch(cluster.address(follower), 10, "", (Uuid::nil(), at(0, epoch).1));
    assert_eq!(old.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER, "before version 11 only the leader serves");
}

#[test]
fn our_consumer_reads_on_from_its_rack_while_the_leader_is_paused() {
    let racks = |id: usize, node: BrokerBuilder| node.set("broker.rack", &format!("r{id}"));
    let mut cluster = Cluster::start_with(3, &[BY_RACK], racks);
    topic_with_records(&cluster);
    let (id, found) = partition(cluster.address(1), "t", 3);
    let leader = found.leader_id;
    let follower = found.isr_nodes.iter().copied().find(|node| *node != leader).expect("a follower");
    let (rack, epoch) = (format!("r{follower}"), found.leader_epoch);
    let has = |cluster: &Cluster, records: i64| {
        wait_until("the follower to have the records", PATIENCE, || {
            let target = FetchPartition { current_leader_epoch: epoch, partition_max_bytes: 1, ..Default::default() };
            let read = fetch(cluster.address(follower), 18, "", (id, target.clone()));
            let sent = fetch(cluster.address(leader), 18, &rack, (id, target));
            (read.high_watermark == records && sent.preferred_read_replica == follower).then_some(())
        });
    };
    has(&cluster, 10);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut config = ConsumerConfig::new(&cluster.bootstrap());
    config.set("auto.offset.reset", "earliest").expect("a config");
    config.set("client.rack", &rack).expect("a config");
    let consumer = runtime.block_on(async { Consumer::builder(config).build() }).expect("valid configs");
    let target = TopicPartition::new("t", 0);
    let read = |count: usize| {
        let (mut got, deadline) = (0, Instant::now() + PATIENCE);
        while got < count {
            assert!(Instant::now() < deadline, "{got} records of {count}");
            got += runtime.block_on(consumer.poll(Duration::from_millis(100))).expect("no error").len();
        }
        assert_eq!(got, count);
    };
    runtime.block_on(async { consumer.assign([target.clone()]) }).expect("it has no group");
    read(10);
    consumer.pause([&target]);
    runtime.block_on(produce(&cluster, 10, 1));
    has(&cluster, 20);
    let paused = cluster.node_of(leader).pid();
    kill_process(paused, Signal::STOP).expect("a signal");
    consumer.resume([&target]);
    read(10);
    let state = std::fs::read_to_string(format!("/proc/{}/stat", paused.as_raw_nonzero())).expect("a process");
    assert!(state.contains(") T "), "the leader was paused all the time: {state}");
    cluster.kill(leader);
    wait_until("another leader", PATIENCE, || {
        let (_, now) = partition(cluster.address(follower), "t", 2);
        (now.leader_id != leader).then_some(())
    });
    runtime.block_on(produce(&cluster, 10, 1));
    read(10);
}

#[test]
fn replicas_are_spread_over_racks() {
    let racks = |id: usize, node: BrokerBuilder| node.set("broker.rack", if id <= 2 { "a" } else { "b" });
    let cluster = Cluster::start_with(4, &[("default.replication.factor", "2")], racks);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let described = runtime.block_on(async {
        let admin = Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("valid configs");
        create(&admin, 8, 2, 4).await;
        admin.describe_topics(&["t".to_owned()]).await.expect("it exists").remove(0)
    });
    for partition in &described.partitions {
        let racks: Vec<bool> = partition.replicas.iter().map(|id| *id <= 2).collect();
        assert!(racks.len() == 2 && racks[0] != racks[1], "{partition:?}");
    }
    let leaders: BTreeSet<_> = described.partitions.iter().map(|partition| partition.replicas[0]).collect();
    assert_eq!(leaders.len(), 4, "{leaders:?}");
}

/// The size and the number of the records of a move, and the rate of its throttle in a second.
const RECORD: usize = 25_000;
const RECORDS: usize = 60;
const RATE: usize = 500_000;

/// Sets configs of a resource, or removes those without a value.
fn alter(raw: &mut Raw, resource_type: i8, name: &str, configs: &[(&str, Option<&str>)]) -> (ErrorCode, String) {
    let edit = |(name, value): &(&str, Option<&str>)| IncrementalAlterableConfig {
        name: (*name).into(),
        config_operation: i8::from(value.is_none()),
        value: value.map(Into::into),
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs: configs.iter().map(edit).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = raw.call(1, &request).responses.remove(0);
    (response.error_code, response.error_message.as_deref().unwrap_or_default().to_owned())
}

/// Moves the only replica of `t` to another broker under a throttle, and returns how long it takes.
fn throttled_move(rate: &str, replicas: &str) -> Duration {
    // With smaller fetches the rate is met closer.
    let cluster = Cluster::start(3, &[("replica.fetch.max.bytes", "100000")]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin = runtime.block_on(async {
        let admin = Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("valid configs");
        create(&admin, 1, 1, 3).await;
        produce(&cluster, RECORDS, RECORD).await;
        admin
    });
    let leader = partition(cluster.address(1), "t", 1).1.leader_id;
    let other = if leader == 1 { 2 } else { 1 };
    let mut raw = Raw::to(cluster.address(1));
    for id in ["1", "2", "3"] {
        let value = RATE.to_string();
        assert_eq!(alter(&mut raw, 4, id, &[(rate, Some(&value))]).0, ErrorCode::NONE, "{rate}");
    }
    assert_eq!(alter(&mut raw, 2, "t", &[(replicas, Some("*"))]).0, ErrorCode::NONE, "{replicas}");
    let start = Instant::now();
    let target = TopicPartition::new("t", 0);
    let moved = runtime.block_on(admin.alter_reassignments(&[(target, Some(vec![leader, other]))].into()));
    moved.expect("a move that begins");
    partition(cluster.address(1), "t", 2);
    let moved = start.elapsed();
    for id in ["1", "2", "3"] {
        assert_eq!(alter(&mut raw, 4, id, &[(rate, None)]).0, ErrorCode::NONE, "{rate}");
    }
    moved
}

/// Checks the time of a move of all records at the rate. The first window has no past, and the last fetch
/// may exceed the rate.
fn assert_throttled(taken: Duration) {
    let (bytes, rate) = ((RECORDS * RECORD) as f64, RATE as f64);
    let seconds = taken.as_secs_f64();
    assert!(seconds > bytes / rate * 0.6, "too fast: {seconds} s");
    assert!(seconds < bytes / rate * 4.0, "too slow: {seconds} s");
}

#[test]
fn a_leader_throttles_what_it_sends() {
    assert_throttled(throttled_move("leader.replication.throttled.rate", "leader.replication.throttled.replicas"));
}

#[test]
fn a_follower_throttles_what_it_fetches() {
    assert_throttled(throttled_move("follower.replication.throttled.rate", "follower.replication.throttled.replicas"));
}

#[test]
fn configs_of_brokers_are_set_shown_and_rejected() {
    const RATE: &str = "leader.replication.throttled.rate";
    let mut cluster = Cluster::start(3, &[]);
    let set = |cluster: &Cluster, name: &str, config: &str, value: Option<&str>| {
        alter(&mut Raw::to(cluster.address(2)), 4, name, &[(config, value)])
    };
    let shown = |cluster: &Cluster, id: i32, name: &str| {
        let resource =
            DescribeConfigsResource { resource_type: 4, resource_name: name.into(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let configs = Raw::to(cluster.address(id)).call(4, &request).results.remove(0).configs;
        let found = configs.into_iter().find(|config| config.name == RATE)?;
        Some((found.value.as_deref().unwrap_or_default().to_owned(), found.config_source, found.read_only))
    };
    let (static_default, of_broker, of_all) = (5, 2, 3);
    let unlimited = i64::MAX.to_string();
    assert_eq!(shown(&cluster, 1, "1"), Some((unlimited, static_default, false)));
    assert_eq!(set(&cluster, "", RATE, Some("7")).0, ErrorCode::NONE);
    assert_eq!(set(&cluster, "1", RATE, Some("8")).0, ErrorCode::NONE);
    assert_eq!(shown(&cluster, 3, ""), Some(("7".to_owned(), of_all, false)));
    for (id, expected) in [(1, ("8", of_broker)), (3, ("7", of_all))] {
        let (value, source, _) = wait_until("the change on the broker", PATIENCE, || {
            shown(&cluster, id, &id.to_string()).filter(|(value, ..)| value == expected.0)
        });
        assert_eq!((value.as_str(), source), expected);
    }
    // They are in the metadata.
    cluster.stop(1);
    cluster.restart(1);
    wait_until("the broker to come back", PATIENCE, || {
        shown(&cluster, 1, "1").filter(|(value, source, _)| value == "8" && *source == of_broker)
    });
    assert_eq!(set(&cluster, "1", RATE, None).0, ErrorCode::NONE);
    wait_until("the default of all brokers", PATIENCE, || shown(&cluster, 1, "1").filter(|(value, ..)| value == "7"));
    for (name, config, value, code, words) in [
        ("9", RATE, Some("1"), ErrorCode::BROKER_ID_NOT_REGISTERED, "No broker with id 9 found."),
        ("x", RATE, Some("1"), ErrorCode::INVALID_REQUEST, "received x"),
        ("1", RATE, Some("-1"), ErrorCode::INVALID_CONFIG, "expected at least 0"),
        ("1", "num.partitions", Some("2"), ErrorCode::INVALID_REQUEST, "Cannot update these configs dynamically"),
        (
            "1",
            "replica.alter.log.dirs.io.max.bytes.per.second",
            Some("2"),
            ErrorCode::INVALID_REQUEST,
            "a replica that moves to another data folder is not throttled",
        ),
    ] {
        let (found, message) = set(&cluster, name, config, value);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
}
