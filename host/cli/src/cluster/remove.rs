//! `millstream cluster remove`.

use anyhow::{bail, ensure};
use serde_json::json;

use super::drain::{cordon, stored_topics};
use crate::connection::Connection;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    #[command(flatten)]
    connection: Connection,
    /// The id of the node
    node: i32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Remove {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (admin, node) = (self.connection.admin()?, self.node);
        let broker = admin.describe_cluster().await?.brokers.into_iter().find(|broker| broker.id == node);
        let quorum = admin.describe_quorum().await?;
        let member = quorum.voters.into_iter().chain(quorum.observers).find(|member| member.id == node);
        ensure!(broker.is_some() || member.is_some(), "the cluster has no node {node}");
        let topics = stored_topics(&admin).await?;
        let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |one| (&topic.name, one)));
        let mut held = partitions.filter(|(_, one)| one.replicas.contains(&node));
        if let Some((topic, first)) = held.next() {
            bail!(
                "node {node} has replicas of {} partitions, the first is {topic}:{}: run `millstream cluster drain \
                 {node}` first",
                1 + held.count(),
                first.partition
            );
        }
        if broker.as_ref().is_some_and(|broker| !broker.fenced) {
            bail!("node {node} is running: stop its process first, or it registers again");
        }
        // Without a folder's id the voters are those of the configuration, which no request changes.
        let member = member.filter(|member| !member.directory_id.is_nil());
        if let Some(member) = &member {
            admin.remove_voter(node, member.directory_id).await?;
        }
        if broker.is_some() {
            // A node that gets this id later is another one.
            cordon(&admin, node, false).await?;
            admin.unregister_broker(node).await?;
        }
        let text = match self.json {
            true => {
                json!({ "node": node, "unregistered": broker.is_some(), "left_quorum": member.is_some() }).to_string()
            }
            false => format!("node {node} is removed"),
        };
        Ok(output::line(&text)?)
    }
}
