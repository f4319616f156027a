//! A cluster of three nodes loses the leader of a partition while producers and a group work. Every record is counted.

mod load;
mod nodes;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millstream_client::{Admin, ClientConfig, NewTopic, PartitionDescription};
use tokio::time::sleep;

use crate::load::{Acknowledged, Counts, Group, Producers};
use crate::nodes::Node;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;
const NODES: i32 = 3;
const PRODUCERS: usize = 3;
const MEMBERS: usize = 2;

/// How many records are acknowledged before the kill, without the dead node, and after its return.
const RECORDS: usize = 1500;

/// The limit of each wait. A machine that is not busy needs a small part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The interval of the looks at the cluster.
const LOOK_AFTER: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let work = tempfile::tempdir()?;
    let done = failover(work.path()).await;
    if done.is_err() {
        nodes::print_logs(1..=NODES, work.path());
    }
    done
}

async fn failover(work: &Path) -> Result<()> {
    let start = Instant::now();
    let mut nodes = vec![Node::start(1, None, work)?];
    for id in 2..=NODES {
        nodes.push(Node::start(id, Some(&nodes[0].nodes), work)?);
    }
    let addresses: Vec<&str> = nodes.iter().map(|node| node.clients.as_str()).collect();
    let bootstrap = addresses.join(",");
    let admin = Admin::new(ClientConfig::new(&bootstrap))?;
    all_alive(&admin).await?;
    println!("three nodes form a cluster: {bootstrap}");

    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(PARTITIONS),
        replication_factor: Some(3),
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
    };
    admin.create_topics(&[topic]).await?;
    println!("the topic {TOPIC} has {PARTITIONS} partitions with a copy on each node; two copies make a write durable");
    let (producers, group) = (Producers::start(&bootstrap, PRODUCERS), Group::start(&bootstrap, MEMBERS));
    println!("{PRODUCERS} idempotent producers send with acks=all; a group of {MEMBERS} consumers reads");
    until_acknowledged(&producers, RECORDS).await?;

    let victim = kill_leader(&admin, &mut nodes, &producers).await?;
    let without = producers.acknowledged() + RECORDS;
    until_acknowledged(&producers, without).await?;
    println!("{RECORDS} more records are acknowledged by the two nodes that are left");
    come_back(&admin, &mut nodes, victim, work).await?;
    let after = producers.acknowledged() + RECORDS;
    until_acknowledged(&producers, after).await?;

    let acknowledged = producers.stop().await?;
    let gap = acknowledged.iter().map(|one| one.longest_gap).max().unwrap_or_default();
    let total = acknowledged.iter().map(|one| one.values.len()).sum::<usize>();
    println!("\nthe longest gap between two acknowledgements of a producer: {} ms", gap.as_millis());
    until("the group has read everything", async || Ok((group.read() >= total).then_some(()))).await?;
    check(&acknowledged, &load::read_back(&bootstrap).await?, &group.stop().await?)?;
    println!("no producer and no consumer saw an error; {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Kills the leader of the first partition, and waits for the next one. Returns the id of the node.
async fn kill_leader(admin: &Admin, nodes: &mut [Node], producers: &Producers) -> Result<i32> {
    let leader = partitions(admin).await?[0].leader.context("the partition has a leader")?;
    let also = if admin.describe_cluster().await?.controller == Some(leader) { ", and is the controller" } else { "" };
    let acknowledged = producers.acknowledged();
    println!("\n{acknowledged} records are acknowledged; node {leader} leads {TOPIC}-0{also}");
    let victim = nodes.get_mut(index(leader)?).context("it is one of ours")?;
    victim.kill()?;
    let killed = Instant::now();
    println!("kill -9 {}: node {leader} is gone", victim.pid());
    let next = until("another node leads", async || {
        let next = partitions(admin).await?[0].leader;
        Ok(next.filter(|next| *next != leader))
    });
    let next = next.await?;
    println!("node {next} leads {TOPIC}-0 now, seen {} ms after the kill", killed.elapsed().as_millis());
    Ok(leader)
}

/// Starts a node again, and waits until all its copies are complete.
async fn come_back(admin: &Admin, nodes: &mut [Node], id: i32, work: &Path) -> Result<()> {
    let index = index(id)?;
    let other = nodes[(index + 1) % nodes.len()].nodes.clone();
    let started = Instant::now();
    nodes[index].restart(&other, work)?;
    until("the node is in sync", async || {
        let in_sync = |one: &PartitionDescription| one.in_sync.len() == one.replicas.len();
        Ok(partitions(admin).await?.iter().all(in_sync).then_some(()))
    })
    .await?;
    println!("node {id} is started again, and has copied what it missed after {} ms", started.elapsed().as_millis());
    Ok(())
}

/// Compares what was read with what was acknowledged.
fn check(acknowledged: &[Acknowledged], read: &Counts, by_group: &Counts) -> Result<()> {
    let values = || acknowledged.iter().flat_map(|one| &one.values);
    let lost = values().filter(|value| !read.contains_key(*value)).count();
    let twice = read.values().filter(|count| **count > 1).count();
    let missed = values().filter(|value| !by_group.contains_key(*value)).count();
    let again = by_group.values().sum::<usize>() - by_group.len();
    println!("{} records are acknowledged and {} are stored: {lost} lost, {twice} twice", values().count(), read.len());
    println!("the group has read {}: {missed} missed, {again} delivered again", by_group.len());
    ensure!(lost == 0 && twice == 0, "the cluster has lost or repeated records");
    ensure!(read.len() == values().count(), "there are records that no producer has sent");
    ensure!(missed == 0, "the group has missed records");
    Ok(())
}

async fn partitions(admin: &Admin) -> Result<Vec<PartitionDescription>> {
    let topics = admin.describe_topics(&[TOPIC.to_owned()]).await?;
    Ok(topics.into_iter().next().context("the topic exists")?.partitions)
}

async fn all_alive(admin: &Admin) -> Result<()> {
    until("all nodes are in the cluster", async || {
        let alive = admin.describe_cluster().await?.brokers.into_iter().filter(|broker| !broker.fenced).count();
        Ok((i32::try_from(alive)? == NODES).then_some(()))
    })
    .await
}

async fn until_acknowledged(producers: &Producers, count: usize) -> Result<()> {
    until("records are acknowledged", async || Ok((producers.acknowledged() >= count).then_some(()))).await
}

/// Waits until a look at the cluster returns something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() >= PATIENCE {
            bail!("{} s have passed, and it is not so that {what}", PATIENCE.as_secs());
        }
        sleep(LOOK_AFTER).await;
    }
}

/// Returns the index of the node with this id.
fn index(id: i32) -> Result<usize> {
    Ok(usize::try_from(id - 1)?)
}
