//! `millstream plugin bench STAGE`: measures a call in the sandbox, with all the work of the host for it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use millstream_stage::{ColumnBuf, Kind, Plugin, Records, RecordsBuf, Source, Stage, StageError, StageSpec};
use serde_json::json;

use crate::output;
use crate::sandbox::LimitsArgs;

/// The number of partitions for a partitioner.
const PARTITIONS: u32 = 12;

/// The bytes of a made-up key: a number of 64 bits in hexadecimal digits.
const KEY_BYTES: usize = 16;

/// The arguments of `millstream plugin bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin bench murmur2
  millstream plugin bench 'contains{\"text\":\"error\"}' --rows 500 --size 1024
  millstream plugin bench './mine.wasm{\"limit\":7}' --values orders.jsonl --json

MB/s counts the bytes that the stage sees: the columns that it reads, or the
input of a compressor. The host decompresses and compares each compressed batch
in the same call, here as everywhere, and the figure includes that.")]
pub(crate) struct Args {
    /// A built-in plug-in or a file, with its configuration.
    #[arg(value_name = "STAGE")]
    stage: String,
    /// A file with one value in each line, instead of made-up values.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rows", "size"])]
    values: Option<PathBuf>,
    /// The number of records of a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rows: u32,
    /// The number of bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    size: u32,
    /// How long to repeat each kind of call.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitsArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if seconds > 0.0 && seconds <= 3_600.0 { Ok(seconds) } else { Err("it must be over 0, and at most 3600".into()) }
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let spec = StageSpec::parse(&self.stage)?;
        let name = match &spec.source {
            Source::Name { name, version: None } => name.clone(),
            Source::Name { .. } => bail!("{}: a built-in plug-in has one version; leave the version out", self.stage),
            Source::File(path) => path.display().to_string(),
        };
        let engine = self.limits.engine()?;
        let plugin = super::load(&engine, &name)?;
        let begun = Instant::now();
        let stage = Stage::new(plugin.clone(), &spec.config)?;
        let start = begun.elapsed();
        let batch = Batch::new(self.values(), &plugin)?;
        let calls = calls(&stage, &batch, Duration::from_secs_f64(self.seconds))?;
        self.print(&plugin, &batch, start, &calls)
    }

    /// Returns the source of the values.
    fn values(&self) -> Values {
        match &self.values {
            Some(path) => Values::Lines(path.clone()),
            None => Values::MadeUp { rows: self.rows, bytes: self.size as usize },
        }
    }

    fn print(&self, plugin: &Plugin, batch: &Batch, start: Duration, calls: &[Call]) -> Result<()> {
        if self.json {
            let calls: serde_json::Map<_, _> =
                calls.iter().map(|call| (call.name.to_owned(), call.json(batch))).collect();
            let facts = json!({
                "plugin": plugin.name(),
                "version": plugin.version(),
                "kind": plugin.kind().name(),
                "rows": batch.rows,
                "batch_bytes": batch.bytes,
                "start_us": micros(start),
                "calls": calls,
            });
            return Ok(output::line(&facts.to_string())?);
        }
        let mut out = output::stdout();
        writeln!(out, "{:<12} {} {}, a {}", "plug-in", plugin.name(), plugin.version(), plugin.kind().name())?;
        writeln!(out, "{:<12} {} rows, {} bytes", "batch", batch.rows, batch.bytes)?;
        writeln!(out, "{:<12} {:.1} us: a new instance, configured and probed", "start", micros(start))?;
        for call in calls {
            writeln!(out, "{:<12} {}", call.name, call.text(batch))?;
        }
        Ok(out.flush()?)
    }
}

enum Values {
    Lines(PathBuf),
    MadeUp { rows: u32, bytes: usize },
}

/// The input of every call.
struct Batch {
    records: RecordsBuf,
    /// The input of a compressor: the values, one after the other.
    data: Vec<u8>,
    rows: u32,
    /// The bytes that the stage sees.
    bytes: usize,
}

impl Batch {
    fn new(values: Values, plugin: &Plugin) -> Result<Batch> {
        let mut records = RecordsBuf::new(plugin.description().columns);
        let mut data = Vec::new();
        let mut rows = 0;
        let mut add = |value: &[u8]| -> Result<()> {
            let key = key(rows);
            records.push(0, Some(&key), Some(value), []).context("a batch has less than 4 GiB")?;
            data.extend_from_slice(value);
            rows += 1;
            Ok(())
        };
        match values {
            Values::Lines(path) => {
                let file = fs::read(&path).with_context(|| path.display().to_string())?;
                let lines = file.strip_suffix(b"\n").unwrap_or(&file).split(|byte| *byte == b'\n');
                lines.filter(|line| !line.is_empty()).try_for_each(&mut add)?;
                if rows == 0 {
                    bail!("{} is empty: it needs a value in each line", path.display());
                }
            }
            Values::MadeUp { rows, bytes } => (0..rows).try_for_each(|row| add(&made_up(row, bytes)))?,
        }
        let bytes = match plugin.kind() {
            Kind::Compressor => data.len(),
            Kind::Partitioner | Kind::Serializer | Kind::Filter => records.as_records().size_bytes(),
        };
        Ok(Batch { records, data, rows, bytes })
    }
}

