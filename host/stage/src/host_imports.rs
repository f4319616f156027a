//! Offers the functions of `millstream:stage/host` to every plug-in: a log and counters. Both are bounded, since a
//! plug-in may call them in a loop.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList, WasmStr};

use crate::checks::PAGE_IMPORT;
use crate::contract::{Level, PACKAGE, VERSION};
use crate::deadline::Page;
use crate::error_lines::ErrorLines;
use crate::failure_detector::{Health, SpikeLimits};
use crate::instance::HostState;
use crate::scan::HOST_INTERFACE;
use crate::source::VersionName;

/// The longest line of a plug-in's log, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 1024;

/// The lines that a plug-in may log at once, and each second after that.
const LINES_BURST: u32 = 50;
const LINES_A_SECOND: u32 = 10;

/// The most counters of one stage, and the most bytes of a name.
const COUNTERS_MAX: usize = 64;
const COUNTER_NAME_BYTES_MAX: usize = 64;

/// A line of a plug-in's log: cut, escaped and within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The version that logged it.
    pub version: VersionName<'a>,
    /// The level.
    pub level: Level,
    /// The line.
    pub line: &'a str,
}

type OnLog = Box<dyn Fn(LogLine<'_>) + Send + Sync>;

/// Receives lines, besides the log of this process.
#[derive(Default)]
pub(crate) struct LogSink(ArcSwapOption<OnLog>);

impl LogSink {
    pub(crate) fn set(&self, on_log: impl Fn(LogLine<'_>) + Send + Sync + 'static) {
        self.0.store(Some(Arc::new(Box::new(on_log))));
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogSink").finish_non_exhaustive()
    }
}

/// The host's side of one stage: shared by all its instances, and kept when its version changes.
#[derive(Debug)]
pub(crate) struct HostSide {
    plugin: Arc<str>,
    sink: Arc<LogSink>,
    lines: Mutex<LineBudget>,
    counters: Mutex<BTreeMap<String, u64>>,
}

impl HostSide {
    pub(crate) fn new(plugin: Arc<str>, sink: Arc<LogSink>) -> HostSide {
        let lines = Mutex::new(LineBudget::new(Instant::now()));
        HostSide { plugin, sink, lines, counters: Mutex::default() }
    }

    /// Returns the plug-in's counters, by name.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        self.counters.lock().clone()
    }

    fn log(&self, version: VersionName<'_>, level: Level, message: &str) {
        let Some(dropped) = self.lines.lock().take(Instant::now()) else {
            return;
        };
        let plugin = version.to_string();
        if dropped > 0 {
            tracing::warn!(plugin, dropped, "a plug-in logs too much: lines were dropped");
        }
        let line = escape(message);
        match level {
            Level::Error => tracing::error!(plugin, "{line}"),
            Level::Warn => tracing::warn!(plugin, "{line}"),
            Level::Info => tracing::info!(plugin, "{line}"),
            Level::Debug => tracing::debug!(plugin, "{line}"),
        }
        if let Some(sink) = &*self.sink.0.load() {
            if dropped > 0 {
                let line = format!("(the plug-in logs too much: {dropped} lines were dropped)");
                sink(LogLine { version, level: Level::Warn, line: &line });
            }
            sink(LogLine { version, level, line: &line });
        }
    }

    fn count(&self, name: &str, delta: u64) {
        if name.is_empty() || name.len() > COUNTER_NAME_BYTES_MAX {
            return;
        }
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get_mut(name) {
            *counter = counter.saturating_add(delta);
        } else if counters.len() < COUNTERS_MAX {
            counters.insert(name.to_owned(), delta);
        }
    }
}

/// Identifies the caller of the host: a version of a plug-in, in a stage.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) side: Arc<HostSide>,
    pub(crate) version: Arc<str>,
    pub(crate) health: Arc<Health>,
}

impl Caller {
    /// Identifies a plug-in that is being loaded, before it described itself.
    pub(crate) fn unknown() -> Caller {
        let side = Arc::new(HostSide::new("(loading)".into(), Arc::default()));
        Caller { side, version: "".into(), health: Arc::new(Health::new(SpikeLimits::default(), None)) }
    }

