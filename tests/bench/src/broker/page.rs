//! The tables of docs/benchmarks.md about one broker, and the chart beside it.
//!
//! A row keeps its place and is replaced by its name, so that rows can also be measured one by one.

use std::path::Path;

use anyhow::{Context, Result};

use super::Section;
use super::chart::{self, Bar};
use super::figure::{Figure, number};
use crate::report;

/// The chart of the ratios, in the folder of the page.
const CHART: &str = "benchmarks.svg";

/// The columns: the name, Kafka's figure, ours, the ratio, the goal, and how it was measured.
const COLUMNS: usize = 6;

/// The cells of a row, as they are on the page.
type Cells = [String; COLUMNS];

/// What the page says about a run.
pub(crate) struct Run<'a> {
    pub(crate) sections: &'a [Section],
    /// The commit that was measured.
    pub(crate) commit: &'a str,
    pub(crate) has_kafka: bool,
}

impl Run<'_> {
    /// Returns the tables of the rows that were measured.
    pub(crate) fn printed(&self) -> String {
        let measured = self.sections.iter().filter(|section| !section.figures.is_empty());
        measured.map(|section| self.table(section, &self.rows(section, ""))).collect::<Vec<_>>().join("\n")
    }

    /// Writes the figures into the page, and draws the chart of all ratios that are on it.
    ///
    /// # Errors
    /// The page lacks the marks of a section, or a file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut bars = Vec::new();
        for section in self.sections {
            let rows = self.rows(section, report::section(&page, section.name)?);
            bars.extend(rows.iter().filter_map(bar));
            if !section.figures.is_empty() {
                page = report::replaced(&page, section.name, &self.table(section, &rows))?;
            }
        }
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
        chart::draw(&path.with_file_name(CHART), &bars)
    }

    /// Returns the rows of a table, with those of a section replaced that were measured again.
    fn rows(&self, section: &Section, table: &str) -> Vec<Cells> {
        let mut rows: Vec<Cells> =
            table.lines().skip_while(|line| !line.starts_with("|---")).filter_map(cells).collect();
        for figure in &section.figures {
            let new = self.row(figure);
            match rows.iter_mut().find(|row| row[0] == new[0]) {
                Some(old) => *old = new,
                None => rows.push(new),
            }
        }
        rows
    }

    fn row(&self, figure: &Figure) -> Cells {
        let kafka = figure.kafka().map_or_else(|| "-".to_owned(), number);
        let ratio = figure.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2} x"));
        let note = match &*figure.note {
            "" => format!("{}, {}", report::date(), self.commit),
            note => format!("{note}; {}, {}", report::date(), self.commit),
        };
        [figure.line.name.to_owned(), kafka, number(figure.ours()), ratio, figure.line.goal.to_owned(), note]
    }

    fn table(&self, section: &Section, rows: &[Cells]) -> String {
        let mut table = format!("Measured on {}.", report::machine());
        if !self.has_kafka {
            table.push_str(" Java is missing there, so new rows have no figure of Kafka.");
        }
        table.push_str(&format!("\n\n| {} | Kafka 4.2 | Ours | Ratio | Goal | How, and when |\n", section.subject));
        table.push_str("|---|---|---|---|---|---|\n");
        rows.iter().for_each(|row| table.push_str(&format!("| {} |\n", row.join(" | "))));
        table
    }
}

/// Returns the cells of a line of a table, if it is one.
fn cells(line: &str) -> Option<Cells> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned);
    cells.collect::<Vec<_>>().try_into().ok()
}

/// Returns the bar of a row that has a ratio.
fn bar(row: &Cells) -> Option<Bar> {
    let ratio = row[3].strip_suffix(" x")?.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio > 0.0)?;
    Some(Bar { name: row[0].clone(), ratio })
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Better, Line};
    use super::*;

    fn section(name: &'static str, ours: f64) -> Section {
        let line = Line { name, unit: "s", better: Better::Less, goal: "2 x" };
        let figures = vec![Figure::new(line, vec![ours], vec![6.0], "how")];
        Section { name: "broker", subject: "One broker", figures }
    }

    #[test]
    fn rows_are_replaced_by_their_names_and_drawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("benchmarks.md");
        let page = "before\n<!-- broker: written by cargo xtask bench -->\n<!-- broker ends -->\nafter\n";
        std::fs::write(&path, page).expect("written");
        for (name, ours) in [("a", 2.0), ("b", 1.0), ("a", 3.0)] {
            let sections = [section(name, ours)];
            Run { sections: &sections, commit: "abc", has_kafka: true }.write(&path).expect("written");
        }
        let page = std::fs::read_to_string(&path).expect("a page");
        assert!(page.starts_with("before\n") && page.ends_with("<!-- broker ends -->\nafter\n"), "{page}");
        assert!(page.contains("\n| a | 6.00 | 3.00 | 2.00 x | 2 x | how; "), "{page}");
        assert!(page.contains("\n| b | 6.00 | 1.00 | 6.00 x | 2 x | how; "), "{page}");
        assert_eq!(page.matches("\n| a |").count(), 1);
        let chart = std::fs::read_to_string(folder.path().join(CHART)).expect("a chart");
        assert!(chart.contains("<svg") && chart.contains("6.0 x") && chart.contains("2.0 x"), "{chart}");
    }
}
