//! Runs other projects' tools with a time limit, so that a hanging client fails a test instead of the whole run.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` returns a value.
///
/// # Panics
/// When `limit` has passed; the message contains `what`.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "timed out after {limit:?} waiting for: {what}");
        thread::sleep(POLL);
    }
}

/// A program that a test runs, with its input and its time limit.
pub struct Tool {
    command: Command,
    input: Vec<u8>,
    limit: Duration,
}

/// How a tool ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to its standard output.
    pub stdout: String,
    /// All that it wrote to its standard error.
    pub stderr: String,
}

impl Tool {
    /// Returns a program with a limit of 60 s and an empty standard input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: Vec::new(), limit: Duration::from_secs(60) }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Sets the time after which the tool is killed and the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the tool and leaves it running; the caller reads its pipes.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command.get_program()));
        let mut stdin = child.stdin.take().expect("the standard input is a pipe");
        let input = self.input;
        // A tool may end without reading all of its input, so a broken pipe is not an error.
        thread::spawn(move || stdin.write_all(&input));
        child
    }

    /// Runs the tool to its end.
    ///
    /// # Panics
    /// When it cannot be started or is still running at its limit.
    pub fn run(self) -> Finished {
        let limit = self.limit;
        let name = format!("{:?}", self.command);
        let mut child = self.spawn();
        let stdout = drain(child.stdout.take().expect("a pipe"));
        let stderr = drain(child.stderr.take().expect("a pipe"));
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if Instant::now() >= end {
                child.kill().ok();
                child.wait().ok();
                let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
                panic!("{name} still ran after {limit:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}");
            }
            thread::sleep(POLL);
        };
        Finished {
            code: status.code(),
            stdout: stdout.join().expect("the reader does not panic"),
            stderr: stderr.join().expect("the reader does not panic"),
        }
    }

    /// Runs the tool and returns its standard output.
    ///
    /// # Panics
    /// When it does not exit with 0, with all its output.
    pub fn succeed(self) -> String {
        let name = format!("{:?}", self.command);
        let end = self.run();
        assert_eq!(end.code, Some(0), "{name} failed\n-- stdout\n{}\n-- stderr\n{}", end.stdout, end.stderr);
        end.stdout
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