    fn log(&self, level: Level, message: &str) {
        // The number may be newer than the instance.
        let version = VersionName { plugin: &self.side.plugin, version: &self.version, number: self.health.number() };
        self.side.log(version, level, message);
    }
}

/// A token bucket of log lines.
#[derive(Debug)]
struct LineBudget {
    left: u32,
    filled: Instant,
    dropped: u64,
}

impl LineBudget {
    fn new(now: Instant) -> LineBudget {
        LineBudget { left: LINES_BURST, filled: now, dropped: 0 }
    }

    /// Takes a line. Returns the number of lines that were dropped since the last one, or `None` if no line is left.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let each = Duration::from_secs(1) / LINES_A_SECOND;
        let more = now.duration_since(self.filled).as_nanos() / each.as_nanos();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(LINES_BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// Returns at most [`LINE_BYTES_MAX`] bytes of a text of the guest: on one line, without control characters.
pub(crate) fn escape(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(LINE_BYTES_MAX));
    for c in message.chars() {
        let before = line.len();
        if c.is_control() || is_invisible(c) {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > LINE_BYTES_MAX {
            line.truncate(before);
            break;
        }
    }
    line
}

/// Returns whether a character reorders or breaks a line without being a control character.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Defines the imports. They are the same for every plug-in.
///
/// # Errors
/// When the linker has them already.
pub(crate) fn define(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let (major, minor, patch) = VERSION;
    let name = format!("{PACKAGE}/{HOST_INTERFACE}@{major}.{minor}.{patch}");
    let mut host = linker.instance(&name)?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, HostState>, (level, message): (Level, WasmStr)| {
        let message = message.to_str(&store)?;
        store.data().caller.log(level, &message);
        let error = (level == Level::Error).then(|| ErrorLines::cut(&message).to_owned());
        if let Some(error) = error {
            store.data_mut().error_lines.add(&error);
        }
        Ok(())
    })?;
    host.func_wrap("count", |store: StoreContextMut<'_, HostState>, (name, delta): (WasmStr, u64)| {
        let name = name.to_str(&store)?;
        store.data().caller.side.count(&name, delta);
        Ok(())
    })?;
    // No plug-in can import it: the scan rejects everything but the contract. The checks of the deadline do.
    linker.root().func_wrap(PAGE_IMPORT, |mut store: StoreContextMut<'_, HostState>, (page,): (WasmList<u8>,)| {
        let page = Page::of(page.as_le_slice(&store));
        store.data_mut().announce(page);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_short_and_harmless() {
        assert_eq!(escape("plain äöü"), "plain äöü");
        assert_eq!(escape("a\x1b[31mred\nb"), "a\\u{1b}[31mred\\nb");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(escape(&"x".repeat(5000)).len(), LINE_BYTES_MAX);
        assert!(escape(&"ä".repeat(5000)).len() <= LINE_BYTES_MAX);
    }

    #[test]
    fn a_flood_of_lines_is_cut_and_counted() {
        let start = Instant::now();
        let mut budget = LineBudget::new(start);
        let taken = (0..1000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(taken, LINES_BURST as usize);
        let later = start + Duration::from_millis(250);
        assert_eq!(budget.take(later), Some(1000 - u64::from(LINES_BURST)));
        assert_eq!(budget.take(later), Some(0));
        assert_eq!(budget.take(later), None);
    }

    #[test]
    fn counters_are_bounded() {
        let side = HostSide::new("p".into(), Arc::default());
        for i in 0..1000 {
            side.count(&format!("c{i}"), 1);
        }
        side.count("c0", 2);
        side.count("c1", u64::MAX);
        side.count(&"x".repeat(65), 1);
        let counters = side.counters();
        assert_eq!(counters.len(), COUNTERS_MAX);
        assert_eq!(counters["c0"], 3);
        assert_eq!(counters["c1"], u64::MAX);
    }
}
