//! A program reads a topic, changes the records by a stage and writes another topic, exactly once. It is killed again
//! and again, and so are the leaders of its partitions. Every record is counted.

mod copier;
#[path = "../../failover/src/nodes.rs"]
mod nodes;
mod orders;
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use millstream_client::{Admin, ClientConfig, IsolationLevel, NewTopic, PartitionDescription, TopicPartition};
use millstream_sdk_build::Options;
use tokio::time::{sleep, timeout};

use crate::nodes::Node;
use crate::orders::Feeder;
use crate::program::Program;

const SOURCE: &str = "orders";
const SINK: &str = "orders-in-cents";
const GROUP: &str = "copiers";
const PARTITIONS: i32 = 3;
const NODES: i32 = 3;

/// The limit of each wait. A machine that is not busy needs a small part of it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The interval of the looks at the cluster.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// The program is killed after at most that many transactions, and in the middle of one.
const TRANSACTIONS_MAX: u32 = 5;
const MIDDLE_MAX_MS: u64 = 40;

#[derive(Parser)]
#[command(about = "A program that copies records exactly once while it and its brokers are killed")]
struct Arguments {
    /// How often the program is killed
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u32,
    /// How often the leader of a partition is killed
    #[arg(long, value_name = "N", default_value_t = 5)]
    leader_kills: u32,
    /// Copies, as the program that is killed
    #[arg(long, value_name = "HOST:PORT", hide = true, requires = "stage")]
    copy: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    stage: Option<PathBuf>,
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
    if let (Some(bootstrap), Some(stage)) = (&arguments.copy, &arguments.stage) {
        return copier::copy(bootstrap, stage).await;
    }
    let work = tempfile::tempdir()?;
    let done = exactly_once(arguments, work.path()).await;
    if done.is_err() {
        nodes::print_logs(1..=NODES, work.path());
        eprintln!("the log of the copier:\n{}", std::fs::read_to_string(log(work.path())).unwrap_or_default());
    }
    done
}

fn log(work: &Path) -> PathBuf {
    work.join("copier.log")
}

