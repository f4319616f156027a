//! `millstream produce`: lines from standard input to a topic.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use millstream_client::{Acks, Error, Producer, ProducerConfig, ProducerRecord};
use millstream_stage::Kind;
use tokio::sync::mpsc;

use crate::connection::{CALL_TIMEOUT, Connection};
use crate::runtime::StopSignals;
use crate::stages::{StageArgs, Stages};
use crate::{output, runtime, text};

/// The size of a chunk of lines, in bytes: few wake-ups for short lines, little memory for long ones.
const CHUNK_BYTES: usize = 64 << 10;

/// The maximum chunks that are read ahead.
const CHUNKS_AHEAD_MAX: usize = 4;

/// The maximum length of a line, 100 MiB, which is the largest request of Kafka.
const LINE_BYTES_MAX: usize = 100 << 20;

/// The maximum errors to print; the rest is only counted.
const ERRORS_SHOWN_MAX: u64 = 10;

/// The arguments of `millstream produce`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | millstream produce greetings
  millstream produce quakes --serializer json --compressor zstd < quakes.jsonl
  millstream produce users --key-separator : --null-marker NULL < users.txt
  millstream produce orders --stages cluster < orders.jsonl
  millstream produce quakes --plugins ./plugins \\
      --partitioner './region.wasm{\"by\":\"/lon\"}' < quakes.jsonl

Each line is the value of one record, without its newline. The command ends
after the end of the input, once all records are stored. A record that is not
stored is reported on stderr with its line number, and the exit code is 1. The
same applies if Ctrl-C or SIGTERM arrives before the end of the input; lines
read so far are still sent.")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The topic
    topic: String,
    /// The text between key and value of a line; \t is a tab. Without it, records have no key
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// The key of every record
    #[arg(short = 'k', long, value_name = "TEXT", conflicts_with = "key_separator")]
    key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// A key or value equal to this text becomes null
    #[arg(long, value_name = "TEXT")]
    null_marker: Option<String>,
    /// The partition of every record, instead of the partitioner's choice
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The acknowledgements to wait for: 0, 1 (the leader) or all (all in-sync replicas)
    #[arg(long, value_name = "ACKS", default_value = "all")]
    acks: String,
    /// The native codec: none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", conflicts_with = "compressor")]
    compression: Option<String>,
    /// The stage that serializes keys and values
    #[arg(long, value_name = "STAGE")]
    serializer: Option<String>,
    /// The stage that chooses partitions
    #[arg(long, value_name = "STAGE")]
    partitioner: Option<String>,
    /// The stage that compresses batches
    #[arg(long, value_name = "STAGE")]
    compressor: Option<String>,
    #[command(flatten)]
    stages: StageArgs,
    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

/// The conversion of lines to records.
struct Format {
    separator: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    null_marker: Option<Vec<u8>>,
    partition: Option<i32>,
}

/// The key and value of a line; `None` is null.
type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

impl Format {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let mut headers = Vec::new();
        for header in &args.headers {
            let (name, value) = text::pair(header).with_context(|| format!("--header {header}"))?;
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
        let separator = args.key_separator.as_deref().map(text::unescape);
        anyhow::ensure!(separator.as_ref().is_none_or(|text| !text.is_empty()), "--key-separator is empty");
        Ok(Self {
            separator,
            key: args.key.as_ref().map(|key| key.as_bytes().to_vec()),
            headers,
            null_marker: args.null_marker.as_ref().map(|marker| marker.as_bytes().to_vec()),
            partition: args.partition,
        })
    }

    fn split<'a>(&'a self, line: &'a [u8]) -> Result<KeyAndValue<'a>, String> {
        let (key, value) = match &self.separator {
            None => (self.key.as_deref(), line),
            Some(separator) => {
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or_else(|| {
                    format!("has no separator {:?} between key and value", String::from_utf8_lossy(separator))
                })?;
                (Some(&line[..at]), &line[at + separator.len()..])
            }
        };
        let unless_null = |bytes: &&[u8]| self.null_marker.as_deref() != Some(*bytes);
        Ok((key.filter(unless_null), Some(value).filter(unless_null)))
    }

