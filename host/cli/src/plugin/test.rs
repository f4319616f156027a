//! `millstream plugin test [DIR]`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The arguments of `millstream plugin test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin test                             # the crate right here
  millstream plugin test my-filter -- --nocapture    # with options of its tests")]
pub(crate) struct Args {
    /// The folder of the plug-in's crate.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Arguments for the tests.
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Args {
    /// Runs the crate's tests, with this binary as the sandbox that the test kit runs the plug-in in.
    pub(crate) fn run(self) -> Result<()> {
        let manifest = self.dir.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} has no Cargo.toml: name the folder of a plug-in's crate", self.dir.display());
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut tests = Command::new(cargo);
        tests.arg("test").arg("--manifest-path").arg(manifest).arg("--").args(self.arguments);
        tests.env("MILLSTREAM", env::current_exe().context("cannot find the program that runs")?);
        let status = tests.status().context("cannot run cargo; rustup installs it")?;
        if !status.success() {
            bail!("the tests of {} failed", self.dir.display());
        }
        Ok(())
    }
}
