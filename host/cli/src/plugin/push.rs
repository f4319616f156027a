//! `millstream plugin push`, `activate`, `rollback` and `delete`: changes of the cluster's plug-ins.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use millstream_stage::EMBEDDED_NUMBER;

use super::cluster::{is_embedded, name_and_number, optional_number, shown, store};
use crate::cluster::{Cluster, block_on};
use crate::{output, sandbox};

/// The arguments of `millstream plugin push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin push target/plugins/region.wasm
  millstream plugin push region.wasm --no-activate
  millstream plugin activate region@2
  millstream plugin push build/region.wasm --name region-eu -b broker:9092
  curl -s https://host/region.wasm | millstream plugin push /dev/stdin

The version serves whatever follows the plug-in's name from the next batch on.
At a Millstream broker it must work for every topic that uses it, or it is
refused and nothing changes. The same bytes are one version, however often they
are pushed.")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name in the cluster [default: what the plug-in calls itself]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only store the version: what serves stays as it is
    #[arg(long)]
    no_activate: bool,
}

impl PushArgs {
    /// Prints `NAME@NUMBER`, and whether it serves.
    pub(crate) fn run(self) -> Result<()> {
        let engine = sandbox::engine()?;
        // Read and checked here first: what is no plug-in need not travel.
        let (plugin, component) = super::load_file(&engine, &self.file)?;
        let store = store(&self.cluster)?;
        let pushed = block_on(async move {
            let pushed = store.push(&component, &plugin, self.name.as_deref(), !self.no_activate).await;
            store.close().await;
            Ok(pushed?)
        })?;
        let what = match (pushed.is_new, pushed.active) {
            (true, true) => "pushed and active",
            (true, false) => "pushed, not active",
            (false, true) => "was there already, active",
            (false, false) => "was there already, not active",
        };
        Ok(output::line(&format!("{} {what}", shown(&pushed.name, pushed.number)))?)
    }
}

/// The arguments of `millstream plugin activate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin activate region@3
  millstream plugin activate json@0       # the one in the binary again")]
pub(crate) struct ActivateArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// The plug-in and the number of its version
    #[arg(value_name = "NAME@VERSION")]
    target: String,
}

impl ActivateArgs {
    pub(crate) fn run(self) -> Result<()> {
        let (name, number) = name_and_number(&self.target)?;
        // A broker takes it, for a plug-in that nothing uses; what it would say is not true.
        ensure!(number != EMBEDDED_NUMBER || is_embedded(name), "{name}@0 is the {name} in the binary, which has none");
        let store = store(&self.cluster)?;
        let number = block_on(async move {
            let number = store.activate(name, number).await;
            store.close().await;
            Ok(number?)
        })?;
        Ok(output::line(&format!("{} is active", shown(name, number)))?)
    }
}

/// The arguments of `millstream plugin rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin rollback region
  millstream plugin rollback region --reason 'loses events of Alaska'

The version that served before serves again, unless it was bad too: then the one
before that. The version that is left is marked as bad until it is activated by
its number.")]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "rolled back by hand")]
    reason: String,
}

impl RollbackArgs {
    pub(crate) fn run(self) -> Result<()> {
        let store = store(&self.cluster)?;
        let name = &self.name;
        let number = block_on(async move {
            let number = store.rollback(name, &self.reason, is_embedded(name)).await;
            store.close().await;
            Ok(number?)
        })?;
        Ok(output::line(&format!("{} is active", shown(name, number)))?)
    }
}

/// The arguments of `millstream plugin delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin delete region@1
  millstream plugin delete region         # all of its versions

What a topic uses is not deleted: its error names the topic.")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// The plug-in, or one version of it
    #[arg(value_name = "NAME[@VERSION]")]
    target: String,
}

impl DeleteArgs {
    pub(crate) fn run(self) -> Result<()> {
        let (name, number) = optional_number(&self.target)?;
        let store = store(&self.cluster)?;
        block_on(async move {
            let deleted = store.delete(name, number).await;
            store.close().await;
            Ok(deleted?)
        })?;
        Ok(output::line(&format!("deleted {}", self.target))?)
    }
}
