//! Measures the rest of a stage's life: taking over from another version under load, the time from bytes to serving,
//! and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use millstream_stage::{Engine, EngineConfig, Kind, Library, Origin, Plugin, RecordsBuf, Stage, StageSpec};

use crate::measure::{Effort, median};
use crate::report::Row;
use crate::{compiler, component};

pub(crate) fn rows(effort: Effort, only: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: &str, goal: &str, measure: &dyn Fn(Effort) -> Result<(String, String)>| -> Result<()> {
        if name.contains(only) {
            let (figure, detail) = measure(effort)?;
            rows.push(Row { name: name.to_owned(), figure, goal: goal.to_owned(), detail });
        }
        Ok(())
    };
    add("swap under full load, the longest wait of a batch", "1 ms", &swap)?;
    add("push to serving, 200 KiB, cold", "500 ms", &|effort| push(effort, false))?;
    add("push to serving, 200 KiB, cached", "5 ms", &|effort| push(effort, true))?;
    add("memory of an idle instance", "stated", &|effort| idle_memory(effort))?;
    add("memory of an instance with a batch of 1 MiB", "16 MiB", &|effort| busy_memory(effort))?;
    Ok(rows)
}

fn resolve(library: &Library, text: &str, kind: Kind) -> Result<Arc<Stage>> {
    Ok(library.resolve(&StageSpec::parse(text)?, kind)?)
}

/// Measures swaps: versions take turns while every core calls. A swap delays a batch where the batch takes its version
/// and its instance. The time of whole calls without a swap is shown beside it, because a thread also waits for its
/// core.
fn swap(effort: Effort) -> Result<(String, String)> {
    let library = Library::new(Engine::new(EngineConfig::default())?);
    let bytes = component("murmur2");
    // The same code under two numbers: a custom section at the end makes it a different component.
    let versions = [bytes.to_vec(), with_section(bytes)];
    let plugins: Vec<Plugin> = versions.iter().map(|bytes| library.load("murmur2", bytes)).collect::<Result<_, _>>()?;
    library.prepare(&plugins[0], Origin::Store { number: 1 })?.commit();
    let stage = resolve(&library, "murmur2", Kind::Partitioner)?;
    let done = AtomicBool::new(false);
    let callers = thread::available_parallelism().map_or(1, usize::from);
    let longest = thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(|| call_until(&stage, &done))).collect();
        for round in 0..effort.rounds * 5 {
            let number = (round + 1) % 2;
            let origin = Origin::Store { number: number as u32 + 1 };
            library.prepare(&plugins[number], origin).expect("a version that serves").commit();
            // Lets the version serve some calls.
            let served = stage.stats().calls + 50;
            while stage.stats().calls < served {
                thread::yield_now();
            }
        }
        done.store(true, Relaxed);
        threads.into_iter().map(|caller| caller.join().expect("no caller panics")).max()
    });
    let (longest, calls) = (longest.context("there are callers")?, stage.stats());
    let figure = format!("{:.3} ms", longest.as_secs_f64() * 1e3);
    let detail = format!(
        "{} swaps, {} calls of 100 rows on {callers} threads; the slot itself was held for {:.1} us at most",
        calls.swaps,
        calls.calls,
        calls.swap_pause_max_nanos as f64 / 1e3
    );
    Ok((figure, detail))
}

/// Calls until `done` is set. Returns the longest time that taking a version took.
fn call_until(stage: &Stage, done: &AtomicBool) -> Duration {
    let mut batch = RecordsBuf::new(stage.pin().columns());
    for row in 0..100u64 {
        batch.push(0, Some(&row.to_le_bytes()), None, []).expect("a small batch");
    }
    let mut longest = Duration::ZERO;
    while !done.load(Relaxed) {
        let begun = Instant::now();
        let pinned = stage.pin();
        longest = longest.max(begun.elapsed());
        pinned.partition("orders", 4, &[0; 4], &batch.as_records()).expect("a result");
    }
    longest
}

/// Returns the component with one more custom section.
fn with_section(component: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // Section 0 with five bytes: the name's length, and a name of four bytes.
    bytes.extend_from_slice(b"\0\x05\x04next");
    bytes
}

/// Measures from bytes to the first result of a live stage: scan, compile or load from the cache, instantiate, probe,
/// swap.
fn push(effort: Effort, cached: bool) -> Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let bytes = component("json-compare");
    let next = with_section(bytes);
    let mut times = Vec::new();
    for round in 0..effort.rounds.div_ceil(2) {
        // A new process has a new engine. Its cache is filled only if the folder was kept.
        let kept = if cached { folder.path().join("kept") } else { folder.path().join(round.to_string()) };
        let engine = Engine::new(EngineConfig { cache_dir: Some(kept), compiler: compiler()?, ..Default::default() })?;
        let library = Library::new(engine);
        library.publish(bytes)?;
        let spec = r#"json-compare{"path":"/mag","op":">=","value":4.5}"#;
        let stage = resolve(&library, spec, Kind::Filter)?;
        let mut batch = RecordsBuf::new(stage.pin().columns());
        batch.push(0, None, Some(b"{\"mag\":5}"), [])?;
        let begun = Instant::now();
        library.publish(&next)?;
        let kept = stage.filter("earthquakes", &batch.as_records())?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(kept.get(0) && stage.stats().swaps == 1);
    }
    if cached {
        // The first run filled the cache.
        times.remove(0);
    }
    let longest = times.iter().copied().fold(0.0, f64::max);
    let figure = format!("{:.1} ms", median(times.iter().copied()));
    let detail = format!("{} KiB, {} times, {longest:.1} ms at most; one live stage", next.len() >> 10, times.len());
    Ok((figure, detail))
}

/// Returns stages of one plug-in, each with an idle instance, and the memory that each takes.
fn stages(effort: Effort) -> Result<(Vec<Stage>, u64)> {
    let engine = Engine::new(EngineConfig::default())?;
    let plugin = engine.load(component("lz4"))?;
    // The first one allocates what all of them share.
    let mut stages = vec![Stage::new(plugin.clone(), "{}")?];
    let before = resident_bytes()?;
    for _ in 0..effort.rounds {
        stages.push(Stage::new(plugin.clone(), "{}")?);
    }
    let each = resident_bytes()?.saturating_sub(before) / effort.rounds as u64;
    Ok((stages, each))
}

fn idle_memory(effort: Effort) -> Result<(String, String)> {
    let (stages, each) = stages(effort)?;
    let figure = format!("{} KiB", each >> 10);
    Ok((figure, format!("resident, mean of {} stages of lz4 that were configured and probed", stages.len() - 1)))
}

fn busy_memory(effort: Effort) -> Result<(String, String)> {
    let (stages, _) = stages(effort)?;
    let data = vec![b'x'; 1 << 20];
    let compressed = stages[0].compress(&data, 1)?;
    let before = resident_bytes()?;
    for stage in &stages[1..] {
        stage.decompress(&compressed, 1, data.len())?;
    }
    let each = resident_bytes()?.saturating_sub(before) / effort.rounds as u64;
    let figure = format!("{:.1} MiB", each as f64 / f64::from(1 << 20));
    let detail = "resident after lz4 made 1 MiB, more than idle; an instance has at most 16 MiB, the host 256 of them";
    Ok((figure, detail.to_owned()))
}

/// Returns the resident memory of this process.
fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("this system does not say what a process uses")?;
    let pages: u64 = text.split(' ').nth(1).context("two numbers")?.parse()?;
    Ok(pages * 4096)
}
