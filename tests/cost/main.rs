//! Bounds what a topic without stages costs: the allocations and system calls of a produce and of a fetch request, and
//! the memory of a partition. Other topics that have stages add nothing to it.
//!
//! The broker runs in this process with a counting allocator, and at the end our client too. This is the only test of
//! the binary, so that nothing else is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use bytes::Bytes;
use millstream_broker::{Flags, Plugins, RawConfig};
use millstream_client::{Producer, ProducerConfig, ProducerRecord};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_stage::{Engine, EngineConfig, Library};
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Request, RequestHeader};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The bytes that are allocated now.
static LIVE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    // Constant and without a destructor, so an allocator can read it safely.
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

struct Watched;

fn note(size: usize, freed: usize) {
    if !IS_CLIENT.get() {
        LIVE.fetch_add(size as isize - freed as isize, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator can only be watched from inside one")]
// SAFETY: every call goes to the system's allocator unchanged; recording a size allocates nothing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller upholds the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !IS_CLIENT.get() {
            LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        }
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A connection whose own work is not counted.
struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, correlation: 0 }
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation += 1;
        let header = RequestHeader::new(R::KEY, version, self.correlation, Some("cost".into()));
        let frame = encode_request(&header, request).expect("encoded").into_bytes().expect("in memory");
        self.stream.write_all(&frame).expect("sent");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a response");
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).expect("a whole response");
        decode_response::<R>(Bytes::from(frame), version).expect("decoded").1
    }

    fn create(&mut self, name: &str, partitions: i32, config: Option<(&str, &str)>) {
        let configs = config.map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.into_iter().collect(),
            ..Default::default()
        };
        let answer = self.ask(7, &CreateTopicsRequest { topics: vec![topic], ..Default::default() });
        assert_eq!(answer.topics[0].error_code, ErrorCode::NONE, "{:?}", answer.topics[0].error_message);
    }

    fn produce(&mut self, topic: &str, batch: &Bytes) {
        let partition_data = vec![PartitionProduceData { index: 0, records: Records::Bytes(batch.clone()) }];
        let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
        let answer = self.ask(9, &ProduceRequest { acks: 1, timeout_ms: 30_000, topic_data, ..Default::default() });
        assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::NONE);
    }

    /// Fetches a megabyte and returns the number of bytes of records.
    fn fetch(&mut self, topic: &str) -> usize {
        let partition = FetchPartition { current_leader_epoch: -1, partition_max_bytes: 1 << 20, ..Default::default() };
        let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
        let request = FetchRequest { max_bytes: 1 << 20, topics, ..Default::default() };
        self.ask(12, &request).responses[0].partitions[0].records.len()
    }
}

/// What the broker's threads have used so far.
#[derive(Debug, Clone, Copy)]
struct Used {
    allocations: usize,
    bytes: usize,
    /// System calls that read or write, as the kernel counts them for this process. A sendfile counts as one of each.
    calls: usize,
    /// Context switches. A request that is handed to another thread causes more of them.
    switches: usize,
}

impl Used {
    /// Reads the counters. They are read last here and first in [`Used::since`], because listing the threads reads
    /// files too.
    fn now() -> Self {
        let switches = switches();
        Self {
            allocations: COUNT.load(Ordering::Relaxed),
            bytes: BYTES.load(Ordering::Relaxed),
            calls: calls(),
            switches,
        }
    }

    fn since(self) -> Self {
        let calls = calls() - self.calls;
        Self {
            allocations: COUNT.load(Ordering::Relaxed) - self.allocations,
            bytes: BYTES.load(Ordering::Relaxed) - self.bytes,
            calls,
            switches: switches() - self.switches,
        }
    }
}

fn calls() -> usize {
    let io = fs::read_to_string("/proc/self/io").expect("the process's own counters");
    ["syscr: ", "syscw: "].iter().map(|name| number(&io, name)).sum()
}

fn switches() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    // A thread may end while the others are read.
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    status.map(|status| number(&status, "voluntary_ctxt_switches:\t")).sum()
}

fn number(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

const REQUESTS: usize = 1_000;

/// The uses that do not count, such as those of a timer that fires meanwhile. One more for each request would count.
const FEW: usize = REQUESTS / 50;

/// The most allocations, and the most calls that read or write, of one produce request of ten records.
const PRODUCE_MAX: (usize, usize) = (8, 1);

/// The same for a fetch of a megabyte.
const FETCH_MAX: (usize, usize) = (13, 5);

/// The same for a fetch of ten records: their bytes are read once, and leave with the rest of the response.
const SMALL_FETCH_MAX: (usize, usize) = (14, 2);

/// The most bytes of memory for an empty partition without stages: a tenth above what was measured.
const PARTITION_BYTES_MAX: usize = 1_800;

/// The partitions whose memory is measured together.
const PARTITIONS: i32 = 1_000;

/// The number of measurements of the same work.
const LOOKS: usize = 5;

/// Returns the lowest of several measurements: other work of the broker only adds to it.
fn least(mut work: impl FnMut()) -> Used {
    let looks = (0..3).map(|_| {
        let before = Used::now();
        (0..REQUESTS).for_each(|_| work());
        before.since()
    });
    looks
        .reduce(|least, look| Used {
            allocations: least.allocations.min(look.allocations),
            bytes: least.bytes.min(look.bytes),
            calls: least.calls.min(look.calls),
            switches: least.switches.min(look.switches),
        })
        .expect("three looks")
}

fn batch(records: usize, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let value = vec![b'x'; bytes];
    for _ in 0..records {
        builder.append(1_700_000_000_000, Some(b"key"), Some(&value), []).expect("appended");
    }
    builder.build().expect("built").into()
}

fn library() -> Arc<Library> {
    let library = Library::new(Engine::new(EngineConfig::default()).expect("an engine"));
    for plugin in &millstream_plugins::DEFAULTS {
        library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
    }
    Arc::new(library)
}

/// Returns what costs more than before, if anything does.
fn costs_more(before: &(Used, Used), after: &(Used, Used)) -> Option<&'static str> {
    let more = |before: usize, after: usize| after > before + FEW;
    let of =
        |before: &Used, after: &Used| more(before.allocations, after.allocations) || more(before.calls, after.calls);
    if of(&before.0, &after.0) {
        return Some("produce");
    }
    if of(&before.1, &after.1) {
        return Some("fetch");
    }
    // Handing each request to another thread would add two switches per request. A fetch of a megabyte waits for its
    // client anyway.
    (after.0.switches > before.0.switches + REQUESTS).then_some("switches between threads")
}

