//! `cargo xtask bench`: stages beside native code, with optimisation, written to docs/benchmarks.md.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::Args;

use crate::cargo::{self, cargo};

#[derive(Args)]
pub(crate) struct Options {
    /// Stages in the sandbox beside the same code compiled natively
    #[arg(long)]
    stages: bool,
    /// Measures and prints only the rows whose name contains this, and writes no page
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Builds and measures.
///
/// # Errors
/// When nothing is asked for, or the build or a row fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !options.stages {
        bail!("say what to measure: cargo xtask bench --stages");
    }
    cargo::add_wasm_target()?;
    // With the binary, so that dependencies have the features that they have there, and are compiled once for both.
    cargo::succeed(&mut cargo([
        "build",
        "--release",
        "--package",
        "millstream-cli",
        "--package",
        "millstream-bench",
        "--bin",
        "millstream-bench",
    ]))?;
    let mut bench = Command::new(cargo::target_folder()?.join("release").join("millstream-bench"));
    match &options.only {
        Some(only) => bench.arg("--only").arg(only),
        None => bench.arg("--output").arg(crate::root().join("docs/benchmarks.md")),
    };
    cargo::succeed(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
