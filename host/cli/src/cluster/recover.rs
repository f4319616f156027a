//! `millstream cluster recover`.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::ids;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Recover {
    /// The data folder of a node that is stopped
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Recover {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let recover = move || millstream_broker::recover(&self.data_dir);
        let recovered = tokio::task::spawn_blocking(recover).await?.context("cannot recover the cluster")?;
        let (node, removed) = (recovered.node_id, recovered.removed);
        let text = match self.json {
            true => json!({ "node": node, "removed": removed }).to_string(),
            false => {
                let removed = if removed.is_empty() { "none".to_owned() } else { ids(&removed) };
                format!("node {node} is the only voter; removed from the quorum: {removed}")
            }
        };
        Ok(output::line(&text)?)
    }
}
