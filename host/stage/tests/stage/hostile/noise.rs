//! Row 32: guests that flood the log and the counters.

use millstream_stage::{Fault, Kind};

use crate::guests::{Guest, IMPORT_COUNT, IMPORT_LOG};
use crate::support::{Lines, assert_trapped, call, stage};

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
    let ((), lines) = Lines::of(|| call(&stage).expect("a response"));
    let flood: Vec<&String> = lines.iter().filter(|line| line.contains("owned")).collect();
    // A burst of 50, and 10 a second while the call runs.
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
    let ((), lines) = Lines::of(|| call(&stage).expect("a response"));
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

/// A guest that panics logs an error before it traps.
#[test]
fn a_trap_quotes_the_message_of_the_panic() {
    let text = format!("panicked at src/lib.rs:7:\nnot so {}", "x".repeat(500));
    let shout = |level| format!("(call $log (i32.const {level}) (i32.const 192) (i32.const {}))", text.len());
    let guest = |hook: &str| Guest::filter().import(IMPORT_LOG).text(text.as_str()).hook_with_rows("filter", hook);
    assert_trapped(&guest(&format!("{} unreachable", shout(0))), |fault| {
        let Fault::Trap { reason, .. } = fault else { return false };
        reason.contains("; it logged: panicked at src/lib.rs:7: not so xxx") && reason.len() < 400
    });
    // A message of another level is not quoted.
    assert_trapped(
        &guest(&format!("{} unreachable", shout(2))),
        |fault| matches!(fault, Fault::Trap { reason, .. } if !reason.contains("panicked")),
    );
    // Neither is a message of an earlier call.
    let later = format!("(if (global.get $called) (then unreachable)) (global.set $called (i32.const 1)) {}", shout(0));
    let stage = stage(&guest(&later).hook("module", "(global $called (mut i32) (i32.const 0))"));
    call(&stage).expect("a response");
    let text = call(&stage).expect_err("a trap").to_string();
    assert!(text.contains("unreachable") && !text.contains("panicked"), "{text}");
}

/// Toolchains print a panic in several lines, and not all print the message last.
#[test]
fn a_trap_quotes_the_message_of_other_toolchains() {
    for (text, expected) in [
        (
            "panic: two rows are too few\n\ngoroutine 1 [running]:\nmain.filter()\n\t/a.go:12\n",
            "panic: two rows are too few",
        ),
        ("Assertion failed: rows > 2 (a.c: filter: 12)\n", "Assertion failed: rows > 2 (a.c: filter: 12)"),
        ("TypeError: rows is null\n    at filter (/a.js:14:14)\n", "TypeError: rows is null"),
        ("Traceback (most recent call last):\n  File \"a.py\", line 3\nValueError: 2 rows\n", "ValueError: 2 rows"),
    ] {
        let whole = format!("(call $log (i32.const 0) (i32.const 192) (i32.const {}))", text.len());
        let mut start = 192;
        let line = |line: &str| {
            let call = format!("(call $log (i32.const 0) (i32.const {start}) (i32.const {}))", line.len());
            start += line.len();
            call
        };
        // A runtime passes on its output as a whole, or line by line.
        let lines: String = text.split_inclusive('\n').map(line).collect();
        for shout in [whole, lines] {
            let hook = format!("{shout} unreachable");
            let guest = Guest::filter().import(IMPORT_LOG).text(text).hook_with_rows("filter", &hook);
            let ended = format!("; it logged: {expected}");
            assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { reason, .. } if reason.ends_with(&ended)));
        }
    }
}

#[test]
fn row_32_counter_flood() {
    // 200 new names of one byte each.
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
        call(&stage).expect("a response");
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