/// Makes a key of the digits of a hash, so that rows differ.
fn key(row: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    write!(&mut key[..], "{:016x}", u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("sixteen digits");
    key
}

/// Makes a JSON object of about `bytes` bytes, since most plug-ins read JSON.
fn made_up(row: u32, bytes: usize) -> Vec<u8> {
    let mut value = format!(r#"{{"id":{row},"name":"#).into_bytes();
    let filler = key(row);
    let open = value.len() + 3;
    value.push(b'"');
    value.extend(filler.iter().cycle().take(bytes.saturating_sub(open)));
    value.extend_from_slice(b"\"}");
    value
}

/// The times of one kind of call.
struct Call {
    name: &'static str,
    /// Sorted.
    times: Vec<Duration>,
    /// The bytes of the result of a compressor.
    output_bytes: Option<usize>,
}

impl Call {
    /// Repeats a call for a time, at least three times.
    fn measure<A>(
        name: &'static str,
        length: Duration,
        mut call: impl FnMut() -> Result<A, StageError>,
    ) -> Result<(Call, A)> {
        // The first call grows the memory of the instance to the size that the batch needs.
        let mut output = call()?;
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < length || times.len() < 3 {
            let begun = Instant::now();
            output = call()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok((Call { name, times, output_bytes: None }, output))
    }

    fn at(&self, share: f64) -> Duration {
        let last = self.times.len() - 1;
        self.times[(last as f64 * share).round() as usize]
    }

    fn nanos_a_row(&self, batch: &Batch) -> f64 {
        self.at(0.5).as_secs_f64() * 1e9 / f64::from(batch.rows)
    }

    fn megabytes_a_second(&self, batch: &Batch) -> f64 {
        batch.bytes as f64 / self.at(0.5).as_secs_f64() / 1e6
    }

    fn text(&self, batch: &Batch) -> String {
        let (half, most) = (micros(self.at(0.5)), micros(self.at(0.99)));
        let (row, rate) = (self.nanos_a_row(batch), self.megabytes_a_second(batch));
        let calls = self.times.len();
        let output = self.output_bytes.map_or(String::new(), |bytes| format!(", to {bytes} bytes"));
        format!("{half:.1} us a batch (p99 {most:.1}), {row:.1} ns a row, {rate:.0} MB/s{output}; {calls} calls")
    }

    fn json(&self, batch: &Batch) -> serde_json::Value {
        json!({
            "calls": self.times.len(),
            "p50_us": micros(self.at(0.5)),
            "p99_us": micros(self.at(0.99)),
            "nanos_a_row": self.nanos_a_row(batch),
            "megabytes_a_second": self.megabytes_a_second(batch),
            "answer_bytes": self.output_bytes,
        })
    }
}

/// Calls every function of the stage's kind.
fn calls(stage: &Stage, batch: &Batch, length: Duration) -> Result<Vec<Call>> {
    const TOPIC: &str = "bench";
    let records = &batch.records.as_records();
    Ok(match stage.kind() {
        Kind::Partitioner => {
            let load = [0; PARTITIONS as usize];
            vec![Call::measure("partition", length, || stage.partition(TOPIC, PARTITIONS, &load, records))?.0]
        }
        Kind::Filter => vec![Call::measure("filter", length, || stage.filter(TOPIC, records))?.0],
        Kind::Serializer => {
            let (serialize, changed) = Call::measure("serialize", length, || stage.serialize(TOPIC, records))?;
            // The input of `deserialize` is the output of `serialize`.
            let made = Records {
                keys: changed.keys.as_ref().map(ColumnBuf::as_column).or(records.keys),
                values: changed.values.as_ref().map(ColumnBuf::as_column).or(records.values),
                ..*records
            };
            vec![serialize, Call::measure("deserialize", length, || stage.deserialize(TOPIC, &made))?.0]
        }
        Kind::Compressor => {
            let (mut compress, packed) = Call::measure("compress", length, || stage.compress(&batch.data, batch.rows))?;
            compress.output_bytes = Some(packed.len());
            let unpack = || stage.decompress(&packed, batch.rows, batch.data.len());
            vec![compress, Call::measure("decompress", length, unpack)?.0]
        }
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
