//! Many partitions: what it takes to create them, to write to all of them, to stop with them, and to start again.
//!
//! The broker runs as a process of its own with one record in each partition. Wall times depend on the disk and on what
//! else the machine does; processor time does less so. Both are printed, with the load of the machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millstream_client::{Producer, ProducerConfig, ProducerRecord};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::messages::{
    CreatableTopic, CreateTopicsRequest, MetadataRequest, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use millstream_wire::{ErrorCode, Records};
use rustix::process::{Pid, Signal, kill_process};

use crate::frames::{PRODUCE_VERSION, now};
use crate::process::process;
use crate::replay::{call, connect};

/// How long a broker may take to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// The partitions of one topic, and of one request to create them. Kafka rejects requests for 10,000 partitions.
const PARTITIONS_A_TOPIC: i32 = 2500;

/// The partitions of one Produce request.
const PARTITIONS_A_REQUEST: i32 = 500;

/// The topics that a producer creates by writing to them.
const ON_DEMAND: usize = 40;

const CREATE_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 12;

/// Measures one binary and prints a table.
///
/// # Errors
/// When the broker does not start, stops responding, or rejects a request.
pub(crate) fn run(binary: &Path, partitions: i32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("| {partitions} partitions | Seconds | CPU-s of the broker | Load of the machine |");
    println!("|---|---|---|---|");
    let mut broker = Scaled::start(binary, folder.path())?;
    broker.report("start without data", broker.started)?;
    let begun = Instant::now();
    create(broker.address, partitions)?;
    broker.report("create", begun.elapsed())?;
    let begun = Instant::now();
    write_to_all(broker.address, partitions)?;
    broker.report("write a record to each, acks=all", begun.elapsed())?;
    broker.stop()?;
    let mut broker = Scaled::start(binary, folder.path())?;
    broker.report("start after a clean stop", broker.started)?;
    write_to_all(broker.address, partitions)?;
    broker.kill()?;
    let mut broker = Scaled::start(binary, folder.path())?;
    broker.report("start after kill -9, all partitions written to", broker.started)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let begun = Instant::now();
    runtime.block_on(create_on_demand(broker.address))?;
    broker.report(&format!("{ON_DEMAND} topics on demand, idempotent producer"), begun.elapsed())?;
    broker.stop()
}

/// A broker that runs as a process of its own. Dropping it kills it.
struct Scaled {
    child: Child,
    address: SocketAddr,
    /// From the start of the process to its first response.
    started: Duration,
    /// The processor time at the last report, seconds.
    computed: f64,
}

impl Scaled {
    fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(folder.join("data")).args(["--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("the broker does not listen")?.parse()?;
        let mut broker = Self { child, address, started: Duration::ZERO, computed: 0.0 };
        let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
        call(&mut connect(address)?, METADATA_VERSION, &request)?;
        broker.started = begun.elapsed();
        Ok(broker)
    }

    /// Prints a row: the time that was taken, and the processor time since the last row.
    fn report(&mut self, what: &str, elapsed: Duration) -> Result<()> {
        let computed = process(self.child.id())?.computed;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default();
        println!("| {what} | {:.2} | {:.2} | {load} |", elapsed.as_secs_f64(), computed - self.computed);
        self.computed = computed;
        Ok(())
    }

    /// Stops the broker with SIGTERM and prints how long that took.
    fn stop(mut self) -> Result<()> {
        self.computed = process(self.child.id())?.computed;
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        // A process that has ended keeps its figures until it is waited for.
        while !process(self.child.id())?.has_ended {
            ensure!(begun.elapsed() < PATIENCE, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.report("stop", begun.elapsed())?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the broker stopped with {status}");
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Scaled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates this number of partitions, with a request for each topic.
///
/// # Errors
/// A topic cannot be created.
pub(crate) fn create(address: SocketAddr, partitions: i32) -> Result<()> {
    let mut stream = connect(address)?;
    for (name, num_partitions) in topics(partitions) {
        let name = name.as_str().into();
        let topic = CreatableTopic { name, num_partitions, replication_factor: 1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, validate_only: false };
        for created in call(&mut stream, CREATE_VERSION, &request)?.topics {
            ensure!(created.error_code == ErrorCode::NONE, "{:?}: {:?}", created.error_code, created.error_message);
        }
    }
    Ok(())
}

/// Writes a record to each of the partitions that [`create`] has created, with acks=all.
///
/// # Errors
/// A record is not stored.
pub(crate) fn write_to_all(address: SocketAddr, partitions: i32) -> Result<()> {
    let mut stream = connect(address)?;
    let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    batch.append(now()?, None, Some(&[b'v'; 100]), [])?;
    let batch = Bytes::from(batch.build()?);
    for (name, partitions) in topics(partitions) {
        for first in (0..partitions).step_by(PARTITIONS_A_REQUEST as usize) {
            let indexes = first..partitions.min(first + PARTITIONS_A_REQUEST);
            let data = |index| PartitionProduceData { index, records: Records::Bytes(batch.clone()) };
            let partition_data = indexes.map(data).collect();
            let topic = TopicProduceData { name: name.as_str().into(), partition_data, ..Default::default() };
            let request =
                ProduceRequest { acks: -1, timeout_ms: 60_000, topic_data: vec![topic], ..Default::default() };
            let response = call(&mut stream, PRODUCE_VERSION, &request)?;
            let written = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            for written in written {
                ensure!(written.error_code == ErrorCode::NONE, "{:?}", written.error_code);
            }
        }
    }
    Ok(())
}

/// Returns the topics with the numbers of their partitions.
pub(crate) fn topics(partitions: i32) -> impl Iterator<Item = (String, i32)> {
    let first = (0..partitions).step_by(PARTITIONS_A_TOPIC as usize);
    first.map(move |first| (format!("scale-{first}"), PARTITIONS_A_TOPIC.min(partitions - first)))
}

/// Writes to topics that do not exist, one after the other, and waits for each record.
async fn create_on_demand(address: SocketAddr) -> Result<()> {
    let mut config = ProducerConfig::new(&address.to_string());
    let settings = BTreeMap::from([("enable.idempotence", "true"), ("linger.ms", "0")]);
    settings.iter().try_for_each(|(key, value)| config.set(key, value))?;
    let producer = Producer::builder(config).build()?;
    for topic in 0..ON_DEMAND {
        producer.send(ProducerRecord::new(&format!("on-demand-{topic}")).value(b"value")).await?.await?;
    }
    Ok(())
}
