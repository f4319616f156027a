//! The stages of a command, from plug-ins of this binary, a watched folder, a file, or the cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_client::plugins::ClusterPlugins;
use millstream_stage::{Kind, Library, Limits, Stage, StageSpec, StageStats, WatchEvent, Watcher};

use crate::connection::Connection;
use crate::sandbox::{self, LimitsArgs};

/// Sources of plug-ins besides this binary.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct StageArgs {
    /// A folder of plug-ins (*.wasm); a file that changes while the command runs is reloaded
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// Use the plug-ins of the cluster and the stages that the topic asks for, and follow new versions
    #[arg(long, value_name = "FROM", value_enum)]
    stages: Option<StagesFrom>,

    /// Print statistics of each stage to stderr at the end: calls, records, nanoseconds per record, swaps
    #[arg(long)]
    stats: bool,

    #[command(flatten)]
    limits: LimitsArgs,
}

/// The source of a topic's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StagesFrom {
    /// The configs of the topic and the plug-ins of the cluster
    Cluster,
}

/// Creates the stages of one command and keeps them up to date.
pub(crate) struct Stages {
    library: Option<(Arc<Library>, Watcher)>,
    folder: Option<PathBuf>,
    from: Option<StagesFrom>,
    stats: bool,
    limits: LimitsArgs,
}

impl Stages {
    /// Creates no stage yet. The engine starts with the first stage.
    pub(crate) fn new(args: StageArgs) -> Self {
        Self { library: None, folder: args.plugins, from: args.stages, stats: args.stats, limits: args.limits }
    }

    /// Starts to follow the cluster's plug-ins, if the user asked for them. Later stages can use them too.
    pub(crate) async fn of_cluster(&mut self, connection: &Connection) -> anyhow::Result<Option<ClusterPlugins>> {
        let Some(StagesFrom::Cluster) = self.from else { return Ok(None) };
        let config = connection.without_properties().client_config()?;
        let library = self.library()?;
        Ok(Some(ClusterPlugins::follow(&config, library).await?))
    }

    /// Creates the stage that `spec` names, if any.
    pub(crate) fn one(&mut self, spec: Option<&str>, kind: Kind) -> anyhow::Result<Option<Arc<Stage>>> {
        let Some(spec) = spec else { return Ok(None) };
        Ok(Some(self.library()?.resolve(&StageSpec::parse(spec)?, kind)?))
    }

    /// Creates the stages of a chain, separated by ` | `.
    pub(crate) fn chain(&mut self, text: &str, kind: Kind) -> anyhow::Result<Vec<Arc<Stage>>> {
        Ok(self.library()?.resolve_chain(text, kind)?)
    }

    fn library(&mut self) -> anyhow::Result<Arc<Library>> {
        let (library, _) = match self.library.take() {
            Some(started) => self.library.insert(started),
            None => self.library.insert(start(self.limits.get(), self.folder.as_deref())?),
        };
        Ok(Arc::clone(library))
    }

    /// Prints statistics to stderr, if the user asked for them.
    pub(crate) fn report(&self, stages: &[StageStats]) {
        if !self.stats {
            return;
        }
        let mut err = std::io::stderr().lock();
        for stats in stages {
            let per_record = stats.nanos.checked_div(stats.records).unwrap_or(0);
            // A closed stderr cannot be reported.
            let _ = writeln!(
                err,
                "stage {}: {} calls, {} records, {per_record} ns per record, {} errors, {} swaps, longest pause {} ns",
                stats.version_name(),
                stats.calls,
                stats.records,
                stats.errors,
                stats.swaps,
                stats.swap_pause_max_nanos,
            );
        }
    }
}

/// Creates a library of this binary's plug-ins and those of a folder, which is watched while the watcher lives.
pub(crate) fn start(limits: Limits, folder: Option<&Path>) -> anyhow::Result<(Arc<Library>, Watcher)> {
    let library = Arc::new(sandbox::library(limits, folder)?);
    let watcher = Watcher::start(library.clone(), |event| match event {
        WatchEvent::Reloaded { path, .. } => eprintln!("reloaded {}", path.display()),
        WatchEvent::Refused { path, problem } => {
            eprintln!("warning: {} cannot be used; keeping the previous version: {problem}", path.display());
        }
        _ => {}
    })?;
    Ok((library, watcher))
}
