//! `millstream plugin push`, `activate`, `rollback` and `delete`: change the cluster's plug-ins.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use millstream_stage::EMBEDDED_NUMBER;

use super::names::{is_embedded, name_and_number, optional_number, version_name};
use crate::connection::Connection;
use crate::sandbox::LimitsArgs;
use crate::{output, runtime};

/// The arguments of `millstream plugin push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin push target/plugins/region.wasm
  millstream plugin push region.wasm --no-activate
  millstream plugin activate region@2
  millstream plugin push build/region.wasm --name region-eu -b broker:9092
  curl -s https://host/region.wasm | millstream plugin push /dev/stdin

Everything that uses the plug-in's name gets the version from the next batch on.
A Millstream broker checks that it works for every topic that uses it; if not,
it rejects the version and nothing changes. Pushing the same bytes again does
not create another version.")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    connection: Connection,
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name in the cluster [default: the plug-in's own name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Store the version without activating it
    #[arg(long)]
    no_activate: bool,
    #[command(flatten)]
    limits: LimitsArgs,
}

impl PushArgs {
    /// Prints `NAME@NUMBER`, and whether it is active.
    pub(crate) fn run(self) -> Result<()> {
        let engine = self.limits.engine()?;
        // Checked here first, so that an invalid file is not sent.
        let (plugin, component) = super::load_file(&engine, &self.file)?;
        let store = self.connection.plugin_store()?;
        let pushed = runtime::block_on(async move {
            let pushed = store.push(&component, &plugin, self.name.as_deref(), !self.no_activate).await;
            store.close().await;
            Ok(pushed?)
        })?;
        let what = match (pushed.is_new, pushed.active) {
            (true, true) => "pushed and active",
            (true, false) => "pushed, not active",
            (false, true) => "already exists, active",
            (false, false) => "already exists, not active",
        };
        Ok(output::line(&format!("{} {what}", version_name(&pushed.name, pushed.number)))?)
    }
}

/// The arguments of `millstream plugin activate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin activate region@3
  millstream plugin activate json@0       # the one in the binary")]
pub(crate) struct ActivateArgs {
    #[command(flatten)]
    connection: Connection,
    /// The plug-in and the number of its version
    #[arg(value_name = "NAME@VERSION")]
    target: String,
}

impl ActivateArgs {
    pub(crate) fn run(self) -> Result<()> {
        let (name, number) = name_and_number(&self.target)?;
        // A broker accepts 0 for a plug-in that no stage uses, although the binary has none.
        ensure!(
            number != EMBEDDED_NUMBER || is_embedded(name),
            "{name}@0 means the {name} in the binary, but the binary has no such plug-in"
        );
        let store = self.connection.plugin_store()?;
        let number = runtime::block_on(async move {
            let number = store.activate(name, number).await;
            store.close().await;
            Ok(number?)
        })?;
        Ok(output::line(&format!("{} is active", version_name(name, number)))?)
    }
}

/// The arguments of `millstream plugin rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin rollback region
  millstream plugin rollback region --reason 'loses events of Alaska'

The previously active version becomes active again, or if it is bad, the one
before it. The current version is marked as bad until it is activated by its
number.")]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    connection: Connection,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT", default_value = "rolled back by a user")]
    reason: String,
}

impl RollbackArgs {
    pub(crate) fn run(self) -> Result<()> {
        let store = self.connection.plugin_store()?;
        let name = &self.name;
        let number = runtime::block_on(async move {
            let number = store.rollback(name, &self.reason, is_embedded(name)).await;
            store.close().await;
            Ok(number?)
        })?;
        Ok(output::line(&format!("{} is active", version_name(name, number)))?)
    }
}

/// The arguments of `millstream plugin delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin delete region@1
  millstream plugin delete region         # all of its versions

A plug-in that a topic uses cannot be deleted; the error names the topic.")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    connection: Connection,
    /// The plug-in, or one version of it
    #[arg(value_name = "NAME[@VERSION]")]
    target: String,
}

impl DeleteArgs {
    pub(crate) fn run(self) -> Result<()> {
        let (name, number) = optional_number(&self.target)?;
        let store = self.connection.plugin_store()?;
        runtime::block_on(async move {
            let deleted = store.delete(name, number).await;
            store.close().await;
            Ok(deleted?)
        })?;
        Ok(output::line(&format!("deleted {}", self.target))?)
    }
}
