//! Builds a plug-in into a component.
//!
//! A crate is compiled by `cargo build` for `wasm32-unknown-unknown`. `wit-component` then wraps the core module; it
//! reads the world of the plug-in from a custom section that the export macros of the SDK emit. C and Go are compiled
//! with their standard libraries for WASI, and [`adapt`] makes a component of the core module that needs no WASI.
//! JavaScript gets its component from a package of npm.
//!
//! The same crate in the same folder with the same toolchain gives the same bytes: the profile is set here and not by
//! the workspace of the plug-in, and the module contains no path of the machine.

mod adapt;
mod cargo;
mod component;
mod contract;
mod language;
mod tools;
mod unbundle;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use adapt::adapt;
pub use component::componentize;
pub use contract::Kind;
pub use language::Language;
pub use unbundle::unbundle;

use cargo::Workspace;

/// The target that plug-ins are compiled for. It has no operating system, so a plug-in reaches only the imports of the
/// contract.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Options of a build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to write the component [default: `plugins/<name>.wasm` in the target folder].
    pub output: Option<PathBuf>,
    /// The target folder [default: the one that cargo uses for the crate]. Core modules and native tests are built in
    /// its subfolder `wasm`: builds with other flags in the same folder would invalidate each other's cache.
    pub target_dir: Option<PathBuf>,
    /// Builds without vector instructions, for hosts that have none. Such builds have a subfolder of their own too, and
    /// the component is `plugins/<name>.no-simd.wasm` unless `output` names another file.
    pub no_simd: bool,
    /// Lets cargo write its progress and errors to stderr.
    pub verbose: bool,
}

/// The result of a build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The name of the crate.
    pub package: String,
    /// The component.
    pub component: Vec<u8>,
    /// The file of the component.
    pub path: PathBuf,
}

/// Builds the plug-in in `dir` and writes the component to a file.
///
/// # Errors
/// - `dir` contains no plug-in, or a crate without a `cdylib`.
/// - The toolchain does not run, is too old, or lacks the wasm target (the error says what to run).
/// - The source does not compile; the error contains what the compiler printed.
/// - It exports no stage.
pub fn build(dir: &Path, options: &Options) -> Result<Built> {
    match Language::of(dir)? {
        Language::Rust => build_one(&Workspace::open(dir, options)?, false, options),
        other => language::build(other, dir, options),
    }
}

/// Builds the plug-in crate in `dir` like [`build`], and for this machine by the same run of cargo. Also returns the
/// cargo command that runs its tests on this machine.
///
/// # Errors
/// Those of [`build`].
pub fn build_with_tests(dir: &Path, options: &Options) -> Result<(Built, Command)> {
    let workspace = Workspace::open(dir, options)?;
    Ok((build_one(&workspace, true, options)?, workspace.native_tests()?))
}

fn build_one(workspace: &Workspace, native: bool, options: &Options) -> Result<Built> {
    let mut modules = workspace.compile(&[], native, options.verbose)?;
    let dir = &workspace.dir;
    match modules.len() {
        1 => finish(modules.remove(0), options),
        0 => bail!(
            "{} is not a plug-in: its Cargo.toml needs\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
            dir.display()
        ),
        _ => bail!("{} is a workspace of several plug-ins: name the folder of one", dir.display()),
    }
}

/// Builds several plug-in crates of the workspace in `dir` by one run of cargo. Writes each component to
/// `plugins/<name>.wasm` in the target folder, and returns them in the order of `packages`.
///
/// # Errors
/// Those of [`build`]; the error names the crate.
pub fn build_packages(dir: &Path, packages: &[String], options: &Options) -> Result<Vec<Built>> {
    let options = Options { output: None, ..options.clone() };
    let mut modules = Workspace::open(dir, &options)?.compile(packages, false, options.verbose)?;
    packages
        .iter()
        .map(|package| {
            let found = modules.iter().position(|module| module.package == *package);
            let found = found.with_context(|| format!("{package} is not a plug-in: it has no `cdylib`"))?;
            finish(modules.swap_remove(found), &options)
        })
        .collect()
}

fn finish(module: cargo::CoreModule, options: &Options) -> Result<Built> {
    let core = fs::read(&module.path).with_context(|| format!("cannot read {}", module.path.display()))?;
    let component = componentize(&core).with_context(|| format!("{} is not a plug-in", module.package))?;
    let path = options.output.clone().unwrap_or_else(|| module.default_output());
    write_if_changed(&path, &component)?;
    Ok(Built { package: module.package, component, path })
}

/// Writes a file unless it has these bytes: a host that watches it would load it again.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    write_whole(path, bytes)
}

/// Writes a file as a whole, by writing beside it and renaming: a host that watches the folder never loads half a file.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?.to_string_lossy();
        // The process id keeps builds apart that run at the same time.
        let beside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
            fs::remove_file(&beside).ok();
        })
    };
    write().with_context(|| format!("cannot write {}", path.display()))
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
        assert_eq!(left.len(), 1, "no temporary file remains");
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
