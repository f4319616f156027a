//! A broker in this process, and a client of one connection.

use std::time::Duration;

use bytes::Bytes;
use millstream_broker::{Flags, Plugins, RawConfig, RunningBroker};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Request, RequestHeader};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest wait of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with its own data folder.
pub(crate) struct TestBroker {
    pub(crate) folder: TempDir,
    pub(crate) running: RunningBroker,
}

pub(crate) async fn broker(settings: &[&str]) -> TestBroker {
    start_in(tempfile::tempdir().expect("a folder"), settings).await
}

pub(crate) async fn start_in(folder: TempDir, settings: &[&str]) -> TestBroker {
    let running = try_start(&folder, settings).await.expect("started");
    TestBroker { folder, running }
}

pub(crate) async fn try_start(folder: &TempDir, settings: &[&str]) -> Result<RunningBroker, String> {
    let mut raw = RawConfig::default();
    for pair in settings {
        raw.set_pair(pair).expect("a good setting");
    }
    let listen = Some("127.0.0.1:0".parse().expect("an address"));
    let flags = Flags { data_dirs: vec![folder.path().to_owned()], listen, advertise: None };
    let config = raw.check().and_then(|config| config.with_flags(flags)).expect("a good configuration");
    let plugins = Plugins::new(|| Err("these tests have no stages".to_owned()));
    millstream_broker::start(config, plugins).await.map_err(|error| error.to_string())
}

impl TestBroker {
    pub(crate) async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.running.local_addr()).await.expect("connected");
        Client { stream, correlation_id: 0 }
    }

    /// Stops the broker cleanly and returns its folder.
    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown().await.expect("a clean stop");
        self.folder
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Sends a request and returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        let header = RequestHeader::new(R::KEY, version, self.correlation_id, Some("test".into()));
        let frame = encode_request(&header, request).expect("encoded").into_bytes().expect("in memory");
        self.stream.write_all(&frame).await.expect("sent");
        self.correlation_id
    }

    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame().await.expect("a response");
        let (header, response) = decode_response::<R>(frame, version).expect("decoded");
        (header.correlation_id, response)
    }

    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request).await;
        let (correlation_id, response) = self.receive::<R>(version).await;
        assert_eq!(correlation_id, sent);
        response
    }

    /// Returns the next frame without its prefix; `None` if the broker closes the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut frame).await.expect("a whole frame");
            Some(Bytes::from(frame))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a response or the end")
    }

    pub(crate) async fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..Default::default()
        };
        let response = self.ask(7, &CreateTopicsRequest { topics: vec![topic], ..Default::default() }).await;
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "{:?}", response.topics[0].error_message);
    }

    /// Produces one batch and returns the response for its partition.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: impl Into<Bytes>,
    ) -> PartitionProduceResponse {
        let mut response = self.ask(12, &produce_request(topic, partition, batch.into(), -1)).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches from one partition without waiting.
    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let mut response = self.ask(12, &fetch_request(&[(topic, partition, offset)], 0, 1)).await;
        response.responses.remove(0).partitions.remove(0)
    }

    /// Looks up the end (timestamp -1) or start (-2) of a log, or another offset by time.
    pub(crate) async fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> (i64, i64) {
        let partitions = vec![ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp }];
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions }];
        let mut response = self.ask(7, &ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }).await;
        let found = response.topics.remove(0).partitions.remove(0);
        assert_eq!(found.error_code, ErrorCode::NONE);
        (found.offset, found.timestamp)
    }
}

pub(crate) fn produce_request(topic: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: partition, records: Records::Bytes(batch) }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }
}

pub(crate) fn fetch_request(targets: &[(&str, i32, i64)], max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let topics = targets.iter().map(|&(topic, partition, fetch_offset)| FetchTopic {
        topic: topic.into(),
        partitions: vec![FetchPartition {
            partition,
            current_leader_epoch: -1,
            fetch_offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        }],
        ..Default::default()
    });
    FetchRequest { max_wait_ms, min_bytes, max_bytes: 50 << 20, topics: topics.collect(), ..Default::default() }
}

/// Returns a builder for the batch that most tests need.
pub(crate) fn builder(codec: Codec) -> BatchBuilder {
    BatchBuilder::new(codec, TimestampType::CreateTime)
}

/// Returns an uncompressed batch of these values, with keys and the current time.
pub(crate) fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut builder = builder(Codec::None);
    for value in values {
        builder.append(now_ms(), Some(b"key"), Some(value), []).expect("appended");
    }
    builder.build().expect("built")
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as i64
}
