//! Calls cargo, rustup and rustc.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The target that plug-ins are built for.
const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// A test program that cargo built.
pub(crate) struct TestProgram {
    /// `package` or `package::target`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The folder of the package. Tests run there, as with `cargo test`.
    pub(crate) folder: PathBuf,
}

/// Returns a cargo command that runs in the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs a command that prints to the terminal.
///
/// # Errors
/// The command cannot be started, or fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns its standard output.
///
/// # Errors
/// The command cannot be started, or fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} wrote bytes that are not UTF-8"))
}

/// Adds the standard library for plug-ins to the toolchain, if it is missing.
///
/// # Errors
/// Rustup, which could add it, is missing or fails.
pub(crate) fn add_wasm_target() -> Result<()> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", WASM_TARGET]))?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    println!("adding the target {WASM_TARGET}");
    succeed(Command::new("rustup").args(["target", "add", WASM_TARGET]).current_dir(crate::root())).with_context(|| {
        format!(
            "plug-ins need the Rust target {WASM_TARGET}: install rustup, or the package of your distribution for it"
        )
    })
}

/// Returns the target folder of the workspace.
///
/// # Errors
/// Cargo cannot read the workspace.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = output(&mut cargo(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(folder.into())
}

/// Returns the folder of Rust's own dynamic libraries, which the tests of a procedural macro need.
///
/// # Errors
/// Rustc does not run.
pub(crate) fn rust_libraries() -> Result<PathBuf> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir"]))?;
    Ok(folder.trim().into())
}

/// Builds only the programs that the demo and the examples run. A test checks that this compiles wasmtime with the same
/// features as [`build_everything`].
///
/// # Errors
/// Something does not compile; cargo has printed why.
pub(crate) fn build_programs() -> Result<()> {
    let packages = ["millstream-cli", "earthquakes", "failover", "exactly-once"];
    let packages = packages.into_iter().flat_map(|package| ["--package", package]);
    succeed(&mut cargo(["build"].into_iter().chain(packages)))
}

/// Builds all programs, tests and examples.
///
/// # Errors
/// Something does not compile; cargo has printed why.
pub(crate) fn build_everything() -> Result<()> {
    succeed(&mut cargo(["build", "--workspace", "--all-targets"]))
}

/// Builds the binary with the bugs that prove the check of the nemesis, and keeps it as `millstream-seeded-bugs` beside
/// the ordinary binary. The next build puts the ordinary binary back.
///
/// # Errors
/// It does not compile, or cannot be copied.
pub(crate) fn build_seeded_bugs() -> Result<()> {
    // With the whole workspace only the crates that have bugs are compiled again.
    let features = ["--features", "millstream-cli/seeded-bugs"];
    succeed(cargo(["build", "--workspace", "--bin", "millstream"]).args(features))?;
    let folder = target_folder()?.join("debug");
    let (copy, kept) = (folder.join("millstream-seeded-bugs.new"), folder.join("millstream-seeded-bugs"));
    fs::copy(folder.join("millstream"), &copy)
        .and_then(|_| fs::rename(&copy, &kept))
        .with_context(|| format!("cannot write {}", kept.display()))
}

/// Builds every test program of the workspace.
///
/// # Errors
/// A program does not compile; cargo has printed why.
pub(crate) fn build_tests() -> Result<Vec<TestProgram>> {
    let messages = output(&mut cargo(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]))?;
    let mut programs: Vec<TestProgram> = messages.lines().filter_map(test_program).collect();
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// Reads a line of cargo's JSON messages, and returns the test program that it names, if any.
fn test_program(line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path: PathBuf = message["executable"].as_str()?.into();
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let target = message["target"]["name"].as_str()?.replace('_', "-");
    let package = package_name(message["package_id"].as_str()?);
    let name = if target == package { package } else { format!("{package}::{target}") };
    Some(TestProgram { name, path, folder })
}

/// Returns the name in a package id such as `path+file:///x/host/log#millstream-log@0.1.0` or
/// `path+file:///x/xtask#0.1.0`.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.split_once('#').unwrap_or((id, id));
    let name = fragment.split_once('@').map_or_else(|| path.rsplit('/').next().unwrap_or(path), |(name, _)| name);
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::package_name;

    #[test]
    fn names_come_from_package_ids() {
        assert_eq!(package_name("path+file:///x/host/log#millstream-log@0.1.0"), "millstream-log");
        assert_eq!(package_name("path+file:///x/xtask#0.1.0"), "xtask");
    }
}
