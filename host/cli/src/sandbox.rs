//! The sandbox of this binary. Compiled code is cached in the user's cache folder. A child process, this same binary,
//! compiles plug-ins, so that it can be killed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use millstream_stage::{Compiler, Engine, EngineConfig, Library};

/// Creates an engine for plug-ins.
pub(crate) fn engine() -> Result<Engine> {
    let program = env::current_exe().context("cannot find the path of this program")?;
    let config = EngineConfig { cache_dir: cache_dir(), compiler: Compiler::Child(program), ..EngineConfig::default() };
    Ok(Engine::new(config)?)
}

/// Creates a library of this binary's plug-ins and those of a folder. A file replaces the binary's plug-in of the same
/// name. A file that cannot be loaded causes a warning and is skipped.
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

/// Returns `$XDG_CACHE_HOME/millstream` or `~/.cache/millstream`. Without a home folder there is no cache.
fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("millstream"))
}
