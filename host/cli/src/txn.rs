//! `millstream txn`: list, describe and abort transactions.

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use millstream_client::{
    Admin, ProducerDescription, TopicPartition, TransactionDescription, TransactionFilter, TransactionListing,
};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{output, runtime, text};

/// The arguments of `millstream txn`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream txn list --state Ongoing
  millstream txn describe payments-0
  millstream txn abort payments-0
  millstream txn list --hanging --topic orders
  millstream txn abort --topic orders --partition 2 --start-offset 1407

A transaction hangs if a partition has it open and no coordinator knows of it.
It blocks readers with isolation.level=read_committed until it is aborted by
its partition and start offset. A Millstream broker accepts that only on the
listener of inter.broker.listener.name.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all transactional ids with their states, or the transactions that hang
    List(List),
    /// Show the transaction of transactional ids
    Describe(Describe),
    /// Abort the transaction of a transactional id and fence its producer, or abort one that hangs
    Abort(Abort),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    connection: Connection,
    /// Only this state, such as Ongoing or PrepareCommit; may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only this producer id; may be repeated
    #[arg(long, value_name = "ID")]
    producer_id: Vec<i64>,
    /// Only transactions that are open for longer, in milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "hanging")]
    longer_than: Option<u64>,
    /// Only transactional ids that this regular expression matches as a whole
    #[arg(long, value_name = "REGEX", conflicts_with = "hanging")]
    pattern: Option<String>,
    /// Print the transactions that are open in a partition and that no coordinator knows
    #[arg(long, conflicts_with_all = ["state", "producer_id"])]
    hanging: bool,
    /// With --hanging: only in this topic [default: all topics]
    #[arg(short, long, value_name = "NAME", requires = "hanging")]
    topic: Option<String>,
    /// With --hanging: only transactions without a batch for that long, in milliseconds
    #[arg(long, value_name = "MS", requires = "hanging", default_value_t = 900_000)]
    idle: u64,
    /// Print JSON objects, one for each transaction
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Describe {
    #[command(flatten)]
    connection: Connection,
    /// The transactional ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Print JSON objects, one for each transactional id
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Abort {
    #[command(flatten)]
    connection: Connection,
    /// The transactional id
    #[arg(value_name = "ID", required_unless_present = "topic", conflicts_with = "topic")]
    id: Option<String>,
    /// The topic of a transaction that hangs
    #[arg(short, long, value_name = "NAME", requires_all = ["partition", "start_offset"])]
    topic: Option<String>,
    /// Its partition
    #[arg(short, long, value_name = "N", requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The offset at which it begins
    #[arg(long, value_name = "OFFSET", requires = "topic")]
    start_offset: Option<i64>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(async {
            match self.command {
                Command::List(args) => args.run().await,
                Command::Describe(args) => args.run().await,
                Command::Abort(args) => args.run().await,
            }
        })
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        if self.hanging {
            let partitions = partitions(&admin, self.topic.as_deref()).await?;
            let hanging = admin.hanging_transactions(&partitions, Duration::from_millis(self.idle)).await?;
            return self.print_hanging(&hanging);
        }
        let filter = TransactionFilter {
            states: self.state.clone(),
            producer_ids: self.producer_id.clone(),
            older_than: self.longer_than.map(Duration::from_millis),
            pattern: self.pattern.clone(),
        };
        self.print(&admin.list_transactions(&filter).await?)
    }

    fn print(&self, listed: &[TransactionListing]) -> anyhow::Result<()> {
        let mut out = output::stdout();
        let heads = ["TRANSACTIONAL-ID", "COORDINATOR", "PRODUCER-ID", "STATE"];
        let mut table = Table::new(heads, [Left, Right, Right, Left]);
        for one in listed {
            if self.json {
                let line = json!({
                    "transactional_id": one.transactional_id,
                    "coordinator": one.coordinator,
                    "producer_id": one.producer_id,
                    "state": one.state,
                });
                writeln!(out, "{line}")?;
            }
            let (coordinator, producer_id) = (one.coordinator.to_string(), one.producer_id.to_string());
            table.row([one.transactional_id.clone(), coordinator, producer_id, one.state.clone()]);
        }
        if !self.json {
            table.write(&mut out)?;
        }
        Ok(out.flush()?)
    }

    fn print_hanging(&self, hanging: &[ProducerDescription]) -> anyhow::Result<()> {
        let mut out = output::stdout();
        let heads = ["TOPIC", "PARTITION", "START-OFFSET", "PRODUCER-ID", "EPOCH", "LAST-BATCH"];
        let mut table = Table::new(heads, [Left, Right, Right, Right, Right, Left]);
        for one in hanging {
            let TopicPartition { topic, partition } = &one.partition;
            if self.json {
                let line = json!({
                    "topic": **topic,
                    "partition": partition,
                    "start_offset": one.transaction_start,
                    "producer_id": one.producer_id,
                    "producer_epoch": one.producer_epoch,
                    "coordinator_epoch": one.coordinator_epoch,
                    "last_batch_ms": one.last_timestamp,
                });
                writeln!(out, "{line}")?;
            }
            table.row([
                topic.to_string(),
                partition.to_string(),
                one.transaction_start.unwrap_or(-1).to_string(),
                one.producer_id.to_string(),
                one.producer_epoch.to_string(),
                text::utc(one.last_timestamp),
            ]);
        }
        if !self.json {
            table.write(&mut out)?;
        }
        Ok(out.flush()?)
    }
}

