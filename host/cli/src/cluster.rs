//! `millstream cluster`: describe the nodes of a cluster and the quorum of its metadata.

use std::io::Write;

use clap::Subcommand;
use millstream_client::{
    ClusterDescription, KafkaUuid, PartitionDescription, QuorumDescription, QuorumReplica, TopicDescription,
};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{output, runtime};

/// The arguments of `millstream cluster`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream cluster describe
  millstream cluster describe --json | jq '.under_replicated'
  millstream cluster quorum -b broker:9092")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the nodes, the partitions that they lead, and the partitions that lack replicas
    Describe(Describe),
    /// Show the leader and the voters of the metadata log, and their lag
    Quorum(Quorum),
}

#[derive(Debug, clap::Args)]
struct Describe {
    #[command(flatten)]
    connection: Connection,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Quorum {
    #[command(flatten)]
    connection: Connection,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        runtime::block_on(async {
            match self.command {
                Command::Describe(args) => args.run().await,
                Command::Quorum(args) => args.run().await,
            }
        })
    }
}

impl Describe {
    async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let cluster = admin.describe_cluster().await?;
        let names: Vec<String> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
        let topics = admin.describe_topics(&names).await?;
        if self.json {
            return Ok(output::line(&describe_json(&cluster, &topics).to_string())?);
        }
        let mut out = output::stdout();
        let lacking = under_replicated(&topics);
        writeln!(
            out,
            "Cluster: {}\tNodes: {}\tController: {}\tUnderReplicatedPartitions: {}",
            cluster.cluster_id.as_deref().unwrap_or("-"),
            cluster.brokers.len(),
            or_dash(cluster.controller),
            lacking.len()
        )?;
        let mut table =
            Table::new(["NODE", "ADDRESS", "LEADERS", "REPLICAS", "IN-SYNC"], [Right, Left, Right, Right, Right]);
        for broker in &cluster.brokers {
            let Counts { leaders, replicas, in_sync } = Counts::of(broker.id, &topics);
            table.row([
                broker.id.to_string(),
                broker.address.to_string(),
                leaders.to_string(),
                replicas.to_string(),
                in_sync.to_string(),
            ]);
        }
        table.write(&mut out)?;
        if !lacking.is_empty() {
            let heads = ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR"];
            let mut table = Table::new(heads, [Left, Right, Right, Left, Left]);
            for (topic, one) in lacking {
                let ids = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
                table.row([
                    topic.name.clone(),
                    one.partition.to_string(),
                    or_dash(one.leader),
                    ids(&one.replicas),
                    ids(&one.in_sync),
                ]);
            }
            writeln!(out)?;
            table.write(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }
}

/// The partitions of one node.
struct Counts {
    leaders: usize,
    replicas: usize,
    in_sync: usize,
}

impl Counts {
    fn of(node: i32, topics: &[TopicDescription]) -> Self {
        let count = |has: &dyn Fn(&PartitionDescription) -> bool| {
            topics.iter().flat_map(|topic| &topic.partitions).filter(|one| has(one)).count()
        };
        Self {
            leaders: count(&|one| one.leader == Some(node)),
            replicas: count(&|one| one.replicas.contains(&node)),
            in_sync: count(&|one| one.in_sync.contains(&node)),
        }
    }
}

/// Returns the partitions with fewer replicas in sync than they have.
fn under_replicated(topics: &[TopicDescription]) -> Vec<(&TopicDescription, &PartitionDescription)> {
    let all = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |one| (topic, one)));
    all.filter(|(_, one)| one.in_sync.len() < one.replicas.len()).collect()
}

fn describe_json(cluster: &ClusterDescription, topics: &[TopicDescription]) -> Value {
    let nodes = cluster.brokers.iter().map(|broker| {
        let Counts { leaders, replicas, in_sync } = Counts::of(broker.id, topics);
        json!({ "id": broker.id, "address": &*broker.address, "leaders": leaders, "replicas": replicas,
            "in_sync": in_sync })
    });
    let lacking = under_replicated(topics).into_iter().map(|(topic, one)| {
        json!({ "topic": topic.name, "partition": one.partition, "leader": one.leader, "replicas": one.replicas,
            "isr": one.in_sync })
    });
    json!({
        "cluster_id": cluster.cluster_id.as_deref(),
        "controller": cluster.controller,
        "nodes": nodes.collect::<Vec<_>>(),
        "under_replicated": lacking.collect::<Vec<_>>(),
    })
}

impl Quorum {
    async fn run(self) -> anyhow::Result<()> {
        let quorum = self.connection.admin()?.describe_quorum().await?;
        if self.json {
            return Ok(output::line(&quorum_json(&quorum).to_string())?);
        }
        let mut out = output::stdout();
        writeln!(
            out,
            "Leader: {}\tLeaderEpoch: {}\tHighWatermark: {}",
            or_dash(quorum.leader),
            quorum.leader_epoch,
            quorum.high_watermark
        )?;
        let mut table = Table::new(["NODE", "ROLE", "END", "LAG", "DIRECTORY"], [Right, Left, Right, Right, Left]);
        for (replica, role) in replicas(&quorum) {
            table.row([
                replica.id.to_string(),
                role.to_owned(),
                or_dash(replica.log_end_offset),
                or_dash(lag(&quorum, replica)),
                KafkaUuid(replica.directory_id).to_string(),
            ]);
        }
        table.write(&mut out)?;
        out.flush()?;
        Ok(())
    }
}

/// Returns all nodes with their roles: `leader`, `voter` or `observer`.
fn replicas(quorum: &QuorumDescription) -> impl Iterator<Item = (&QuorumReplica, &'static str)> {
    let role = |voter: &QuorumReplica| if quorum.leader == Some(voter.id) { "leader" } else { "voter" };
    let voters = quorum.voters.iter().map(move |voter| (voter, role(voter)));
    voters.chain(quorum.observers.iter().map(|observer| (observer, "observer")))
}

/// Returns how many records of the leader a node lacks, if it is known.
fn lag(quorum: &QuorumDescription, replica: &QuorumReplica) -> Option<i64> {
    let leader = quorum.voters.iter().find(|voter| quorum.leader == Some(voter.id))?;
    Some((leader.log_end_offset? - replica.log_end_offset?).max(0))
}

fn quorum_json(quorum: &QuorumDescription) -> Value {
    let nodes = replicas(quorum).map(|(replica, role)| {
        json!({
            "id": replica.id,
            "role": role,
            "directory_id": KafkaUuid(replica.directory_id).to_string(),
            "log_end_offset": replica.log_end_offset,
            "lag": lag(quorum, replica),
            "last_fetch_ms": replica.last_fetch_ms,
            "last_caught_up_ms": replica.last_caught_up_ms,
        })
    });
    json!({
        "leader": quorum.leader,
        "leader_epoch": quorum.leader_epoch,
        "high_watermark": quorum.high_watermark,
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

fn or_dash(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
