//! `millstream plugin inspect FILE`.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use millstream_stage::{Limits, Plugin, Trust};

use crate::{output, sandbox};

/// The arguments of `millstream plugin inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin inspect target/plugins/my-filter.wasm
  millstream plugin inspect murmur2 --json")]
pub(crate) struct Args {
    /// A component, or the name of a plug-in of this binary.
    #[arg(value_name = "FILE")]
    plugin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Loads the plug-in as a broker would, so that what is wrong with it is said here too.
    pub(crate) fn run(self) -> Result<()> {
        let engine = sandbox::engine()?;
        let start = Instant::now();
        let plugin = super::load(&engine, &self.plugin)?;
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        if self.json {
            return Ok(output::line(&json(&plugin, engine.limits()).to_string())?);
        }
        let mut out = output::stdout();
        for (name, text) in facts(&plugin, engine.limits()) {
            writeln!(out, "{name:<10} {text}")?;
        }
        writeln!(out, "{:<10} {load_ms:.1} ms", "load time")?;
        Ok(out.flush()?)
    }
}

fn facts(plugin: &Plugin, limits: &Limits) -> Vec<(&'static str, String)> {
    let description = plugin.description();
    let module = &limits.module;
    let deadline = match plugin.trust() {
        Trust::Foreign => format!("{} ms a batch", limits.deadline.as_millis()),
        Trust::Own => "none: it is part of this binary".to_owned(),
    };
    let mut facts = vec![
        ("name", plugin.name().to_owned()),
        ("version", plugin.version().to_owned()),
        ("kind", plugin.kind().name().to_owned()),
    ];
    match &description.format {
        Some(format) => facts.push(("writes", format.to_string())),
        None => facts.push(("reads", description.columns.to_string())),
    }
    facts.extend([
        ("digest", format!("sha256:{}", plugin.digest())),
        ("size", format!("{} bytes (limit {})", plugin.size_bytes(), module.size_bytes)),
        ("functions", format!("{} (limit {})", plugin.scan().functions, module.functions)),
        ("memory", format!("{} bytes at start (limit {})", plugin.scan().memory_bytes_min, limits.memory_bytes)),
        ("stack", format!("limit {} bytes", limits.stack_bytes)),
        ("deadline", deadline),
        ("output", format!("limit {} x input + {} bytes", limits.output_factor, limits.output_slack_bytes)),
        ("imports", list(plugin.imports())),
        ("exports", list(plugin.exports())),
    ]);
    facts
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn json(plugin: &Plugin, limits: &Limits) -> serde_json::Value {
    let description = plugin.description();
    serde_json::json!({
        "name": plugin.name(),
        "version": plugin.version(),
        "kind": plugin.kind().name(),
        "reads": {
            "timestamps": description.columns.timestamps,
            "keys": description.columns.keys,
            "values": description.columns.values,
            "headers": description.columns.headers,
        },
        "writes": description.format.as_ref().map(ToString::to_string),
        "digest": format!("sha256:{}", plugin.digest()),
        "size_bytes": plugin.size_bytes(),
        "functions": plugin.scan().functions,
        "memory_bytes_min": plugin.scan().memory_bytes_min,
        "imports": plugin.imports(),
        "exports": plugin.exports(),
        "limits": {
            "size_bytes": limits.module.size_bytes,
            "functions": limits.module.functions,
            "memory_bytes": limits.memory_bytes,
            "stack_bytes": limits.stack_bytes,
            "deadline_ms": (plugin.trust() == Trust::Foreign).then_some(limits.deadline.as_millis() as u64),
            "output_factor": limits.output_factor,
            "output_slack_bytes": limits.output_slack_bytes,
        },
    })
}
