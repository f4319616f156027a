//! Sends a module through the sandbox: scan, compile, start, configure, and calls with batches.

use std::time::Duration;

use millstream_stage::{
    Changed, Compiler, Engine, EngineConfig, Fault, Kind, LoadError, Records, RecordsBuf, Stage, StageError,
    thread_time,
};

use crate::families::Made;
use crate::guests::Guest;

/// How far a module got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Made,
    Scanned,
    Compiled,
    Started,
    Described,
    Configured,
    Called,
    Answered,
}

impl Step {
    pub(crate) const ALL: [Step; 8] = [
        Step::Made,
        Step::Scanned,
        Step::Compiled,
        Step::Started,
        Step::Described,
        Step::Configured,
        Step::Called,
        Step::Answered,
    ];
}

/// What became of a module.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) step: Step,
    /// The last error, by its kind, or `right result`.
    pub(crate) outcome: &'static str,
    /// The whole error.
    pub(crate) error: String,
}

/// How much longer than its deadline a call may run, in processor time: a tick, and what cannot be interrupted. That is
/// filling the memory once, and copying a response.
const SLACK: Duration = Duration::from_millis(150);

/// The deadlines that may pass in one call: a new instance is started and configured first.
const DEADLINES: u32 = 3;

/// The sandboxes of one process, each with a good plug-in that has to keep working.
pub(crate) struct Sandbox {
    in_process: (Engine, Stage),
    by_child: (Engine, Stage),
    pub(crate) clock: Clock,
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        let this = std::env::current_exe().expect("this program");
        let made = |compiler| {
            let engine = Engine::new(EngineConfig { compiler, ..EngineConfig::default() }).expect("a sandbox");
            let good = Stage::new(engine.load(&Guest::filter().build()).expect("a good guest"), "{}");
            (engine, good.expect("a good guest"))
        };
        let (in_process, by_child) = (made(Compiler::InProcess), made(Compiler::Child(this)));
        Sandbox { in_process, by_child, clock: Clock::default() }
    }

    /// Checks that good plug-ins work: the ones that are there, and new ones.
    pub(crate) fn check(&self) {
        for (engine, stage) in [&self.in_process, &self.by_child] {
            keeps(stage);
            keeps(
                &Stage::new(engine.load(&Guest::filter().build()).expect("a good guest"), "{}").expect("a good guest"),
            );
        }
    }

    /// Sends a module through one of the sandboxes.
    ///
    /// # Panics
    /// It breaks a promise: a call that runs past its deadline, a wrong result, or an error that should not be.
    pub(crate) fn examine(&mut self, made: &Made, by_child: bool) -> End {
        let engine = if by_child { &self.by_child.0 } else { &self.in_process.0 };
        let plugin = match engine.load(&made.bytes) {
            Ok(plugin) => plugin,
            Err(error) => return not_loaded(&error),
        };
        let deadline = engine.limits().deadline;
        let started = self.clock.time(deadline * DEADLINES, || Stage::new(plugin, made.config));
        let stage = match started {
            Ok(stage) => stage,
            Err(error) => return not_started(&error),
        };
        let mut end = End { step: Step::Called, outcome: "", error: String::new() };
        for rows in [3, 1, 40, 700] {
            let batch = batch(&stage, rows);
            match call(&stage, &batch.as_records(), deadline * DEADLINES, &mut self.clock) {
                Ok(()) => end = End { step: Step::Answered, outcome: "right result", error: String::new() },
                Err(error) => {
                    let step = end.step;
                    end = End { step, outcome: name(&error.fault), error: error.to_string() };
                }
            }
        }
        end
    }
}

/// Checks that a good filter works.
fn keeps(stage: &Stage) {
    let mut batch = RecordsBuf::new(stage.pin().columns());
    for value in ["a", "x", "b"] {
        batch.push(0, None, Some(value.as_bytes()), []).expect("a small batch");
    }
    let kept = stage.filter("topic", &batch.as_records()).expect("a good guest");
    assert_eq!(kept.iter().collect::<Vec<_>>(), [0, 2], "a good guest returns something else");
}

/// Checks how much processor time calls take.
#[derive(Default)]
pub(crate) struct Clock {
    /// The longest so far.
    pub(crate) longest: Duration,
}

impl Clock {
    fn time<T>(&mut self, limit: Duration, call: impl FnOnce() -> T) -> T {
        let begun = thread_time();
        let result = call();
        let took = thread_time() - begun;
        self.longest = took.max(self.longest);
        assert!(took <= limit + SLACK, "a call ran for {took:?}, and {limit:?} is the limit");
        result
    }
}