async fn exactly_once(arguments: &Arguments, work: &Path) -> Result<()> {
    let start = Instant::now();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cents");
    let options = Options { output: Some(work.join("cents.wasm")), ..Options::default() };
    let stage = millstream_sdk_build::build(&folder, &options).context("cannot build the serializer")?.path;
    let mut nodes = vec![Node::start(1, None, work)?];
    for id in 2..=NODES {
        nodes.push(Node::start(id, Some(&nodes[0].nodes), work)?);
    }
    let bootstrap = nodes.iter().map(|node| node.clients.as_str()).collect::<Vec<_>>().join(",");
    let admin = Admin::new(ClientConfig::new(&bootstrap))?;
    until("all nodes are in the cluster", async || {
        let alive = admin.describe_cluster().await?.brokers.into_iter().filter(|broker| !broker.fenced).count();
        Ok((i32::try_from(alive)? == NODES).then_some(()))
    })
    .await?;
    for name in [SOURCE, SINK] {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(PARTITIONS),
            replication_factor: Some(3),
            configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        };
        admin.create_topics(&[topic]).await?;
    }
    println!("three nodes form a cluster: {bootstrap}");
    let feeder = Feeder::start(&bootstrap);
    let mut program = Program::start(&bootstrap, &stage, &log(work))?;
    println!("orders are written to {SOURCE}; a program changes them by a stage and copies them to {SINK}\n");

    let steps = arguments.kills.max(arguments.leader_kills);
    for step in 0..steps {
        // The kills of leaders are spread over those of the program.
        let kills_leader = is_due(step, steps, arguments.leader_kills);
        if kills_leader {
            kill_leader(&admin, &mut nodes, step as i32 % PARTITIONS, work).await?;
        }
        if is_due(step, steps, arguments.kills) {
            for _ in 0..fastrand::u32(1..=TRANSACTIONS_MAX) {
                committed(&mut program).await?;
            }
            sleep(Duration::from_millis(fastrand::u64(0..=MIDDLE_MAX_MS))).await;
            program.kill_and_restart()?;
            println!("kill -9: the program is killed and started again ({} of {})", step + 1, steps);
        }
    }
    committed(&mut program).await?;
    let count = feeder.stop().await?;
    println!("\n{count} orders are written; the program copies the rest");
    check(&bootstrap, &admin, count).await?;
    println!("{:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Returns whether one of `count` events happens at this step, when they are spread evenly.
fn is_due(step: u32, steps: u32, count: u32) -> bool {
    (step + 1) * count / steps > step * count / steps
}

async fn committed(program: &mut Program) -> Result<u64> {
    timeout(PATIENCE, program.committed()).await.context("the program commits nothing")?
}

/// Kills the leader of a partition of the sink, waits for the next one, and starts the node again.
async fn kill_leader(admin: &Admin, nodes: &mut [Node], partition: i32, work: &Path) -> Result<()> {
    let of = async || {
        let topics = admin.describe_topics(&[SINK.to_owned()]).await?;
        let partitions = topics.into_iter().next().context("the topic exists")?.partitions;
        anyhow::Ok(partitions)
    };
    let leader_of = |partitions: &[PartitionDescription]| {
        partitions.iter().find(|one| one.partition == partition).and_then(|one| one.leader)
    };
    let leader = leader_of(&of().await?).context("the partition has a leader")?;
    let index = usize::try_from(leader - 1)?;
    let victim = nodes.get_mut(index).context("it is one of ours")?;
    victim.kill()?;
    println!("kill -9 {}: node {leader}, the leader of {SINK}-{partition}, is gone", victim.pid());
    until("another node leads", async || Ok(leader_of(&of().await?).filter(|next| *next != leader))).await?;
    let other = nodes[(index + 1) % nodes.len()].nodes.clone();
    nodes[index].restart(&other, work)?;
    until("the node is in sync", async || {
        let in_sync = |one: &PartitionDescription| one.in_sync.len() == one.replicas.len();
        Ok(of().await?.iter().all(in_sync).then_some(()))
    })
    .await
}

/// Waits until all orders are copied, and compares the copies with what they must be.
async fn check(bootstrap: &str, admin: &Admin, count: u64) -> Result<()> {
    let source = admin.describe_topics(&[SOURCE.to_owned()]).await?.into_iter().next().context("the topic exists")?;
    let partitions: Vec<_> = source.partitions.iter().map(|one| TopicPartition::new(SOURCE, one.partition)).collect();
    let ends = admin.list_offsets(&partitions.iter().map(|one| (one.clone(), -1)).collect()).await?;
    until("the program has copied everything", async || {
        let committed = admin.list_group_offsets(GROUP, &partitions).await?;
        let is_done =
            |one: &TopicPartition| committed.get(one).map_or(0, |committed| committed.offset) >= ends[one].offset;
        Ok(partitions.iter().all(is_done).then_some(()))
    })
    .await?;
    let copies = orders::read(bootstrap, SINK, IsolationLevel::ReadCommitted).await?;
    let stored = orders::read(bootstrap, SINK, IsolationLevel::ReadUncommitted).await?;
    let expected = orders::expected(count);
    let all = |values: &BTreeMap<i32, Vec<String>>| values.values().map(Vec::len).sum::<usize>();
    let mut distinct: Vec<&String> = copies.values().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let (copied, written) = (all(&copies), all(&stored));
    let lost = all(&expected).saturating_sub(distinct.len());
    println!("{copied} copies are committed: {lost} lost, {} twice", copied - distinct.len());
    println!("{written} copies were written, {} of them in transactions that were aborted", written - copied);
    ensure!(copies == expected, "the copies are not the orders, each once and in order");
    println!("each order was copied exactly once, in order, and changed by the stage");
    Ok(())
}

/// Repeats `look` until it returns something. A lookup that fails while a leader is gone is repeated too.
async fn until<T>(what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if begun.elapsed() >= PATIENCE {
            bail!("{} s have passed, and it is not so that {what}{last}", PATIENCE.as_secs());
        }
        sleep(LOOK_AFTER).await;
    }
}
