//! `millstream cluster elect`.

use millstream_client::ElectionType;

use super::target::{Target, print};
use crate::connection::Connection;

#[derive(Debug, clap::Args)]
pub(super) struct Elect {
    #[command(flatten)]
    connection: Connection,
    /// The topic, or one of its partitions [default: all partitions that need an election]
    #[arg(value_name = "TOPIC[:PARTITION]")]
    target: Option<Target>,
    /// Elect a leader for partitions without one, even if it lacks records: they are lost
    #[arg(long)]
    unclean: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Elect {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        let election = if self.unclean { ElectionType::Unclean } else { ElectionType::Preferred };
        let partitions = match &self.target {
            Some(target) => Some(target.partitions(&admin).await?),
            None => None,
        };
        let mut results = admin.elect_leaders(election, partitions.as_deref()).await?;
        // A partition that has the leader already is as wanted.
        let mut settled = Vec::new();
        for (partition, result) in &mut results {
            if result.as_ref().is_err_and(millstream_client::Error::is_election_not_needed) {
                *result = Ok(());
                settled.push(partition.clone());
            }
        }
        print(&results, self.json, |partition| match settled.contains(partition) {
            true => "needs no election".to_owned(),
            false => "has a new leader".to_owned(),
        })
    }
}
