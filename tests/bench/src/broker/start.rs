//! The start of a process, until it acknowledges a record, and the memory that it has then.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bench::{Bench, SMALL};
use super::figure::{Better, Figure, Line};
use crate::frames::produce_frame;
use crate::process::{Memory, memory};
use crate::replay::{Kind, check, connect, read_response};

/// How long a broker may take. A JVM with many partitions is slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_micros(200);

/// How long a broker is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(2);

const TOPIC: &str = "first";

/// Measures the start with one topic, and the resident memory.
pub(super) async fn measure(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut turns = bench.start(&[]).await?;
    for nodes in &turns.sides {
        nodes.create(TOPIC, 1).await?;
    }
    let measured = turns
        .run(async |nodes, _| {
            nodes.terminate(1)?;
            nodes.stopped(1).await?;
            let begun = Instant::now();
            nodes.launch(1)?;
            acknowledged(nodes.address(1), TOPIC, 0)?;
            let started = begun.elapsed();
            tokio::time::sleep(IDLE).await;
            let idle = memory(nodes.process_id(1)?, Memory::Resident)?;
            Ok([started.as_secs_f64() * 1000.0, idle as f64 / f64::from(1 << 20)])
        })
        .await?;
    drop(turns);
    let loaded = bench.turns(async |nodes, _| Ok([nodes.resident()? as f64 / f64::from(1 << 20)])).await?;
    let line = |name, unit, goal| Line { name, unit, better: Better::Less, goal };
    Ok(vec![
        measured.figure(
            0,
            line("start to first acknowledged produce: ms", "ms", "5"),
            "a folder with one topic; a producer that tries to connect every 0.2 ms",
        ),
        measured.figure(1, line("resident memory, idle: MiB", "MiB", "8"), "2 s after that start"),
        loaded.figure(
            0,
            line("resident memory, loaded: MiB", "MiB", "15"),
            "after the warm-up and the rows that ran before; Kafka's heap may grow to 1 GiB",
        ),
    ])
}

/// Tries to produce until a record is acknowledged.
///
/// # Errors
/// That takes too long.
pub(super) fn acknowledged(address: SocketAddr, topic: &str, partition: i32) -> Result<()> {
    let frame = produce_frame(SMALL, 1, topic, partition)?;
    let begun = Instant::now();
    while produce(address, &frame).is_err() {
        ensure!(begun.elapsed() < PATIENCE, "no record is acknowledged");
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn produce(address: SocketAddr, frame: &[u8]) -> Result<()> {
    let mut stream = connect(address)?;
    std::io::Write::write_all(&mut stream, frame)?;
    let mut response = vec![0; 4096];
    let length = read_response(&mut stream, &mut response)?;
    check(&response[..length], Kind::Produce)
}
