//! The lines that a piece of code logs.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps the messages of all events of a thread, with their levels.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Lines {
    /// Runs `code` and returns what it logged from this thread.
    pub(crate) fn of<R>(code: impl FnOnce() -> R) -> (R, Vec<String>) {
        let (outcome, lines) = Lines::with_levels(code);
        (outcome, lines.into_iter().map(|(_, line)| line).collect())
    }

    /// Runs `code` and returns the warnings and errors that it logged from this thread.
    pub(crate) fn warnings_of<R>(code: impl FnOnce() -> R) -> (R, Vec<String>) {
        let (outcome, lines) = Lines::with_levels(code);
        (outcome, lines.into_iter().filter(|(level, _)| *level <= Level::WARN).map(|(_, line)| line).collect())
    }

    fn with_levels<R>(code: impl FnOnce() -> R) -> (R, Vec<(Level, String)>) {
        let lines = Lines::default();
        let outcome = tracing::subscriber::with_default(lines.clone(), code);
        let lines = std::mem::take(&mut *lines.0.lock().expect("no panic"));
        (outcome, lines)
    }
}

/// The fields of one event.
struct Fields<'l> {
    level: Level,
    lines: &'l Lines,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.lines.0.lock().expect("no panic").push((self.level, format!("{value:?}")));
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Fields { level: *event.metadata().level(), lines: self });
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
