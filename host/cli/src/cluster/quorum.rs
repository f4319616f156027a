//! `millstream cluster quorum`.

use std::io::Write;
use std::time::Duration;

use anyhow::anyhow;
use millstream_client::{Admin, KafkaUuid, QuorumDescription, QuorumReplica};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::or_dash;
use crate::connection::Connection;
use crate::output;
use crate::table::Align::{Left, Right};
use crate::table::Table;

/// How long the quorum may take for its response: longer than it takes to elect a leader.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection to a node may take, if the quorum does not respond.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Quorum {
    #[command(flatten)]
    connection: Connection,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Quorum {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let quorum = describe(&self.connection.admin()?).await?;
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

/// Describes the quorum. If it has no leader, the error names the nodes that are not reached.
async fn describe(admin: &Admin) -> anyhow::Result<QuorumDescription> {
    let not_reached = async {
        let cluster = admin.describe_cluster().await?;
        anyhow::Ok(admin.reach(&cluster.brokers, NODE_TIMEOUT).await.not_reached)
    };
    let (quorum, not_reached) =
        tokio::join!(timeout(QUORUM_TIMEOUT, admin.describe_quorum()), timeout(QUORUM_TIMEOUT, not_reached));
    let error = match quorum {
        Ok(Ok(quorum)) => return Ok(quorum),
        Ok(Err(error)) => error.into(),
        Err(_) => anyhow!("the quorum has no leader"),
    };
    let nodes = not_reached.ok().and_then(Result::ok).unwrap_or_default();
    let nodes = nodes.iter().map(|(id, reason)| format!("; node {id} is not reached: {reason}"));
    Err(anyhow!("{error}{}", nodes.collect::<String>()))
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
