//! `millstream topic`: create, list, describe, alter and delete topics.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;
use clap::Subcommand;
use millstream_client::{KafkaUuid, NewTopic, PartitionDescription, TopicDescription, TopicPartition};
use millstream_registry::format::STAGE_CONFIGS;

use crate::connection::Connection;
use crate::{output, runtime, text, topic_stages};

/// The offset that stands for the high watermark in a deletion of records.
const HIGH_WATERMARK: i64 = -1;

/// The arguments of `millstream topic`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream topic create quakes --partitions 4 --config retention.ms=86400000
  millstream topic list
  millstream topic describe quakes
  millstream topic alter quakes \\
      --config 'stage.admit=json-compare{\"path\":\"/mag\",\"op\":\">=\",\"value\":0}'
  millstream topic alter quakes --delete-config retention.ms
  millstream topic delete-records quakes --partition 0 --before-offset 1000
  millstream topic delete quakes -b broker:9092")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a topic
    Create(Create),
    /// Print the names of all topics
    List(List),
    /// Show a topic's partitions and its configs
    Describe(Describe),
    /// Change a topic's configs; the change takes effect at once
    Alter(Alter),
    /// Delete old records of a topic
    DeleteRecords(DeleteRecords),
    /// Delete topics with all their records
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    connection: Connection,
    /// The topic's name
    name: String,
    /// The number of partitions [default: the broker's num.partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// The replication factor [default: the broker's default.replication.factor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A config of the topic, such as retention.ms=86400000; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    config: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    connection: Connection,
    /// Include internal topics, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
}

#[derive(Debug, clap::Args)]
struct Describe {
    #[command(flatten)]
    connection: Connection,
    /// The topics' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").args(["config", "delete_config"]).required(true).multiple(true))]
struct Alter {
    #[command(flatten)]
    connection: Connection,
    /// The topic's name
    name: String,
    /// A config to set, such as retention.ms=86400000; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// A config to reset to its default; may be repeated
    #[arg(short, long, value_name = "KEY")]
    delete_config: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct DeleteRecords {
    #[command(flatten)]
    connection: Connection,
    /// The topic's name
    name: String,
    /// The partition [default: all partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Delete the records before this offset
    #[arg(long, value_name = "N", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    before_offset: Option<i64>,
    /// Delete all records that are stored now
    #[arg(long, required_unless_present = "before_offset", conflicts_with = "before_offset")]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// The topics' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Args {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(async {
            match self.command {
                Command::Create(args) => args.run().await,
                Command::List(args) => args.run().await,
                Command::Describe(args) => args.run().await,
                Command::Alter(args) => args.run().await,
                Command::DeleteRecords(args) => args.run().await,
                Command::Delete(args) => args.run().await,
            }
        })
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let mut configs = BTreeMap::new();
        for config in &self.config {
            let (key, value) = text::pair(config).with_context(|| format!("--config {config}"))?;
            configs.insert(key.to_owned(), value.to_owned());
        }
        let admin = self.connection.admin()?;
        let topic = NewTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            configs,
        };
        topic_stages::create(&admin, &self.connection, topic).await?;
        output::line(&format!("created topic {}", self.name))?;
        Ok(())
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let topics = self.connection.admin()?.list_topics().await?;
        let mut out = output::stdout();
        for topic in topics.iter().filter(|topic| self.internal || !topic.internal) {
            writeln!(out, "{}", topic.name)?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Describe {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let topics = admin.describe_topics(&self.names).await?;
        let mut out = output::stdout();
        for topic in &topics {
            let configs = admin.describe_configs(&topic.name).await?;
            let set: Vec<String> = configs
                .iter()
                .filter(|config| config.overridden)
                .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or_default()))
                .collect();
            describe(&mut out, topic, &set.join(","))?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Prints a topic in the format of kafka-topics.
fn describe(out: &mut impl Write, topic: &TopicDescription, configs: &str) -> std::io::Result<()> {
    let replication_factor = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    writeln!(
        out,
        "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replication_factor}\tConfigs: {configs}",
        topic.name,
        KafkaUuid(topic.id),
        topic.partitions.len(),
    )?;
    for PartitionDescription { partition, leader, replicas, in_sync, .. } in &topic.partitions {
        let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let (replicas, in_sync) = (list(replicas), list(in_sync));
        writeln!(
            out,
            "\tTopic: {}\tPartition: {partition}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {in_sync}",
            topic.name
        )?;
    }
    Ok(())
}

fn list(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

impl Alter {
    async fn run(self) -> anyhow::Result<()> {
        let mut changes = BTreeMap::new();
        for config in &self.config {
            let (key, value) = text::pair(config).with_context(|| format!("--config {config}"))?;
            changes.insert(key.to_owned(), Some(value.to_owned()));
        }
        let admin = self.connection.admin()?;
        if !self.delete_config.is_empty() {
            // A broker resets an unknown config without an error.
            let known = admin.describe_configs(&self.name).await?;
            for key in &self.delete_config {
                let is_known = known.iter().any(|config| config.name == *key) || STAGE_CONFIGS.contains(&key.as_str());
                anyhow::ensure!(is_known, "--delete-config {key}: there is no config with that name");
                changes.insert(key.clone(), None);
            }
        }
        topic_stages::alter(&admin, &self.connection, &self.name, changes).await?;
        output::line(&format!("altered topic {}", self.name))?;
        Ok(())
    }
}

impl DeleteRecords {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let partitions = match self.partition {
            Some(partition) => vec![partition],
            None => {
                let topics = admin.describe_topics(std::slice::from_ref(&self.name)).await?;
                topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition).collect()
            }
        };
        let offset = self.before_offset.unwrap_or(HIGH_WATERMARK);
        let before = partitions.into_iter().map(|number| (TopicPartition::new(self.name.as_str(), number), offset));
        let mut out = output::stdout();
        for (partition, start) in admin.delete_records(&before.collect()).await? {
            writeln!(out, "{partition} starts at offset {start}")?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Delete {
    async fn run(self) -> anyhow::Result<()> {
        self.connection.admin()?.delete_topics(&self.names).await?;
        topic_stages::forget(&self.connection, &self.names).await?;
        let mut out = output::stdout();
        for name in &self.names {
            writeln!(out, "deleted topic {name}")?;
        }
        out.flush()?;
        Ok(())
    }
}
