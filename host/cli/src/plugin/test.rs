//! `millstream plugin test [DIR]`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use millstream_sdk_build::Options;

/// The arguments of `millstream plugin test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin test                             # the crate in this folder
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
    /// Builds the component, then runs the tests of the crate. The test kit calls the component in the sandbox of this
    /// binary.
    pub(crate) fn run(self) -> Result<()> {
        let options = Options { verbose: true, ..Options::default() };
        let (built, mut tests) = millstream_sdk_build::build_with_tests(&self.dir, &options)?;
        let component = built.path.canonicalize().with_context(|| format!("cannot find {}", built.path.display()))?;
        tests.arg("--").args(self.arguments);
        tests.env("MILLSTREAM", env::current_exe().context("cannot find the path of this program")?);
        tests.env("MILLSTREAM_COMPONENT", component);
        let status = tests.status().context("cannot run cargo: install Rust with rustup")?;
        if !status.success() {
            bail!("the tests of {} failed", self.dir.display());
        }
        Ok(())
    }
}
