//! The sandbox as this binary sets it up: compiled code is kept in the user's cache folder, and compiling is done by this
//! same binary as a child that can be killed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use millstream_stage::{Compiler, Engine, EngineConfig, Library};

/// An engine for plug-ins.
pub(crate) fn engine() -> Result<Engine> {
    let program = env::current_exe().context("cannot find the program that runs")?;
    let config = EngineConfig { cache_dir: cache_dir(), compiler: Compiler::Child(program), ..EngineConfig::default() };
    Ok(Engine::new(config)?)
}

/// The plug-ins of this binary, and those of a folder, where a file with the name of one of the binary's takes its place.
/// A file that does not load is told and left out.
pub(crate) fn library(folder: Option<&Path>) -> Result<Library> {
    let library = Library::new(engine()?);
    for (name, component) in millstream_plugins::DEFAULTS {
        library.add_embedded(name, component);
    }
    if let Some(folder) = folder {
        let bad = library.add_folder(folder);
        for (path, error) in bad.with_context(|| format!("cannot read the folder of plug-ins {}", folder.display()))? {
            eprintln!("warning: {}: {error}", path.display());
        }
    }
    Ok(library)
}

/// `$XDG_CACHE_HOME/millstream` or `~/.cache/millstream`; a user without a home compiles anew in every process.
fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("millstream"))
}
