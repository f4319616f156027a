//! Requests to the nodes of a cluster, each with a deadline. Some are held and delivered late.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::{
    FindCoordinatorRequest, MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};
use millstream_wire::{Request, RequestHeader, Str};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How long a request waits for its response.
const CALL_MAX: Duration = Duration::from_secs(3);

/// The type of a key that FindCoordinator gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Group = 0,
    Transaction = 1,
}

/// Connections to the nodes.
pub(super) struct Nodes {
    bootstrap: Vec<String>,
    open: HashMap<String, TcpStream>,
    turn: usize,
}

fn frame_of<R: Request>(version: i16, request: &R) -> Bytes {
    let header = RequestHeader::new(R::KEY, version, 1, Some("nemesis".into()));
    encode_request(&header, request).expect("a good request").into_bytes().expect("in memory")
}

async fn exchange(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<Bytes> {
    stream.write_all(frame).await?;
    let length = stream.read_i32().await?;
    let mut response = vec![0; usize::try_from(length).expect("a length")];
    stream.read_exact(&mut response).await?;
    Ok(response.into())
}

impl Nodes {
    pub(super) fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.split(',').map(str::to_owned).collect(), open: HashMap::new(), turn: 0 }
    }

    /// Sends a request, and returns its response. Without one it may have been handled.
    pub(super) async fn call<R: Request>(&mut self, address: &str, version: i16, request: &R) -> Option<R::Response> {
        let frame = frame_of(version, request);
        let exchanged = async {
            let mut stream = match self.open.remove(address) {
                Some(stream) => stream,
                None => TcpStream::connect(address).await.ok()?,
            };
            let response = exchange(&mut stream, &frame).await.ok()?;
            self.open.insert(address.to_owned(), stream);
            Some(response)
        };
        let response = timeout(CALL_MAX, exchanged).await.ok()??;
        Some(decode_response::<R>(response, version).expect("a response of the version").1)
    }

    /// Sends a request later, over a connection of its own.
    pub(super) fn hold<R: Request>(&self, address: &str, version: i16, request: &R, time: Duration) {
        let (address, frame) = (address.to_owned(), frame_of(version, request));
        tokio::spawn(async move {
            sleep(time).await;
            if let Ok(mut stream) = TcpStream::connect(&address).await {
                let _ = timeout(CALL_MAX, exchange(&mut stream, &frame)).await;
            }
        });
    }

    /// Sends a request to some node.
    async fn any<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.turn += 1;
        let address = self.bootstrap[self.turn % self.bootstrap.len()].clone();
        self.call(&address, version, request).await
    }

    async fn describe(&mut self, topic: &str) -> Option<(MetadataResponse, MetadataResponseTopic)> {
        let named = MetadataRequestTopic { name: Some(Str::from(topic)), ..Default::default() };
        let mut response = self.any(12, &MetadataRequest { topics: Some(vec![named]), ..Default::default() }).await?;
        let described = response.topics.pop()?;
        Some((response, described))
    }

    /// Returns the address of the leader of a partition, and the id of its topic.
    pub(super) async fn leader(&mut self, topic: &str, partition: i32) -> Option<(String, Uuid)> {
        let (response, described) = self.describe(topic).await?;
        let found = described.partitions.iter().find(|found| found.partition_index == partition)?;
        let leader = response.brokers.iter().find(|broker| broker.node_id == found.leader_id)?;
        Some((format!("{}:{}", leader.host, leader.port), described.topic_id))
    }

    /// Returns the address of the coordinator of a group or of a transactional id.
    pub(super) async fn coordinator(&mut self, name: &str, key: Key) -> Option<String> {
        let coordinator_keys = vec![Str::from(name)];
        let request = FindCoordinatorRequest { key_type: key as i8, coordinator_keys, ..Default::default() };
        let found = self.any(4, &request).await?.coordinators.pop()?;
        found.error_code.is_ok().then(|| format!("{}:{}", found.host, found.port))
    }
}
