//! `millstream consume`: records of a topic to standard output.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use millstream_client::{Consumer, ConsumerConfig, ConsumerRecord, Error, OffsetReset, TopicPartition};
use millstream_stage::Kind;

use crate::connection::{CALL_TIMEOUT, Connection};
use crate::runtime::StopSignals;
use crate::stages::{StageArgs, Stages};
use crate::{output, runtime, text};

/// The timeout of one poll; between polls the command checks for the end of the topic.
const CONSUME_POLL: Duration = Duration::from_millis(200);

/// The arguments of `millstream consume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream consume quakes --from-beginning
  millstream consume quakes --from-beginning \\
      --filter 'json-compare{\"path\":\"/mag\",\"op\":\">=\",\"value\":4.5}'
  millstream consume quakes --from-beginning --count 10 \\
      --filter 'contains{\"text\":\"Alaska\"} | ./mine.wasm'
  millstream consume orders --from-beginning --stages cluster
  millstream consume quakes --group dashboards --follow --json | jq .value

Without --follow the command ends at the end of the topic, as it was at the
start of the command. Without --from-beginning it starts at the end, or at the
committed offset of the group. Ctrl-C and SIGTERM end it; it leaves its group.

A batch or record that cannot be decoded ends the command. To continue after it,
use --skip-on-error, or --partition and --from-offset.")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The topic
    topic: String,
    /// Start at the oldest record, unless the group has a committed offset
    #[arg(long)]
    from_beginning: bool,
    /// Start at this offset of the partition
    #[arg(
        long, value_name = "N", requires = "partition", conflicts_with = "from_beginning",
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    from_offset: Option<i64>,
    /// Join this consumer group, and commit the offsets of printed records
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// End after N records
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Wait for new records at the end of the topic
    #[arg(short, long)]
    follow: bool,
    /// Read only this partition
    #[arg(short, long, value_name = "N", conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Print the key before the value, separated by this text; \t is a tab
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Print each record as a JSON object with its partition, offset, timestamp, key, headers and value
    #[arg(long, conflicts_with = "key_separator")]
    json: bool,
    /// The stages that choose the records to print, separated by ` | `
    #[arg(long, value_name = "STAGES")]
    filter: Option<String>,
    /// The stage that deserializes keys and values
    #[arg(long, value_name = "STAGE")]
    deserializer: Option<String>,
    /// The compressor stage that decompresses batches of its codec, instead of the native codec
    #[arg(long, value_name = "STAGE")]
    decompressor: Option<String>,
    #[command(flatten)]
    stages: StageArgs,
    /// Skip batches and records that cannot be decoded, with a warning for each
    #[arg(long)]
    skip_on_error: bool,
    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    /// Prints the records.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(self.consume())
    }

    async fn consume(mut self) -> anyhow::Result<()> {
        let config = self.config()?;
        self.connection.check_reachable()?;
        let stages_args = std::mem::take(&mut self.stages);
        let mut stages = Stages::new(stages_args);
        let mut builder = Consumer::builder(config);
        // Stages that are named explicitly take precedence.
        if let Some(plugins) = stages.of_cluster(&self.connection).await? {
            builder = builder.stages_from_cluster(&plugins, &self.topic).await?;
        }
        if let Some(text) = &self.filter {
            for stage in stages.chain(text, Kind::Filter)? {
                builder = builder.filter(stage);
            }
        }
        if let Some(stage) = stages.one(self.deserializer.as_deref(), Kind::Serializer)? {
            builder = builder.deserializer(stage);
        }
        if let Some(stage) = stages.one(self.decompressor.as_deref(), Kind::Compressor)? {
            builder = builder.decompressor(stage);
        }
        // Checked first, because a consumer would wait for a topic that does not exist.
        let admin = self.connection.without_properties().admin()?;
        let described = admin.describe_topics(std::slice::from_ref(&self.topic)).await?;
        let partitions = self.partitions(described[0].partitions.len())?;
        let consumer = builder.build()?;
        let ends = consumer.end_offsets(&partitions).await?;
        match &self.group {
            Some(_) => consumer.subscribe([&self.topic])?,
            None => consumer.assign(partitions.iter().cloned())?,
        }
        if let (Some(offset), [partition]) = (self.from_offset, &partitions[..]) {
            consumer.seek(partition, offset)?;
        }
        let mut signals = StopSignals::listen()?;
        let printed = self.print_all(&consumer, &ends, &mut signals).await;
        stages.report(&consumer.stage_stats());
        // Also after an error, so that the group does not wait for this member.
        let closed = tokio::select! {
            closed = consumer.close() => closed.map_err(anyhow::Error::from),
            // A second signal ends the wait for a broker.
            () = signals.next() => Err(anyhow::anyhow!("interrupted before the consumer left its group")),
        };
        let printed = printed?;
        closed?;
        if !self.quiet {
            eprintln!("{} from {}", output::records(printed), self.topic);
            if printed == 0 && !self.from_beginning && !self.follow && self.group.is_none() {
                eprintln!("hint: reading started at the end; use --from-beginning or --follow");
            }
        }
        Ok(())
    }

    fn config(&self) -> anyhow::Result<ConsumerConfig> {
        let mut config = ConsumerConfig::new(&self.connection.bootstrap_server);
        config.group_id.clone_from(&self.group);
        config.allow_auto_create_topics = false;
        config.client.default_api_timeout = CALL_TIMEOUT;
        if self.from_beginning {
            config.auto_offset_reset = OffsetReset::Earliest;
        }
        self.connection.apply(|key, value| config.set(key, value))?;
        Ok(config)
    }

    fn partitions(&self, count: usize) -> anyhow::Result<Vec<TopicPartition>> {
        if let Some(partition) = self.partition {
            let exists = (partition as usize) < count;
            anyhow::ensure!(exists, "topic {} has no partition {partition}; it has {count} partitions", self.topic);
            return Ok(vec![TopicPartition::new(self.topic.as_str(), partition)]);
        }
        Ok((0..count as i32).map(|number| TopicPartition::new(self.topic.as_str(), number)).collect())
    }

    /// Prints until the end, the count or a signal. Returns the number of printed records.
    async fn print_all(
        &self,
        consumer: &Consumer,
        ends: &BTreeMap<TopicPartition, i64>,
        signals: &mut StopSignals,
    ) -> anyhow::Result<u64> {
        let mut out = output::stdout();
        let separator = self.key_separator.as_deref().map(text::unescape);
        let left = self.count.unwrap_or(u64::MAX);
        let mut printed = 0;
        let mut skipped = BTreeMap::new();
        while printed < left {
            let records = tokio::select! {
                records = consumer.poll(CONSUME_POLL) => match records {
                    Ok(records) => records,
                    Err(error) => {
                        self.skip(consumer, error, &mut skipped)?;
                        continue;
                    }
                },
                () = signals.next() => break,
            };
            for record in &records {
                if printed == left {
                    // Records that are not printed must not be committed.
                    rewind(consumer, &records, record)?;
                    break;
                }
                self.print(&mut out, separator.as_deref(), record).context("cannot write the records")?;
                printed += 1;
            }
            // Must happen before the records can be committed.
            out.flush().context("cannot write the records")?;
            if !self.follow && at_end(consumer, ends) {
                break;
            }
        }
        Ok(printed)
    }

    /// Skips the batch or record that an error is about, if the user wants that. `skipped` holds the offset of each
    /// partition after the last skip.
    fn skip(
        &self,
        consumer: &Consumer,
        error: Error,
        skipped: &mut BTreeMap<TopicPartition, i64>,
    ) -> anyhow::Result<()> {
        let Some((partition, offset)) = error.skip_to() else { return Err(error.into()) };
        if self.skip_on_error {
            consumer.seek(&partition, offset)?;
            let before = skipped.insert(partition, offset);
            match error {
                // A batch of a view takes one skip for each of its offsets.
                Error::Unreadable { offset, .. } if before == Some(offset) => {}
                Error::Unreadable { .. } => eprintln!("warning: {error}; skipped to the next offset that it can read"),
                _ => eprintln!("warning: {error}; skipped to offset {offset}"),
            }
            return Ok(());
        }
        let options = match &self.group {
            Some(_) => "--skip-on-error".to_owned(),
            // The end of the batch is unknown.
            None if matches!(error, Error::Unreadable { .. }) => {
                format!(
                    "--skip-on-error, or --partition {} and a --from-offset of {offset} or more",
                    partition.partition
                )
            }
            None => format!("--partition {} --from-offset {offset}, or --skip-on-error", partition.partition),
        };
        anyhow::bail!("{error}; to continue after it, use {options}")
    }

    fn print(&self, out: &mut impl Write, separator: Option<&[u8]>, record: &ConsumerRecord) -> std::io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, &json(record))?;
            return out.write_all(b"\n");
        }
        if let Some(separator) = separator {
            out.write_all(record.key.as_deref().unwrap_or(b"null"))?;
            out.write_all(separator)?;
        }
        out.write_all(record.value.as_deref().unwrap_or(b"null"))?;
        out.write_all(b"\n")
    }
}

