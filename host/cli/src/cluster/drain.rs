//! `millstream cluster drain`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{bail, ensure};
use millstream_client::{Admin, TopicPartition};
use serde_json::json;

use super::ids;
use super::plan::{Node, Replicas, plan};
use crate::connection::Connection;
use crate::output;

/// The interval of the looks at the moves.
const LOOK_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The node is cordoned first: it gets no new partitions any more
(cordoned.log.dirs=*). Its partitions go to the nodes with the fewest replicas,
and racks are kept apart where that is possible. Ctrl-C ends the wait; the
moves go on. --undo lets the node take partitions again.")]
pub(super) struct Drain {
    #[command(flatten)]
    connection: Connection,
    /// The id of the node
    node: i32,
    /// Only show where the partitions would go
    #[arg(long)]
    dry_run: bool,
    /// Let the node take new partitions again, instead
    #[arg(long, conflicts_with = "dry_run")]
    undo: bool,
    /// Print JSON objects, one for each step
    #[arg(long)]
    json: bool,
}

/// The partitions of the cluster, without views.
struct State {
    /// The replicas of each partition when all moves are done.
    targets: BTreeMap<TopicPartition, Replicas>,
    /// The partitions that the node still has.
    left: BTreeSet<TopicPartition>,
}

impl State {
    async fn read(admin: &Admin, node: i32) -> anyhow::Result<Self> {
        // The moves are read first: one that ends meanwhile has left the replicas too.
        let ongoing = admin.list_reassignments().await?;
        let removing: BTreeMap<_, _> = ongoing.into_iter().map(|one| (one.partition, one.removing)).collect();
        let (mut targets, mut left) = (BTreeMap::new(), BTreeSet::new());
        for topic in stored_topics(admin).await? {
            for one in topic.partitions {
                let partition = TopicPartition::new(&*topic.name, one.partition);
                if one.replicas.contains(&node) {
                    left.insert(partition.clone());
                }
                let leaves = removing.get(&partition);
                let stays = |id: &i32| leaves.is_none_or(|leaves| !leaves.contains(id));
                let nodes = one.replicas.into_iter().filter(stays).collect();
                targets.insert(partition, Replicas { nodes, is_internal: topic.internal });
            }
        }
        Ok(Self { targets, left })
    }
}

/// Lets a node take no new replicas (KIP-1066), or take them again.
pub(super) async fn cordon(admin: &Admin, node: i32, cordons: bool) -> anyhow::Result<()> {
    let value = cordons.then(|| "*".to_owned());
    Ok(admin.alter_broker_configs(node, &BTreeMap::from([("cordoned.log.dirs".to_owned(), value)])).await?)
}

/// Returns all topics but views, which have the partitions of their sources.
pub(super) async fn stored_topics(admin: &Admin) -> anyhow::Result<Vec<millstream_client::TopicDescription>> {
    let mut names: Vec<String> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
    let views = admin.views_among(&names).await?;
    names.retain(|name| views.iter().all(|view| view.name != *name));
    Ok(admin.describe_topics(&names).await?)
}

impl Drain {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let (mut total, mut reported) = (0, None);
        if self.undo {
            self.nodes(&admin).await?;
            cordon(&admin, self.node, false).await?;
            return self.report_undone();
        }
        loop {
            let nodes = self.nodes(&admin).await?;
            let state = State::read(&admin, self.node).await?;
            let moves = plan(self.node, &nodes, &state.targets)?;
            if self.dry_run {
                return self.show(&moves);
            }
            // Otherwise new topics would be placed on the node, and internal ones come back to it.
            if reported.is_none() {
                cordon(&admin, self.node, true).await?;
            }
            self.begin(&admin, moves).await?;
            total = total.max(state.left.len());
            if reported != Some(state.left.len()) {
                self.report(state.left.len(), total)?;
                reported = Some(state.left.len());
            }
            if state.left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AFTER).await;
        }
    }

    /// Returns the other nodes that are alive.
    async fn nodes(&self, admin: &Admin) -> anyhow::Result<Vec<Node>> {
        let brokers = admin.describe_cluster().await?.brokers;
        ensure!(brokers.iter().any(|broker| broker.id == self.node), "the cluster has no node {}", self.node);
        let others = brokers.into_iter().filter(|broker| broker.id != self.node && !broker.fenced);
        let others: Vec<Node> = others.map(|broker| Node { id: broker.id, rack: broker.rack }).collect();
        if others.is_empty() {
            bail!("node {} is the only one that is alive: add another one first", self.node);
        }
        Ok(others)
    }

    async fn begin(&self, admin: &Admin, moves: BTreeMap<TopicPartition, Vec<i32>>) -> anyhow::Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        let targets = moves.into_iter().map(|(partition, replicas)| (partition, Some(replicas))).collect();
        for result in admin.alter_reassignments(&targets).await?.into_values() {
            match result {
                // The next round retries it.
                Err(error) if error.retriable() => tracing::debug!(%error, "a move is retried"),
                other => other?,
            }
        }
        Ok(())
    }

    fn report_undone(&self) -> anyhow::Result<()> {
        let text = match self.json {
            true => json!({ "node": self.node, "cordoned": false }).to_string(),
            false => format!("node {} takes new partitions", self.node),
        };
        Ok(output::line(&text)?)
    }

    fn report(&self, left: usize, total: usize) -> anyhow::Result<()> {
        let text = match self.json {
            true => json!({ "node": self.node, "left": left, "total": total }).to_string(),
            false if left == 0 => format!("node {} has no partitions", self.node),
            false => format!("node {}: {} of {total} partitions moved", self.node, total - left),
        };
        Ok(output::line(&text)?)
    }

    fn show(&self, moves: &BTreeMap<TopicPartition, Vec<i32>>) -> anyhow::Result<()> {
        if self.json {
            let moves = moves.iter().map(|(TopicPartition { topic, partition }, replicas)| {
                json!({ "topic": &**topic, "partition": partition, "replicas": replicas })
            });
            let plan = json!({ "version": 1, "partitions": moves.collect::<Vec<_>>() });
            return Ok(output::line(&plan.to_string())?);
        }
        for (TopicPartition { topic, partition }, replicas) in moves {
            output::line(&format!("{topic}:{partition}  moves to {}", ids(replicas)))?;
        }
        Ok(())
    }
}
