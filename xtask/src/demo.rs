//! `cargo xtask demo`: builds and runs `examples/earthquakes`, the main job on real input.

use std::process::{Command, ExitCode};

use anyhow::Result;
use lexopt::prelude::*;

use crate::cargo;

#[derive(Default)]
pub(crate) struct Options {
    /// Whether the broker keeps running, with its data.
    keep: bool,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// An argument is unknown.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("keep") => options.keep = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Builds and runs the example. A wrong count is an exit code.
///
/// # Errors
/// The build fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::build_programs()?;
    let target = cargo::target_folder()?;
    let binaries = target.join("debug");
    let mut example = Command::new(binaries.join("earthquakes"));
    // Its plug-ins are built where the default ones are, and share their dependencies.
    example.env("CARGO_TARGET_DIR", &target);
    example.arg("--millstream").arg(binaries.join("millstream")).arg("--work").arg(target.join("demo"));
    if options.keep {
        example.arg("--keep");
    }
    let code = example.status()?.code();
    Ok(if code == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
