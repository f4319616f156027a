//! `millstream plugin adapt CORE.wasm -o COMPONENT.wasm`: makes a component of a core module of any language.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The arguments of `millstream plugin adapt`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin adapt filter.core.wasm -o filter.wasm
  asc filter.ts -o core.wasm --use abort= &&
      millstream plugin adapt core.wasm -o filter.wasm

The module exports the functions of one kind of stage. What it imports of WASI
preview 1 is satisfied by functions without a system behind them: what it
prints becomes lines of the host's log, the clock is a counter, random numbers
are always the same, and every file is missing. Neighbouring data segments are
merged.")]
pub(crate) struct Args {
    /// A core WebAssembly module
    #[arg(value_name = "CORE")]
    module: PathBuf,
    /// Where to write the component
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Args {
    /// Adapts the module, and prints the path of the component.
    pub(crate) fn run(self) -> Result<()> {
        let shown = self.module.display();
        let module = fs::read(&self.module).with_context(|| format!("cannot read {shown}"))?;
        let component = millstream_sdk_build::adapt(&module).with_context(|| format!("cannot adapt {shown}"))?;
        super::write(&self.output, &component)
    }
}
