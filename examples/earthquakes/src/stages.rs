//! The stages of the job, and their cost.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use millstream_sdk_build::Options;
use millstream_stage::{Engine, EngineConfig, Kind, Library, Stage, StageSpec};

/// Makes the sandbox with the default plug-ins. `cache` is the folder for compiled code.
///
/// # Errors
/// The system has no memory or thread for the engine.
pub(crate) fn library(cache: &Path) -> Result<Arc<Library>> {
    let engine = Engine::new(EngineConfig { cache_dir: Some(cache.to_owned()), ..EngineConfig::default() })?;
    let library = Library::new(engine);
    for plugin in &millstream_plugins::DEFAULTS {
        library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
    }
    Ok(Arc::new(library))
}

/// Makes a stage from its text: a name or a file, then its configuration.
///
/// # Errors
/// The text is not valid, or there is no such plug-in.
pub(crate) fn stage(library: &Library, spec: &str, kind: Kind) -> Result<Arc<Stage>> {
    let spec = StageSpec::parse(spec)?;
    Ok(library.resolve(&spec, kind)?)
}

/// Builds the partitioner of this example and returns the path of its component.
///
/// # Errors
/// The partitioner does not compile.
pub(crate) fn build_region(work: &Path) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("region");
    let options = Options { output: Some(work.join("region.wasm")), ..Options::default() };
    let built = millstream_sdk_build::build(&folder, &options).context("cannot build the partitioner")?;
    Ok(built.path.display().to_string())
}

/// Prints a line about the calls of a stage and their cost.
pub(crate) fn print_cost(stage: &Stage) {
    let stats = stage.stats();
    let name = format!("{} {}", stage.plugin().description().name, stats.version);
    let nanos = stats.nanos / stats.records.max(1);
    let swap = match stats.swaps {
        0 => String::new(),
        swaps => format!("  {swaps} swap, pause {:.1} us", stats.swap_pause_max_nanos as f64 / 1_000.0),
    };
    println!("    {name:<20}{:>6} calls {:>7} records {nanos:>7} ns a record{swap}", stats.calls, stats.records);
}
