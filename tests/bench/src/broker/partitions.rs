//! Many partitions: their life, and what it costs to spread the load over them.

use std::time::{Duration, Instant};

use anyhow::Result;
use millstream_record::Codec;

use super::bench::Bench;
use super::figure::{Better, Figure, Line};
use crate::frames::{Batch, produce_frame};
use crate::nodes::{Nodes, served};
use crate::replay::{Kind, replay};
use crate::scale;

/// The partitions that live in one broker.
const MANY: usize = 10_000;

/// The partitions that the load is spread over.
const SPREAD: usize = 5000;

/// About 16 KiB.
const BATCH: Batch = Batch { records: 15, value_bytes: 1024, codec: Codec::None };

/// The batches of a turn, and those in flight on the one connection.
const BATCHES: usize = 40_000;
const IN_FLIGHT: usize = 8;

/// Measures batches to one partition, and the same to many.
pub(super) async fn spread(bench: &mut Bench) -> Result<Vec<Figure>> {
    let (count, many) = (bench.part(BATCHES), bench.part(SPREAD));
    let topic = "spread";
    let frames: Vec<_> = (0..many).map(|one| produce_frame(BATCH, 1, topic, one as i32)).collect::<Result<_>>()?;
    for nodes in bench.warm().await? {
        nodes.create(topic, i32::try_from(many)?).await?;
        // Every partition has its files open.
        replay(nodes.address(1), &frames, many, IN_FLIGHT, Kind::Produce)?;
    }
    let measured = bench
        .turns(async |nodes, turn| {
            let single = format!("single-{turn}");
            nodes.create(&single, 1).await?;
            // As many frames as for the other side, so that the load finds as much of them in its caches.
            let one = vec![produce_frame(BATCH, 1, &single, 0)?; many];
            let address = nodes.address(1);
            let begun = Instant::now();
            let bytes = replay(address, &one, count, IN_FLIGHT, Kind::Produce)?.bytes as f64;
            let one_partition = bytes / 1e6 / begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            let bytes = replay(address, &frames, count, IN_FLIGHT, Kind::Produce)?.bytes as f64;
            let many_partitions = bytes / 1e6 / begun.elapsed().as_secs_f64();
            nodes.delete(&single).await?;
            Ok([100.0 * many_partitions / one_partition, many_partitions])
        })
        .await?;
    for nodes in bench.warm().await? {
        nodes.delete(topic).await?;
    }
    let share = Line {
        name: "5,000 partitions: share of one partition's MB/s, %",
        unit: "%",
        better: Better::More,
        goal: "70 %",
    };
    let speed = Line { name: "5,000 partitions: MB/s", unit: "MB/s", better: Better::More, goal: "" };
    let note = "plain batches of 16 KiB, one connection, 8 in flight; all files had been opened";
    Ok(vec![measured.figure(0, share, note), measured.figure(1, speed, "")])
}

/// Measures the creation of many partitions, a stop and a start, and a start after a kill.
pub(super) async fn many(bench: &mut Bench) -> Result<Vec<Figure>> {
    let many = i32::try_from(bench.part(MANY))?;
    let mut turns = bench.start(&[]).await?.once();
    let measured = turns
        .run(async |nodes, _| {
            let begun = Instant::now();
            scale::create(nodes.address(1), many)?;
            all_served(nodes, many).await?;
            let created = begun.elapsed();
            scale::write_to_all(nodes.address(1), many)?;
            let begun = Instant::now();
            nodes.terminate(1)?;
            nodes.stopped(1).await?;
            let stopped = begun.elapsed();
            let started = start(nodes, many)?;
            all_served(nodes, many).await?;
            scale::write_to_all(nodes.address(1), many)?;
            nodes.kill(1)?;
            let recovered = start(nodes, many)?;
            Ok([created, stopped, started, recovered].map(|time| time.as_secs_f64()))
        })
        .await?;
    let line = |name, goal| Line { name, unit: "s", better: Better::Less, goal };
    let note = "requests for 2,500 partitions each, until all are served; one turn";
    Ok(vec![
        measured.figure(0, line("10,000 partitions: create, s", "1.5"), note),
        measured.figure(1, line("10,000 partitions: stop, s", "3"), "with a record in each"),
        measured.figure(
            2,
            line("10,000 partitions: start, s", "0.25"),
            "until a record of the last partition is acknowledged",
        ),
        measured.figure(
            3,
            line("10,000 partitions: start after kill -9, s", "2"),
            "another record in each since the last start",
        ),
    ])
}

/// Waits until all partitions are served.
async fn all_served(nodes: &Nodes, many: i32) -> Result<()> {
    let admin = nodes.admin()?;
    for (topic, count) in scale::topics(many) {
        served(&admin, &topic, count).await?;
    }
    Ok(())
}

/// Starts a node, and returns the time until a record of the last partition is acknowledged.
fn start(nodes: &mut Nodes, many: i32) -> Result<Duration> {
    let (topic, count) = scale::topics(many).last().unwrap_or_default();
    let begun = Instant::now();
    nodes.launch(1)?;
    super::start::acknowledged(nodes.address(1), &topic, count - 1)?;
    Ok(begun.elapsed())
}
