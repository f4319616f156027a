//! `cargo xtask soak`: measures a broker with many partitions.

use std::process::{Command, ExitCode};

use anyhow::Result;
use lexopt::prelude::*;

use crate::cargo::{self, cargo};

pub(crate) struct Options {
    partitions: u32,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// An argument is unknown, or not a number.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self { partitions: 10_000 };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("partitions") => options.partitions = arguments.value()?.parse()?,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Builds the binary that the tests use, and measures it.
///
/// # Errors
/// The build fails, or the broker.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::succeed(&mut cargo(["build", "--workspace", "--bins"]))?;
    let built = cargo::target_folder()?.join("debug");
    let mut bench = Command::new(built.join("millstream-bench"));
    bench.arg("--scale").arg(built.join("millstream")).args(["--partitions", &options.partitions.to_string()]);
    cargo::succeed(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
