//! `millstream plugin stats`: what the plug-ins of a cluster did.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use millstream_registry::format::{Manifest, Version};
use millstream_registry::image::PluginImage;
use millstream_registry::{RejectedProducer, VersionStats};
use serde_json::json;

use crate::connection::Connection;
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{output, runtime};

/// The arguments of `millstream plugin stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin stats -b broker:9092
  millstream plugin stats --json | jq '.rejected_producers'

The counters are those of the brokers since their start.")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print a JSON object with `versions` and `rejected_producers`
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints the counters of the versions, and the producers whose batches stages rejected.
    pub(crate) fn run(self) -> Result<()> {
        let stats = Stats::of(&self.connection)?;
        if self.json {
            let json = json!({ "versions": stats.versions, "rejected_producers": stats.rejected });
            return Ok(output::line(&json.to_string())?);
        }
        stats.print()
    }
}

/// The counters of all brokers of a cluster.
pub(crate) struct Stats {
    image: PluginImage,
    versions: Vec<VersionStats>,
    rejected: Vec<RejectedProducer>,
}

impl Stats {
    /// Asks all brokers for their counters.
    ///
    /// # Errors
    /// A broker cannot be reached, or its response is not valid.
    pub(crate) fn of(connection: &Connection) -> Result<Self> {
        let store = connection.plugin_store()?;
        let admin = connection.admin()?;
        runtime::block_on(async move {
            let image = store.image().await;
            store.close().await;
            let (versions, rejected) = (admin.plugin_stats().await?, admin.rejected_producers().await?);
            Ok(Self { image: image?, versions, rejected })
        })
    }

    /// Returns the counters of each version at each broker.
    pub(crate) fn versions(&self) -> &[VersionStats] {
        &self.versions
    }

    /// Prints a table of plug-ins and versions, and one of rejected producers.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn print(&self) -> Result<()> {
        let mut out = output::stdout();
        print(&mut out, &self.image, &self.versions)?;
        print_rejected(&mut out, &self.rejected)
    }
}

/// A plug-in of the cluster, or of the binary if a broker has used it.
struct Listed<'a> {
    manifest: Option<&'a Manifest>,
    kind: &'a str,
    /// The counters over all brokers, by version: those that are active, bad or were used.
    versions: BTreeMap<u32, VersionStats>,
}

impl Listed<'_> {
    fn active(&self) -> u32 {
        self.manifest.map_or(0, |manifest| manifest.active)
    }

    fn state(&self, number: u32) -> &'static str {
        match self.manifest.and_then(|manifest| manifest.version(number)) {
            _ if number == self.active() => "active",
            Some(version) if version.bad.is_some() => "bad",
            None if number != 0 => "deleted",
            _ => "",
        }
    }

    fn numbers(&self) -> String {
        let numbers = self.manifest.iter().flat_map(|manifest| &manifest.versions).map(|version| version.number);
        ranges(numbers)
    }

    fn total(&self) -> VersionStats {
        self.versions.values().fold(VersionStats::default(), sum)
    }
}

fn listed<'a>(image: &'a PluginImage, stats: &'a [VersionStats]) -> BTreeMap<&'a str, Listed<'a>> {
    let mut plugins = BTreeMap::new();
    for manifest in image.plugins() {
        let shown = manifest.versions.iter().filter(|it| it.number == manifest.active || it.bad.is_some());
        let named = |it: &Version| VersionStats { version: it.version.clone(), ..VersionStats::default() };
        let versions = shown.map(|it| (it.number, named(it))).collect();
        let kind = manifest.kind.name();
        plugins.insert(&*manifest.name, Listed { manifest: Some(manifest), kind, versions });
    }
    for counts in stats.iter().filter(|counts| counts.calls > 0 || counts.rollbacks > 0) {
        let unknown = Listed { manifest: None, kind: &counts.kind, versions: BTreeMap::new() };
        let versions = &mut plugins.entry(&counts.name).or_insert(unknown).versions;
        let before = versions.remove(&counts.number).unwrap_or_default();
        versions.insert(counts.number, VersionStats { version: counts.version.clone(), ..sum(before, counts) });
    }
    plugins
}

fn sum(all: VersionStats, more: &VersionStats) -> VersionStats {
    VersionStats {
        calls: all.calls + more.calls,
        records: all.records + more.records,
        errors: all.errors + more.errors,
        traps: all.traps + more.traps,
        bad_records: all.bad_records + more.bad_records,
        rollbacks: all.rollbacks + more.rollbacks,
        ..all
    }
}

