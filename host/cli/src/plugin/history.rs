//! `millstream plugin history`: the history of a plug-in and its versions.

use std::io::Write;

use anyhow::Result;
use millstream_registry::format::EventKind;

use super::names::version_name;
use crate::connection::Connection;
use crate::{output, runtime, text};

/// The arguments of `millstream plugin history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin history region
  millstream plugin history region --json | jq '.versions[] | select(.bad)'")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The plug-in
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the complete state of the plug-in as a JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints one line per event, oldest first.
    pub(crate) fn run(self) -> Result<()> {
        let store = self.connection.plugin_store()?;
        let manifest = runtime::block_on(async move {
            let image = store.image().await;
            store.close().await;
            Ok(image?.known(&self.name)?.clone())
        })?;
        if self.json {
            return Ok(output::line(&serde_json::to_string(&manifest)?)?);
        }
        let mut out = output::stdout();
        for event in &manifest.history {
            // A version that was rejected when it was pushed is not stored; its number may belong to another one by
            // now.
            let version = manifest.version(event.version).filter(|_| event.event != EventKind::Refused);
            let own = version.map_or_else(String::new, |version| format!(" ({})", version.version));
            let (at, what) = (text::utc(event.at_ms), event.event.name());
            let line =
                format!("{at}  {what:<15}  {}{own}  {}", version_name(&manifest.name, event.version), event.reason);
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(out.flush()?)
    }
}
