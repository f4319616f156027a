//! Writes the page docs/benchmarks.md.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

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
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    civil(seconds / 86_400)
}

/// Returns the date of a day since 1970, by Howard Hinnant's `civil_from_days`. Its years begin in March, and its eras
/// have 400 years.
fn civil(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!([0, 59, 11_016, 20_454].map(civil), ["1970-01-01", "1970-03-01", "2000-02-29", "2026-01-01"]);
    }
}
