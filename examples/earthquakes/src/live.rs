//! Edits, rebuilds and replaces a filter while records flow.
//!
//! The producer sends the events to one partition again and again. Every record has an offset, so each decision of the
//! filter can be checked afterwards: up to some offset the first version decided, and from there on the second.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_client::{
    Consumer, ConsumerConfig, OffsetReset, Producer, ProducerConfig, ProducerRecord, TopicPartition,
};
use millstream_stage::{Kind, Stage, WatchEvent, Watcher};
use tokio::sync::mpsc;

use crate::events::Event;
use crate::stages;

const TOPIC: &str = "quakes-live";

/// The time between two passes. Records flow, but do not fill the disk while the compiler works.
const PASS_INTERVAL: Duration = Duration::from_millis(100);

/// The source of the filter, and the line to edit.
const SOURCE: &str = include_str!("../deep/src/lib.rs");
const BEFORE: (&str, f64) = ("LEAST_DEPTH_KM: f64 = 100.0", 100.0);
const AFTER: (&str, f64) = ("LEAST_DEPTH_KM: f64 = 10.0", 10.0);

/// The filter in its own folder outside the workspace, as a user has it.
struct Project {
    millstream: PathBuf,
    folder: PathBuf,
    component: PathBuf,
}

impl Project {
    /// Makes the folder with `plugin new`, unless an earlier run has.
    fn new(millstream: &Path, work: &Path) -> Result<Self> {
        let folder = work.join("deep");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        if !manifest.contains("serde_json") {
            // An earlier run may have been interrupted.
            fs::remove_dir_all(&folder).ok();
            let name = ["plugin", "new", "deep", "--kind", "filter"];
            succeed(Command::new(millstream).args(name).current_dir(work))?;
            succeed(Command::new("cargo").args(["add", "--quiet", "serde_json"]).current_dir(&folder))?;
        }
        let plugins = work.join("plugins");
        fs::create_dir_all(&plugins)?;
        Ok(Self { millstream: millstream.to_owned(), folder, component: plugins.join("deep.wasm") })
    }

