//! `millstream plugin build [DIR]`.

use std::path::PathBuf;

use anyhow::Result;
use millstream_sdk_build::Options;

use crate::output;

/// The arguments of `millstream plugin build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin build                              # the current folder
  millstream plugin build my-filter -o my-filter.wasm  # another folder")]
pub(crate) struct Args {
    /// The folder of the plug-in's crate.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to write the component [default: plugins/NAME.wasm in the target folder].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    /// Builds, and prints only the path of the component, so that scripts can use it.
    pub(crate) fn run(self) -> Result<()> {
        let options = Options { output: self.output, verbose: true, ..Options::default() };
        let built = millstream_sdk_build::build(&self.dir, &options)?;
        Ok(output::line(&built.path.display().to_string())?)
    }
}
