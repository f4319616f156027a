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
  millstream plugin build my-filter -o my-filter.wasm  # another folder
  millstream plugin build --no-simd   # for Java, whose runtimes have no vectors")]
pub(crate) struct Args {
    /// The folder of the plug-in: a crate, a Go module, a package of npm, or C in `src`.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to write the component [default: plugins/NAME.wasm in the target folder].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Build without vector instructions, into NAME.no-simd.wasm: slower, but it runs in hosts that have none
    #[arg(long)]
    no_simd: bool,
}

impl Args {
    /// Builds, and prints only the path of the component, so that scripts can use it.
    pub(crate) fn run(self) -> Result<()> {
        let options = Options { output: self.output, no_simd: self.no_simd, verbose: true, ..Options::default() };
        let built = millstream_sdk_build::build(&self.dir, &options)?;
        Ok(output::line(&built.path.display().to_string())?)
    }
}
