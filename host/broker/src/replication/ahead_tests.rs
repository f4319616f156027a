//! A follower that fetches ahead of what it has synced, seen by a relay between it and its leader.

use std::sync::Arc;
use std::time::Duration;

use millstream_metadata::MetadataRecord;
use millstream_partition::replica::LeaderView;
use millstream_partition::{Acks, Assignment, Partition};
use millstream_wire::messages::{FetchPartition, FetchRequest, FetchTopic, ReplicaState};
use millstream_wire::{Piece, Reader, Request, RequestHeader, frame};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use crate::cluster_for_tests::{Node, TOPIC, registered, two_brokers, two_brokers_set};

const VERSION: i16 = 18;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a request of the follower says.
#[derive(Debug, Clone, Copy)]
struct Seen {
    offset: i64,
    /// -1 if the offset is synced.
    synced: i64,
    wait_ms: i32,
    /// Whether the log had on stable storage what the request says, when it came.
    is_true: bool,
}

type Requests = Arc<Mutex<Vec<Seen>>>;

/// Passes on the fetches of a follower to the port of its leader, and notes them. A leader of before leaves out the end
/// of its log.
async fn relay(listener: TcpListener, leader: u16, follower: Arc<Partition>, is_of_before: bool, requests: Requests) {
    while let Ok((stream, _)) = listener.accept().await {
        let leader = Connection::open("127.0.0.1", leader, 1 << 20, PATIENCE).await.expect("connected");
        // The follower closes its connection.
        let _ = pass_on(stream, leader, &follower, is_of_before, &requests).await;
    }
}

async fn pass_on(
    mut stream: TcpStream,
    mut leader: Connection,
    follower: &Partition,
    is_of_before: bool,
    requests: &Requests,
) -> std::io::Result<()> {
    loop {
        let mut bytes = vec![0; stream.read_i32().await?.unsigned_abs() as usize];
        stream.read_exact(&mut bytes).await?;
        let mut reader = Reader::new(bytes.into());
        let header = RequestHeader::decode(&mut reader).expect("a header");
        let request = <FetchRequest as millstream_wire::Message>::decode(&mut reader, VERSION).expect("a fetch");
        for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
            let (offset, synced, wait_ms) = (partition.fetch_offset, partition.synced_offset, request.max_wait_ms);
            let claimed = if synced < 0 { offset } else { synced };
            let is_true = follower.recovery_point().expect("online") >= claimed;
            requests.lock().push(Seen { offset, synced, wait_ms, is_true });
        }
        let mut response = leader.call(&request, VERSION).await.expect("a response");
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if is_of_before {
                partition.log_end_offset = -1;
            }
        }
        let id = header.correlation_id;
        let frame = frame::encode_response(id, FetchRequest::response_header_version(VERSION), &response, VERSION);
        for piece in frame.expect("a frame").pieces {
            let Piece::Bytes(bytes) = piece else { panic!("records of a file") };
            stream.write_all(&bytes).await?;
        }
    }
}

/// Puts a relay between a follower and its leader.
async fn put_between(follower: &Node, leader: (i32, &Node), is_of_before: bool) -> Requests {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let requests = Requests::default();
    let (id, node) = leader;
    tokio::spawn(relay(listener, node.ports[1], follower.partition(), is_of_before, Arc::clone(&requests)));
    follower.change(&registered(id, &[node.ports[0], port]));
    follower.broker.controller.roles_changed();
    requests
}

