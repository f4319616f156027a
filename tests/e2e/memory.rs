//! The memory for messages in flight: clients that do not read, that stop within a request, or that send more than they
//! read. Their number is such that the process would grow by gigabytes without a limit.
//!
//! `docs/operations.md` states the cap that these tests check.

use std::time::{Duration, Instant};

use millstream_tests::{Broker, wait_until};
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, ErrorCode};

use crate::support::{Memory, Neighbour, Raw, Topic, batch, fetch_request, open_files, request};

const MIB: usize = 1 << 20;

/// The number of clients that misbehave at the same time.
const CLIENTS: usize = 1_000;

/// `queued.max.request.bytes`. It may not be below `socket.request.max.bytes`.
const BUDGET: usize = 100 * MIB;

/// What each connection may hold beside the budget.
const PER_CONNECTION: usize = 96 << 10;

/// What one message may hold beyond the budget.
const OVERDRAFT: usize = 5 * MIB;

/// The longest wait for what the tests expect.
const PATIENCE: Duration = Duration::from_secs(40);

/// A broker with a budget, and a client on it that does nothing wrong.
struct Host {
    broker: Broker,
    neighbour: Neighbour,
    raw: Raw,
    memory: Option<Memory>,
    files: usize,
}

impl Host {
    fn start() -> Self {
        // Without fixed buffers the kernel takes megabytes of each response, and less stays in the process.
        let broker = Broker::builder()
            .set("queued.max.request.bytes", &BUDGET.to_string())
            .set("socket.listen.backlog.size", &CLIENTS.to_string())
            .set("socket.send.buffer.bytes", "16384")
            .set("socket.receive.buffer.bytes", "65536")
            .start();
        let neighbour = Neighbour::of(&broker);
        let raw = Raw::connect(&broker);
        Self { broker, neighbour, raw, memory: None, files: 0 }
    }

    /// Serves its neighbour a few times, and measures the memory from then on.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.neighbour.is_served(&mut self.broker, "the start");
        }
        self.files = open_files(&self.broker);
        self.memory = Some(Memory::watch(&self.broker));
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("it is measured")
    }

    /// Serves the neighbour while clients misbehave, until they have taken this much, and for a second from then on.
    fn serves_beside(&mut self, what: &str, taken: usize) {
        let start = Instant::now();
        while self.memory().growth_max() < taken {
            assert!(start.elapsed() < PATIENCE, "{what} take only {} bytes", self.memory().growth_max());
            self.neighbour.is_served(&mut self.broker, what);
        }
        let full = Instant::now();
        while full.elapsed() < Duration::from_secs(1) {
            self.neighbour.is_served(&mut self.broker, what);
        }
    }

    /// Returns whether a client was closed since it is slow and others wait.
    fn has_closed_slow(&self) -> bool {
        self.broker.log().contains("closing: the client is slow and holds memory that others wait for")
    }

    /// Checks that memory stays below the cap, and that it is given back once the clients are gone.
    fn assert_bounded(&mut self, what: &str, clients: Vec<Raw>) {
        let memory = self.memory();
        memory.assert_grew_less_than(BUDGET + OVERDRAFT + clients.len() * PER_CONNECTION, what);
        println!("{what}: grew by {} MiB at most", memory.growth_max() / MIB);
        drop(clients);
        wait_until("the sockets to be closed", PATIENCE, || (open_files(&self.broker) <= self.files).then_some(()));
        wait_until("the memory to be given back", PATIENCE, || (memory.growth() < BUDGET * 3 / 4).then_some(()));
        println!("{what}: {} MiB stay", memory.growth() / MIB);
        self.neighbour.is_served(&mut self.broker, what);
    }
}

fn connect(broker: &Broker) -> Vec<Raw> {
    (0..CLIENTS).map(|_| Raw::with_small_buffer(broker)).collect()
}

/// Responses that are made in memory: the records of a view, the metadata of many partitions, and configs.
#[test]
fn clients_that_do_not_read_take_no_more_than_the_budget() {
    let mut host = Host::start();
    let source = Topic::create(&mut host.raw, "source", 1, &[]);
    let value = "x".repeat(500_000);
    for _ in 0..10 {
        source.produce(&mut host.raw, batch(&[&value]));
    }
    let view = Topic::create(&mut host.raw, "view", 1, &[("view.of", "source")]);
    Topic::create(&mut host.raw, "wide", 1_000, &[]);
    let configs = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource { resource_type: 4, resource_name: "0".into(), ..Default::default() }],
        include_documentation: true,
        ..Default::default()
    };
    let described = host.raw.call(4, &configs);
    assert!(described.results[0].error_code == ErrorCode::NONE && described.results[0].configs.len() > 100);
    host.settle();
    let mut clients = connect(&host.broker);
    for (number, raw) in clients.iter_mut().enumerate() {
        for _ in 0..20 {
            match number % 20 {
                0 => raw.send(12, &fetch_request(12, &[(&view, 0, 0, 64 << 20)], 10_000, 3 << 20)),
                1..10 => raw.send(12, &MetadataRequest::default()),
                _ => raw.send(4, &configs),
            };
        }
    }
    host.serves_beside("clients that do not read", BUDGET * 3 / 4);
    // A client that reads gets its large responses, since those that do not are closed.
    let mut reader = Raw::connect(&host.broker);
    assert_eq!(reader.call(12, &MetadataRequest::default()).topics.len(), 4);
    assert!(view.fetch(&mut reader, 0).records.len() > MIB / 2);
    drop(reader);
    wait_until("a client to be closed", PATIENCE, || host.has_closed_slow().then_some(()));
    host.assert_bounded("clients that do not read", clients);
}

/// Clients announce requests of 1 to 100 MiB, send a part, and stop.
#[test]
fn clients_that_stop_within_a_request_take_no_more_than_the_budget() {
    let mut host = Host::start();
    let topic = Topic::create(&mut host.raw, "topic", 1, &[]);
    topic.produce(&mut host.raw, batch(&["small"]));
    host.settle();
    let mut clients = connect(&host.broker);
    let mut frame = request(ApiKey::Produce, 9, 1, &[7; 120 << 10]);
    for (number, raw) in clients.iter_mut().enumerate() {
        let length = (number % 100 + 1) * MIB;
        frame[..4].copy_from_slice(&i32::try_from(length).expect("a length").to_be_bytes());
        raw.write_some(&frame);
    }
    host.serves_beside("half sent requests", BUDGET / 2);
    // A large request comes through, since clients that have stopped are closed.
    let value = "x".repeat(900_000);
    assert_eq!(topic.produce(&mut host.raw, batch(&[&value])), 1);
    assert!(host.has_closed_slow());
    host.assert_bounded("half sent requests", clients);
}

/// Small requests are not counted, so the cap is that of the connections.
#[test]
fn a_flood_of_small_requests_takes_little() {
    let mut host = Host::start();
    host.settle();
    let mut clients = connect(&host.broker);
    let flood = request(ApiKey::ApiVersions, 0, 7, &[]).repeat(2_000);
    for raw in &mut clients {
        raw.write_some(&flood);
    }
    host.serves_beside("a flood", MIB);
    host.memory().assert_grew_less_than(CLIENTS * PER_CONNECTION, "a flood of small requests");
    assert!(!host.has_closed_slow(), "none of them takes memory from others");
    host.assert_bounded("a flood", clients);
}
