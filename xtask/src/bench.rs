//! `cargo xtask bench`: measures stages beside native code, one broker beside Apache Kafka, and a cluster beside one of
//! Apache Kafka. Writes docs/benchmarks.md.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lexopt::prelude::*;

use crate::cargo::{self, cargo};
use crate::clients;

#[derive(Default)]
pub(crate) struct Options {
    /// What to measure; all of it if nothing is named.
    parts: Vec<Part>,
    /// Measures and prints only the rows whose name contains this, and writes no page.
    only: Option<String>,
}

/// A part of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Stages, in the sandbox and natively.
    Stages,
    /// One broker beside one of Apache Kafka.
    Broker,
    /// Three nodes beside three of Apache Kafka.
    Cluster,
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
                Long("stages") => options.parts.push(Part::Stages),
                Long("broker") => options.parts.push(Part::Broker),
                Long("cluster") => options.parts.push(Part::Cluster),
                Long("only") => options.only = Some(arguments.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        if options.parts.is_empty() {
            options.parts = vec![Part::Stages, Part::Broker, Part::Cluster];
        }
        Ok(options)
    }
}

/// Builds and measures.
///
/// # Errors
/// The build fails, or a row.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
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
    let target = cargo::target_folder()?;
    let kafka = if options.parts == [Part::Stages] { None } else { kafka(&target) };
    for part in &options.parts {
        if (*part, &kafka) == (Part::Cluster, &None) && options.parts.len() > 1 {
            println!("the cluster is left out: there is nothing to compare it with");
            continue;
        }
        measure(*part, &target.join("release"), kafka.as_deref(), options.only.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the class path of Apache Kafka 4.2, or says why there is none.
fn kafka(target: &Path) -> Option<String> {
    clients::kafka_42(target)
        .inspect_err(|error| println!("Apache Kafka 4.2 cannot be set up here, so its figures are left out: {error:#}"))
        .ok()
}

fn measure(part: Part, release: &Path, kafka: Option<&str>, only: Option<&str>) -> Result<()> {
    let mut bench = Command::new(release.join("millstream-bench"));
    let millstream = release.join("millstream");
    match part {
        Part::Stages => {
            let languages = clients::set_up_languages(&cargo::target_folder()?);
            languages.missing.iter().for_each(|missing| println!("left out: {missing}"));
            bench.envs(languages.environment);
        }
        Part::Broker => {
            bench.arg("--broker").arg(millstream).args(["--commit", &commit()?]);
        }
        Part::Cluster => {
            kafka.context("a cluster is compared with one of Apache Kafka, which cannot be set up here")?;
            bench.arg("--cluster").arg(millstream);
        }
    }
    if let (Part::Broker | Part::Cluster, Some(classpath)) = (part, kafka) {
        bench.args(["--classpath", classpath]);
    }
    match only {
        Some(only) => bench.args(["--only", only]),
        None => bench.arg("--output").arg(crate::root().join("docs/benchmarks.md")),
    };
    cargo::succeed(&mut bench)
}

/// Returns the commit of the working tree.
fn commit() -> Result<String> {
    let mut git = Command::new("git");
    let commit = cargo::output(git.args(["rev-parse", "--short", "HEAD"]).current_dir(crate::root()))?;
    Ok(commit.trim().to_owned())
}