async fn has_synced(node: &Node, end: i64) {
    let partition = node.partition();
    let wait = async {
        while partition.recovery_point().expect("online") < end {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the follower catches up");
}

/// Starts two brokers with a follower that lacks 200 batches, of which two fit a response.
async fn lagging() -> [Node; 2] {
    let alone = MetadataRecord::TopicConfigChanged {
        id: TOPIC,
        name: "min.insync.replicas".to_owned(),
        value: Some("1".to_owned()),
    };
    let nodes = two_brokers_set(&["replica.fetch.max.bytes=2500"], &[alone]).await;
    nodes[1].stop_fetching().await;
    for _ in 0..200 {
        nodes[0].append(10);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_fetches_ahead_while_its_leader_has_more() {
    let nodes = lagging().await;
    let requests = put_between(&nodes[1], (0, &nodes[0]), false).await;
    nodes[1].fetch();
    has_synced(&nodes[1], 2000).await;
    let end = nodes[0].append(1);
    timeout(PATIENCE, nodes[0].partition().committed(end, Acks::All)).await.expect("in time").expect("committed");
    let seen = requests.lock().clone();
    assert!(seen.iter().all(|one| one.is_true), "{seen:?}");
    let ahead = seen.iter().filter(|one| one.synced >= 0);
    assert!(ahead.clone().count() > 10, "{seen:?}");
    assert!(ahead.clone().all(|one| one.synced < one.offset && one.wait_ms == 0), "{seen:?}");
    // A fetch that may wait at the leader leaves nothing untold. The first, and those at the end, are such.
    assert!(seen.iter().filter(|one| one.wait_ms > 0).all(|one| one.synced < 0), "{seen:?}");
    assert!(seen.iter().filter(|one| one.wait_ms > 0).count() < 10, "{seen:?}");
    let [one, two] = nodes.each_ref().map(|node| std::fs::read(node.log_file()).expect("a log"));
    assert!(one == two, "both logs have the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_before_gets_only_offsets_that_are_synced() {
    let nodes = lagging().await;
    let requests = put_between(&nodes[1], (0, &nodes[0]), true).await;
    nodes[1].fetch();
    has_synced(&nodes[1], 2000).await;
    let seen = requests.lock().clone();
    assert!(seen.iter().all(|one| one.is_true && one.synced < 0 && one.wait_ms > 0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_becomes_a_follower_syncs_before_it_fetches() {
    let nodes = two_brokers().await;
    let end = nodes[0].append(5);
    assert!(nodes[0].partition().recovery_point().expect("online") < end.offset, "nothing waits for a sync");
    has_synced(&nodes[1], 5).await;
    let requests = put_between(&nodes[0], (1, &nodes[1]), true).await;
    let view = LeaderView { leader_epoch: 1, partition_epoch: 0, replicas: vec![0, 1], isr: vec![0, 1], min_isr: 2 };
    nodes[1].assign(Assignment::Leader(view));
    nodes[0].assign(Assignment::Follower { leader: 1, leader_epoch: 1 });
    let end = nodes[1].append(1);
    timeout(PATIENCE, nodes[1].partition().committed(end, Acks::All)).await.expect("in time").expect("committed");
    let seen = requests.lock().clone();
    assert!(seen.iter().all(|one| one.is_true), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_counts_what_a_fetch_says_to_be_synced() {
    let nodes = two_brokers().await;
    nodes[1].stop_fetching().await;
    for _ in 0..5 {
        nodes[0].append(1);
    }
    let fetch = async |synced_offset| {
        let partition = FetchPartition {
            current_leader_epoch: 0,
            fetch_offset: 4,
            last_fetched_epoch: 0,
            partition_max_bytes: 1 << 20,
            synced_offset,
            ..Default::default()
        };
        let request = FetchRequest {
            replica_state: ReplicaState { replica_id: 1, replica_epoch: 2 },
            session_epoch: -1,
            topics: vec![FetchTopic { topic_id: TOPIC, partitions: vec![partition], ..Default::default() }],
            ..Default::default()
        };
        let mut response = nodes[0].call_on(1, &request, VERSION).await;
        let data = response.responses.remove(0).partitions.remove(0);
        (data.high_watermark, data.log_end_offset, nodes[0].partition().high_watermark())
    };
    assert_eq!(fetch(2).await, (2, 5, 2), "two records are on its stable storage");
    assert_eq!(fetch(9).await, (4, 5, 4), "it cannot have synced what it does not have");
    assert_eq!(fetch(-1).await, (4, 5, 4));
}
