//! `millstream group`: list, describe and delete consumer groups.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Subcommand;
use millstream_client::{Admin, GroupDescription, TopicPartition};

use crate::connection::Connection;
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{output, runtime};

/// The time that stands for the end of the log in a lookup of offsets.
const LOG_END: i64 = -1;

/// The arguments of `millstream group`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream group list
  millstream group describe dashboards
  millstream group delete-offsets dashboards --topic quakes
  millstream group delete dashboards reports -b broker:9092

A group can be deleted while it has no members. Offsets of a topic can be
deleted while no member subscribes to the topic.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all groups with their states
    List(List),
    /// Show the committed offsets, the lag and the members of a group
    Describe(Describe),
    /// Delete the committed offsets of a topic
    DeleteOffsets(DeleteOffsets),
    /// Delete groups with their committed offsets
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Describe {
    #[command(flatten)]
    connection: Connection,
    /// The group's name
    name: String,
}

#[derive(Debug, clap::Args)]
struct DeleteOffsets {
    #[command(flatten)]
    connection: Connection,
    /// The group's name
    name: String,
    /// The topic
    #[arg(short, long, value_name = "NAME")]
    topic: String,
    /// The partition [default: all partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// The groups' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Args {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(async {
            match self.command {
                Command::List(args) => args.run().await,
                Command::Describe(args) => args.run().await,
                Command::DeleteOffsets(args) => args.run().await,
                Command::Delete(args) => args.run().await,
            }
        })
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let groups = self.connection.admin()?.list_groups().await?;
        let mut table = Table::new(["GROUP", "STATE"], [Left; 2]);
        for group in groups {
            table.row([group.group_id, group.state]);
        }
        let mut out = output::stdout();
        table.write(&mut out)?;
        out.flush()?;
        Ok(())
    }
}

impl Describe {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let group = admin.describe_group(&self.name).await?;
        anyhow::ensure!(group.state != "Dead", "there is no group {}", self.name);
        let mut out = output::stdout();
        let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
        writeln!(
            out,
            "Group: {}\tState: {}\tAssignor: {assignor}\tMembers: {}",
            group.group_id,
            group.state,
            group.members.len()
        )?;
        offsets(&admin, &group).await?.write(&mut out)?;
        out.flush()?;
        Ok(())
    }
}

/// Returns a table of all partitions with a committed offset or a member.
async fn offsets(admin: &Admin, group: &GroupDescription) -> anyhow::Result<Table<6>> {
    let topics = admin.list_topics().await?;
    let all = topics.iter().flat_map(|topic| {
        (0..topic.partitions as i32).map(|partition| TopicPartition::new(topic.name.as_str(), partition))
    });
    let all: Vec<TopicPartition> = all.collect();
    let committed = admin.list_group_offsets(&group.group_id, &all).await?;
    let members: BTreeMap<&TopicPartition, &str> = group
        .members
        .iter()
        .flat_map(|member| member.partitions.iter().map(|partition| (partition, member.client_id.as_str())))
        .collect();
    let shown: Vec<&TopicPartition> =
        all.iter().filter(|one| committed.contains_key(*one) || members.contains_key(*one)).collect();
    let ends = admin.list_offsets(&shown.iter().map(|partition| ((*partition).clone(), LOG_END)).collect()).await?;
    let heads = ["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "CLIENT"];
    let mut table = Table::new(heads, [Left, Right, Right, Right, Right, Left]);
    let or_dash = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for partition in shown {
        let offset = committed.get(partition).map(|committed| committed.offset);
        let end = ends.get(partition).map(|end| end.offset);
        let lag = offset.zip(end).map(|(offset, end)| (end - offset).max(0));
        table.row([
            partition.topic.to_string(),
            partition.partition.to_string(),
            or_dash(offset),
            or_dash(end),
            or_dash(lag),
            members.get(partition).copied().unwrap_or("-").to_owned(),
        ]);
    }
    Ok(table)
}

impl DeleteOffsets {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let partitions = match self.partition {
            Some(partition) => vec![TopicPartition::new(self.topic.as_str(), partition)],
            None => {
                let topics = admin.describe_topics(std::slice::from_ref(&self.topic)).await?;
                let partitions = topics.iter().flat_map(|topic| &topic.partitions);
                partitions.map(|one| TopicPartition::new(self.topic.as_str(), one.partition)).collect()
            }
        };
        admin.delete_group_offsets(&self.name, &partitions).await?;
        let mut out = output::stdout();
        for partition in partitions {
            writeln!(out, "deleted the offset of group {} for {partition}", self.name)?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Delete {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let mut out = output::stdout();
        for name in &self.names {
            admin.delete_group(name).await?;
            writeln!(out, "deleted group {name}")?;
            out.flush()?;
        }
        Ok(())
    }
}
