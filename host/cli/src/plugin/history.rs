//! `millstream plugin history`: a plug-in's versions, and what happened to them.

use std::io::Write;

use anyhow::Result;

use millstream_registry::format::EventKind;

use super::cluster::{shown, store, utc};
use crate::cluster::{Cluster, block_on};
use crate::output;

/// The arguments of `millstream plugin history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin history region
  millstream plugin history region --json | jq '.versions[] | select(.bad)'")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// Print all that is stored about the plug-in, as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// One line an event, from old to new.
    pub(crate) fn run(self) -> Result<()> {
        let store = store(&self.cluster)?;
        let manifest = block_on(async move {
            let image = store.image().await;
            store.close().await;
            Ok(image?.known(&self.name)?.clone())
        })?;
        if self.json {
            return Ok(output::line(&serde_json::to_string(&manifest)?)?);
        }
        let mut out = output::stdout();
        for event in &manifest.history {
            // What was refused when it was pushed is no version; its number may be another's by now.
            let version = manifest.version(event.version).filter(|_| event.event != EventKind::Refused);
            let own = version.map_or_else(String::new, |version| format!(" ({})", version.version));
            let (at, what) = (utc(event.at_ms), event.event.name());
            let line = format!("{at}  {what:<15}  {}{own}  {}", shown(&manifest.name, event.version), event.reason);
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(out.flush()?)
    }
}
