//! `millstream plugin inspect FILE`: every figure of a file with its limit, and every reason why a broker would
//! reject it. A rejected file is described too.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use millstream_stage::{Digest, Engine, Fault, Figure, Inspection, Kind, Limits, Measure, Plugin, Stage, Trust, scan};
use serde_json::{Value, json};

use super::call::Session;
use crate::output;
use crate::sandbox::LimitsArgs;

/// The largest file that is inspected: several times what any compiler writes for a plug-in.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The arguments of `millstream plugin inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin inspect target/plugins/my-filter.wasm
  millstream plugin inspect contains --config '{\"text\":\"error\"}'
  millstream plugin inspect murmur2 --json")]
pub(crate) struct Args {
    /// A component, or the name of a plug-in of this binary
    #[arg(value_name = "FILE")]
    plugin: String,
    /// The configuration with which the plug-in is started and probed
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitsArgs,
}

impl Args {
    /// Scans, loads and starts the plug-in as a broker would.
    pub(crate) fn run(self) -> Result<()> {
        let engine = self.limits.engine()?;
        let report = self.report(&engine)?;
        if self.json {
            output::line(&report.json(engine.limits()).to_string())?;
        } else {
            let mut out = output::stdout();
            for (name, text) in report.facts(engine.limits()) {
                writeln!(out, "{name:<36} {text}")?;
            }
            out.flush()?;
        }
        let with = if self.config.is_some() { " with this configuration" } else { "" };
        let rejected = format!("{}{with}", self.plugin);
        if let Some(Probe::FailedWithRows(_)) = report.probe {
            bail!(
                "{rejected} fails with the rows of the probe, which a broker would find out with the first such batch"
            );
        }
        match report.reasons.len() {
            0 => Ok(()),
            1 => bail!("a broker rejects {rejected}, for the reason above"),
            reasons => bail!("a broker rejects {rejected}, for the {reasons} reasons above"),
        }
    }

    fn report(&self, engine: &Engine) -> Result<Report> {
        let embedded = millstream_plugins::find(&self.plugin);
        let read;
        let bytes = match embedded {
            Some(plugin) => plugin.component(),
            None => {
                read = read_file(Path::new(&self.plugin))?;
                &read[..]
            }
        };
        let found = scan::inspect(bytes, engine.limits());
        let mut reasons: Vec<String> = found.refusals.iter().map(ToString::to_string).collect();
        let begun = Instant::now();
        let loaded = match embedded {
            Some(plugin) => super::load_embedded(engine, plugin),
            None => engine.load(bytes),
        };
        let load_ms = begun.elapsed().as_secs_f64() * 1e3;
        let plugin = match loaded {
            Ok(plugin) => Some(plugin),
            Err(error) => {
                if reasons.is_empty() {
                    reasons.push(error.to_string());
                }
                None
            }
        };
        let probe = plugin.as_ref().map(|plugin| self.probe(plugin));
        if let Some(Probe::Failed(fault)) = &probe {
            reasons.push(format!("does not start: {fault}"));
        }
        Ok(Report { digest: Digest::of(bytes), found, plugin, load_ms, probe, reasons })
    }

    /// Starts the plug-in, which includes a batch of no rows, and calls it with rows that any topic may have.
    fn probe(&self, plugin: &Plugin) -> Probe {
        match Stage::new(plugin.clone(), self.config.as_deref().unwrap_or("{}")) {
            Ok(_) => match self.trap_with_rows(plugin) {
                Some(trap) => Probe::FailedWithRows(trap),
                None => Probe::Passed(plugin.kind()),
            },
            // Many plug-ins need a configuration, which this command cannot guess.
            Err(error) if self.config.is_none() && matches!(error.fault, Fault::Config { .. }) => {
                Probe::NeedsConfig(error.fault)
            }
            Err(error) => Probe::Failed(error.fault),
        }
    }

    /// Calls a plug-in that starts, and returns the fault that ended a call. An error is a good response.
    fn trap_with_rows(&self, plugin: &Plugin) -> Option<String> {
        let calls: &[&str] = match plugin.kind() {
            Kind::Filter => &["filter"],
            Kind::Partitioner => &["partition"],
            Kind::Serializer => &["serialize", "deserialize"],
            // The start has compressed a text.
            Kind::Compressor => &[],
        };
        let config: Value = serde_json::from_str(self.config.as_deref().unwrap_or("{}")).ok()?;
        let mut session = Session::new(plugin.clone());
        calls.iter().find_map(|call| {
            let call = json!({ "call": call, "config": config, "partitions": 3, "records": rows() });
            let result = session.result(serde_json::from_value(call).ok()?).ok()?;
            Some(result["error"]["trap"].as_str()?.to_owned())
        })
    }
}

/// Returns rows that any topic may have: an absent key and value, empty ones, and others with headers.
fn rows() -> Value {
    json!([
        {},
        { "key": "", "value": "" },
        { "timestamp": 1, "key": "k", "value": "v", "headers": [["name", "value"], ["name", null]] },
    ])
}

/// Reads a file of a bounded size.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    if !path.exists() {
        bail!("there is no file {shown}, nor a plug-in of this binary with that name (see `millstream plugin list`)");
    }
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{shown} has more than {FILE_BYTES_MAX} bytes, which no plug-in has");
    }
    Ok(bytes)
}

