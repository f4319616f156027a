//! Builds a plug-in crate into a component: `cargo build` for `wasm32-unknown-unknown`, then the core
//! module that comes out is wrapped by `wit-component`, which reads the contract's types from the
//! custom section that the SDK's `export` macros left in it.
//!
//! The same crate in the same folder with the same toolchain gives the same bytes: the profile is set
//! here and not by the author's workspace, and no path of the machine is left in the module.

mod cargo;
mod component;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use component::componentize;

/// The target that plug-ins are compiled for: no operating system, so nothing of the host is
/// reachable but what the contract imports.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to write the component; without it `plugins/<name>.wasm` in the target folder.
    pub output: Option<PathBuf>,
    /// The target folder; without it the one that cargo uses for the crate. The core modules are built in its
    /// subfolder `wasm`, since other flags in the same folder would spoil each other's cache.
    pub target_dir: Option<PathBuf>,
    /// Leave cargo's own progress and errors on stderr.
    pub verbose: bool,
}

/// A plug-in that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The crate's name.
    pub package: String,
    /// The component.
    pub component: Vec<u8>,
    /// Where it was written.
    pub path: PathBuf,
}

/// Builds the plug-in crate in `dir` and writes the component to a file.
///
/// # Errors
/// `dir` holds no crate or one without a `cdylib`, the wasm target is not installed (the error says what to
/// run), the crate does not compile (the error holds what cargo said), or what it exports is not one of the
/// contract's worlds.
pub fn build(dir: &Path, options: &Options) -> Result<Built> {
    let mut modules = cargo::compile(dir, &[], options)?;
    match modules.len() {
        1 => finish(modules.remove(0), options),
        0 => bail!(
            "{} is not a plug-in: its Cargo.toml needs\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
            dir.display()
        ),
        _ => bail!("{} is a workspace of several plug-ins: name the folder of one", dir.display()),
    }
}

/// Builds several plug-in crates of the workspace in `dir` by one run of cargo, in the order of `packages`, and writes
/// each to `plugins/<name>.wasm` in the target folder.
///
/// # Errors
/// As [`build`]; the error names the crate.
pub fn build_packages(dir: &Path, packages: &[String], options: &Options) -> Result<Vec<Built>> {
    let options = Options { output: None, ..options.clone() };
    let mut modules = cargo::compile(dir, packages, &options)?;
    packages
        .iter()
        .map(|package| {
            let found = modules.iter().position(|module| module.package == *package);
            let found = found.with_context(|| format!("{package} has no `cdylib`, so it is not a plug-in"))?;
            finish(modules.swap_remove(found), &options)
        })
        .collect()
}

fn finish(module: cargo::CoreModule, options: &Options) -> Result<Built> {
    let core = fs::read(&module.path).with_context(|| format!("cannot read {}", module.path.display()))?;
    let component = componentize(&core).with_context(|| format!("{} is not a plug-in", module.package))?;
    let path = options.output.clone().unwrap_or_else(|| module.default_output());
    // An unchanged file is left alone, so that nobody who watches it wakes up.
    if fs::read(&path).ok().as_ref() != Some(&component) {
        write_whole(&path, &component)?;
    }
    Ok(Built { package: module.package, component, path })
}

/// Writes beside the file and renames, so that a host that watches the folder never loads half of one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        make_readable(file.as_file())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A temporary file is private to its owner; a plug-in is a file like any other.
#[cfg(unix)]
fn make_readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_file: &fs::File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins").join("a.wasm");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn a_folder_without_a_crate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(dir.path(), &Options::default()).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("has no Cargo.toml"), "{message}");
        assert!(message.contains(&dir.path().display().to_string()), "{message}");
    }
}