    fn record<'a>(&'a self, topic: &'a str, line: &'a [u8]) -> Result<ProducerRecord<'a>, String> {
        let (key, value) = self.split(line)?;
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice()))).collect();
        Ok(ProducerRecord { topic, partition: self.partition, timestamp: None, key, value, headers })
    }
}

/// The counts of stored and failed lines.
#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn fail(&self, line: u64, reason: &dyn std::fmt::Display) {
        if self.failed.fetch_add(1, Ordering::Relaxed) < ERRORS_SHOWN_MAX {
            eprintln!("error: line {line}: {reason}");
        }
    }
}

impl Args {
    /// Sends the lines of standard input.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(self.produce())
    }

    async fn produce(self) -> anyhow::Result<()> {
        let format = Format::new(&self)?;
        self.connection.check_reachable()?;
        let mut config = ProducerConfig::new(&self.connection.bootstrap_server);
        config.max_block = CALL_TIMEOUT;
        config.set("acks", &self.acks)?;
        if let Some(codec) = &self.compression {
            config.set("compression.type", codec)?;
        }
        self.connection.apply(|key, value| config.set(key, value))?;
        // Without acknowledgements it is unknown whether a record is stored.
        let done = if config.acks == Acks::None { "sent to" } else { "stored in" };
        let mut stages = Stages::new(self.stages);
        let mut builder = Producer::builder(config);
        // Stages that are named explicitly take precedence.
        if let Some(plugins) = stages.of_cluster(&self.connection).await? {
            builder = builder.stages_from_cluster(&plugins, &self.topic).await?;
        }
        if let Some(stage) = stages.one(self.serializer.as_deref(), Kind::Serializer)? {
            builder = builder.serializer(stage);
        }
        if let Some(stage) = stages.one(self.partitioner.as_deref(), Kind::Partitioner)? {
            builder = builder.partitioner(stage);
        }
        if let Some(stage) = stages.one(self.compressor.as_deref(), Kind::Compressor)? {
            builder = builder.compressor(stage);
        }
        let producer = builder.build()?;
        let counts = Arc::new(Counts::default());
        let mut signals = StopSignals::listen()?;
        let outcome = tokio::select! {
            outcome = send_lines(&producer, &self.topic, &format, &counts) => outcome,
            () = signals.next() => Err(anyhow::anyhow!("interrupted before the end of the input")),
        };
        let outcome = tokio::select! {
            () = producer.flush() => outcome,
            // A second signal ends the wait for a broker.
            () = signals.next() => Err(anyhow::anyhow!("interrupted before all records were stored")),
        };
        stages.report(&producer.stage_stats());
        let (stored, failed) = (counts.stored.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
        if !self.quiet {
            eprintln!("{} {done} {}", output::records(stored), self.topic);
        }
        outcome?;
        anyhow::ensure!(failed == 0, "{failed} of {} records were not stored", stored + failed);
        Ok(())
    }
}

async fn send_lines(producer: &Producer, topic: &str, format: &Format, counts: &Arc<Counts>) -> anyhow::Result<()> {
    let mut chunks = read_chunks();
    let mut number = 0;
    while let Some(chunk) = chunks.recv().await {
        for line in chunk.context("cannot read standard input")? {
            number += 1;
            send_line(producer, topic, format, counts, number, line).await?;
        }
    }
    Ok(())
}

/// Sends one line. An invalid line is counted; an error ends the command.
async fn send_line(
    producer: &Producer,
    topic: &str,
    format: &Format,
    counts: &Arc<Counts>,
    number: u64,
    line: Line,
) -> anyhow::Result<()> {
    let line = line.map_err(|TooLong| format!("is longer than {LINE_BYTES_MAX} bytes"));
    let record = match line.as_deref().map_err(String::clone).and_then(|line| format.record(topic, line)) {
        Ok(record) => record,
        Err(reason) => {
            counts.fail(number, &reason);
            return Ok(());
        }
    };
    let callback_counts = counts.clone();
    let sent = producer.send_with_callback(record, move |result| match result {
        Ok(_) => drop(callback_counts.stored.fetch_add(1, Ordering::Relaxed)),
        Err(error) => callback_counts.fail(number, &error),
    });
    match sent.await {
        Ok(()) => Ok(()),
        // Affects only this line.
        Err(error @ Error::RecordTooLarge { .. }) => {
            counts.fail(number, &error);
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("line {number} was not sent")),
    }
}

