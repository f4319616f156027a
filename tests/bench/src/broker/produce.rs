//! Produce requests that are encoded once and sent again and again.

use std::time::Instant;

use anyhow::Result;

use super::bench::{Bench, LARGE, SMALL};
use super::figure::{Better, Figure, Line, number};
use crate::disk::fdatasyncs;
use crate::frames::{Batch, connections, produce_frame};
use crate::measure::median;
use crate::nodes::Nodes;
use crate::pace::{milliseconds, percentile};
use crate::replay::{Kind, Replayed, replay_all};

/// The connections of the loads without fsync, each with a partition of its own.
const CONNECTIONS: i32 = 2;

/// The connections of the load with fsync, all to one partition, and the requests in flight on each.
const DURABLE_CONNECTIONS: usize = 4;
const DURABLE_IN_FLIGHT: usize = 16;

/// What a turn has cost the broker.
struct Turn {
    computed: f64,
    seconds: f64,
    replayed: Replayed,
}

/// Runs a load, and returns what it has cost.
fn run(nodes: &Nodes, connections: &[Vec<Vec<u8>>], count: usize, in_flight: usize) -> Result<Turn> {
    let (computed, begun) = (nodes.computed()?, Instant::now());
    let replayed = replay_all(nodes.address(1), connections, count, in_flight, Kind::Produce)?;
    Ok(Turn { computed: nodes.computed()? - computed, seconds: begun.elapsed().as_secs_f64(), replayed })
}

/// Runs a load with acks=1 on a topic of its own.
async fn leader_only(nodes: &Nodes, topic: &str, batch: Batch, count: usize, in_flight: usize) -> Result<Turn> {
    nodes.create(topic, CONNECTIONS).await?;
    let connections = connections(CONNECTIONS, |partition| produce_frame(batch, 1, topic, partition))?;
    let turn = run(nodes, &connections, count / connections.len(), in_flight)?;
    nodes.delete(topic).await?;
    Ok(turn)
}

/// Measures batches of 256 KiB.
pub(super) async fn replayed(bench: &mut Bench) -> Result<Vec<Figure>> {
    let count = bench.part(8192);
    let measured = bench
        .turns(async |nodes, turn| {
            let turn = leader_only(nodes, &format!("replayed-{turn}"), LARGE, count, 8).await?;
            let gigabytes = turn.replayed.bytes as f64 / 1e9;
            Ok([turn.computed / gigabytes, gigabytes / turn.seconds])
        })
        .await?;
    let line = Line {
        name: "replayed produce, batches of 256 KiB: CPU-s/GB",
        unit: "CPU-s/GB",
        better: Better::Less,
        goal: "0.27, 4 x (0.20)",
    };
    let speed = |turns: Vec<f64>| number(median(turns.into_iter()));
    let mut note = format!(
        "256 records of 1 KiB, acks=1, 2 connections, 8 in flight; GB/s with the load on the same cores {}",
        speed(measured.ours(1))
    );
    if !measured.kafka(1).is_empty() {
        note.push_str(&format!(", Kafka {}", speed(measured.kafka(1))));
    }
    Ok(vec![measured.figure(0, line, note)])
}

/// Measures requests with one record.
pub(super) async fn small(bench: &mut Bench) -> Result<Vec<Figure>> {
    let count = bench.part(400_000);
    let measured = bench
        .turns(async |nodes, turn| {
            let turn = leader_only(nodes, &format!("small-{turn}"), SMALL, count, 64).await?;
            Ok([count as f64 / turn.seconds, turn.computed * 1e6 / count as f64])
        })
        .await?;
    let rate = Line {
        name: "one record a request: requests/s",
        unit: "requests/s",
        better: Better::More,
        goal: "300,000 (400,000)",
    };
    let cost = Line { name: "one record a request: CPU-us", unit: "us", better: Better::Less, goal: "2.2" };
    let note = "100 B, acks=1, 2 connections, 64 in flight, half of them in one write";
    Ok(vec![measured.figure(0, rate, note), measured.figure(1, cost, "")])
}

/// Measures acknowledgements that wait for the disk.
pub(super) async fn durable(bench: &mut Bench) -> Result<Vec<Figure>> {
    let count = bench.part(40_000);
    let measured = bench
        .turns(async |nodes, turn| {
            let topic = format!("durable-{turn}");
            nodes.create_with(&topic, 1, &[("flush.messages", "1")]).await?;
            let connections = vec![vec![produce_frame(SMALL, -1, &topic, 0)?]; DURABLE_CONNECTIONS];
            let turn = run(nodes, &connections, count / DURABLE_CONNECTIONS, DURABLE_IN_FLIGHT)?;
            nodes.delete(&topic).await?;
            let latency = |share| turn.replayed.latencies.value_at_quantile(share) as f64 / 1000.0;
            Ok([count as f64 / turn.seconds, latency(0.99), latency(0.5)])
        })
        .await?;
    let disk = fdatasyncs(200)?;
    let [p50, p99] = [0.5, 0.99].map(|share| number(milliseconds(percentile(&disk, share))));
    let rate =
        Line { name: "durable acknowledgements: a second", unit: "/s", better: Better::More, goal: "100,000, 15 x" };
    let latency = Line {
        name: "durable acknowledgements: p99, ms",
        unit: "ms",
        better: Better::Less,
        goal: "1 ms over the raw fdatasync",
    };
    let note = "100 B, acks=all, flush.messages=1, 64 in flight on 4 connections to one partition";
    let disk = format!(
        "p50 {}; an fdatasync of 200 B alone: p50 {p50}, p99 {p99} ms",
        number(median(measured.ours(2).into_iter()))
    );
    Ok(vec![measured.figure(0, rate, note), measured.figure(1, latency, disk)])
}
