//! Transactions: how many a second, what it costs to read only what was committed, and what the broker keeps of them.

mod memory;
mod reads;

use std::time::{Duration, Instant};

use anyhow::Result;
use millstream_client::{Producer, ProducerConfig, ProducerRecord};

use super::bench::Bench;
use super::figure::{Better, Figure, Line, number};
use crate::measure::median;
use crate::nodes::Nodes;

pub(super) use memory::measure as memory;
pub(super) use reads::measure as read_committed;

/// The records of a transaction.
const RECORDS: usize = 10;

/// The partitions that many producers write to.
const PARTITIONS: i32 = 8;

/// How long the producers work in a turn, and how long before.
const TURN: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(4);

/// Measures one producer, which waits for each commit.
pub(super) async fn one(bench: &mut Bench) -> Result<Vec<Figure>> {
    let line = Line { name: "one producer: transactions/s", unit: "/s", better: Better::More, goal: "3 x (5 x)" };
    commits(bench, line, 1).await
}

/// Measures 64 producers, each of which waits for each commit.
pub(super) async fn many(bench: &mut Bench) -> Result<Vec<Figure>> {
    let line = Line { name: "64 producers: transactions/s", unit: "/s", better: Better::More, goal: "5 x (10 x)" };
    commits(bench, line, 64).await
}

async fn commits(bench: &mut Bench, line: Line, producers: usize) -> Result<Vec<Figure>> {
    let [time, warm_up] =
        [TURN, WARM_UP].map(|time| Duration::from_millis(bench.part(time.as_millis() as usize) as u64));
    let measured = bench
        .turns(async |nodes, turn| {
            let topic = format!("transactions-{producers}-{turn}");
            nodes.create(&topic, PARTITIONS).await?;
            let mut tasks = Vec::new();
            for place in 0..producers {
                let id = format!("{topic}-{place}");
                let producer = transactional(nodes, &id, &[]).await?;
                tasks.push((producer, topic.clone(), place as i32 % PARTITIONS));
            }
            // The computed time is that of all transactions, with those of the warm-up.
            let (computed, begun) = (nodes.computed()?, Instant::now());
            let tasks = tasks.into_iter().map(|(producer, topic, partition)| {
                tokio::spawn(commit_until(producer, topic, partition, begun + warm_up, begun + warm_up + time))
            });
            let (mut counted, mut all) = (0, 0);
            for task in tasks.collect::<Vec<_>>() {
                let (one, more) = task.await??;
                (counted, all) = (counted + one, all + one + more);
            }
            let computed = nodes.computed()? - computed;
            nodes.delete(&topic).await?;
            Ok([counted as f64 / time.as_secs_f64(), computed * 1e6 / all.max(1) as f64])
        })
        .await?;
    let cost = |turns: Vec<f64>| number(median(turns.into_iter()));
    let mut note = format!(
        "10 records of 100 B, commit awaited; our client on both sides; ours with fsync; CPU-us each {}",
        cost(measured.ours(1))
    );
    if !measured.kafka(1).is_empty() {
        note.push_str(&format!(", Kafka {}", cost(measured.kafka(1))));
    }
    Ok(vec![measured.figure(0, line, note)])
}

/// Commits transactions until the end. Returns how many were committed from the start on, and how many before.
async fn commit_until(
    producer: Producer,
    topic: String,
    partition: i32,
    start: Instant,
    end: Instant,
) -> Result<(usize, usize)> {
    let (mut counted, mut before) = (0, 0);
    while Instant::now() < end {
        producer.begin_transaction().await?;
        for _ in 0..RECORDS {
            producer.send_and_forget(ProducerRecord::new(&topic).partition(partition).value(&[b'v'; 100])).await?;
        }
        producer.commit_transaction().await?;
        let now = Instant::now();
        if now < start {
            before += 1;
        } else if now < end {
            counted += 1;
        }
    }
    producer.close(Duration::from_secs(10)).await?;
    Ok((counted, before))
}

/// Returns a producer that can begin a transaction.
async fn transactional(nodes: &Nodes, id: &str, configs: &[(&str, &str)]) -> Result<Producer> {
    let mut config = ProducerConfig::new(&nodes.bootstrap());
    config.set("transactional.id", id)?;
    configs.iter().try_for_each(|(key, value)| config.set(key, value))?;
    let producer = Producer::builder(config).build()?;
    producer.init_transactions().await?;
    Ok(producer)
}
