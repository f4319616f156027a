//! Writes the page docs/benchmarks.md.

use std::fmt::Write;
use std::time::SystemTime;

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figure: String,
    pub(crate) goal: String,
    pub(crate) detail: String,
}

const HEAD: &str = "# Benchmarks

What a stage costs in the sandbox, compared with the same Rust code compiled natively. `cargo xtask bench --stages`
measures it and writes this page.
";

const NOTES: &str = include_str!("notes.md");

/// Returns the page with these rows.
pub(crate) fn page(rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "\nMeasured {} on {}.\n", date(), machine());
    page.push_str("| Stage | Figure | Goal | |\n|---|---|---|---|\n");
    for Row { name, figure, goal, detail } in rows {
        let _ = writeln!(page, "| {name} | {figure} | {goal} | {detail} |");
    }
    page.push_str(NOTES);
    page
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Returns today's date in UTC.
fn date() -> String {
    let mut now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.truncate("2026-01-01".len());
    now
}
