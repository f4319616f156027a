//! `millstream plugin logs`: the log of a plug-in at the brokers of a cluster.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use millstream_client::{Consumer, ConsumerConfig, ConsumerRecord, OffsetReset, TopicPartition};
use millstream_registry::LOGS_TOPIC;

use crate::connection::{CALL_TIMEOUT, Connection};
use crate::runtime::StopSignals;
use crate::{output, runtime, text};

/// The timeout of one poll; between polls the command checks for the end of the topic.
const LOGS_POLL: Duration = Duration::from_millis(200);

/// The interval of checks for the topic with --follow, while it does not exist yet.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The arguments of `millstream plugin logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin logs region
  millstream plugin logs region -f | grep error

The brokers keep the lines of one day, at most about 16 MiB.")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// Wait for new lines
    #[arg(short, long)]
    follow: bool,
}

impl Args {
    /// Prints each line with its time, level and version.
    pub(crate) fn run(self) -> Result<()> {
        runtime::block_on(self.print())
    }

    async fn print(self) -> Result<()> {
        let mut signals = StopSignals::listen()?;
        let admin = self.connection.admin()?;
        loop {
            let topics = admin.list_topics().await?;
            if topics.iter().any(|topic| topic.name == LOGS_TOPIC) {
                break;
            }
            if !self.follow {
                print_hint(&self.name);
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(TOPIC_CHECK_INTERVAL) => {}
                () = signals.next() => return Ok(()),
            }
        }
        let mut config = ConsumerConfig::new(&self.connection.bootstrap_server);
        config.client = self.connection.client_config()?;
        config.auto_offset_reset = OffsetReset::Earliest;
        config.allow_auto_create_topics = false;
        config.client.default_api_timeout = config.client.default_api_timeout.max(CALL_TIMEOUT);
        let consumer = Consumer::builder(config).build()?;
        let partitions = consumer.partitions(LOGS_TOPIC).await?;
        let ends = consumer.end_offsets(&partitions).await?;
        consumer.assign(partitions)?;
        let mut out = output::stdout();
        let mut is_silent = true;
        loop {
            let records = tokio::select! {
                records = consumer.poll(LOGS_POLL) => records?,
                () = signals.next() => break,
            };
            for record in records.iter().filter(|record| record.key.as_deref() == Some(self.name.as_bytes())) {
                print(&mut out, record)?;
                is_silent = false;
            }
            out.flush()?;
            if !self.follow && is_at_end(&consumer, &ends) {
                break;
            }
        }
        consumer.close().await?;
        if is_silent && !self.follow {
            print_hint(&self.name);
        }
        Ok(())
    }
}

/// Prints a hint, because a misspelt name has no lines either.
fn print_hint(name: &str) {
    eprintln!(
        "hint: the brokers have no log lines of {name}; `millstream plugin list -b HOST:PORT` lists the cluster's \
         plug-ins"
    );
}

fn is_at_end(consumer: &Consumer, ends: &BTreeMap<TopicPartition, i64>) -> bool {
    ends.iter().all(|(partition, end)| consumer.position(partition).is_some_and(|position| position >= *end))
}

fn print(out: &mut impl Write, record: &ConsumerRecord) -> Result<()> {
    let header = |name: &str| {
        let header = record.headers.iter().find(|header| *header.name == *name.as_bytes());
        header.and_then(|header| header.value.as_deref()).map(plain).unwrap_or_default()
    };
    let name = plain(record.key.as_deref().unwrap_or_default());
    let line = plain(record.value.as_deref().unwrap_or_default());
    Ok(writeln!(out, "{} {:<5} {name}@{}  {line}", text::utc(record.timestamp), header("level"), header("version"))?)
}

/// Returns a text without control characters, because any client may have written it.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