/// Formats ascending numbers as ranges: `1-3,7`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn print(out: &mut impl Write, image: &PluginImage, stats: &[VersionStats]) -> Result<()> {
    let heads = ["NAME", "KIND", "ACTIVE", "VERSIONS", "CALLS", "RECORDS", "BAD", "ERRORS", "TRAPS", "ROLLBACKS"];
    let mut table = Table::new(heads, [Left, Left, Left, Left, Right, Right, Right, Right, Right, Right]);
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    for (name, plugin) in &listed(image, stats) {
        let active = Some(plugin.active()).filter(|active| *active != 0);
        let active = or_none(active.map_or_else(String::new, |active| active.to_string()));
        let texts = [(*name).to_owned(), plugin.kind.to_owned(), active, or_none(plugin.numbers())];
        table.row(cells(texts, &plugin.total()));
        for (number, counters) in &plugin.versions {
            let name = match number {
                0 => "  in the binary or a file".to_owned(),
                number => format!("  {name}@{number}"),
            };
            let texts = [name, counters.version.clone(), plugin.state(*number).to_owned(), String::new()];
            table.row(cells(texts, counters));
        }
    }
    table.write(out)?;
    Ok(out.flush()?)
}

/// Prints the producers that stages rejected, if there are any.
fn print_rejected(out: &mut impl Write, rejected: &[RejectedProducer]) -> Result<()> {
    if !rejected.is_empty() {
        writeln!(out, "\n{:<32} {:>12} {:>12} {:>12}", "REJECTED AT TOPIC", "PRODUCER ID", "BATCHES", "RECORDS")?;
    }
    for RejectedProducer { topic, producer_id, batches, records, .. } in rejected {
        let producer = if *producer_id < 0 { "without one".to_owned() } else { producer_id.to_string() };
        writeln!(out, "{topic:<32} {producer:>12} {batches:>12} {records:>12}")?;
    }
    Ok(out.flush()?)
}

fn cells([name, kind, active, versions]: [String; 4], counters: &VersionStats) -> [String; 10] {
    let VersionStats { calls, records, bad_records, errors, traps, rollbacks, .. } = counters;
    let [calls, records, bad, errors, traps, rollbacks] =
        [calls, records, bad_records, errors, traps, rollbacks].map(u64::to_string);
    [name, kind, active, versions, calls, records, bad, errors, traps, rollbacks]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_ranges() {
        for (numbers, shown) in
            [(&[][..], ""), (&[3], "3"), (&[1, 2], "1,2"), (&[1, 2, 3, 5, 7, 8, 9, 10], "1-3,5,7-10")]
        {
            assert_eq!(ranges(numbers.iter().copied()), shown);
        }
    }

    #[test]
    fn every_used_version_has_a_line() {
        let version = |number: u32, bad: Option<&str>| {
            let digest = millstream_stage::Digest::of(&number.to_be_bytes()).to_string();
            serde_json::json!({ "number": number, "digest": digest, "size": 1, "chunks": 1,
                "version": format!("{number}.0.0"), "pushed_ms": 1, "bad": bad })
        };
        let versions = [version(1, None), version(2, None), version(4, Some("traps"))];
        let manifest = serde_json::json!({ "name": "letters", "revision": 1, "kind": "filter", "active": 2, "next": 5,
            "versions": versions, "history": [] });
        let mut image = PluginImage::default();
        image.apply(0, 0, Some(b"plugin/letters"), Some(manifest.to_string().as_bytes())).expect("a manifest");
        let counts = |name: &str, number: u32, calls: u64| VersionStats {
            name: name.to_owned(),
            kind: "filter".to_owned(),
            number,
            version: format!("{number}.0.0"),
            calls,
            ..VersionStats::default()
        };
        // Of two brokers.
        let stats =
            [counts("letters", 2, 5), counts("letters", 3, 7), counts("letters", 2, 6), counts("contains", 0, 1)];
        let idle = counts("gzip", 0, 0);
        let mut out = Vec::new();
        print(&mut out, &image, &[&stats[..], &[idle]].concat()).expect("a list");
        let lines = String::from_utf8(out).expect("a text");
        let words = |line: &str| line.split_whitespace().take(5).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = lines.lines().skip(1).map(words).collect();
        assert_eq!(
            lines,
            [
                "contains filter - - 1",
                "in the binary or a",
                "letters filter 2 1,2,4 18",
                "letters@2 2.0.0 active 11 0",
                "letters@3 3.0.0 deleted 7 0",
                "letters@4 4.0.0 bad 0 0",
            ]
        );
    }
}
