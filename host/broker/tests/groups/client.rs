//! A broker in this process, and a client that sends exactly the request and version that a test needs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use millstream_broker::{Plugins, RawConfig, RunningBroker, start};
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::{CreatableTopic, CreateTopicsRequest, MetadataRequest, MetadataRequestTopic};
use millstream_wire::{ErrorCode, Request, RequestHeader, Str};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The longest wait for a response; only a test that fails reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on its own port.
pub(crate) struct TestBroker {
    runtime: Runtime,
    running: Option<RunningBroker>,
}

impl TestBroker {
    /// Starts a broker whose groups do not wait for members, with these keys set.
    pub(crate) fn start(folder: &Path, keys: &[&str]) -> Self {
        let folder = format!("log.dirs={}", folder.display());
        let own = ["listeners=PLAINTEXT://127.0.0.1:0", "group.initial.rebalance.delay.ms=0", &folder];
        let mut raw = RawConfig::default();
        for pair in own.iter().chain(keys) {
            raw.set_pair(pair).unwrap();
        }
        let runtime = Runtime::new().unwrap();
        let plugins = Plugins::new(|| Err("these tests have no stages".to_owned()));
        let running = runtime.block_on(start(raw.check().unwrap(), plugins)).unwrap();
        Self { runtime, running: Some(running) }
    }

    /// Opens a new connection.
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.running.as_ref().unwrap().local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, correlation_id: 0 }
    }

    /// Stops the broker as SIGTERM does.
    pub(crate) fn stop(mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.shutdown()).unwrap();
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Sends a request in a version and waits for its response.
    pub(crate) fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// Sends a request.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let header = RequestHeader::new(R::KEY, version, self.correlation_id, Some(Str::from("tester")));
        let frame = encode_request(&header, request).unwrap().into_bytes().unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    /// Waits for the response to the last request.
    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        let (header, response) = decode_response::<R>(frame.into(), version).unwrap();
        assert_eq!(header.correlation_id, self.correlation_id);
        response
    }

    /// Creates a topic and returns its id.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) -> Uuid {
        let topic = CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        let created = self.ask(7, &request);
        assert_eq!(created.topics[0].error_code, ErrorCode::NONE);
        created.topics[0].topic_id
    }

    /// Returns the number of a topic's partitions; 0 if it does not exist.
    pub(crate) fn partitions(&mut self, name: &str) -> usize {
        let topic = MetadataRequestTopic { name: Some(Str::from(name)), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false, ..Default::default() };
        self.ask(12, &request).topics[0].partitions.len()
    }
}
