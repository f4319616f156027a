//! `cargo xtask bench`: measures stages beside native code, or a cluster beside one of Apache Kafka, and writes
//! docs/benchmarks.md.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::cargo::{self, cargo};
use crate::clients::{self, KAFKA_42_CLASSPATH};

#[derive(Default)]
pub(crate) struct Options {
    /// Whether to measure stages, in the sandbox and natively.
    stages: bool,
    /// Whether to measure three nodes beside three of Apache Kafka.
    cluster: bool,
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
                Long("cluster") => options.cluster = true,
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
    if options.stages == options.cluster {
        bail!("name what to measure: cargo xtask bench --stages, or cargo xtask bench --cluster");
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
    let release = cargo::target_folder()?.join("release");
    let mut bench = Command::new(release.join("millstream-bench"));
    if options.cluster {
        let clients = clients::set_up(&cargo::target_folder()?);
        let classpath = clients.value(KAFKA_42_CLASSPATH).context("Apache Kafka 4.2 cannot be set up here")?;
        bench.arg("--cluster").arg(release.join("millstream")).args(["--classpath", classpath]);
    }
    match &options.only {
        Some(only) => bench.arg("--only").arg(only),
        None => bench.arg("--output").arg(crate::root().join("docs/benchmarks.md")),
    };
    cargo::succeed(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
