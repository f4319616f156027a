//! `millstream cluster recover`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use millstream_broker::Recovery;
use serde_json::json;

use super::ids;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Recover {
    /// The data folder of a stopped node, the one with its metadata
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Recover without the question; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Recover {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(|| self.recover()).await?
    }

    fn recover(self) -> anyhow::Result<()> {
        let recovery = Recovery::open(&self.data_dir).context("cannot recover the cluster")?;
        let (node, removed) = (recovery.node_id(), recovery.others());
        if !self.yes {
            confirm(&recovery)?;
        }
        recovery.run().context("cannot recover the cluster")?;
        let text = match self.json {
            true => json!({ "node": node, "removed": removed }).to_string(),
            false => format!("node {node} is the only voter; removed from the quorum: {}", or_none(&removed)),
        };
        Ok(output::line(&text)?)
    }
}

/// Says what may be lost, and asks on the terminal whether to go on.
fn confirm(recovery: &Recovery) -> anyhow::Result<()> {
    let mut errors = io::stderr();
    let (cluster, node, others) = (recovery.cluster_id(), recovery.node_id(), or_none(&recovery.others()));
    writeln!(
        errors,
        "Cluster {cluster}: node {node} becomes the only voter. Nodes removed from the quorum: {others}\n\
         The metadata log of node {node} ends at {} in leader epoch {}.\n\
         Lost for good: later changes of the metadata, and records that node {node} has not copied.\n\
         The removed nodes must never start again on their data folders.",
        recovery.log_end(),
        recovery.leader_epoch()
    )?;
    if !io::stdin().is_terminal() {
        bail!("nothing has changed: confirm with --yes, since there is no terminal for the question");
    }
    write!(errors, "Type yes to go on: ")?;
    errors.flush()?;
    let mut reply = String::new();
    io::stdin().lock().read_line(&mut reply)?;
    if reply.trim() != "yes" {
        bail!("nothing has changed");
    }
    Ok(())
}

fn or_none(nodes: &[i32]) -> String {
    if nodes.is_empty() { "none".to_owned() } else { ids(nodes) }
}
