//! Compares two builds of the broker: what produce and fetch cost each of them, in turns.
//!
//! The load replays encoded frames, so that it costs far less than the broker. The figure is the broker's own processor
//! time. Both brokers run at the same time on separate folders, and one is idle while the other works.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use millstream_client::{Admin, ClientConfig, NewTopic};
use millstream_record::Codec;
use tempfile::TempDir;

use crate::frames::{Batch, Range, connections, fetch_frame, produce_frame};
use crate::measure::median;
use crate::process::process;
use crate::replay::{Kind, replay_all};

/// The requests of one turn.
struct Load {
    name: &'static str,
    unit: Unit,
    records: usize,
    value_bytes: usize,
    codec: Codec,
    connections: usize,
    in_flight: usize,
    requests: usize,
    kind: Kind,
}

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    CpuSecondsPerGigabyte,
    CpuMicrosPerRequest,
}

const LOADS: [Load; 8] = [
    Load {
        name: "produce, 1 KiB records in batches of 256 KiB",
        unit: Unit::CpuSecondsPerGigabyte,
        records: 248,
        value_bytes: 1024,
        codec: Codec::None,
        connections: 2,
        in_flight: 8,
        requests: 4096,
        kind: Kind::Produce,
    },
    Load {
        name: "produce, 1 KiB records in batches of one",
        unit: Unit::CpuSecondsPerGigabyte,
        records: 1,
        value_bytes: 1024,
        codec: Codec::None,
        connections: 2,
        in_flight: 64,
        requests: 100_000,
        kind: Kind::Produce,
    },
    compressed("produce, batches of 256 KiB in lz4", Codec::Lz4),
    compressed("produce, batches of 256 KiB in snappy", Codec::Snappy),
    compressed("produce, batches of 256 KiB in zstd", Codec::Zstd),
    compressed("produce, batches of 256 KiB in gzip", Codec::Gzip),
    Load {
        name: "fetch, responses of 1 MiB",
        unit: Unit::CpuSecondsPerGigabyte,
        records: 248,
        value_bytes: 1024,
        codec: Codec::None,
        connections: 4,
        in_flight: 1,
        requests: 2048,
        kind: Kind::Fetch,
    },
    Load {
        name: "produce, one record of 100 B a request",
        unit: Unit::CpuMicrosPerRequest,
        records: 1,
        value_bytes: 100,
        codec: Codec::None,
        connections: 2,
        in_flight: 64,
        requests: 200_000,
        kind: Kind::Produce,
    },
];

impl Load {
    fn batch(&self) -> Batch {
        Batch { records: self.records, value_bytes: self.value_bytes, codec: self.codec }
    }
}

/// Returns the load of batches that hold 256 KiB of records in a codec.
const fn compressed(name: &'static str, codec: Codec) -> Load {
    Load {
        name,
        unit: Unit::CpuSecondsPerGigabyte,
        records: 248,
        value_bytes: 1024,
        codec,
        connections: 2,
        in_flight: 8,
        requests: 1024,
        kind: Kind::Produce,
    }
}

/// One of the two sides of a comparison.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// The broker's binary.
    pub(crate) binary: &'a Path,
    /// The configs of the broker, each as `NAME=VALUE`.
    pub(crate) configs: &'a [String],
}

/// Measures two sides in `rounds` turns and prints a table, for the loads whose name contains `only`.
///
/// The ratio is the second side's over the first's.
///
/// # Errors
/// When a broker does not start, stops responding, or rejects a request.
pub(crate) fn run(sides: [Side<'_>; 2], rounds: usize, only: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("| Load | First | Second | Ratio of the medians of pairs | Requests/s, first and second |");
    println!("|---|---|---|---|---|");
    for load in LOADS.iter().filter(|load| load.name.contains(only)) {
        let brokers = [TestedBroker::start(sides[0])?, TestedBroker::start(sides[1])?];
        let mut turns = Vec::new();
        for round in 0..=rounds {
            let mut pair = [Turn::default(); 2];
            for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                pair[which] = runtime.block_on(brokers[which].turn(load, round))?;
            }
            // The first round warms caches and memory.
            if round > 0 {
                turns.push(pair);
            }
        }
        let costs = |which: usize| median(turns.iter().map(|pair| pair[which].cost));
        let rates = |which: usize| median(turns.iter().map(|pair| pair[which].requests_per_second));
        let ratio = median(turns.iter().map(|pair| pair[1].cost / pair[0].cost));
        let unit = match load.unit {
            Unit::CpuSecondsPerGigabyte => "CPU-s/GB",
            Unit::CpuMicrosPerRequest => "us/request",
        };
        println!(
            "| {} | {:.3} {unit} | {:.3} {unit} | {ratio:.3} | {:.0}, {:.0} |",
            load.name,
            costs(0),
            costs(1),
            rates(0),
            rates(1)
        );
    }
    Ok(())
}

/// The cost of one turn.
#[derive(Clone, Copy, Default)]
struct Turn {
    cost: f64,
    requests_per_second: f64,
}

/// A broker in a separate process, which ends when this is dropped.
struct TestedBroker {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl TestedBroker {
    fn start(side: Side<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(side.binary);
        command.arg("serve").arg("--data-dir").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0"]);
        command.args(["--set", "log.segment.delete.delay.ms=0"]);
        command.args(side.configs.iter().flat_map(|config| ["--set", config]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", side.binary.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("the broker does not listen")?.parse()?;
        Ok(Self { child, address, _folder: folder })
    }

    /// Runs a load once, on a new topic that is deleted afterwards.
    async fn turn(&self, load: &Load, round: usize) -> Result<Turn> {
        let topic = format!("load-{round}");
        let admin = Admin::new(ClientConfig::new(&self.address.to_string()))?;
        let new = NewTopic {
            name: topic.clone(),
            partitions: Some(i32::try_from(load.connections)?),
            replication_factor: None,
            configs: std::iter::once(("file.delete.delay.ms".to_owned(), "0".to_owned())).collect(),
        };
        admin.create_topics(&[new]).await?;
        let partitions = i32::try_from(load.connections)?;
        let mut frames = connections(partitions, |partition| produce_frame(load.batch(), 1, &topic, partition))?;
        if load.kind == Kind::Fetch {
            replay_all(self.address, &frames, 64, 8, Kind::Produce)?;
            frames = connections(partitions, |partition| fetch_frame(&topic, partition, Range::at(0)))?;
        }
        let (computed, begun) = (self.computed()?, Instant::now());
        let count = load.requests / load.connections;
        let bytes = replay_all(self.address, &frames, count, load.in_flight, load.kind)?.bytes;
        let (computed, elapsed) = (self.computed()? - computed, begun.elapsed().as_secs_f64());
        admin.delete_topics(&[topic]).await?;
        let cost = match load.unit {
            Unit::CpuSecondsPerGigabyte => computed / (bytes as f64 / 1e9),
            Unit::CpuMicrosPerRequest => computed * 1e6 / load.requests as f64,
        };
        Ok(Turn { cost, requests_per_second: load.requests as f64 / elapsed })
    }

    /// Returns the seconds of processor time that the broker's threads have used.
    fn computed(&self) -> Result<f64> {
        Ok(process(self.child.id())?.computed)
    }
}

impl Drop for TestedBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
