//! `millstream plugin logs`: what a plug-in logged at the brokers of a cluster.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use millstream_client::{Consumer, ConsumerConfig, ConsumerRecord, OffsetReset, TopicPartition};
use millstream_registry::LOGS_TOPIC;

use super::cluster::utc;
use crate::cluster::{self, Cluster, block_on};
use crate::{output, topic};

/// How long one look for lines lasts; a signal is seen in between.
const POLL: Duration = Duration::from_millis(200);

/// How long a command that follows waits before it looks again for a topic that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The arguments of `millstream plugin logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin logs region
  millstream plugin logs region -f | grep error

The brokers keep the lines of a day, and not more than some 16 MiB of them.")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// Wait for more
    #[arg(short, long)]
    follow: bool,
}

impl Args {
    /// One line a line: time, level, version, text.
    pub(crate) fn run(self) -> Result<()> {
        block_on(self.print())
    }

    async fn print(self) -> Result<()> {
        let mut interrupted = std::pin::pin!(cluster::told_to_end());
        let admin = topic::admin(&self.cluster)?;
        loop {
            let topics = admin.list_topics().await?;
            if topics.iter().any(|topic| topic.name == LOGS_TOPIC) {
                break;
            }
            if !self.follow {
                nothing_from(&self.name);
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = &mut interrupted => return Ok(()),
            }
        }
        let mut config = ConsumerConfig::new(&self.cluster.bootstrap_server);
        config.client = topic::client_config(&self.cluster)?;
        config.auto_offset_reset = OffsetReset::Earliest;
        config.allow_auto_create_topics = false;
        config.client.default_api_timeout = config.client.default_api_timeout.max(cluster::PATIENCE);
        let consumer = Consumer::builder(config).build()?;
        let partitions = consumer.partitions(LOGS_TOPIC).await?;
        let ends = consumer.end_offsets(&partitions).await?;
        consumer.assign(partitions)?;
        let mut out = output::stdout();
        let mut is_silent = true;
        loop {
            let records = tokio::select! {
                records = consumer.poll(POLL) => records?,
                () = &mut interrupted => break,
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
            nothing_from(&self.name);
        }
        Ok(())
    }
}

/// A name that was mistyped has no lines either.
fn nothing_from(name: &str) {
    eprintln!(
        "hint: the brokers have no lines of {name}; `millstream plugin list -b HOST:PORT` shows the cluster's plug-ins"
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
    Ok(writeln!(out, "{} {:<5} {name}@{}  {line}", utc(record.timestamp), header("level"), header("version"))?)
}

/// A text with nothing in it that a terminal obeys: anybody may have written it.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