    /// Writes the source and builds it into the watched folder.
    fn build(&self, source: &str) -> Result<()> {
        fs::write(self.folder.join("src/lib.rs"), source)?;
        let output = Command::new(&self.millstream)
            .args(["plugin", "build", "--output"])
            .arg(&self.component)
            .current_dir(&self.folder)
            .output()?;
        ensure!(output.status.success(), "the filter does not build: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs this part of the job.
///
/// # Errors
/// A decision of the filter was wrong, or the build, producer or consumer failed.
pub(crate) async fn run(
    bootstrap: &str,
    millstream: &Path,
    work: &Path,
    cache: &Path,
    events: &Arc<Vec<Event>>,
) -> Result<()> {
    let project = Arc::new(Project::new(millstream, work)?);
    ensure!(SOURCE.contains(BEFORE.0), "the filter's source has no line {:?}", BEFORE.0);
    project.build(SOURCE)?;

    let library = stages::library(cache)?;
    if let Some((path, error)) = library.add_folder(&work.join("plugins"))?.into_iter().next() {
        bail!("{}: {error}", path.display());
    }
    let (sender, mut reloads) = mpsc::unbounded_channel();
    let _watcher = Watcher::start(Arc::clone(&library), move |event| drop(sender.send(event)))?;
    let filter = stages::stage(&library, "deep", Kind::Filter)?;

    let stop = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(bootstrap.to_owned(), Arc::clone(events), Arc::clone(&stop)));
    let progress = Arc::new(Progress { seen: AtomicI64::new(0), end: AtomicI64::new(i64::MAX) });
    let consumer = tokio::spawn(consume(bootstrap.to_owned(), Arc::clone(&filter), Arc::clone(&progress)));

    let pass = i64::try_from(events.len())?;
    reached(&progress, pass, &producer, &consumer).await?;
    println!("  edit {} to {}, rebuild; records flow on", BEFORE.0, AFTER.0);
    let build = Arc::clone(&project);
    tokio::task::spawn_blocking(move || build.build(&SOURCE.replace(BEFORE.0, AFTER.0))).await??;
    match reloads.recv().await.context("the watcher ended")? {
        WatchEvent::Reloaded { .. } => {}
        WatchEvent::Refused { problem, .. } => bail!("the new filter does not load: {problem}"),
        other => bail!("unexpected event of the watcher: {other:?}"),
    }
    let swapped = progress.seen.load(Ordering::Relaxed);
    reached(&progress, swapped + 2 * pass, &producer, &consumer).await?;
    stop.store(true, Ordering::Relaxed);
    let end = producer.await??;
    progress.end.store(end, Ordering::Relaxed);
    let kept = consumer.await??;

    let switch = check(&kept, end, events)?;
    let in_pass = |first: i64| kept.range(first * pass..(first + 1) * pass).count();
    println!("  {end} records in {} passes; the new version took over near offset {switch}", end / pass);
    println!("  a pass before: {} of {pass} events; a pass after: {}", in_pass(0), in_pass(end / pass - 1));
    stages::print_cost(&filter);
    Ok(())
}

/// The position of the consumer, and where it ends.
struct Progress {
    seen: AtomicI64,
    end: AtomicI64,
}

/// Waits until the consumer reaches `offset`; fails if one of the tasks ends before.
async fn reached<A, B>(
    progress: &Progress,
    offset: i64,
    one: &tokio::task::JoinHandle<A>,
    other: &tokio::task::JoinHandle<B>,
) -> Result<()> {
    while progress.seen.load(Ordering::Relaxed) < offset {
        ensure!(!one.is_finished() && !other.is_finished(), "producer or consumer ended too early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Sends all events again and again, and returns the number of records.
async fn produce(bootstrap: String, events: Arc<Vec<Event>>, stop: Arc<AtomicBool>) -> Result<i64> {
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build()?;
    let mut ticks = tokio::time::interval(PASS_INTERVAL);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let mut last = None;
        for event in events.iter() {
            last = Some(producer.send(ProducerRecord::new(TOPIC).partition(0).value(event.json.as_bytes())).await?);
            sent += 1;
        }
        if let Some(delivery) = last {
            delivery.await?;
        }
    }
    producer.close(Duration::from_secs(10)).await?;
    Ok(sent)
}

/// Reads through the filter up to the end, once that is known. Returns the offsets that the filter kept.
async fn consume(bootstrap: String, filter: Arc<Stage>, progress: Arc<Progress>) -> Result<BTreeSet<i64>> {
    let mut config = ConsumerConfig::new(&bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).filter(filter).build()?;
    let partition = TopicPartition::new(TOPIC, 0);
    consumer.assign([partition.clone()])?;
    let mut kept = BTreeSet::new();
    while progress.seen.load(Ordering::Relaxed) < progress.end.load(Ordering::Relaxed) {
        for record in consumer.poll(Duration::from_millis(50)).await? {
            ensure!(kept.insert(record.offset), "offset {} came twice", record.offset);
        }
        progress.seen.store(consumer.position(&partition).unwrap_or(0), Ordering::Relaxed);
    }
    consumer.close().await?;
    Ok(kept)
}

/// Checks each decision, and returns the first offset that the new version must have decided.
fn check(kept: &BTreeSet<i64>, end: i64, events: &[Event]) -> Result<i64> {
    let mut switch = None;
    for offset in 0..end {
        let event = &events[usize::try_from(offset)? % events.len()];
        let before = event.depth_km >= BEFORE.1;
        let after = event.depth_km >= AFTER.1;
        let is = kept.contains(&offset);
        if before == after {
            ensure!(is == before, "the decision on offset {offset} is wrong for both versions");
        } else if is == after {
            switch = switch.or(Some(offset));
        } else {
            ensure!(switch.is_none(), "the old version decided on offset {offset}, after the new one had taken over");
        }
    }
    switch.context("the new version made no decision")
}
