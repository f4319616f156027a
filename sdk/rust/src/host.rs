//! The functions that the host offers to a stage: a log and counters.
//!
//! In the sandbox these are the imports of the contract. Natively they are collected for each thread, so that a test
//! can check them with [`take_log`] and [`counter`].

use std::fmt;

#[cfg(target_arch = "wasm32")]
use crate::bindings::filter::millstream::stage::host as imports;

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is unusual.
    Warn,
    /// Information for operators.
    Info,
    /// Details for the author of the stage.
    Debug,
}

/// Writes a line to the log of the host. The host limits the rate of lines and cuts each at 1 KiB.
#[cfg(target_arch = "wasm32")]
pub fn log(level: Level, message: impl fmt::Display) {
    let level = match level {
        Level::Error => imports::Level::Error,
        Level::Warn => imports::Level::Warn,
        Level::Info => imports::Level::Info,
        Level::Debug => imports::Level::Debug,
    };
    imports::log(level, &message.to_string());
}

/// Adds to a counter of the stage. The host shows counters with its statistics: at most 64 names, of at most 64 bytes.
#[cfg(target_arch = "wasm32")]
pub fn count(name: &str, delta: u64) {
    imports::count(name, delta);
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::{count, counter, log, take_log};

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::{Level, fmt};
    use std::cell::RefCell;
    use std::collections::{BTreeMap, VecDeque};

    /// Bounds the memory of a benchmark that logs every record.
    const LINES_MAX: usize = 1_000;

    thread_local! {
        static LINES: RefCell<VecDeque<(Level, String)>> = const { RefCell::new(VecDeque::new()) };
        static COUNTERS: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Writes a line to the log of the host. Natively [`take_log`] returns the last 1,000 lines of the thread.
    pub fn log(level: Level, message: impl fmt::Display) {
        LINES.with_borrow_mut(|lines| {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back((level, message.to_string()));
        });
    }

    /// Adds to a counter of the stage. Natively [`counter`] returns the sum.
    pub fn count(name: &str, delta: u64) {
        COUNTERS.with_borrow_mut(|counters| {
            let counter = counters.entry(name.to_owned()).or_default();
            *counter = counter.saturating_add(delta);
        });
    }

    /// Returns the lines that this thread has logged, and clears them.
    pub fn take_log() -> Vec<(Level, String)> {
        LINES.with_borrow_mut(|lines| lines.drain(..).collect())
    }

    /// Returns a counter of this thread.
    pub fn counter(name: &str) -> u64 {
        COUNTERS.with_borrow(|counters| counters.get(name).copied().unwrap_or(0))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn lines_and_counters_are_collected() {
            log(Level::Info, "one");
            log(Level::Warn, format_args!("{}", 2));
            count("seen", 2);
            count("seen", 3);
            assert_eq!(take_log(), [(Level::Info, "one".to_owned()), (Level::Warn, "2".to_owned())]);
            assert_eq!(take_log(), []);
            assert_eq!((counter("seen"), counter("unseen")), (5, 0));
        }
    }
}
