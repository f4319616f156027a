//! `millstream plugin stats`: what the plug-ins of a cluster did.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use millstream_client::PerBroker;
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

The counters are the sums over the brokers that are alive, since the start of
each. The JSON has those of each broker, too.")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print a JSON object: `versions`, `rejected_producers`, `brokers`, `not_reached`
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints the counters of the versions, and the producers whose batches stages rejected.
    pub(crate) fn run(self) -> Result<()> {
        let stats = Stats::of(&self.connection)?;
        if self.json { Ok(output::line(&stats.to_json().to_string())?) } else { stats.print() }
    }
}

/// The counters of all brokers of a cluster.
pub(crate) struct Stats {
    image: PluginImage,
    versions: PerBroker<Vec<VersionStats>>,
    rejected: PerBroker<Vec<RejectedProducer>>,
}

impl Stats {
    /// Asks all brokers for their counters.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the response of a broker is not valid.
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

    /// Returns the counters of each version, summed over the brokers. Warns of brokers that were not reached.
    pub(crate) fn versions(&self) -> Vec<VersionStats> {
        self.warn();
        sum_versions(self.versions.iter())
    }

    fn to_json(&self) -> serde_json::Value {
        let brokers = self.versions.of.iter().map(|(id, versions)| json!({ "id": id, "versions": versions }));
        let not_reached = self.not_reached().map(|(id, reason)| json!({ "id": id, "reason": reason }));
        json!({
            "versions": sum_versions(self.versions.iter()),
            "rejected_producers": sum_rejected(self.rejected.iter()),
            "brokers": brokers.collect::<Vec<_>>(),
            "not_reached": not_reached.collect::<Vec<_>>(),
        })
    }

    /// Prints a table of plug-ins and versions, and one of rejected producers.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn print(&self) -> Result<()> {
        let mut out = output::stdout();
        print(&mut out, &self.image, &sum_versions(self.versions.iter()))?;
        print_rejected(&mut out, &sum_rejected(self.rejected.iter()))?;
        self.warn();
        Ok(())
    }

    /// Returns the brokers whose counters are missing, each with the reason.
    fn not_reached(&self) -> impl Iterator<Item = (&i32, &String)> {
        let versions = self.versions.not_reached.iter();
        let others = self.rejected.not_reached.iter();
        versions.chain(others.filter(|(id, _)| !self.versions.not_reached.contains_key(id)))
    }

    fn warn(&self) {
        for (id, reason) in self.not_reached() {
            eprintln!("warning: broker {id} is not reached, and its counters are missing: {reason}");
        }
    }
}

fn sum_versions<'a>(all: impl Iterator<Item = &'a VersionStats>) -> Vec<VersionStats> {
    let mut sums: Vec<VersionStats> = Vec::new();
    for one in all {
        match sums.iter_mut().find(|sum| (&sum.name, sum.number, &sum.version) == (&one.name, one.number, &one.version))
        {
            Some(sum) => sum.add(one),
            None => sums.push(one.clone()),
        }
    }
    sums.sort_by(|one, other| (&one.name, one.number).cmp(&(&other.name, other.number)));
    sums
}

fn sum_rejected<'a>(all: impl Iterator<Item = &'a RejectedProducer>) -> Vec<RejectedProducer> {
    let mut sums: Vec<RejectedProducer> = Vec::new();
    for one in all {
        match sums.iter_mut().find(|sum| (&sum.topic, sum.producer_id) == (&one.topic, one.producer_id)) {
            Some(sum) => sum.add(one),
            None => sums.push(one.clone()),
        }
    }
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.batches));
    sums
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
        let mut total = VersionStats::default();
        self.versions.values().for_each(|version| total.add(version));
        total
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
        let sum = versions.entry(counts.number).or_default();
        sum.version.clone_from(&counts.version);
        sum.add(counts);
    }
    plugins
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
