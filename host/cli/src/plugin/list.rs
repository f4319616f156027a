//! `millstream plugin list`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use millstream_client::plugins::VersionStats;
use millstream_client::plugins::image::PluginImage;

use super::cluster::store;
use crate::cluster::{Cluster, block_on};
use crate::{output, sandbox, topic};

/// The arguments of `millstream plugin list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin list
  millstream plugin list --plugins ./plugins
  millstream plugin list -b 127.0.0.1:9092
  millstream plugin list -b 127.0.0.1:9092 --json | jq '.[] | select(.traps > 0)'

With -b the counts are those of the brokers since their start, over all versions; with --json they
are by version.")]
pub(crate) struct Args {
    /// A folder of plug-ins (*.wasm); one with the name of a plug-in of this binary takes its place.
    #[arg(long, value_name = "DIR", conflicts_with = "bootstrap_server")]
    plugins: Option<PathBuf>,
    /// A broker of the cluster whose plug-ins are wanted
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT")]
    bootstrap_server: Option<String>,
    /// Print a JSON array with what each version of the cluster's plug-ins did
    #[arg(long, requires = "bootstrap_server")]
    json: bool,
}

impl Args {
    /// One line a plug-in; a file that does not load is on stderr.
    pub(crate) fn run(self) -> Result<()> {
        match &self.bootstrap_server {
            Some(server) => list_cluster(&Cluster::at(server), self.json),
            None => self.list_here(),
        }
    }

    fn list_here(self) -> Result<()> {
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

fn list_cluster(cluster: &Cluster, json: bool) -> Result<()> {
    let store = store(cluster)?;
    let admin = topic::admin(cluster)?;
    let (image, stats) = block_on(async move {
        let image = store.image().await;
        store.close().await;
        Ok((image?, admin.plugin_stats().await?))
    })?;
    if json {
        return Ok(output::line(&serde_json::to_string(&stats)?)?);
    }
    print(&mut output::stdout(), &image, &stats)
}

fn print(out: &mut impl Write, image: &PluginImage, stats: &[VersionStats]) -> Result<()> {
    let mut rows: BTreeMap<&str, VersionStats> = BTreeMap::new();
    for manifest in image.plugins() {
        let row = rows.entry(&manifest.name).or_default();
        row.kind = manifest.kind.name().to_owned();
    }
    // Of those in the binary, the ones that were called.
    for counts in stats.iter().filter(|counts| counts.calls > 0 || image.plugin(&counts.name).is_some()) {
        let row = rows
            .entry(&counts.name)
            .or_insert_with(|| VersionStats { kind: counts.kind.clone(), ..VersionStats::default() });
        row.calls += counts.calls;
        row.records += counts.records;
        row.errors += counts.errors;
        row.traps += counts.traps;
        row.rollbacks += counts.rollbacks;
    }
    writeln!(
        out,
        "{:<16} {:<12} {:<7} {:<12} {:>10} {:>12} {:>8} {:>6} {:>9}",
        "NAME", "KIND", "ACTIVE", "VERSIONS", "CALLS", "RECORDS", "ERRORS", "TRAPS", "ROLLBACKS"
    )?;
    for (name, row) in &rows {
        let manifest = image.plugin(name);
        let active = match manifest.map_or(0, |manifest| manifest.active) {
            0 => "-".to_owned(),
            number => number.to_string(),
        };
        let versions = manifest.filter(|manifest| !manifest.versions.is_empty());
        let versions = versions.map_or_else(|| "-".to_owned(), |manifest| manifest.numbers().replace(", ", ","));
        let VersionStats { kind, calls, records, errors, traps, rollbacks, .. } = row;
        writeln!(
            out,
            "{name:<16} {kind:<12} {active:<7} {versions:<12} {calls:>10} {records:>12} {errors:>8} {traps:>6} {rollbacks:>9}"
        )?;
    }
    Ok(out.flush()?)
}
