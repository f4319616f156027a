//! Two brokers over TCP that begin with the same metadata, for the tests of several modules.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::DataDir;
use millstream_metadata::{BrokerRegistration, Endpoint, FeatureLevel, MetadataRecord, MetadataStore};
use millstream_partition::{Assignment, Partition, WriteEnd, now_ms};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};
use millstream_wire::Request;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::broker::Broker;
use crate::config::RawConfig;
use crate::edge::plugins::Plugins;
use crate::net::listener::{self, Connections};
use crate::replication::{self, Connection, FetcherConfig};
use crate::server::{Opened, open};

/// The id of the topic `t`.
pub(crate) const TOPIC: Uuid = Uuid::from_u128(7);

const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const LISTENERS: &str = "listeners=PLAINTEXT://127.0.0.1:0,REPLICATION://127.0.0.1:0";
const PROTOCOLS: &str = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT";

/// A broker with its two listeners: for clients, and for brokers.
pub(crate) struct Node {
    pub(crate) broker: Arc<Broker>,
    pub(crate) ports: [u16; 2],
    stop: watch::Sender<bool>,
    fetching: Mutex<Option<JoinHandle<()>>>,
    pub(crate) folder: TempDir,
    _data_dirs: Vec<DataDir>,
}

impl Node {
    async fn start(id: i32, sockets: [TcpListener; 2], records: &[MetadataRecord], pairs: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let data_dir = DataDir::open(folder.path(), Some(CLUSTER_ID), id).expect("an empty folder");
        let metadata = MetadataStore::open(folder.path(), id).expect("an empty folder");
        // The level of the first two records is that of the others.
        for records in [&records[..2], &records[2..]] {
            let mut draft = metadata.draft(0);
            draft.add(records).expect("records that fit");
            metadata.commit(&draft).expect("committed");
        }
        drop(metadata);
        data_dir.mark_clean_shutdown().expect("written");
        let mut raw = RawConfig::default();
        let id = format!("node.id={id}");
        let name = "inter.broker.listener.name=REPLICATION";
        let delay = "group.initial.rebalance.delay.ms=0";
        let log_dirs = format!("log.dirs={}", folder.path().display());
        let own = [&*id, &*log_dirs, LISTENERS, PROTOCOLS, name, delay, "replica.lag.time.max.ms=300"];
        for pair in own.iter().chain(pairs) {
            raw.set_pair(pair).expect("a config");
        }
        let plugins = Plugins::new(|| Err("these tests have no plug-ins".to_owned()));
        let opened = open(raw.check().expect("valid configs"), plugins, data_dir, vec![None, None]);
        let Opened { broker, data_dirs, wanted_changes } = opened.expect("a broker");
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Connections::new().expect("descriptors"));
        let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        for (index, socket) in sockets.into_iter().enumerate() {
            let serve = listener::serve(Arc::clone(&broker), Arc::clone(&connections), socket, index, stopped.clone());
            tokio::spawn(serve);
        }
        let lag_max = broker.config.replica_lag_max;
        tokio::spawn(replication::run_in_sync(Arc::clone(&broker) as _, wanted_changes, lag_max, stopped));
        broker.groups.start().await;
        broker.transactions.start().await;
        let node = Self { broker, ports, stop, fetching: Mutex::default(), folder, _data_dirs: data_dirs };
        node.fetch();
        node
    }

    /// Returns the first partition of the topic `t`.
    pub(crate) fn partition(&self) -> Arc<Partition> {
        self.broker.partition("t", 0).expect("the topic exists")
    }

    /// Returns the file of its log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("t-0").join("00000000000000000000.log")
    }

    /// Appends one batch to it.
    pub(crate) fn append(&self, records: usize) -> WriteEnd {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        for _ in 0..records {
            builder.append(now_ms(), Some(b"key"), Some(&[7; 100]), []).expect("a small record fits");
        }
        let batch = builder.build().expect("a small batch fits");
        let appended = self.partition().append(&CheckedBatch::of_own(&batch).expect("valid"), now_ms());
        WriteEnd::of(&appended.expect("accepted").batch())
    }

    /// Takes a role, as after a change of the metadata.
    pub(crate) fn assign(&self, assignment: Assignment) {
        self.assign_partition(&self.partition(), assignment);
    }

    /// Takes a role for any partition.
    pub(crate) fn assign_partition(&self, partition: &Partition, assignment: Assignment) {
        partition.assign(assignment).expect("online");
        self.broker.controller.roles_changed();
        self.broker.groups.roles_changed();
        self.broker.transactions.roles_changed();
    }

    /// Changes the metadata of this broker, without an effect on its partitions.
    pub(crate) fn change(&self, records: &[MetadataRecord]) {
        let mut draft = self.broker.metadata.draft(0);
        draft.add(records).expect("records that fit");
        self.broker.metadata.commit(&draft).expect("committed");
    }

    /// Sends a request to the listener for clients.
    pub(crate) async fn call<R: Request>(&self, request: &R, version: i16) -> R::Response {
        self.call_on(0, request, version).await
    }

    /// Sends a request to a listener: 0 is for clients, 1 for brokers.
    pub(crate) async fn call_on<R: Request>(&self, listener: usize, request: &R, version: i16) -> R::Response {
        let port = self.ports[listener];
        let connection = Connection::open("127.0.0.1", port, 1 << 20, Duration::from_secs(60)).await;
        connection.expect("connected").call(request, version).await.expect("a response")
    }

    /// Follows leaders until it is stopped.
    pub(crate) fn fetch(&self) {
        self.stop.send_replace(false);
        let mut config = FetcherConfig::of(&self.broker.config);
        config.fetch.backoff = Duration::from_millis(20);
        let fetching = tokio::spawn(replication::run(Arc::clone(&self.broker) as _, config, self.stop.subscribe()));
        *self.fetching.lock() = Some(fetching);
    }

    /// Closes the connections, and stops to follow leaders. When this returns, no fetch is under way.
    pub(crate) async fn stop_fetching(&self) {
        self.stop.send_replace(true);
        let fetching = self.fetching.lock().take().expect("it fetches");
        fetching.await.expect("no panic");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// Returns the records of a broker that is not fenced.
pub(crate) fn registered(id: i32, ports: &[u16; 2]) -> [MetadataRecord; 2] {
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
pub(crate) async fn two_brokers() -> [Node; 2] {
    two_brokers_with(&[]).await
}

/// Starts two brokers as [`two_brokers`] does, with more metadata.
pub(crate) async fn two_brokers_with(more: &[MetadataRecord]) -> [Node; 2] {
    two_brokers_set(&[], more).await
}

/// Starts two brokers as [`two_brokers_with`] does, with more configs.
pub(crate) async fn two_brokers_set(pairs: &[&str], more: &[MetadataRecord]) -> [Node; 2] {
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let port = |index: usize| sockets[index].local_addr().expect("bound").port();
    let mut records = vec![
        MetadataRecord::ClusterCreated { cluster_id: CLUSTER_ID.to_owned() },
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
    records.extend_from_slice(more);
    let second = [sockets.remove(2), sockets.remove(2)];
    let first = [sockets.remove(0), sockets.remove(0)];
    [Node::start(0, first, &records, pairs).await, Node::start(1, second, &records, pairs).await]
}
