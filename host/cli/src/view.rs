//! `millstream view`: create, list, describe, alter and delete views.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Subcommand;
use millstream_client::{KafkaUuid, View};

use crate::connection::Connection;
use crate::{output, runtime};

/// The arguments of `millstream view`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A view is a read-only topic that shows the records of another topic that pass a
filter: with the same partitions, offsets and timestamps, and no storage of its
own. Every Kafka client can read it. A filter is the name of a plug-in, a name
and version, or a file on the broker's machine, with its configuration as JSON.
Filters of a chain are separated by ` | `.

Examples:
  millstream view create significant --of quakes \\
      --filter 'json-compare{\"path\":\"/mag\",\"op\":\">=\",\"value\":4.5}'
  millstream view create german --of significant --failure-policy pass \\
      --filter 'contains{\"text\":\"Germany\"}'
  millstream view alter significant \\
      --filter 'json-compare{\"path\":\"/mag\",\"op\":\">=\",\"value\":6}'
  millstream view list
  millstream view describe significant
  millstream view delete german significant -b broker:9092")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a view of a topic
    Create(Create),
    /// Print all views with their sources and filters
    List(List),
    /// Show the source and the filters of views
    Describe(Names),
    /// Change the filters of a view; the change takes effect at once
    Alter(Alter),
    /// Delete views; their sources are kept
    Delete(Names),
}

/// The filters of a view.
#[derive(Debug, clap::Args)]
struct Filters {
    /// The filter, or a chain of filters separated by ` | `
    #[arg(long, value_name = "STAGE")]
    filter: Option<String>,
    /// How to handle a record for which the filter fails: skip, pass, fail or dead-letter [default: skip]
    #[arg(long, value_name = "POLICY")]
    failure_policy: Option<String>,
    /// The topic for such records with --failure-policy dead-letter
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    connection: Connection,
    /// The view's name
    name: String,
    /// The source topic, which may be a view itself
    #[arg(long, value_name = "TOPIC")]
    of: String,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, clap::Args)]
struct Alter {
    #[command(flatten)]
    connection: Connection,
    /// The view's name
    name: String,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Names {
    #[command(flatten)]
    connection: Connection,
    /// The views' names
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
                Command::Describe(args) => args.describe().await,
                Command::Alter(args) => args.run().await,
                Command::Delete(args) => args.delete().await,
            }
        })
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let Filters { filter, failure_policy, dead_letter_topic } = self.filters;
        let view = View { name: self.name, of: self.of, filter, failure_policy, dead_letter_topic };
        self.connection.admin()?.create_view(&view).await?;
        output::line(&format!("created view {} of {}", view.name, view.of))?;
        Ok(())
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let views = self.connection.admin()?.list_views().await?;
        let mut out = output::stdout();
        for view in &views {
            writeln!(out, "{}\tof {}\t{}", view.name, view.of, view.filter.as_deref().unwrap_or("no filter"))?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Alter {
    async fn run(self) -> anyhow::Result<()> {
        let Filters { filter, failure_policy, dead_letter_topic } = self.filters;
        let changes = [
            ("stage.filter", filter),
            ("stage.filter.failure.policy", failure_policy),
            ("stage.dead.letter.topic", dead_letter_topic),
        ];
        let changes = changes.into_iter().filter(|(_, value)| value.is_some());
        let changes: BTreeMap<_, _> = changes.map(|(name, value)| (name.to_owned(), value)).collect();
        anyhow::ensure!(
            !changes.is_empty(),
            "nothing to change: give --filter, --failure-policy or --dead-letter-topic"
        );
        let admin = self.connection.admin()?;
        views(&admin, std::slice::from_ref(&self.name)).await?;
        admin.alter_configs(&self.name, &changes).await?;
        output::line(&format!("altered view {}", self.name))?;
        Ok(())
    }
}

impl Names {
    async fn describe(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let views = views(&admin, &self.names).await?;
        let topics = admin.describe_topics(&self.names).await?;
        let mut out = output::stdout();
        for (view, topic) in views.iter().zip(topics) {
            let (id, count) = (KafkaUuid(topic.id), topic.partitions.len());
            writeln!(out, "View: {}\tTopicId: {id}\tPartitionCount: {count}", view.name)?;
            writeln!(out, "\tOf: {}", view.of)?;
            writeln!(out, "\tFilter: {}", view.filter.as_deref().unwrap_or("none"))?;
            writeln!(out, "\tFailurePolicy: {}", view.failure_policy.as_deref().unwrap_or("skip"))?;
            if let Some(topic) = &view.dead_letter_topic {
                writeln!(out, "\tDeadLetterTopic: {topic}")?;
            }
        }
        out.flush()?;
        Ok(())
    }

    async fn delete(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        // Prevents deleting a topic with records by mistake.
        views(&admin, &self.names).await?;
        admin.delete_topics(&self.names).await?;
        let mut out = output::stdout();
        for name in &self.names {
            writeln!(out, "deleted view {name}")?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Returns the views with these names, in that order. Each topic must be a view.
async fn views(admin: &millstream_client::Admin, names: &[String]) -> anyhow::Result<Vec<View>> {
    let found = admin.views_among(names).await?;
    names
        .iter()
        .map(|name| {
            let view = found.iter().find(|view| view.name == *name).cloned();
            view.ok_or_else(|| anyhow::anyhow!("{name} is a topic with its own records, not a view"))
        })
        .collect()
}
