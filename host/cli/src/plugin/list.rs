//! `millstream plugin list`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use super::stats::Stats;
use crate::connection::Connection;
use crate::sandbox::LimitsArgs;
use crate::table::Align::Left;
use crate::table::Table;
use crate::{output, sandbox};

/// The arguments of `millstream plugin list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin list
  millstream plugin list --plugins ./plugins
  millstream plugin list -b 127.0.0.1:9092
  millstream plugin list -b broker:9092 --json | jq '.[] | select(.traps > 0)'

With -b, the counters are the sums over the brokers that are alive, since the
start of each: a line for each plug-in, and below it for its versions that are
active, bad or were used.
Below them are the producers whose batches stages rejected, per topic. `plugin
stats` prints both as JSON, too.")]
pub(crate) struct Args {
    /// A folder of plug-ins (*.wasm); a file replaces the plug-in of this binary with the same name
    #[arg(long, value_name = "DIR", conflicts_with = "bootstrap_server")]
    plugins: Option<PathBuf>,
    /// List the plug-ins of the cluster with this broker
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT")]
    bootstrap_server: Option<String>,
    /// Print the counters of the versions as a JSON array
    #[arg(long, requires = "bootstrap_server")]
    json: bool,
    #[command(flatten)]
    limits: LimitsArgs,
}

impl Args {
    /// Prints one line per plug-in.
    pub(crate) fn run(self) -> Result<()> {
        match &self.bootstrap_server {
            Some(server) => {
                let stats = Stats::of(&Connection::to(server))?;
                if self.json {
                    return Ok(output::line(&serde_json::to_string(&stats.versions())?)?);
                }
                stats.print()
            }
            None => self.list_here(),
        }
    }

    fn list_here(self) -> Result<()> {
        let mut plugins = sandbox::library(self.limits.get(), self.plugins.as_deref())?.list()?;
        plugins.sort_by(|(_, a), (_, b)| (a.kind().name(), a.name()).cmp(&(b.kind().name(), b.name())));
        let mut out = output::stdout();
        let mut table = Table::new(["NAME", "VERSION", "KIND", "READS", "SOURCE"], [Left; 5]);
        for (origin, plugin) in &plugins {
            let description = plugin.description();
            let reads = match &description.format {
                Some(format) => format!("writes {format}"),
                None => description.columns.to_string(),
            };
            let (name, version, kind) = (plugin.name(), plugin.version(), plugin.kind().name());
            table.row([name.to_owned(), version.to_owned(), kind.to_owned(), reads, origin.to_string()]);
        }
        table.write(&mut out)?;
        Ok(out.flush()?)
    }
}
