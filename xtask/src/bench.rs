//! `cargo xtask bench`: measures stages beside native code, optimised, and writes docs/benchmarks.md.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::cargo::{self, cargo};

#[derive(Default)]
pub(crate) struct Options {
    /// Whether to measure stages, in the sandbox and natively.
    stages: bool,
    /// Measures and prints only the rows whose name contains this, and writes no page.
    only: Option<String>,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// An argument is unknown, or `--only` has no text.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("stages") => options.stages = true,
                Long("only") => options.only = Some(arguments.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Builds and measures.
///
/// # Errors
/// The options name nothing to measure, or the build or a row fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !options.stages {
        bail!("name what to measure: cargo xtask bench --stages");
    }
    cargo::add_wasm_target()?;
    // Together with the binary, so that dependencies have the same features and are compiled once for both.
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
