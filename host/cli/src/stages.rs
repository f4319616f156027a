//! Stages as options name them: from the plug-ins of this binary, a folder that is watched, or a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_client::plugins::ClusterPlugins;
use millstream_stage::{Kind, Library, Stage, StageSpec, StageStats, WatchEvent, Watcher};

use crate::cluster::Cluster;
use crate::{sandbox, topic};

/// Where plug-ins come from, beside this binary.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct StageArgs {
    /// A folder of plug-ins (*.wasm), followed while the command runs: a changed file takes over at once
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// Take plug-ins, and the stages that the topic asks for, from the cluster, and follow new versions
    #[arg(long, value_name = "FROM", value_enum)]
    stages: Option<StagesFrom>,

    /// Print to stderr at the end what each stage did: calls, records, nanoseconds a record, swaps
    #[arg(long)]
    stats: bool,
}

/// Where the stages of a topic come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StagesFrom {
    /// The topic's own options and the cluster's store of plug-ins.
    Cluster,
}

/// The stages of one command, and what keeps them up to date.
pub(crate) struct Stages {
    library: Option<(Arc<Library>, Watcher)>,
    folder: Option<PathBuf>,
    from: Option<StagesFrom>,
    stats: bool,
}

impl Stages {
    /// No engine is started before the first stage is wanted.
    pub(crate) fn new(args: StageArgs) -> Self {
        Self { library: None, folder: args.plugins, from: args.stages, stats: args.stats }
    }

    /// The cluster's plug-ins, if they are wanted: from here on stages are made of them too.
    pub(crate) async fn of_cluster(&mut self, cluster: &Cluster) -> anyhow::Result<Option<ClusterPlugins>> {
        let Some(StagesFrom::Cluster) = self.from else { return Ok(None) };
        let config = topic::client_config(&cluster.without_properties())?;
        let library = self.library()?;
        Ok(Some(ClusterPlugins::follow(&config, library).await?))
    }

    /// The stage that `spec` names, if there is one.
    pub(crate) fn one(&mut self, spec: Option<&str>, kind: Kind) -> anyhow::Result<Option<Arc<Stage>>> {
        let Some(spec) = spec else { return Ok(None) };
        Ok(Some(self.library()?.resolve(&StageSpec::parse(spec)?, kind)?))
    }

    /// The stages of a chain, joined by ` | `.
    pub(crate) fn chain(&mut self, text: &str, kind: Kind) -> anyhow::Result<Vec<Arc<Stage>>> {
        Ok(self.library()?.resolve_chain(text, kind)?)
    }

    fn library(&mut self) -> anyhow::Result<Arc<Library>> {
        let (library, _) = match self.library.take() {
            Some(started) => self.library.insert(started),
            None => self.library.insert(start(self.folder.as_deref())?),
        };
        Ok(Arc::clone(library))
    }

    /// What the stages did, to stderr, if it was asked for.
    pub(crate) fn report(&self, stages: &[StageStats]) {
        if !self.stats {
            return;
        }
        let mut err = std::io::stderr().lock();
        for stats in stages {
            let each = stats.nanos.checked_div(stats.records).unwrap_or(0);
            // Nothing can be done about a stderr that is closed.
            let _ = writeln!(
                err,
                "stage {}: {} calls, {} records, {each} ns a record, {} errors, {} swaps, longest pause {} ns",
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

/// The plug-ins of this binary and of a folder, which is followed for as long as the watcher lives.
pub(crate) fn start(folder: Option<&Path>) -> anyhow::Result<(Arc<Library>, Watcher)> {
    let library = Arc::new(sandbox::library(folder)?);
    let watcher = Watcher::start(library.clone(), |event| match event {
        WatchEvent::Reloaded { path, .. } => eprintln!("loaded {}", path.display()),
        WatchEvent::Refused { path, problem } => {
            eprintln!("warning: {} is not used, the version before it goes on: {problem}", path.display());
        }
        _ => {}
    })?;
    Ok((library, watcher))
}
