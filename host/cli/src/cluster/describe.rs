//! `millstream cluster describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use millstream_client::{
    Admin, BrokerDescription, ClusterDescription, LogDirDescription, PartitionDescription, PerBroker, ReplicaLog,
    TopicDescription, TopicPartition,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ids, or_dash};
use crate::connection::Connection;
use crate::output;
use crate::table::Align::{Left, Right};
use crate::table::Table;

/// How long a node may take for its response. All nodes are asked at the same time.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Describe {
    #[command(flatten)]
    connection: Connection,
    /// Show every replica with its lag and its size
    #[arg(long)]
    replicas: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What is described.
struct Description {
    cluster: ClusterDescription,
    topics: Vec<TopicDescription>,
    /// The nodes that did not respond, each with the reason. The controller does not know of it.
    not_reached: BTreeMap<i32, String>,
    /// The replicas on each node that has responded.
    logs: BTreeMap<i32, BTreeMap<TopicPartition, ReplicaLog>>,
    /// The nodes that take no new replicas.
    cordoned: BTreeSet<i32>,
}

/// One partition with its topic.
type Partition<'a> = (&'a TopicDescription, &'a PartitionDescription);

impl Describe {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let found = Description::of(&self.connection.admin()?).await?;
        for (id, reason) in &found.not_reached {
            eprintln!("warning: node {id} is not reached, and its replicas are not known: {reason}");
        }
        if self.json {
            return Ok(output::line(&found.json().to_string())?);
        }
        let mut out = output::stdout();
        let lacking = found.under_replicated();
        writeln!(
            out,
            "Cluster: {}\tNodes: {}\tController: {}\tUnderReplicatedPartitions: {}",
            found.cluster.cluster_id.as_deref().unwrap_or("-"),
            found.cluster.brokers.len(),
            or_dash(found.cluster.controller),
            lacking.len()
        )?;
        found.nodes().write(&mut out)?;
        if !lacking.is_empty() {
            writeln!(out)?;
            found.partitions(&lacking).write(&mut out)?;
        }
        if self.replicas {
            writeln!(out)?;
            found.replicas().write(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Description {
    async fn of(admin: &Admin) -> anyhow::Result<Self> {
        let mut cluster = admin.describe_cluster().await?;
        let alive: Vec<i32> = cluster.brokers.iter().filter(|broker| !broker.fenced).map(|broker| broker.id).collect();
        let has_controller = cluster.controller.is_some();
        // Metadata names a broker that forwards, if the controller is not a broker.
        let leader = async {
            let quorum = has_controller.then(|| admin.describe_quorum());
            timeout(NODE_TIMEOUT, async { quorum?.await.ok()?.leader }).await.ok().flatten()
        };
        let topics = async {
            let names: Vec<String> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
            admin.describe_topics(&names).await
        };
        let folders = admin.describe_log_dirs_of_all(alive, NODE_TIMEOUT);
        let (leader, topics, PerBroker { of: folders, not_reached }) = tokio::join!(leader, topics, folders);
        cluster.controller = leader;
        for (node, folder) in folders.iter().flat_map(|(node, folders)| folders.iter().map(move |one| (*node, one))) {
            if folder.offline {
                tracing::warn!(node, folder = folder.path, "a data folder is offline");
            }
        }
        let is_cordoned = |folders: &[LogDirDescription]| folders.iter().all(|folder| folder.cordoned);
        let cordoned = folders.iter().filter(|(_, folders)| is_cordoned(folders)).map(|(id, _)| *id).collect();
        let logs = folders
            .into_iter()
            .map(|(id, folders)| (id, folders.into_iter().flat_map(|folder| folder.replicas).collect()));
        Ok(Self { cluster, topics: topics?, logs: logs.collect(), cordoned, not_reached })
    }

    fn state(&self, broker: &BrokerDescription) -> &'static str {
        match broker.id {
            _ if broker.fenced => "fenced",
            id if self.not_reached.contains_key(&id) => "unreachable",
            id if self.cordoned.contains(&id) => "cordoned",
            _ => "alive",
        }
    }

    /// Returns the replica of a partition on a node, if it is known.
    fn log(&self, topic: &str, partition: i32, node: i32) -> Option<ReplicaLog> {
        self.logs.get(&node)?.get(&TopicPartition::new(topic, partition)).copied()
    }

    fn all(&self) -> impl Iterator<Item = Partition<'_>> {
        self.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |one| (topic, one)))
    }

    /// Returns the partitions with fewer replicas in sync than they have.
    fn under_replicated(&self) -> Vec<Partition<'_>> {
        self.all().filter(|(_, one)| one.in_sync.len() < one.replicas.len()).collect()
    }

    fn counts(&self, node: i32) -> Counts {
        let count =
            |has: &dyn Fn(&PartitionDescription) -> bool| self.all().filter(|(_, partition)| has(partition)).count();
        Counts {
            leaders: count(&|one| one.leader == Some(node)),
            replicas: count(&|one| one.replicas.contains(&node)),
            in_sync: count(&|one| one.in_sync.contains(&node)),
            lag: self.logs.get(&node).map(|logs| logs.values().map(|log| log.lag).sum()),
        }
    }

    fn nodes(&self) -> Table<8> {
        let heads = ["NODE", "ADDRESS", "RACK", "STATE", "LEADERS", "REPLICAS", "IN-SYNC", "LAG"];
        let mut table = Table::new(heads, [Right, Left, Left, Left, Right, Right, Right, Right]);
        for broker in &self.cluster.brokers {
            let Counts { leaders, replicas, in_sync, lag } = self.counts(broker.id);
            table.row([
                broker.id.to_string(),
                broker.address.to_string(),
                or_dash(broker.rack.as_deref()),
                self.state(broker).to_owned(),
                leaders.to_string(),
                replicas.to_string(),
                in_sync.to_string(),
                or_dash(lag),
            ]);
        }
        table
    }

    fn partitions(&self, partitions: &[Partition<'_>]) -> Table<6> {
        let heads = ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR", "LAG"];
        let mut table = Table::new(heads, [Left, Right, Right, Left, Left, Left]);
        for (topic, one) in partitions {
            let lag = |id: &i32| or_dash(self.log(&topic.name, one.partition, *id).map(|log| log.lag));
            table.row([
                topic.name.clone(),
                one.partition.to_string(),
                or_dash(one.leader),
                ids(&one.replicas),
                ids(&one.in_sync),
                one.replicas.iter().map(lag).collect::<Vec<_>>().join(","),
            ]);
        }
        table
    }

    fn replicas(&self) -> Table<6> {
        let heads = ["TOPIC", "PARTITION", "NODE", "ROLE", "LAG", "BYTES"];
        let mut table = Table::new(heads, [Left, Right, Right, Left, Right, Right]);
        for (topic, one) in self.all() {
            for &node in &one.replicas {
                let log = self.log(&topic.name, one.partition, node);
                table.row([
                    topic.name.clone(),
                    one.partition.to_string(),
                    node.to_string(),
                    role(one, node).to_owned(),
                    or_dash(log.map(|log| log.lag)),
                    or_dash(log.map(|log| log.bytes)),
                ]);
            }
        }
        table
    }

    fn json(&self) -> Value {
        let nodes = self.cluster.brokers.iter().map(|broker| {
            let Counts { leaders, replicas, in_sync, lag } = self.counts(broker.id);
            json!({ "id": broker.id, "address": &*broker.address, "rack": broker.rack.as_deref(),
                "state": self.state(broker), "leaders": leaders, "replicas": replicas, "in_sync": in_sync, "lag": lag })
        });
        let lacking = self.under_replicated().into_iter().map(|(topic, one)| {
            json!({ "topic": topic.name, "partition": one.partition, "leader": one.leader, "replicas": one.replicas,
                "isr": one.in_sync })
        });
        let replicas = self.all().flat_map(|(topic, one)| {
            one.replicas.iter().map(move |&node| {
                let log = self.log(&topic.name, one.partition, node);
                json!({ "topic": topic.name, "partition": one.partition, "node": node, "role": role(one, node),
                    "lag": log.map(|log| log.lag), "bytes": log.map(|log| log.bytes) })
            })
        });
        let not_reached = self.not_reached.iter().map(|(id, reason)| json!({ "id": id, "reason": reason }));
        json!({
            "cluster_id": self.cluster.cluster_id.as_deref(),
            "controller": self.cluster.controller,
            "nodes": nodes.collect::<Vec<_>>(),
            "under_replicated": lacking.collect::<Vec<_>>(),
            "replicas": replicas.collect::<Vec<_>>(),
            "not_reached": not_reached.collect::<Vec<_>>(),
        })
    }
}

/// The partitions of one node.
struct Counts {
    leaders: usize,
    replicas: usize,
    in_sync: usize,
    /// How many committed records its replicas lack, if it is known.
    lag: Option<i64>,
}

/// Returns the part of a node in a partition: `leader`, `in-sync` or `behind`.
fn role(partition: &PartitionDescription, node: i32) -> &'static str {
    match partition.leader {
        Some(leader) if leader == node => "leader",
        _ if partition.in_sync.contains(&node) => "in-sync",
        _ => "behind",
    }
}
