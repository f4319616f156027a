//! The table at the end of a test run.

use std::fmt::Write as _;
use std::time::Duration;

/// The result of one suite.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// The tests that did not run, each with its name and the reason.
    pub(crate) skipped: Vec<String>,
}

impl Counts {
    /// Makes the result of a suite that is one check, such as the formatter.
    pub(crate) fn single(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: Vec::new() }
    }

    /// Reads the output of Rust's test harness. A program that fails without a failed test in its output counts as one
    /// failure: it has crashed, or printed no result.
    pub(crate) fn parse(output: &str, success: bool) -> Self {
        let mut counts = Self::default();
        let mut results = 0;
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix("test result: ") {
                results += 1;
                counts.passed += number_before(rest, " passed");
                counts.failed += number_before(rest, " failed");
            } else if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix("... ignored")) {
                counts.skipped.push(name.trim().to_owned());
            }
        }
        if (!success || results == 0) && counts.failed == 0 {
            counts.failed = 1;
        }
        counts
    }
}

/// Returns the number right before `word` in `text`, or 0.
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// All suites of a run, in the order in which they ran.
#[derive(Default)]
pub(crate) struct Report {
    suites: Vec<(String, Counts, Duration)>,
    missing: Vec<String>,
}

impl Report {
    /// Adds a suite that ran.
    pub(crate) fn add(&mut self, name: &str, counts: Counts, time: Duration) {
        self.suites.push((name.to_owned(), counts, time));
    }

    /// Notes a missing prerequisite, with the reason.
    pub(crate) fn missing(&mut self, note: String) {
        self.missing.push(note);
    }

    /// Returns whether the run is a success: nothing failed and, where skips are not allowed, nothing was skipped.
    pub(crate) fn success(&self, skips_allowed: bool) -> bool {
        let (_, failed, skipped) = self.totals();
        failed == 0 && (skips_allowed || skipped == 0)
    }

    fn totals(&self) -> (u32, u32, usize) {
        self.suites.iter().fold((0, 0, 0), |(passed, failed, skipped), (_, counts, _)| {
            (passed + counts.passed, failed + counts.failed, skipped + counts.skipped.len())
        })
    }

    /// Returns the table, with the last line `N passed, N failed, N skipped`.
    pub(crate) fn render(&self) -> String {
        let width = self.suites.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max("suite".len());
        let mut text = format!("\n{:width$}  passed  failed  skipped  seconds\n", "suite");
        for (name, counts, time) in &self.suites {
            let (passed, failed, skipped) = (counts.passed, counts.failed, counts.skipped.len());
            let seconds = time.as_secs_f64();
            let _ = writeln!(text, "{name:width$}  {passed:6}  {failed:6}  {skipped:7}  {seconds:7.1}");
        }
        for (name, counts, _) in &self.suites {
            for test in &counts.skipped {
                let _ = writeln!(text, "skipped: {name} {test}");
            }
        }
        for note in &self.missing {
            let _ = writeln!(text, "missing: {note}");
        }
        let (passed, failed, skipped) = self.totals();
        let _ = write!(text, "\n{passed} passed, {failed} failed, {skipped} skipped");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored\n\n\
                          test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
                          finished in 0.1s\n";

    #[test]
    fn the_output_of_the_harness_is_read() {
        let counts = Counts::parse(OUTPUT, false);
        assert_eq!(counts, Counts { passed: 1, failed: 1, skipped: vec!["c".to_owned()] });
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(Counts::parse("running 3 tests\n", false).failed, 1);
        assert_eq!(Counts::parse("", true).failed, 1, "a program that prints no result has tested nothing");
    }

    #[test]
    fn a_skip_is_a_failure_where_skips_are_not_allowed() {
        let mut report = Report::default();
        report.add("a", Counts { passed: 2, failed: 0, skipped: vec!["c".to_owned()] }, Duration::from_secs(1));
        assert!(report.success(true));
        assert!(!report.success(false));
        assert!(report.render().ends_with("\n2 passed, 0 failed, 1 skipped"), "{}", report.render());
    }
}
