//! `millstream plugin ...`: create, build, test and inspect plug-ins, and manage those of a cluster.

mod adapt;
mod bench;
mod build;
mod call;
mod history;
mod inspect;
mod list;
mod logs;
mod names;
mod new;
mod push;
mod stats;
mod test;
mod unbundle;
mod vectors;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use millstream_stage::{Engine, LoadError, Plugin};

use crate::output;

/// The arguments of `millstream plugin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the folder of a new plug-in, with a test
    New(new::Args),
    /// Build a plug-in into a component
    Build(build::Args),
    /// Make a component of a core module of any language
    Adapt(adapt::Args),
    /// Run the tests of a plug-in: its vectors in the sandbox, and those of a crate natively too
    Test(test::Args),
    /// Measure the cost of calls in the sandbox
    Bench(bench::Args),
    /// Show a plug-in's kind, imports, exports, and its use of limits
    Inspect(inspect::Args),
    /// Write the core module of a plug-in, for hosts that have no components
    Unbundle(unbundle::Args),
    /// List the plug-ins of this binary and of a folder, or those of a cluster with their counters
    List(list::Args),
    /// Show what the plug-ins of a cluster did, and which producers they rejected
    Stats(stats::Args),
    /// Call a plug-in in the sandbox: JSON lines in, JSON lines out
    Call(call::Args),
    /// Store a new version in the cluster and activate it
    Push(push::PushArgs),
    /// Activate a version in the cluster
    Activate(push::ActivateArgs),
    /// Activate the last good version again
    Rollback(push::RollbackArgs),
    /// Show the history of a plug-in of the cluster
    History(history::Args),
    /// Print the log of a plug-in of the cluster
    Logs(logs::Args),
    /// Delete a plug-in or one of its versions from the cluster
    Delete(push::DeleteArgs),
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::New(args) => args.run(),
            Command::Build(args) => args.run(),
            Command::Adapt(args) => args.run(),
            Command::Test(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Inspect(args) => args.run(),
            Command::Unbundle(args) => args.run(),
            Command::List(args) => args.run(),
            Command::Stats(args) => args.run(),
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

/// Writes a file, with the folders above it, and prints only its path, so that scripts can use it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(output::line(&path.display().to_string())?)
}

/// Loads a plug-in of this binary by its name, or from a file.
fn load(engine: &Engine, plugin: &str) -> Result<Plugin> {
    if let Some(embedded) = millstream_plugins::find(plugin) {
        return load_embedded(engine, embedded).with_context(|| format!("plug-in {plugin}"));
    }
    let path = Path::new(plugin);
    if !path.exists() {
        bail!(
            "there is no file and no plug-in of this binary named {plugin}; `millstream plugin list` shows the plug-ins"
        );
    }
    let (plugin, _) = load_file(engine, path)?;
    Ok(plugin)
}

/// Loads a plug-in of this binary.
fn load_embedded(engine: &Engine, plugin: &'static millstream_plugins::Plugin) -> Result<Plugin, LoadError> {
    if plugin.needs_deadline { engine.load(plugin.component()) } else { engine.load_own(plugin.component()) }
}

/// Loads a plug-in from a file and returns it with its bytes. The file is read once, because it may be a pipe or
/// change.
fn load_file(engine: &Engine, path: &Path) -> Result<(Plugin, Vec<u8>)> {
    let limit = engine.limits().module.size_bytes;
    let read = || -> Result<(Plugin, Vec<u8>)> {
        let mut component = Vec::new();
        // Reads at most one byte more than the limit.
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut component)?;
        if component.len() > limit {
            bail!("it is larger than {limit} bytes, the limit of a plug-in");
        }
        Ok((engine.load(&component)?, component))
    };
    read().with_context(|| path.display().to_string())
}
