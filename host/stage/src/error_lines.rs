//! Finds the message of a panic among the lines that a guest logged as errors before it trapped.
//!
//! Toolchains print different things. Rust prints a header and then the message, Python a traceback and then the
//! message. Go prints the message and then a dump of its goroutines, JavaScript the message and then its stack.

/// The most bytes that are kept of a line. A batch may have many errors with such lines.
const LINE_BYTES_MAX: usize = 256;

/// The most bytes that are read of a message.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// How the line that a panic begins with starts, by toolchain.
const PANIC_STARTS: [&str; 8] = [
    // Rust's hook, without and with its thread.
    "panicked at ",
    "thread '",
    // Go, TinyGo and Zig.
    "panic: ",
    "fatal error: ",
    "thread ",
    // C and C++.
    "Assertion failed",
    "libc++abi: ",
    "terminate called ",
];

/// How lines of a stack trace start, after their indentation.
const FRAME_STARTS: [&str; 9] =
    ["at ", "#", "0x", "goroutine ", "created by ", "exit status ", "note: ", "Stack", "stack backtrace"];

/// The error lines of the call that runs. Takes a bounded amount of memory.
#[derive(Debug, Default)]
pub(crate) struct ErrorLines {
    /// The first line that begins a panic.
    panic: Option<String>,
    /// Whether the message of that panic is on the next line.
    is_header: bool,
    /// The last line that does not belong to a stack trace.
    last: Option<String>,
}

impl ErrorLines {
    /// Forgets the lines of the call before.
    pub(crate) fn clear(&mut self) {
        *self = ErrorLines::default();
    }

    /// Adds a message of the guest, of one or more lines.
    pub(crate) fn add(&mut self, message: &str) {
        message.lines().for_each(|line| self.add_line(line));
    }

    /// Returns the part of a message that is read.
    pub(crate) fn cut(message: &str) -> &str {
        cut(message, MESSAGE_BYTES_MAX)
    }

    /// Returns the line that most likely says why the guest trapped, not escaped yet.
    pub(crate) fn message(&self) -> Option<&str> {
        self.panic.as_deref().or(self.last.as_deref())
    }

    fn add_line(&mut self, line: &str) {
        let line = cut(line.trim_end(), LINE_BYTES_MAX);
        match &mut self.panic {
            Some(panic) if self.is_header && !line.trim().is_empty() => {
                self.is_header = false;
                let left = LINE_BYTES_MAX.saturating_sub(panic.len() + 1);
                panic.push(' ');
                panic.push_str(cut(line.trim_start(), left));
            }
            Some(_) => {}
            None if begins_panic(line) => {
                self.is_header = line.ends_with(':');
                self.panic = Some(line.to_owned());
            }
            None if is_frame(line) => {}
            None => self.last = Some(line.to_owned()),
        }
    }
}

fn begins_panic(line: &str) -> bool {
    let is_thread = line.starts_with("thread ");
    let has_start = PANIC_STARTS.iter().any(|start| line.starts_with(start));
    has_start && (!is_thread || line.contains(" panicked at ") || line.contains(" panic: "))
}

/// Returns whether a line belongs to a stack trace, or has no content.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let is_indented = text.len() < line.len();
    is_indented || text.is_empty() || FRAME_STARTS.iter().any(|start| text.starts_with(start)) || has_location(text)
}

/// Returns whether a line is a frame of SpiderMonkey: `filter@/src/contains.js:14:14`.
fn has_location(line: &str) -> bool {
    let mut parts = line.rsplitn(3, ':');
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number(parts.next()) && is_number(parts.next()) && parts.next().is_some_and(|rest| rest.contains('@'))
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is quoted of a text. It must not depend on whether the lines come in one message or in several.
    fn quoted(text: &str) -> Option<String> {
        let mut whole = ErrorLines::default();
        whole.add(text);
        let mut lines = ErrorLines::default();
        text.lines().for_each(|line| lines.add(line));
        assert_eq!(whole.message(), lines.message());
        whole.message().map(str::to_owned)
    }

    #[test]
    fn the_message_of_each_toolchain_is_found() {
        for (text, expected) in [
            ("panicked at src/lib.rs:7:5:\ntoo few rows", "panicked at src/lib.rs:7:5: too few rows"),
            (
                "thread '<unnamed>' (1) panicked at src/lib.rs:7:5:\ntoo few rows\nnote: run with `RUST_BACKTRACE=1`",
                "thread '<unnamed>' (1) panicked at src/lib.rs:7:5: too few rows",
            ),
            (
                "panic: two rows are too few\n\ngoroutine 1 [running]:\n\
                 main.filter(0x1)\n\t/a.go:12 +0x1\nexit status 2",
                "panic: two rows are too few",
            ),
            (
                "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [select]:\nmain.main()",
                "fatal error: all goroutines are asleep - deadlock!",
            ),
            (
                "thread 1 panic: integer overflow\n/src/a.zig:3:9: 0x1 in filter (a)\n",
                "thread 1 panic: integer overflow",
            ),
            ("Assertion failed: n > 1 (a.c: filter: 12)", "Assertion failed: n > 1 (a.c: filter: 12)"),
            (
                "libc++abi: terminating due to uncaught exception of type std::length_error: vector",
                "libc++abi: terminating due to uncaught exception of type std::length_error: vector",
            ),
            (
                "TypeError: rows is null\n    at filter (/src/contains.js:14:14)\n    at <anonymous>\n",
                "TypeError: rows is null",
            ),
            ("Error: rows\nStack:\nfilter@/src/contains.js:14:14\n@/src/contains.js:1:1\n", "Error: rows"),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 3, in filter\n    f()\nValueError: 1\n",
                "ValueError: 1",
            ),
        ] {
            assert_eq!(quoted(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_panic_comes_before_other_errors_and_the_last_of_those_before_earlier_ones() {
        assert_eq!(quoted("row 3 is odd\npanic: no\nrow 4 is odd").as_deref(), Some("panic: no"));
        assert_eq!(quoted("row 3 is odd\nrow 4 is odd\n").as_deref(), Some("row 4 is odd"));
        assert_eq!(quoted("\n  \n"), None);
        assert_eq!(quoted("thread pool is empty").as_deref(), Some("thread pool is empty"));
    }

    #[test]
    fn long_lines_are_cut() {
        let long = "ä".repeat(1_000);
        assert_eq!(quoted(&long).map(|line| line.len()), Some(256));
        let panic = quoted(&format!("panicked at a.rs:1:1:\n{long}")).unwrap_or_default();
        assert!(panic.len() <= 256 && panic.starts_with("panicked at a.rs:1:1: ä"), "{panic}");
    }

    #[test]
    fn a_call_starts_without_lines() {
        let mut lines = ErrorLines::default();
        lines.add("panicked at a.rs:1:1:");
        lines.clear();
        lines.add("another");
        assert_eq!(lines.message(), Some("another"));
    }
}
