//! `millstream plugin ...`: make, build and look into plug-ins, and manage those of a cluster.

mod bench;
mod build;
mod call;
mod cluster;
mod history;
mod inspect;
mod list;
mod logs;
mod new;
mod push;
mod test;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use millstream_stage::{Engine, Plugin};

/// The arguments of `millstream plugin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the folder of a new plug-in, with its own test.
    New(new::Args),
    /// Build a plug-in's crate into a component.
    Build(build::Args),
    /// Run the tests of a plug-in's crate, natively and in this binary's sandbox.
    Test(test::Args),
    /// Measure what a call costs in the sandbox.
    Bench(bench::Args),
    /// Show what a plug-in is, what it imports and exports, and how much of its limits it uses.
    Inspect(inspect::Args),
    /// List the plug-ins of this binary and of a folder, or those of a cluster with what they did there.
    List(list::Args),
    /// Call a plug-in in the sandbox: JSON lines in, JSON lines out.
    Call(call::Args),
    /// Store a new version in the cluster and have it serve.
    Push(push::PushArgs),
    /// Have a version in the cluster serve.
    Activate(push::ActivateArgs),
    /// Have the last good version serve again.
    Rollback(push::RollbackArgs),
    /// Show what happened to a plug-in of the cluster.
    History(history::Args),
    /// Print what a plug-in logged in the cluster.
    Logs(logs::Args),
    /// Remove a plug-in or a version of it from the cluster.
    Delete(push::DeleteArgs),
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::New(args) => args.run(),
            Command::Build(args) => args.run(),
            Command::Test(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Inspect(args) => args.run(),
            Command::List(args) => args.run(),
            Command::Call(args) => args.run(),
            Command::Push(args) => args.run(),
            Command::Activate(args) => args.run(),
            Command::Rollback(args) => args.run(),
            Command::History(args) => args.run(),
            Command::Logs(args) => args.run(),
            Command::Delete(args) => args.run(),
        }
    }
}

/// Loads the plug-in that a user names: one of this binary by its name, or a file.
fn load(engine: &Engine, plugin: &str) -> Result<Plugin> {
    if let Some((name, bytes)) = millstream_plugins::DEFAULTS.iter().find(|(name, _)| *name == plugin) {
        return engine.load_own(bytes).with_context(|| format!("plug-in {name}"));
    }
    let path = Path::new(plugin);
    if !path.exists() {
        bail!("{plugin} is no file and no plug-in of this binary; `millstream plugin list` shows those");
    }
    let (plugin, _) = load_file(engine, path)?;
    Ok(plugin)
}

/// A plug-in and its bytes, which are read once: the file may be a pipe, or another one a moment later.
fn load_file(engine: &Engine, path: &Path) -> Result<(Plugin, Vec<u8>)> {
    let limit = engine.limits().module.size_bytes;
    let read = || -> Result<(Plugin, Vec<u8>)> {
        let mut component = Vec::new();
        // No more is read than tells a file that is over the limit.
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut component)?;
        if component.len() > limit {
            bail!("it has more bytes than the limit of {limit} for a plug-in");
        }
        Ok((engine.load(&component)?, component))
    };
    read().with_context(|| path.display().to_string())
}
