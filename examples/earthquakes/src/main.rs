//! The main job of Millstream on real input: a week of earthquakes through a broker, with stages of our own.
//! `cargo xtask demo` builds and runs it. Every count is checked against the file.

mod events;
mod live;
mod server;
mod stages;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millstream_client::{
    Admin, ClientConfig, Consumer, ConsumerConfig, ConsumerRecord, NewTopic, OffsetReset, Producer, ProducerConfig,
    ProducerRecord,
};
use millstream_stage::{Kind, Library, Stage};

use crate::events::Event;
use crate::server::Server;

const TOPIC: &str = "quakes";

/// Boxes of degrees (west, south, east, north) for the first four partitions; the rest of the world is the fifth.
const REGIONS: [(&str, [f64; 4]); 4] = [
    ("Alaska", [-180.0, 51.0, -129.0, 72.0]),
    ("California", [-125.5, 32.0, -114.0, 42.5]),
    ("Hawaii", [-161.0, 18.0, -154.0, 23.0]),
    ("Caribbean", [-68.5, 16.5, -63.0, 20.0]),
];

#[derive(Parser)]
#[command(about = "A week of earthquakes through a broker, with stages of our own")]
struct Arguments {
    /// The millstream binary
    #[arg(long, value_name = "FILE")]
    millstream: PathBuf,
    /// The folder for built plug-ins and the data of the broker
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Keep the broker running, with its data
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let work = &arguments.work;
    std::fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    let data = tempfile::Builder::new().prefix("data-").tempdir_in(work)?;
    let server = Server::start(&arguments.millstream, data.path(), &work.join("broker.log"))?;
    let bootstrap = server.bootstrap();
    println!("a broker listens on {bootstrap}");

    let cache = work.join("compiled");
    let library = stages::library(&cache)?;
    let events = Arc::new(events::all()?);
    produce(bootstrap, &library, work, &events).await?;
    for magnitude in [4.5, 2.5] {
        strong(bootstrap, &library, &events, magnitude).await?;
    }
    println!("\nreplace a filter while records flow:");
    live::run(bootstrap, &arguments.millstream, work, &cache, &events).await?;
    with_other_clients(bootstrap, &events)?;

    println!("\nall counts match the file; {:.1} s", start.elapsed().as_secs_f64());
    if arguments.keep {
        let bootstrap = bootstrap.to_owned();
        let (folder, process) = (data.keep(), server.keep());
        println!(
            "the broker keeps running on {bootstrap}, with its data in {}; stop it with: kill {process}",
            folder.display()
        );
    }
    Ok(())
}

/// Produces all events: checked by the serializer, in the partition of their region, compressed.
async fn produce(bootstrap: &str, library: &Library, work: &Path, events: &[Event]) -> Result<()> {
    let partitions = REGIONS.len() + 1;
    let admin = Admin::new(ClientConfig::new(bootstrap))?;
    admin
        .create_topics(&[NewTopic {
            name: TOPIC.to_owned(),
            partitions: Some(i32::try_from(partitions)?),
            ..NewTopic::default()
        }])
        .await?;
    let boxes = serde_json::to_string(&REGIONS.map(|(_, degrees)| degrees))?;
    let region = format!("{}{{\"boxes\":{boxes}}}", stages::build_region(work)?);
    let serializer = stages::stage(library, "json", Kind::Serializer)?;
    let partitioner = stages::stage(library, &region, Kind::Partitioner)?;
    let compressor = stages::stage(library, "zstd", Kind::Compressor)?;
    let producer = Producer::builder(ProducerConfig::new(bootstrap))
        .serializer(Arc::clone(&serializer))
        .partitioner(Arc::clone(&partitioner))
        .compressor(Arc::clone(&compressor))
        .build()?;
    let mut deliveries = Vec::with_capacity(events.len());
    for event in events {
        deliveries.push(producer.send(ProducerRecord::new(TOPIC).value(event.json.as_bytes())).await?);
    }
    let mut by_partition = vec![0; partitions];
    for delivery in deliveries {
        by_partition[usize::try_from(delivery.await?.partition)?] += 1;
    }
    producer.close(Duration::from_secs(10)).await?;

    println!("\nproduced {} events, through json, region and zstd:", events.len());
    let names = REGIONS.iter().map(|(name, _)| *name).chain(["elsewhere"]);
    let spread: Vec<String> = names.zip(&by_partition).map(|(name, count)| format!("{name} {count}")).collect();
    println!("  {}", spread.join(", "));
    for (partition, count) in by_partition.into_iter().enumerate() {
        let wanted = events.iter().filter(|event| event.partition() == partition).count();
        ensure!(count == wanted, "partition {partition} has {count} events instead of {wanted}");
    }
    [serializer, partitioner, compressor].iter().for_each(|stage| stages::print_cost(stage));
    Ok(())
}

impl Event {
    /// Returns the partition of the event, computed natively to check the one from the sandbox.
    fn partition(&self) -> usize {
        let inside = |[west, south, east, north]: [f64; 4]| {
            self.lon >= west && self.lon < east && self.lat >= south && self.lat < north
        };
        REGIONS.iter().position(|(_, degrees)| inside(*degrees)).unwrap_or(REGIONS.len())
    }
}

/// Reads the events of at least a magnitude.
async fn strong(bootstrap: &str, library: &Library, events: &[Event], magnitude: f64) -> Result<()> {
    let spec = format!(r#"json-compare{{"path":"/mag","op":">=","value":{magnitude}}}"#);
    let filter = stages::stage(library, &spec, Kind::Filter)?;
    let records = read_all(bootstrap, &filter).await?;
    let read = records.iter().map(|record| record.value.as_deref().unwrap_or_default());
    let wanted = events.iter().filter(|event| event.magnitude >= magnitude).map(|event| event.json);
    let count = events::check(&spec, read, wanted)?;
    println!("\nread with {spec}: {count} events");
    stages::print_cost(&filter);
    Ok(())
}

/// Reads the topic from its start to its current end, through a filter.
async fn read_all(bootstrap: &str, filter: &Arc<Stage>) -> Result<Vec<ConsumerRecord>> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).filter(Arc::clone(filter)).build()?;
    let partitions = consumer.partitions(TOPIC).await?;
    let ends = consumer.end_offsets(&partitions).await?;
    consumer.assign(partitions)?;
    let mut records = Vec::new();
    while ends.iter().any(|(partition, end)| consumer.position(partition).unwrap_or(0) < *end) {
        records.extend(consumer.poll(Duration::from_millis(100)).await?);
    }
    consumer.close().await?;
    Ok(records)
}

/// Reads the topic with another client, if one is installed.
fn with_other_clients(bootstrap: &str, events: &[Event]) -> Result<()> {
    let kcat = Command::new("kcat").args(["-q", "-b", bootstrap, "-C", "-t", TOPIC, "-e"]).output();
    let (name, output) = match kcat {
        Ok(output) => ("kcat", output),
        Err(_) => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/read.py");
            match Command::new("python3").args([script, bootstrap, TOPIC]).output() {
                // The script exits with 3 if it cannot import a client.
                Ok(output) if output.status.code() != Some(3) => ("Python", output),
                _ => {
                    println!("\nneither kcat nor a Python client is installed to read the topic with");
                    return Ok(());
                }
            }
        }
    };
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let read = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let count = events::check(name, read, events.iter().map(|event| event.json))?;
    println!("\nread the same topic with {name}: {count} events");
    Ok(())
}
