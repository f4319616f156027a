//! The sandbox of this binary. Compiled code is cached in the user's cache folder. A child process, this same binary,
//! compiles plug-ins, so that it can be killed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use millstream_stage::{Compiler, Engine, EngineConfig, Library, Limits};

/// The limits of plug-ins in a command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LimitsArgs {
    /// The limits of a plug-in's file: `large` has room for Python, as `plugin.limits=large` of a broker [default:
    /// default]
    #[arg(long, value_name = "PROFILE", value_parser = Limits::PROFILES)]
    limits: Option<String>,
}

impl LimitsArgs {
    /// Creates an engine for plug-ins of these limits.
    pub(crate) fn engine(&self) -> Result<Engine> {
        engine(self.get())
    }

    /// Returns the limits.
    pub(crate) fn get(&self) -> Limits {
        self.limits.as_deref().and_then(Limits::of_profile).unwrap_or_default()
    }
}

/// Creates an engine for plug-ins.
fn engine(limits: Limits) -> Result<Engine> {
    let program = env::current_exe().context("cannot find the path of this program")?;
    let compiler = Compiler::Child(program);
    Ok(Engine::new(EngineConfig { cache_dir: cache_dir(), compiler, limits, ..EngineConfig::default() })?)
}

/// Creates a library of this binary's plug-ins and those of a folder. A file replaces the binary's plug-in of the same
/// name. A file that cannot be loaded causes a warning and is skipped.
pub(crate) fn library(limits: Limits, folder: Option<&Path>) -> Result<Library> {
    let library = Library::new(engine(limits)?);
    for plugin in &millstream_plugins::DEFAULTS {
        library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
    }
    if let Some(folder) = folder {
        let bad = library.add_folder(folder);
        for (path, error) in bad.with_context(|| format!("cannot read the folder of plug-ins {}", folder.display()))? {
            eprintln!("warning: {}: {error}", path.display());
        }
    }
    Ok(library)
}

/// Returns `$XDG_CACHE_HOME/millstream` or `~/.cache/millstream`. Without a home folder there is no cache.
fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("millstream"))
}
