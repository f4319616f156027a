//! `millstream plugin build [DIR]`.

use std::path::PathBuf;

use millstream_sdk_build::Options;

use crate::output;

/// The arguments of `millstream plugin build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin build                 the crate of this folder
  millstream plugin build my-filter -o my-filter.wasm")]
pub(crate) struct Args {
    /// The folder of the plug-in's crate.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to write the component [default: the crate's target folder].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    /// Builds, and prints the path of the component alone, so that scripts can use it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let built = millstream_sdk_build::build(&self.dir, &Options { output: self.output, ..Options::default() })?;
        output::line(&built.path.display().to_string())?;
        Ok(())
    }
}
