//! Two brokers over TCP: the follower's fetches, a failover by metadata, divergence, and what is rejected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::DataDir;
use millstream_metadata::{BrokerRegistration, Endpoint, FeatureLevel, MetadataRecord, MetadataStore};
use millstream_partition::replica::LeaderView;
use millstream_partition::{Acks, Assignment, Partition, PartitionError, WriteEnd, now_ms};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{FetchRequest, ReplicaState};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::FetcherConfig;
use super::connection::Connection;
use crate::broker::Broker;
use crate::config::RawConfig;
use crate::edge::plugins::Plugins;
use crate::net::listener::{self, Connections};
use crate::server::{Opened, open};

const TOPIC: Uuid = Uuid::from_u128(7);
const LISTENERS: &str = "listeners=PLAINTEXT://127.0.0.1:0,REPLICATION://127.0.0.1:0";
const PROTOCOLS: &str = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT";

/// A broker with its two listeners: for clients, and for brokers.
struct Node {
    broker: Arc<Broker>,
    ports: [u16; 2],
    stop: watch::Sender<bool>,
    folder: TempDir,
    _data_dir: DataDir,
}

impl Node {
    async fn start(id: i32, sockets: [TcpListener; 2], records: &[MetadataRecord]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let metadata = MetadataStore::open(folder.path(), id).expect("an empty folder");
        // The level of the first two records is that of the others.
        for records in [&records[..2], &records[2..]] {
            let mut draft = metadata.draft(0);
            draft.add(records).expect("records that fit");
            metadata.commit(&draft).expect("committed");
        }
        drop(metadata);
        let data_dir = DataDir::open(folder.path(), None, id).expect("an empty folder");
        data_dir.mark_clean_shutdown().expect("written");
        let mut raw = RawConfig::default();
        let id = format!("node.id={id}");
        let name = "inter.broker.listener.name=REPLICATION";
        for pair in [&*id, LISTENERS, PROTOCOLS, name, "replica.lag.time.max.ms=300"] {
            raw.set_pair(pair).expect("a config");
        }
        let plugins = Plugins::new(|| Err("these tests have no plug-ins".to_owned()));
        let opened = open(raw.check().expect("valid configs"), plugins, data_dir, vec![None, None]);
        let Opened { broker, data_dir, wanted_changes } = opened.expect("a broker");
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Connections::new().expect("descriptors"));
        let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        for (index, socket) in sockets.into_iter().enumerate() {
            let serve = listener::serve(Arc::clone(&broker), Arc::clone(&connections), socket, index, stopped.clone());
            tokio::spawn(serve);
        }
        let lag_max = broker.config.replica_lag_max;
        tokio::spawn(super::run_in_sync(Arc::clone(&broker) as _, wanted_changes, lag_max, stopped));
        let node = Self { broker, ports, stop, folder, _data_dir: data_dir };
        node.fetch();
        node
    }

    /// Follows leaders until it is stopped.
    fn fetch(&self) {
        self.stop.send_replace(false);
        let config = FetcherConfig { backoff: Duration::from_millis(20), ..FetcherConfig::default() };
        tokio::spawn(super::run(Arc::clone(&self.broker) as _, config, self.stop.subscribe()));
    }

    fn partition(&self) -> Arc<Partition> {
        self.broker.partition("t", 0).expect("the topic exists")
    }

    fn append(&self, records: usize) -> WriteEnd {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        for _ in 0..records {
            builder.append(now_ms(), Some(b"key"), Some(&[7; 100]), []).expect("a small record fits");
        }
        let batch = builder.build().expect("a small batch fits");
        let appended = self.partition().append(&CheckedBatch::of_own(&batch).expect("valid"), now_ms());
        WriteEnd::of(&appended.expect("accepted").batch())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("t-0").join("00000000000000000000.log")
    }

    async fn isr_becomes(&self, isr: &[i32]) {
        let wait = async {
            while *self.partition().isr() != *isr {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("the in-sync set changes");
    }

    /// Takes a role, as after a change of the metadata.
    fn assign(&self, assignment: Assignment) {
        self.partition().assign(assignment).expect("online");
        self.broker.controller.roles_changed();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

fn view(leader_epoch: i32, isr: &[i32]) -> LeaderView {
    LeaderView { leader_epoch, partition_epoch: 0, replicas: vec![0, 1], isr: isr.to_vec(), min_isr: 2 }
}

fn registered(id: i32, ports: &[u16; 2]) -> [MetadataRecord; 2] {
    let endpoint = |(listener, port): (&str, &u16)| Endpoint {
        listener: listener.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: *port,
    };
    let broker = BrokerRegistration {
        id,
        incarnation: Uuid::from_u128(id as u128 + 100),
        endpoints: ["PLAINTEXT", "REPLICATION"].into_iter().zip(ports).map(endpoint).collect(),
        rack: None,
        level_min: FeatureLevel::INITIAL.number(),
        level_max: FeatureLevel::NEWEST.number(),
    };
    let epoch = i64::from(id) + 1;
    [
        MetadataRecord::BrokerRegistered { broker, epoch },
        MetadataRecord::BrokerChanged { id, epoch, fenced: Some(false), shutting_down: None },
    ]
}

/// Starts two brokers with one topic, which broker 0 leads and broker 1 follows.
async fn two_brokers() -> [Node; 2] {
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let port = |index: usize| sockets[index].local_addr().expect("bound").port();
    let mut records = vec![
        MetadataRecord::ClusterCreated { cluster_id: "AAAAAAAAAAAAAAAAAAAAAA".to_owned() },
        MetadataRecord::FeatureLevelSet { level: FeatureLevel::CLUSTER.number() },
    ];
    records.extend(registered(0, &[port(0), port(1)]));
    records.extend(registered(1, &[port(2), port(3)]));
    records.push(MetadataRecord::TopicCreated {
        name: "t".to_owned(),
        id: TOPIC,
        partitions: 1,
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        replicas: vec![vec![0, 1]],
    });
    let second = [sockets.remove(2), sockets.remove(2)];
    let first = [sockets.remove(0), sockets.remove(0)];
    [Node::start(0, first, &records).await, Node::start(1, second, &records).await]
}

/// Waits until both logs have the same bytes and a high watermark.
async fn equal(nodes: &[Node; 2], end: i64) {
    let same = async {
        loop {
            let [one, two] = nodes.each_ref().map(|node| std::fs::read(node.log_file()).unwrap_or_default());
            let marks = nodes.each_ref().map(|node| node.partition().high_watermark());
            if one == two && marks == [end, end] {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), same).await.expect("the follower catches up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_has_what_acks_all_confirms() {
    let nodes = two_brokers().await;
    for _ in 0..20 {
        let end = nodes[0].append(10);
        let committed = nodes[0].partition().committed(end, Acks::All);
        timeout(Duration::from_secs(60), committed).await.expect("in time").expect("committed");
        let follower = nodes[1].partition();
        assert!(follower.recovery_point().expect("online") >= end.offset, "it has synced the records");
    }
    equal(&nodes, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_role_follows_the_new_one() {
    let nodes = two_brokers().await;
    let end = nodes[0].append(5);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    equal(&nodes, 5).await;
    // Broker 1 leads now, and broker 0 learns of it late: what it still appends is lost, and never confirmed.
    nodes[1].assign(Assignment::Leader(view(1, &[0, 1])));
    let never = nodes[0].append(3);
    let never = nodes[0].partition().committed(never, Acks::All);
    nodes[0].assign(Assignment::Follower { leader: 1, leader_epoch: 1 });
    assert!(matches!(never.await, Err(PartitionError::NotLeader { leader: 1 })));
    let end = nodes[1].append(4);
    nodes[1].partition().committed(end, Acks::All).await.expect("committed");
    equal(&nodes, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stops_leaves_the_in_sync_set_and_one_that_returns_joins_it() {
    let nodes = two_brokers().await;
    let end = nodes[0].append(5);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    nodes[1].stop.send(true).expect("it runs");
    let end = nodes[0].append(1);
    nodes[0].isr_becomes(&[0]).await;
    assert_eq!(nodes[0].partition().high_watermark(), 5, "min.insync.replicas is 2");
    let partition = nodes[0].broker.metadata.image().topic_by_id(TOPIC).expect("it exists").partitions[0].clone();
    assert_eq!((&*partition.isr, partition.partition_epoch, partition.leader_epoch), (&[0][..], 1, 0));
    let committed = nodes[0].partition().committed(end, Acks::All);
    nodes[1].fetch();
    committed.await.expect("committed");
    nodes[0].isr_becomes(&[0, 1]).await;
    equal(&nodes, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_a_replica_needs_the_listener_for_brokers() {
    let nodes = two_brokers().await;
    let request = FetchRequest {
        replica_state: ReplicaState { replica_id: 1, replica_epoch: 2 },
        session_epoch: -1,
        ..Default::default()
    };
    for (port, expected) in nodes[0].ports.into_iter().zip([ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ErrorCode::NONE]) {
        let connection = Connection::open("127.0.0.1", port, 1 << 20, Duration::from_secs(60)).await;
        let response = connection.expect("connected").call(&request, 18).await.expect("a response");
        assert_eq!(response.error_code, expected);
    }
}