/// Returns all partitions of a topic, or of all topics but views.
async fn partitions(admin: &Admin, topic: Option<&str>) -> anyhow::Result<Vec<TopicPartition>> {
    let names = match topic {
        Some(name) => vec![name.to_owned()],
        None => {
            let names: Vec<String> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
            let views = admin.views_among(&names).await?;
            names.into_iter().filter(|name| views.iter().all(|view| view.name != *name)).collect()
        }
    };
    let topics = admin.describe_topics(&names).await?;
    let of = |topic: millstream_client::TopicDescription| {
        topic.partitions.into_iter().map(move |one| TopicPartition::new(topic.name.as_str(), one.partition))
    };
    Ok(topics.into_iter().flat_map(of).collect())
}

impl Describe {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let mut out = output::stdout();
        for id in &self.ids {
            let described = admin.describe_transaction(id).await?;
            match self.json {
                true => writeln!(out, "{}", description(&described))?,
                false => write_description(&mut out, &described)?,
            }
        }
        Ok(out.flush()?)
    }
}

fn description(described: &TransactionDescription) -> Value {
    let partition = |one: &TopicPartition| json!({ "topic": *one.topic, "partition": one.partition });
    json!({
        "transactional_id": described.transactional_id,
        "coordinator": described.coordinator,
        "state": described.state,
        "producer_id": described.producer_id,
        "producer_epoch": described.producer_epoch,
        "timeout_ms": described.timeout.as_millis() as u64,
        "started_ms": described.started,
        "partitions": described.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn write_description(out: &mut impl Write, described: &TransactionDescription) -> anyhow::Result<()> {
    let TransactionDescription { transactional_id, coordinator, state, producer_id, producer_epoch, .. } = described;
    writeln!(
        out,
        "TransactionalId: {transactional_id}\tState: {state}\tCoordinator: {coordinator}\tProducerId: {producer_id}\t\
         ProducerEpoch: {producer_epoch}\tTimeoutMs: {}",
        described.timeout.as_millis()
    )?;
    if let Some(started) = described.started {
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(started.try_into().unwrap_or(0));
        let age = SystemTime::now().duration_since(began).unwrap_or_default();
        writeln!(out, "Started: {}\tOpenForMs: {}", text::utc(started), age.as_millis())?;
    }
    if !described.partitions.is_empty() {
        let mut table = Table::new(["TOPIC", "PARTITION"], [Left, Right]);
        for one in &described.partitions {
            table.row([one.topic.to_string(), one.partition.to_string()]);
        }
        table.write(out)?;
    }
    Ok(())
}

impl Abort {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        match (&self.id, &self.topic, self.partition, self.start_offset) {
            (Some(id), ..) => self.abort_open(&admin, id).await,
            (None, Some(topic), Some(partition), Some(offset)) => {
                self.abort_hanging(&admin, TopicPartition::new(topic.as_str(), partition), offset).await
            }
            _ => bail!("name a transactional id, or --topic, --partition and --start-offset"),
        }
    }

    async fn abort_open(&self, admin: &Admin, id: &str) -> anyhow::Result<()> {
        let described = admin.describe_transaction(id).await?;
        let (state, producer_id) = (&described.state, described.producer_id);
        match state.as_str() {
            "Ongoing" | "PrepareAbort" | "PrepareEpochFence" => {}
            "PrepareCommit" => bail!("the transaction of {id} is being committed and can no longer be aborted"),
            _ => bail!("{id} has no open transaction; its state is {state}"),
        }
        admin.terminate_transaction(&described).await?;
        Ok(output::line(&match self.json {
            true => json!({ "aborted": id, "producer_id": producer_id }).to_string(),
            false => format!("aborted the transaction of {id}; its producer {producer_id} is fenced"),
        })?)
    }

    async fn abort_hanging(&self, admin: &Admin, partition: TopicPartition, offset: i64) -> anyhow::Result<()> {
        let mut producers = admin.describe_producers(std::slice::from_ref(&partition)).await?;
        producers.retain(|producer| producer.transaction_start == Some(offset));
        let producer = producers.pop();
        let producer = producer.with_context(|| format!("{partition} has no open transaction from offset {offset}"))?;
        let hanging = admin.hanging_transactions(std::slice::from_ref(&partition), Duration::ZERO).await?;
        ensure!(
            hanging.contains(&producer),
            "the coordinator knows the transaction of producer {} in {partition}: abort it by its transactional id, \
             which `millstream txn list --producer-id {}` prints",
            producer.producer_id,
            producer.producer_id
        );
        let rejected = "the broker rejects markers on this listener: connect to that of inter.broker.listener.name";
        admin.abort_hanging(&producer).await.map_err(|error| match error.code() {
            Some(code) if code.name() == Some("CLUSTER_AUTHORIZATION_FAILED") => {
                anyhow::Error::new(error).context(rejected)
            }
            _ => error.into(),
        })?;
        Ok(output::line(&match self.json {
            true => json!({
                "aborted": partition.to_string(),
                "start_offset": offset,
                "producer_id": producer.producer_id,
            })
            .to_string(),
            false => format!("aborted the transaction of producer {} in {partition}", producer.producer_id),
        })?)
    }
}