/// Seeks back to the first record of each partition among `from` and the records after it.
fn rewind(consumer: &Consumer, records: &[ConsumerRecord], from: &ConsumerRecord) -> anyhow::Result<()> {
    let rest = records.iter().skip_while(|record| !std::ptr::eq(*record, from));
    let mut first = BTreeMap::new();
    for record in rest {
        let partition = TopicPartition::new(record.topic.clone(), record.partition);
        first.entry(partition).or_insert(record.offset);
    }
    for (partition, offset) in first {
        consumer.seek(&partition, offset)?;
    }
    Ok(())
}

/// Returns whether all assigned partitions were read up to their end at the start of the command.
fn at_end(consumer: &Consumer, ends: &BTreeMap<TopicPartition, i64>) -> bool {
    if !consumer.joined() {
        return false;
    }
    consumer.assignment().iter().all(|partition| {
        let end = ends.get(partition).copied().unwrap_or(0);
        consumer.position(partition).is_some_and(|position| position >= end)
    })
}

fn json(record: &ConsumerRecord) -> serde_json::Value {
    let headers = record.headers.iter().map(|header| {
        let value = header.value.as_deref().map(String::from_utf8_lossy);
        serde_json::json!([String::from_utf8_lossy(&header.name), value])
    });
    let mut object = serde_json::json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "headers": headers.collect::<Vec<_>>(),
    });
    for (name, bytes) in [("key", &record.key), ("value", &record.value)] {
        match bytes.as_deref().map(std::str::from_utf8) {
            None => object[name] = serde_json::Value::Null,
            Some(Ok(text)) => object[name] = text.into(),
            // Bytes that are not UTF-8 must not be changed silently.
            Some(Err(_)) => object[format!("{name}_hex")] = text::hex(bytes.as_deref().unwrap_or_default()).into(),
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_client::{RecordHeader, TimestampType};

    #[test]
    fn json_keeps_bytes_that_are_not_utf8() {
        let record = ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: 7,
            timestamp: 9,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(vec![0xff, 0x01].into()),
            headers: vec![RecordHeader { name: "h".into(), value: None }],
        };
        let expected = serde_json::json!({
            "topic": "t", "partition": 2, "offset": 7, "timestamp": 9,
            "headers": [["h", null]], "key": null, "value_hex": "ff01",
        });
        assert_eq!(json(&record), expected);
    }
}
