//! `millstream plugin test [DIR]`.

use std::env;
use std::path::{Path, PathBuf};

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
  millstream plugin test my-filter -- --nocapture    # with options of its tests
  millstream plugin test filter.wasm --vectors vectors.jsonl   # any component")]
pub(crate) struct Args {
    /// The folder of the plug-in, or a component
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// The vectors [default: tests/vectors.jsonl in the folder]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
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
        let dir = &self.plugin;
        if dir.is_file() {
            let vectors = self.vectors.as_ref().context("name the vectors of the component with --vectors FILE")?;
            return self.check(dir, vectors);
        }
        if Language::of(dir)? != Language::Rust {
            let built = millstream_sdk_build::build(dir, &options)?;
            return self.check(&built.path, &self.vectors.clone().unwrap_or_else(|| dir.join(VECTORS)));
        }
        ensure!(self.vectors.is_none(), "the tests of a crate name its vectors: leave --vectors out");
        let (built, mut tests) = millstream_sdk_build::build_with_tests(dir, &options)?;
        let component = built.path.canonicalize().with_context(|| format!("cannot find {}", built.path.display()))?;
        tests.arg("--").args(&self.arguments);
        tests.env("MILLSTREAM", env::current_exe().context("cannot find the path of this program")?);
        tests.env("MILLSTREAM_COMPONENT", component);
        let status = tests.status().context("cannot run cargo: install Rust with rustup")?;
        if !status.success() {
            bail!("the tests of {} failed", dir.display());
        }
        Ok(())
    }

    /// Runs the vectors of a component that has no other tests.
    fn check(&self, component: &Path, vectors: &Path) -> Result<()> {
        ensure!(self.arguments.is_empty(), "only the tests of a crate take arguments");
        let (plugin, _) = super::load_file(&self.limits.engine()?, component)?;
        let vectors = super::vectors::check(plugin, vectors)?;
        Ok(output::line(&format!("test result: ok. {vectors} vectors passed in the sandbox"))?)
    }
}
