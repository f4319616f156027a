//! Writes the tables of the page docs/benchmarks.md.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figure: String,
    pub(crate) goal: String,
    pub(crate) detail: String,
}

/// Returns the rows as a table, with the date and the machine.
pub(crate) fn table(subject: &str, rows: &[Row]) -> String {
    let mut table = format!("Measured {} on {}.\n\n", date(), machine());
    let _ = writeln!(table, "| {subject} | Figure | Goal | |\n|---|---|---|---|");
    for Row { name, figure, goal, detail } in rows {
        let _ = writeln!(table, "| {name} | {figure} | {goal} | {detail} |");
    }
    table
}

/// Returns the page with another table in one of its sections. The text around the table stays.
///
/// # Errors
/// The page lacks the marks around the table of this section.
pub(crate) fn replaced(page: &str, section: &str, table: &str) -> Result<String> {
    let Parts { before, after, .. } = parts(page, section)?;
    Ok(format!("{before}\n{table}\n{after}"))
}

/// Returns what a section of the page holds now.
///
/// # Errors
/// The page lacks the marks around the table of this section.
pub(crate) fn section<'a>(page: &'a str, section: &str) -> Result<&'a str> {
    Ok(parts(page, section)?.table)
}

/// A page around one of its tables. The marks belong to what is around it.
struct Parts<'a> {
    before: &'a str,
    table: &'a str,
    after: &'a str,
}

fn parts<'a>(page: &'a str, section: &str) -> Result<Parts<'a>> {
    let begin = format!("<!-- {section}: written by cargo xtask bench -->\n");
    let found = page.find(&begin).map(|at| page.split_at(at + begin.len()));
    let found = found.and_then(|(before, rest)| {
        let (table, after) = rest.split_at(rest.find(&format!("<!-- {section} ends -->"))?);
        Some(Parts { before, table, after })
    });
    found.with_context(|| format!("the page lacks `{}`", begin.trim()))
}

/// Returns the processor and the system.
pub(crate) fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Returns today's date in UTC.
pub(crate) fn date() -> String {
    let mut now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.truncate("2026-01-01".len());
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_of_a_section_changes() {
        let page = "a\n<!-- x: written by cargo xtask bench -->\nold\n<!-- x ends -->\nb\n";
        let replaced = replaced(page, "x", "| new |\n").expect("the section exists");
        assert_eq!(replaced, "a\n<!-- x: written by cargo xtask bench -->\n\n| new |\n\n<!-- x ends -->\nb\n");
        assert_eq!(super::replaced(&replaced, "x", "| new |\n").expect("the same again"), replaced);
        assert!(super::replaced(page, "y", "").is_err());
        assert_eq!(section(page, "x").expect("the section exists"), "old\n");
    }
}
