//! `millstream plugin test [DIR]`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use millstream_sdk_build::{Language, Options};

use crate::output;
use crate::sandbox::LimitsArgs;

/// The vectors of a plug-in, in its folder.
const VECTORS: &str = "tests/vectors.jsonl";

/// The arguments of `millstream plugin test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin test                             # the one in this folder
  millstream plugin test my-filter -- --nocapture    # with options of its tests")]
pub(crate) struct Args {
    /// The folder of the plug-in.
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    limits: LimitsArgs,
    /// Arguments for the tests of a crate.
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Args {
    /// Builds the component, then runs the tests of the crate. The test kit calls the component in the sandbox of this
    /// binary. In other languages the vectors are the tests.
    pub(crate) fn run(self) -> Result<()> {
        let options = Options { verbose: true, ..Options::default() };
        if Language::of(&self.dir)? != Language::Rust {
            ensure!(self.arguments.is_empty(), "only the tests of a crate take arguments");
            let built = millstream_sdk_build::build(&self.dir, &options)?;
            let (plugin, _) = super::load_file(&self.limits.engine()?, &built.path)?;
            let vectors = super::vectors::check(plugin, &self.dir.join(VECTORS))?;
            return Ok(output::line(&format!("test result: ok. {vectors} vectors passed in the sandbox"))?);
        }
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
