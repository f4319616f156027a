//! `millstream plugin unbundle PLUGIN -o FILE`: the core module of a component, for hosts that have no components.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::inspect;

/// The arguments of `millstream plugin unbundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin unbundle murmur2 -o murmur2.core.wasm
  millstream plugin unbundle target/plugins/my-filter.wasm -o my.core.wasm")]
pub(crate) struct Args {
    /// A component, or the name of a plug-in of this binary
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// Where to write the core module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Args {
    /// Writes the core module, and prints only its path, so that scripts can use it.
    pub(crate) fn run(self) -> Result<()> {
        let component = match millstream_plugins::find(&self.plugin) {
            Some(embedded) => Cow::Borrowed(embedded.component()),
            None => Cow::Owned(inspect::read_file(Path::new(&self.plugin))?),
        };
        let module = millstream_sdk_build::unbundle(&component).with_context(|| self.plugin.clone())?;
        super::write(&self.output, &module)
    }
}
