//! `cargo xtask demo`: the main job on real input. The job itself is `examples/earthquakes`; this
//! builds it and the broker, and runs it.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::cargo;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Leaves the broker running, with the data
    #[arg(long)]
    keep: bool,
}

/// Builds and runs the example.
///
/// # Errors
/// When the build fails; a wrong count is no error but an exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::build_everything()?;
    let target = cargo::target_folder()?;
    let binaries = target.join("debug");
    let mut example = Command::new(binaries.join("earthquakes"));
    example.arg("--millstream").arg(binaries.join("millstream")).arg("--work").arg(target.join("demo"));
    if options.keep {
        example.arg("--keep");
    }
    let code = example.status()?.code();
    Ok(if code == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
