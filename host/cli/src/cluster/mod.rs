//! `millstream cluster`: the nodes of a cluster, the quorum of its metadata, and where its partitions are.

mod describe;
mod drain;
mod elect;
mod plan;
mod quorum;
mod reassign;
mod recover;
mod remove;
mod start;
mod target;

use clap::Subcommand;

use crate::runtime;

/// The arguments of `millstream cluster`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream cluster start
  millstream cluster describe
  millstream cluster describe --json | jq '.under_replicated'
  millstream cluster quorum -b broker:9092
  millstream cluster reassign quakes --to 1,2,3
  millstream cluster reassign quakes:0 --cancel
  millstream cluster elect quakes
  millstream cluster drain 3 && millstream cluster remove 3

A node is taken out in three steps: drain it, stop its process, remove it.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster on this machine; Ctrl-C ends it
    Start(start::Start),
    /// Show the nodes, the partitions that they lead, and the partitions that lack replicas
    Describe(describe::Describe),
    /// Show the leader and the voters of the metadata log, and their lag
    Quorum(quorum::Quorum),
    /// Move partitions to other nodes, or show and cancel such moves
    Reassign(reassign::Reassign),
    /// Give partitions back to their preferred leaders, or leaders to those without one
    Elect(elect::Elect),
    /// Move all partitions away from a node, and wait until it has none
    Drain(drain::Drain),
    /// Remove a drained and stopped node from the cluster
    Remove(remove::Remove),
    /// Make a stopped node the only voter, after the majority was lost for good
    Recover(recover::Recover),
}

impl Args {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(async {
            match self.command {
                Command::Start(args) => args.run().await,
                Command::Describe(args) => args.run().await,
                Command::Quorum(args) => args.run().await,
                Command::Reassign(args) => args.run().await,
                Command::Elect(args) => args.run().await,
                Command::Drain(args) => args.run().await,
                Command::Remove(args) => args.run().await,
                Command::Recover(args) => args.run().await,
            }
        })
    }
}

fn or_dash(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Formats node ids as `1,2,3`.
fn ids(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
