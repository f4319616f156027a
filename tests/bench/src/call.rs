//! Measures one call with a whole batch, beside the same functions of the same crate compiled for this machine.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use millstream_plugin_contains::Contains;
use millstream_plugin_json_compare::JsonCompare;
use millstream_plugin_lz4::Lz4;
use millstream_plugin_murmur2::Murmur2;
use millstream_sdk::{self as sdk, BatchBuf};
use millstream_stage::{Engine, RecordsBuf, Stage};

use crate::component;
use crate::measure::{Effort, Paired, paired, timed};
use crate::report::Row;

const EARTHQUAKES: &str = include_str!("../../../examples/earthquakes/earthquakes.jsonl");

const PARTITIONS: u32 = 12;

pub(crate) fn rows(engine: &Engine, effort: Effort, only: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: &str, row: &dyn Fn() -> Result<Row>| -> Result<()> {
        if name.contains(only) {
            rows.push(Row { name: name.to_owned(), ..row()? });
        }
        Ok(())
    };
    add("murmur2, 1,000 rows, keys of 16 B", &|| murmur2(engine, effort))?;
    add("contains, 1,000 rows, values of 100 B", &|| contains(engine, effort))?;
    add("json-compare, 1,707 earthquakes", &|| json_compare(engine, effort))?;
    for (size, bytes) in [("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        add(&format!("lz4 compress, {size}"), &|| lz4_compress(engine, effort, bytes))?;
        add(&format!("lz4 decompress, {size}"), &|| lz4_decompress(engine, effort, bytes))?;
    }
    Ok(rows)
}

/// A default plug-in as part of the program, and the same bytes as a pushed plug-in.
struct Stages {
    own: Stage,
    pushed: Stage,
}

impl Stages {
    fn new(engine: &Engine, name: &str, config: &str) -> Result<Stages> {
        let own = Stage::new(engine.load_own(component(name))?, config)?;
        let pushed = Stage::new(engine.load(component(name))?, config)?;
        Ok(Stages { own, pushed })
    }
}

/// Returns the row of a stage that reads records. It has the cost with building the columns on both sides, as a host
/// has to, and the cost of the call alone.
fn of_records(whole: &Paired, call: &Paired, pushed: &Paired, goal: &str) -> Row {
    let figure = format!("{:.2}", whole.ratio);
    let detail = format!(
        "{} against {} with columns; the call alone {} against {}, {:.2}; pushed {}, {:.2}",
        micros(whole.first),
        micros(whole.second),
        micros(call.first),
        micros(call.second),
        call.ratio,
        micros(pushed.first),
        pushed.ratio
    );
    Row { name: String::new(), figure, goal: goal.to_owned(), detail }
}

fn of_bytes(paired: &Paired, pushed: &Paired, bytes: usize) -> Row {
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let detail = format!(
        "{} against {}; {:.0} MB/s against {:.0}; pushed {}, {:.2}",
        micros(paired.first),
        micros(paired.second),
        rate(paired.first),
        rate(paired.second),
        micros(pushed.first),
        pushed.ratio
    );
    Row { name: String::new(), figure: format!("{:.2}", paired.ratio), goal: "1.5 (1.05)".to_owned(), detail }
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

/// A key and a value.
type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The columns of a batch, which are built again for each call as in a host.
struct Input {
    columns: RecordsBuf,
    rows: Vec<Pair>,
    native: BatchBuf,
}

impl Input {
    fn new(stage: &Stage, rows: Vec<Pair>) -> Input {
        let mut native = BatchBuf::new("orders");
        for (key, value) in &rows {
            native.push(0, key.as_deref(), value.as_deref(), &[]);
        }
        let mut input = Input { columns: RecordsBuf::new(stage.pin().columns()), rows, native };
        input.build();
        input
    }

    fn build(&mut self) -> &RecordsBuf {
        self.columns.clear();
        for (key, value) in &self.rows {
            self.columns.push(0, key.as_deref(), value.as_deref(), []).expect("a small batch");
        }
        black_box(&self.columns)
    }
}

fn murmur2(engine: &Engine, effort: Effort) -> Result<Row> {
    let stages = Stages::new(engine, "murmur2", "{}")?;
    let mut native: Murmur2 = sdk::config::from_json("{}").expect("no configuration");
    let load = [0; PARTITIONS as usize];
    let partitions = sdk::Partitions::new(PARTITIONS, &load);
    let keys = (0..1_000u64).map(|row| (Some(key(row)), None)).collect();
    let mut input = Input::new(&stages.own, keys);
    let answer = stages.own.partition("orders", PARTITIONS, &load, &input.columns.as_records())?;
    assert_eq!(Ok(answer), sdk::partitioner::partition(&mut native, &input.native.as_batch(), &partitions));
    let mut measure = |stage: &Stage, columns: bool| {
        let input = std::cell::RefCell::new(&mut input);
        paired(
            effort,
            timed(|| {
                let mut input = input.borrow_mut();
                if columns {
                    input.build();
                }
                stage.partition("orders", PARTITIONS, &load, &input.columns.as_records()).expect("a result")
            }),
            timed(|| {
                let mut input = input.borrow_mut();
                if columns {
                    input.build();
                }
                sdk::partitioner::partition(&mut native, &input.native.as_batch(), &partitions).expect("a result")
            }),
        )
    };
    let (whole, call) = (measure(&stages.own, true), measure(&stages.own, false));
    Ok(of_records(&whole, &call, &measure(&stages.pushed, true), "1.5 (1.3)"))
}

fn key(row: u64) -> Vec<u8> {
    // Digits of a hash, so that no two rows take the same path.
    format!("{:016x}", row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

fn contains(engine: &Engine, effort: Effort) -> Result<Row> {
    let config = r#"{"text":"timeout"}"#;
    let stages = Stages::new(engine, "contains", config)?;
    let mut native: Contains = sdk::config::from_json(config).expect("a configuration");
    sdk::Filter::prepare(&mut native).expect("a configuration");
    let mut input = Input::new(&stages.own, (0..1_000).map(|row| (None, Some(log_line(row)))).collect());
    filter_row(effort, &stages, &native, &mut input, "1.5 (1.0)")
}

/// Returns 100 bytes of a log. Every twentieth line contains the text.
fn log_line(row: u64) -> Vec<u8> {
    let message = if row % 20 == 7 { "request failed: timeout" } else { "request served in time" };
    let mut line = String::new();
    write!(line, "2026-01-01T00:00:00.{row:03}Z INFO gateway {message} ").expect("a string");
    while line.len() < 100 {
        write!(line, "{:x}", row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a string");
    }
    line.truncate(100);
    line.into_bytes()
}

fn json_compare(engine: &Engine, effort: Effort) -> Result<Row> {
    let config = r#"{"path":"/mag","op":">=","value":4.5}"#;
    let stages = Stages::new(engine, "json-compare", config)?;
    let mut native: JsonCompare = sdk::config::from_json(config).expect("a configuration");
    sdk::Filter::prepare(&mut native).expect("a configuration");
    let rows = EARTHQUAKES.lines().map(|line| (None, Some(line.as_bytes().to_vec()))).collect();
    filter_row(effort, &stages, &native, &mut Input::new(&stages.own, rows), "1.5")
}

fn filter_row<F: sdk::Filter>(
    effort: Effort,
    stages: &Stages,
    native: &F,
    input: &mut Input,
    goal: &str,
) -> Result<Row> {
    let answer = stages.own.filter("orders", &input.columns.as_records())?;
    let kept = sdk::filter::filter(native, &input.native.as_batch()).expect("a result");
    assert_eq!(answer.as_bytes(), kept.into_bytes());
    let mut measure = |stage: &Stage, columns: bool| {
        let input = std::cell::RefCell::new(&mut *input);
        paired(
            effort,
            timed(|| {
                let mut input = input.borrow_mut();
                if columns {
                    input.build();
                }
                stage.filter("orders", &input.columns.as_records()).expect("a result")
            }),
            timed(|| {
                let mut input = input.borrow_mut();
                if columns {
                    input.build();
                }
                sdk::filter::filter(native, &input.native.as_batch()).expect("a result")
            }),
        )
    };
    let (whole, call) = (measure(&stages.own, true), measure(&stages.own, false));
    Ok(of_records(&whole, &call, &measure(&stages.pushed, true), goal))
}

/// Returns the input of a compressor: earthquakes, repeated from the start when the file ends.
fn payload(bytes: usize) -> Vec<u8> {
    EARTHQUAKES.bytes().cycle().take(bytes).collect()
}

fn lz4_compress(engine: &Engine, effort: Effort, bytes: usize) -> Result<Row> {
    let stages = Stages::new(engine, "lz4", "{}")?;
    let mut native: Lz4 = sdk::config::from_json("{}").expect("no configuration");
    let data = payload(bytes);
    // 32-bit and 64-bit code find different matches. The compressed bytes differ, but they decompress to the same data.
    let max = u32::try_from(bytes).expect("a small batch");
    let compressed = stages.own.compress(&data, 1)?;
    assert!(sdk::compressor::decompress(&mut native, &compressed, max).is_ok_and(|back| back == data));
    let mut measure = |stage: &Stage| {
        let wasm = || {
            // The compressed bytes are decompressed too, for the row about decompression.
            let before = stage.stats();
            black_box(stage.compress(&data, 1).expect("a result"));
            let after = stage.stats();
            Duration::from_nanos((after.nanos - before.nanos) - (after.verify_nanos - before.verify_nanos))
        };
        paired(effort, wasm, timed(|| sdk::compressor::compress(&mut native, &data).expect("a result")))
    };
    Ok(of_bytes(&measure(&stages.own), &measure(&stages.pushed), bytes))
}

fn lz4_decompress(engine: &Engine, effort: Effort, bytes: usize) -> Result<Row> {
    let stages = Stages::new(engine, "lz4", "{}")?;
    let mut native: Lz4 = sdk::config::from_json("{}").expect("no configuration");
    let data = payload(bytes);
    let compressed = stages.own.compress(&data, 1)?;
    assert!(stages.own.decompress(&compressed, 1, bytes)? == data);
    let max = u32::try_from(bytes).expect("a small batch");
    let mut measure = |stage: &Stage| {
        let wasm = timed(|| stage.decompress(&compressed, 1, bytes).expect("a result"));
        let native = timed(|| sdk::compressor::decompress(&mut native, &compressed, max).expect("a result"));
        paired(effort, wasm, native)
    };
    Ok(of_bytes(&measure(&stages.own), &measure(&stages.pushed), bytes))
}
