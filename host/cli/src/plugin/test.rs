//! `millstream plugin test [DIR]`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The arguments of `millstream plugin test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin test                             # the crate in this folder
  millstream plugin test my-filter -- --nocapture    # with arguments for the tests")]
pub(crate) struct Args {
    /// The folder of the plug-in's crate
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Arguments for the tests
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Args {
    /// Runs the crate's tests. The test kit runs the plug-in in the sandbox of this binary.
    pub(crate) fn run(self) -> Result<()> {
        let manifest = self.dir.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} has no Cargo.toml: name the folder of a plug-in's crate", self.dir.display());
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut tests = Command::new(cargo);
        tests.arg("test").arg("--manifest-path").arg(manifest).arg("--").args(self.arguments);
        tests.env("MILLSTREAM", env::current_exe().context("cannot find the path of this program")?);
        let status = tests.status().context("cannot run cargo; rustup installs it")?;
        if !status.success() {
            bail!("the tests of {} failed", self.dir.display());
        }
        Ok(())
    }
}