/// A line without its newline.
type Line = Result<Vec<u8>, TooLong>;

/// A line that was skipped because of its length.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// Reads on a thread of its own, because standard input has no asynchronous read.
fn read_chunks() -> mpsc::Receiver<io::Result<Vec<Line>>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
    if io::stdin().is_terminal() {
        eprintln!("reading lines from the terminal; end with Ctrl-D");
    }
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(CHUNK_BYTES, io::stdin().lock());
        loop {
            let chunk = read_chunk(&mut input, LINE_BYTES_MAX);
            let last = match &chunk {
                Ok(lines) if lines.is_empty() => return,
                chunk => chunk.is_err(),
            };
            // The receiver is gone when the command ends.
            if sender.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// Reads the lines that are available without waiting, up to about [`CHUNK_BYTES`]. Returns none at the end.
fn read_chunk(input: &mut BufReader<impl Read>, line_bytes_max: usize) -> io::Result<Vec<Line>> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while bytes < CHUNK_BYTES {
        let Some(line) = read_line(input, line_bytes_max)? else { break };
        bytes += line.as_ref().map_or(0, Vec::len) + 1;
        lines.push(line);
        if !input.buffer().contains(&b'\n') {
            break;
        }
    }
    Ok(lines)
}

fn read_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    // One more byte for the newline.
    if input.by_ref().take(bytes_max as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > bytes_max {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(TooLong)));
    }
    Ok(Some(Ok(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(separator: Option<&str>, null_marker: Option<&str>) -> Format {
        Format {
            separator: separator.map(|text| text.as_bytes().to_vec()),
            key: None,
            headers: Vec::new(),
            null_marker: null_marker.map(|text| text.as_bytes().to_vec()),
            partition: None,
        }
    }

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let format = format(Some("::"), Some("NULL"));
        assert_eq!(format.split(b"k::v::w").unwrap(), (Some(&b"k"[..]), Some(&b"v::w"[..])));
        assert_eq!(format.split(b"k::NULL").unwrap(), (Some(&b"k"[..]), None));
        assert_eq!(format.split(b"NULL::").unwrap(), (None, Some(&b""[..])));
        assert!(format.split(b"k:v").unwrap_err().contains("\"::\""));
    }

    #[test]
    fn lines_come_in_chunks_and_long_ones_are_skipped() {
        let line = |text: &str| Ok(text.as_bytes().to_vec());
        let read = |text: &str| {
            let mut input = BufReader::new(text.as_bytes());
            let mut chunks = Vec::new();
            loop {
                match read_chunk(&mut input, 4).expect("memory") {
                    chunk if chunk.is_empty() => return chunks,
                    chunk => chunks.push(chunk),
                }
            }
        };
        assert_eq!(read(""), Vec::<Vec<Line>>::new());
        assert_eq!(read("a\n\nb\n"), [vec![line("a"), line(""), line("b")]]);
        // The rest without a newline may grow: complete lines do not wait for it.
        assert_eq!(read("a\nb"), [vec![line("a")], vec![line("b")]]);
        assert_eq!(read("1234\n12345\n1\n"), [vec![line("1234"), Err(TooLong), line("1")]]);
        assert_eq!(read("1234"), [[line("1234")]]);
        assert_eq!(read("123456789"), [[Err(TooLong)]]);
        let long = "123\n".repeat(CHUNK_BYTES / 2);
        let mut chunks = BufReader::with_capacity(long.len(), long.as_bytes());
        assert_eq!(read_chunk(&mut chunks, 4).expect("memory").len(), CHUNK_BYTES / 4);
    }

    #[test]
    fn a_line_without_a_separator_is_a_value() {
        assert_eq!(format(None, None).split(b"a:b").unwrap(), (None, Some(&b"a:b"[..])));
    }
}
