//! Row 32: guests that flood the log and the counters.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use millstream_stage::{Fault, Kind};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::guests::{Guest, IMPORT_COUNT, IMPORT_LOG};
use crate::support::{assert_trapped, call, stage};

/// Keeps the messages of all events.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.lock().expect("no panic").push(format!("{value:?}"));
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
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Logs the guest's text, of `length` bytes, this many times.
fn log(times: u32, length: usize) -> String {
    format!(
        "(loop $again
           (call $log (i32.const 1) (i32.const 192) (i32.const {length}))
           (local.set $row (i32.add (local.get $row) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $row) (i32.const {times}))))
         (local.set $row (i32.const 0))"
    )
}

#[test]
fn row_32_log_flood() {
    let text = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nmillstream: all is well\u{202e}";
    let guest = Guest::filter().import(IMPORT_LOG).text(text).hook_with_rows("filter", &log(5_000, text.len()));
    let stage = stage(&guest);
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || call(&stage).expect("an answer"));
    let lines = lines.0.lock().expect("no panic");
    let flood: Vec<&String> = lines.iter().filter(|line| line.contains("owned")).collect();
    // A burst of 50, and 10 a second for as long as the call took.
    assert!((50..=60).contains(&flood.len()), "{} lines", flood.len());
    for line in &flood {
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
        assert!(line.contains("\\u{1b}[2J") && line.contains("\\r\\n"), "{line:?}");
    }
}

#[test]
fn row_32_a_long_line_is_cut() {
    // 60,000 bytes of the letter a, from address 4096 on.
    let fill = "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 60000))
        (call $log (i32.const 0) (i32.const 65536) (i32.const 60000))";
    let guest = Guest::partitioner().import(IMPORT_LOG).hook_with_rows("partition", fill);
    let stage = stage(&guest);
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || call(&stage).expect("an answer"));
    let lines = lines.0.lock().expect("no panic");
    assert_eq!(lines.iter().filter(|line| line.starts_with("aaa")).count(), 1);
    assert!(lines.iter().all(|line| line.len() <= 1024), "{lines:?}");
}

#[test]
fn row_32_invalid_utf_8() {
    let guest = Guest::filter()
        .import(IMPORT_LOG)
        .text(b"\xff\xfe\x80 not text".to_vec())
        .hook_with_rows("filter", &log(1, 12));
    assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { reason, .. } if reason.contains("utf-8")));
}

/// A guest that panics says why in its log, as an error, before it traps.
#[test]
fn a_trap_is_told_with_what_the_guest_logged_last() {
    let text = format!("panicked at src/lib.rs:7:\nnot so {}", "x".repeat(500));
    let shout = |level| format!("(call $log (i32.const {level}) (i32.const 192) (i32.const {}))", text.len());
    let guest = |hook: &str| Guest::filter().import(IMPORT_LOG).text(text.as_str()).hook_with_rows("filter", hook);
    assert_trapped(&guest(&format!("{} unreachable", shout(0))), |fault| {
        let Fault::Trap { reason, .. } = fault else { return false };
        reason.contains("; it said: panicked at src/lib.rs:7:\\nnot so xxx") && reason.len() < 400
    });
    // What is no error says nothing about the trap.
    assert_trapped(
        &guest(&format!("{} unreachable", shout(2))),
        |fault| matches!(fault, Fault::Trap { reason, .. } if !reason.contains("panicked")),
    );
    // Nor does what a call before this one said.
    let later = format!("(if (global.get $called) (then unreachable)) (global.set $called (i32.const 1)) {}", shout(0));
    let stage = stage(&guest(&later).hook("module", "(global $called (mut i32) (i32.const 0))"));
    call(&stage).expect("an answer");
    let text = call(&stage).expect_err("a trap").to_string();
    assert!(text.contains("unreachable") && !text.contains("panicked"), "{text}");
}

#[test]
fn row_32_counter_flood() {
    // A new name of one byte each time, 200 of them.
    let names = "(loop $again
        (i32.store8 (i32.const 3072) (i32.and (local.get $row) (i32.const 127)))
        (i32.store8 (i32.const 3073) (i32.and (local.get $row) (i32.const 3)))
        (call $count (i32.const 3072) (i32.const 2) (i64.const 1))
        (local.set $row (i32.add (local.get $row) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $row) (i32.const 200))))
        (local.set $row (i32.const 0))";
    let guest = Guest::filter().import(IMPORT_COUNT).hook_with_rows("filter", names);
    let stage = stage(&guest);
    for _ in 0..3 {
        call(&stage).expect("an answer");
    }
    assert_eq!(stage.counters().len(), 64);
    assert_eq!(stage.kind(), Kind::Filter);
}

#[test]
fn row_32_a_message_of_an_error_is_harmless_too() {
    // An error for row 0, whose message is the guest's text.
    let text = "\u{1b}[31mred";
    let error = "(i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store8 (i32.const 2052) (i32.const 0))
        (i32.store (i32.const 2056) (i32.const 3072))
        (i32.store (i32.const 2060) (i32.const 1))
        (i32.store (i32.const 3072) (i32.const 0))
        (i32.store (i32.const 3076) (i32.const 192))
        (i32.store (i32.const 3080) (i32.const 8))";
    let stage = stage(&Guest::filter().text(text).hook_with_rows("filtered", error));
    let text = call(&stage).expect_err("a bad row").to_string();
    assert!(text.contains("row 0: \\u{1b}[31mred"), "{text}");
}