/// The outcome of starting the plug-in.
enum Probe {
    Passed(Kind),
    NeedsConfig(Fault),
    Failed(Fault),
    /// It starts, and a call with rows ends it.
    FailedWithRows(String),
}

impl Probe {
    fn describe(&self) -> String {
        match self {
            Probe::Passed(Kind::Compressor) => "passed: it starts, and gives back what it compressed".to_owned(),
            Probe::Passed(_) => "passed: it starts, and takes batches of no rows and of three".to_owned(),
            Probe::NeedsConfig(fault) => format!("not run: pass --config ({fault})"),
            Probe::Failed(fault) => format!("failed: {fault}"),
            Probe::FailedWithRows(trap) => format!("failed with three rows: {trap}"),
        }
    }
}

/// All that is known of a file.
struct Report {
    digest: Digest,
    found: Inspection,
    /// `None` if it does not load.
    plugin: Option<Plugin>,
    load_ms: f64,
    probe: Option<Probe>,
    /// Why a broker rejects it.
    reasons: Vec<String>,
}

impl Report {
    fn facts(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(plugin) = &self.plugin {
            facts.extend(described(plugin));
        } else if let Some(kind) = self.found.kind {
            facts.push(("kind", kind.name().to_owned()));
        }
        facts.push(("digest", format!("sha256:{}", self.digest)));
        facts.push(("limits", format!("profile {}", limits.profile)));
        facts.extend(self.found.figures.iter().map(|figure| (figure.measure.name(), shown(figure))));
        facts.extend([
            ("stack", format!("limit {} bytes", limits.stack_bytes)),
            ("deadline", self.deadline(limits)),
            ("output", self.output(limits)),
            ("imports", list(&self.found.imports)),
            ("exports", list(&self.found.exports)),
        ]);
        if self.plugin.is_some() {
            facts.push(("load time", format!("{:.1} ms", self.load_ms)));
        }
        facts.extend(self.probe.iter().map(|probe| ("probe", probe.describe())));
        facts.extend(self.reasons.iter().map(|reason| ("rejected", reason.clone())));
        facts
    }

    fn output(&self, limits: &Limits) -> String {
        let limit = format!("limit {} x input + {} bytes", limits.output_factor, limits.output_slack_bytes);
        match self.found.kind {
            Some(Kind::Serializer) => format!("{limit}; {} x when deserializing", limits.deserialized_factor),
            _ => limit,
        }
    }

    fn deadline(&self, limits: &Limits) -> String {
        match self.plugin.as_ref().map(Plugin::trust) {
            Some(Trust::Own) => "none: it is part of this binary".to_owned(),
            Some(Trust::Foreign) | None => format!("{} ms a batch", limits.deadline.as_millis()),
        }
    }

    fn json(&self, limits: &Limits) -> Value {
        let figures = self.found.figures.iter();
        let figures: serde_json::Map<String, Value> = figures
            .map(|figure| (figure.measure.key().to_owned(), json!({ "have": figure.have, "limit": figure.max })))
            .collect();
        let is_own = self.plugin.as_ref().is_some_and(|plugin| plugin.trust() == Trust::Own);
        let mut facts = json!({
            "kind": self.found.kind.map(|kind| kind.name()),
            "digest": format!("sha256:{}", self.digest),
            "size_bytes": self.found.figure(Measure::SizeBytes),
            "functions": self.found.figure(Measure::Functions),
            "memory_bytes_min": self.found.figure(Measure::MemoryBytesMin),
            "imports": self.found.imports,
            "exports": self.found.exports,
            "figures": figures,
            "limits": {
                "profile": limits.profile,
                "size_bytes": limits.module.size_bytes,
                "functions": limits.module.functions,
                "memory_bytes": limits.memory_bytes,
                "stack_bytes": limits.stack_bytes,
                "deadline_ms": (!is_own).then_some(limits.deadline.as_millis() as u64),
                "output_factor": limits.output_factor,
                "deserialized_factor": limits.deserialized_factor,
                "output_slack_bytes": limits.output_slack_bytes,
            },
            "probe": self.probe.as_ref().map(Probe::describe),
            "rejected": self.reasons,
        });
        if let Some(plugin) = &self.plugin {
            let columns = plugin.description().columns;
            facts["name"] = plugin.name().into();
            facts["version"] = plugin.version().into();
            facts["reads"] = json!({
                "timestamps": columns.timestamps,
                "keys": columns.keys,
                "values": columns.values,
                "headers": columns.headers,
            });
            facts["writes"] = plugin.description().format.as_ref().map(ToString::to_string).into();
        }
        facts
    }
}

/// Returns what a plug-in states about itself.
fn described(plugin: &Plugin) -> Vec<(&'static str, String)> {
    let description = plugin.description();
    vec![
        ("name", plugin.name().to_owned()),
        ("version", plugin.version().to_owned()),
        ("kind", plugin.kind().name().to_owned()),
        match &description.format {
            Some(format) => ("writes", format.to_string()),
            None => ("reads", description.columns.to_string()),
        },
    ]
}

fn shown(figure: &Figure) -> String {
    let over = if figure.have > figure.max { ", exceeded" } else { "" };
    format!("{} (limit {}{over})", figure.have, figure.max)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