fn not_loaded(error: &LoadError) -> End {
    let (step, outcome) = match error {
        LoadError::Refused(_) => (Step::Made, "rejected by the scan"),
        LoadError::Compile(_) => (Step::Scanned, "rejected by the compiler"),
        LoadError::Contract(_) => (Step::Compiled, "of another type"),
        LoadError::Start(fault) => {
            let step = if call_of(fault) == Some("describe") { Step::Started } else { Step::Compiled };
            (step, name(fault))
        }
        LoadError::Description(_) => (Step::Described, "bad description"),
        // The machine did not run the compiler for minutes. No module takes that much of its own time.
        LoadError::CompilerKilled(why) if why.starts_with("it took longer") && !why.contains("processor") => {
            (Step::Scanned, "compiler stopped")
        }
        other => panic!("an error that should not be: {other:?}"),
    };
    End { step, outcome, error: error.to_string() }
}

fn not_started(error: &StageError) -> End {
    let step = match call_of(&error.fault) {
        Some("instantiate" | "configure") => Step::Described,
        // The probe is a call.
        Some(_) => Step::Called,
        None if matches!(error.fault, Fault::Config { .. }) => Step::Configured,
        None => Step::Called,
    };
    End { step, outcome: name(&error.fault), error: error.to_string() }
}

/// Returns the call in which a guest misbehaved.
fn call_of(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::Trap { call, .. }
        | Fault::Stack { call, .. }
        | Fault::Deadline { call, .. }
        | Fault::Memory { call, .. }
        | Fault::BadResponse { call, .. }
        | Fault::ResponseTooLarge { call, .. } => Some(call),
        _ => None,
    }
}

/// Returns the kind of a fault.
fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Rows(_) => "rejected rows",
        Fault::Batch(_) => "rejected batch",
        Fault::Config { .. } => "rejected configuration",
        Fault::Trap { .. } => "trap",
        Fault::Stack { .. } => "stack",
        Fault::Deadline { .. } => "deadline",
        Fault::Memory { .. } => "memory",
        Fault::BadResponse { .. } => "bad response",
        Fault::ResponseTooLarge { .. } => "response too large",
        Fault::Lossy { .. } => "lossy",
        other => panic!("an error that should not be: {other:?}"),
    }
}

/// Returns records with all that a plug-in may meet: nulls, empty values, JSON, numbers, headers.
fn batch(stage: &Stage, rows: u32) -> RecordsBuf {
    let mut batch = RecordsBuf::new(stage.pin().columns());
    for row in 0..rows {
        let text = format!("{{\"a\":{row},\"text\":\"{}\"}}", "x".repeat(row as usize % 50));
        let key = (row % 3 != 1).then(|| &text.as_bytes()[..row as usize % 5]);
        let value = (row % 4 != 3).then_some(text.as_bytes());
        let headers = [("type", Some(&b"order.a"[..])), ("none", None)].into_iter().take(row as usize % 3);
        batch.push(i64::from(row) - 1, key, value, headers).expect("a small batch");
    }
    batch
}

/// Calls all functions of a stage, and checks their results.
fn call(stage: &Stage, records: &Records<'_>, limit: Duration, clock: &mut Clock) -> Result<(), StageError> {
    let rows = records.rows as usize;
    match stage.kind() {
        Kind::Partitioner => {
            let chosen = clock.time(limit, || stage.partition("topic", 5, &[0, 7, u64::MAX, 0, 1], records))?;
            assert!(chosen.len() == rows && chosen.iter().all(|partition| *partition < 5), "{chosen:?}");
        }
        Kind::Serializer => {
            check(&clock.time(limit, || stage.serialize("topic", records))?, rows);
            check(&clock.time(limit, || stage.deserialize("topic", records))?, rows);
        }
        Kind::Compressor => {
            let data = "some data ".repeat(rows);
            // The result is decompressed by another instance.
            let compressed = clock.time(limit * 2, || stage.compress(data.as_bytes(), records.rows))?;
            // A guest may decompress in another way every time, so only the size is promised.
            let bytes_max = data.len() + rows;
            let decompressed = clock.time(limit, || stage.decompress(&compressed, records.rows, bytes_max))?;
            assert!(decompressed.len() <= bytes_max);
        }
        Kind::Filter => assert_eq!(clock.time(limit, || stage.filter("topic", records))?.rows(), rows),
    }
    Ok(())
}

fn check(changed: &Changed, rows: usize) {
    for column in [&changed.keys, &changed.values].into_iter().flatten() {
        assert_eq!(column.rows(), rows);
        assert_eq!(column.iter().count(), rows);
    }
}
