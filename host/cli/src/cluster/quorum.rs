//! `millstream cluster quorum`.

use std::io::Write;

use millstream_client::{KafkaUuid, QuorumDescription, QuorumReplica};
use serde_json::{Value, json};

use super::or_dash;
use crate::connection::Connection;
use crate::output;
use crate::table::Align::{Left, Right};
use crate::table::Table;

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
