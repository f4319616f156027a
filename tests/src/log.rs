//! What a broker may log: a test fails on an unexpected WARN or ERROR.

use std::sync::{Mutex, PoisonError};

/// Lines that are allowed in every test.
const ALWAYS_ALLOWED: &[&str] = &[
    // Each topic with `cleanup.policy=compact` causes one.
    "cleanup.policy=compact has no effect yet",
    // Tests share the disk.
    "the disk stalls",
];

/// What a start after SIGKILL may find. [`Broker::kill`](crate::Broker::kill) allows these lines.
pub(crate) const AFTER_KILL: &[&str] = &[
    "a torn tail is cut off",
    "the log is scanned",
    "the leader epochs are made again from the log",
    "a checkpoint is missing",
];

/// The parts of lines that a test expects in the log of its broker.
#[derive(Default)]
pub(crate) struct Allowed(Mutex<Vec<String>>);

impl Allowed {
    /// Allows every line that contains `part`.
    pub(crate) fn add(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(part.to_owned());
    }

    /// Returns the lines of level WARN and ERROR that nothing allows.
    pub(crate) fn unexpected<'a>(&self, log: &'a str) -> Vec<&'a str> {
        let allowed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.lines()
            .filter(|line| is_problem(line))
            .filter(|line| !ALWAYS_ALLOWED.iter().any(|part| line.contains(part)))
            .filter(|line| !allowed.iter().any(|part| line.contains(part.as_str())))
            .collect()
    }
}

/// Returns whether a line is of level WARN or ERROR: the level is the word after the time.
fn is_problem(line: &str) -> bool {
    matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR")) || line.contains("panicked at")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-27T10:00:00.000001Z  INFO millstream: started\n\
                       2026-11-27T10:00:00.000002Z  WARN millstream_log: a torn tail is cut off segment=x\n\
                       2026-11-27T10:00:00.000003Z ERROR millstream: disk full\n\
                       2026-11-27T10:00:00.000004Z  INFO millstream: no ERROR here\n\
                       thread 'main' panicked at src/main.rs:1:1\n";

    #[test]
    fn problems_that_nothing_allows_are_found() {
        let allowed = Allowed::default();
        assert_eq!(allowed.unexpected(LOG).len(), 3);
        allowed.add("torn tail");
        allowed.add("disk full");
        assert_eq!(allowed.unexpected(LOG), ["thread 'main' panicked at src/main.rs:1:1"]);
    }
}
