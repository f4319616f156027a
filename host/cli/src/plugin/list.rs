//! `millstream plugin list`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::{output, sandbox};

/// The arguments of `millstream plugin list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin list
  millstream plugin list --plugins ./plugins")]
pub(crate) struct Args {
    /// A folder of plug-ins (*.wasm); one with the name of a plug-in of this binary takes its place.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

impl Args {
    /// One line a plug-in; a file that does not load is on stderr.
    pub(crate) fn run(self) -> Result<()> {
        let mut plugins = sandbox::library(self.plugins.as_deref())?.list()?;
        plugins.sort_by(|(_, a), (_, b)| (a.kind().name(), a.name()).cmp(&(b.kind().name(), b.name())));
        let mut out = output::stdout();
        writeln!(out, "{:<16} {:<10} {:<12} {:<24} SOURCE", "NAME", "VERSION", "KIND", "READS")?;
        for (origin, plugin) in &plugins {
            let description = plugin.description();
            let reads = match &description.format {
                Some(format) => format!("writes {format}"),
                None => description.columns.to_string(),
            };
            let (name, version, kind) = (plugin.name(), plugin.version(), plugin.kind().name());
            writeln!(out, "{name:<16} {version:<10} {kind:<12} {reads:<24} {origin}")?;
        }
        Ok(out.flush()?)
    }
}
