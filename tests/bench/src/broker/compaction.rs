//! Compaction of 1 GB with a million keys.
//!
//! The records are written to a topic that is not compacted. Then its policy changes, and the cleaner begins. It is
//! done when its checkpoint names the start of the active segment, which no cleaner touches.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use millstream_record::{BatchBuilder, Codec, TimestampType};

use super::bench::Bench;
use super::figure::{Better, Figure, Line};
use crate::frames::{batch_frame, now, value};
use crate::nodes::Nodes;
use crate::process::{Memory, forget_peak, memory};
use crate::replay::{Kind, replay};

const BYTES: usize = 1_000_000_000;
const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;

/// The records of a batch, and the batches that are encoded at a time.
const BATCH: usize = 2000;
const PIECE: usize = 64;

/// How long a cleaner may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The time between two looks at the checkpoint.
const LOOK: Duration = Duration::from_millis(5);

/// Measures one pass of the cleaner on brokers of their own, which look for work ten times a second.
pub(super) async fn measure(bench: &mut Bench) -> Result<Vec<Figure>> {
    let bytes = bench.part(BYTES);
    let mut turns = bench.start(&[("log.cleaner.backoff.ms", "100")]).await?;
    let measured = turns
        .run(async |nodes, turn| {
            // The checkpoint may still name the topic of the turn before.
            let topic = format!("compacted-{turn}");
            let segment = (bytes / 16).max(1 << 20).to_string();
            nodes.create_with(&topic, 1, &[("segment.bytes", &segment)]).await?;
            fill(nodes, &topic, bytes)?;
            let figures = compact(nodes, &topic).await?;
            nodes.delete(&topic).await?;
            Ok(figures)
        })
        .await?;
    let line = |name, unit, goal| Line { name, unit, better: Better::Less, goal };
    let note = "1,000,000 keys, values of 100 B, so that a key comes about 8 times; log.cleaner.backoff.ms=100";
    Ok(vec![
        measured.figure(0, line("compaction of 1 GB: s", "s", "3 x"), note),
        measured.figure(
            1,
            line("compaction of 1 GB: CPU-s", "CPU-s", "3 x"),
            "until the cleaner's checkpoint has moved",
        ),
        Figure::new(
            line("compaction of 1 GB: memory, MiB", "MiB", "64"),
            measured.ours(2),
            Vec::new(),
            "the peak of the resident memory above that before; Kafka takes its buffer for keys, 128 MiB, at the start",
        ),
    ])
}

/// Writes records with keys in random order.
fn fill(nodes: &Nodes, topic: &str, bytes: usize) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut written = 0;
    let keys = (bytes / (BYTES / KEYS as usize)).max(1) as u64;
    while written < bytes {
        let frames = (0..PIECE).map(|_| batch(&mut random, keys, topic)).collect::<Result<Vec<_>>>()?;
        written += replay(nodes.address(1), &frames, frames.len(), 8, Kind::Produce)?.bytes;
    }
    Ok(())
}

fn batch(random: &mut fastrand::Rng, keys: u64, topic: &str) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let now = now()?;
    for row in 0..BATCH {
        let key = format!("key-{:08}", random.u64(..keys));
        builder.append(now, Some(key.as_bytes()), Some(&value(row, VALUE_BYTES)), [])?;
    }
    batch_frame(builder, 1, topic, 0)
}

/// Returns the seconds, the processor seconds and the memory in MiB that a pass takes.
async fn compact(nodes: &Nodes, topic: &str) -> Result<[f64; 3]> {
    let process = nodes.process_id(1)?;
    let active = active_segment(&nodes.data(1).join(format!("{topic}-0")))?;
    forget_peak(process)?;
    let (resident, computed, begun) = (memory(process, Memory::Resident)?, nodes.computed()?, Instant::now());
    let changes = BTreeMap::from([("cleanup.policy".to_owned(), Some("compact".to_owned()))]);
    nodes.admin()?.alter_configs(topic, &changes).await?;
    while cleaned(&nodes.data(1), topic)? < active {
        if begun.elapsed() > PATIENCE {
            bail!("the log is not compacted up to {active} after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let grown = memory(process, Memory::Peak)?.saturating_sub(resident);
    Ok([seconds, nodes.computed()? - computed, grown as f64 / f64::from(1 << 20)])
}

/// Returns the first offset of the last segment in a folder.
fn active_segment(folder: &Path) -> Result<i64> {
    let mut last = None;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let offset = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse().ok());
        last = last.max(offset);
    }
    last.context("a segment")
}

/// Returns the offset up to which the topic has been compacted.
fn cleaned(data: &Path, topic: &str) -> Result<i64> {
    let text = std::fs::read_to_string(data.join("cleaner-offset-checkpoint")).unwrap_or_default();
    let entry = text.lines().find_map(|line| line.strip_prefix(topic)?.strip_prefix(" 0 "));
    Ok(entry.map_or(Ok(0), str::parse)?)
}