/// Checks the same request, sent many times, against its most allocations and calls.
fn check_each(name: &str, used: &Used, (allocations, calls): (usize, usize)) {
    println!("{REQUESTS} times {name}: {used:?}");
    let within = |used: usize, most: usize| used <= most * REQUESTS + FEW;
    let fits = within(used.allocations, allocations) && within(used.calls, calls);
    assert!(fits, "a {name} takes more than {allocations} allocations and {calls} calls: {used:?} of {REQUESTS}");
}

/// Checks that our client's record to a named partition costs no more where the topic has many partitions.
fn check_producer(runtime: &Runtime, broker: SocketAddr) {
    let mut config = ProducerConfig::new(&broker.to_string());
    config.set("linger.ms", "0").expect("a config");
    let producer = runtime.block_on(async { Producer::builder(config).build() }).expect("a producer");
    let send = |topic| {
        least(|| {
            let record = ProducerRecord::new(topic).partition(0).value(b"value");
            runtime.block_on(async { producer.send(record).await?.await }).expect("stored");
        })
    };
    let (one, many) = (send("plain"), send("many"));
    println!("{REQUESTS} records of our client to a topic with one partition: {one:?}, with {PARTITIONS}: {many:?}");
    assert!(many.allocations < one.allocations + 2 * REQUESTS, "the partitions of the topic cost: {one:?}, {many:?}");
}

#[test]
fn a_topic_without_stages_costs_little_and_the_same_beside_topics_that_have_some() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let flags = Flags {
        data_dirs: vec![folder.path().to_owned()],
        listen: Some("127.0.0.1:0".parse().expect("an address")),
        advertise: None,
    };
    let config = RawConfig::default().check().and_then(|config| config.with_flags(flags)).expect("a configuration");
    let plugins = Plugins::new(|| Ok(library()));
    let running = runtime.block_on(millstream_broker::start(config, plugins)).expect("started");
    IS_CLIENT.set(true);
    let mut client = Client::connect(running.local_addr());
    let (small, large) = (batch(10, 100), batch(1_000, 1_000));
    client.create("plain", 1, None);
    client.create("filled", 1, None);
    client.produce("filled", &large);
    let measure = |client: &mut Client| {
        let produced = least(|| client.produce("plain", &small));
        let fetched = least(|| assert!(client.fetch("filled") > 1_000_000));
        (produced, fetched)
    };
    measure(&mut client);
    let before = measure(&mut client);
    check_each("produce", &before.0, PRODUCE_MAX);
    check_each("fetch", &before.1, FETCH_MAX);
    client.create("little", 1, None);
    client.produce("little", &small);
    let fetched = least(|| assert_eq!(client.fetch("little"), small.len()));
    check_each("small fetch", &fetched, SMALL_FETCH_MAX);
    let live = LIVE.load(Ordering::Relaxed);
    client.create("many", PARTITIONS, None);
    let bytes = (LIVE.load(Ordering::Relaxed) - live) / PARTITIONS as isize;
    println!("each partition: {bytes} bytes");
    assert!(bytes <= PARTITION_BYTES_MAX as isize, "a partition takes {bytes} bytes, more than {PARTITION_BYTES_MAX}");
    client.create("staged", 1, Some(("stage.admit", r#"contains{"text":"x"}"#)));
    client.create("packed", 1, Some(("stage.compressor", "lz4")));
    client.create("view", 1, Some(("view.of", "filled")));
    for topic in ["staged", "packed"] {
        client.produce(topic, &small);
    }
    // Other work on the machine only adds to the counts, so a higher count is measured again before the test fails.
    let after = (0..LOOKS)
        .map(|_| measure(&mut client))
        .find(|after| costs_more(&before, after).is_none())
        .unwrap_or_else(|| measure(&mut client));
    let staged = least(|| client.produce("staged", &small));
    println!("plain: {before:?}, beside stages: {after:?}; with a stage: {staged:?}");
    assert_eq!(costs_more(&before, &after), None);
    // The megabyte was sent without being copied into memory.
    assert!(after.1.bytes / REQUESTS < 64 << 10, "a fetch allocates {} bytes", after.1.bytes / REQUESTS);
    // The measurement notices a topic that does have a stage.
    assert!(staged.allocations > after.0.allocations + REQUESTS, "{staged:?}");
    IS_CLIENT.set(false);
    check_producer(&runtime, running.local_addr());
    runtime.block_on(running.shutdown()).expect("stopped");
}
