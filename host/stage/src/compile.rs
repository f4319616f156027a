//! Compiles a component to machine code: in this process, or in a child process that can be killed.
//!
//! A process cannot catch that it is out of memory, and the compiler cannot be interrupted. A host that accepts
//! plug-ins from others therefore compiles in a child with a bounded address space, and kills it if it takes too long.

use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};

use crate::checks;
use crate::engine::{self, Trust};
use crate::error::LoadError;
use crate::limits::Limits;

/// The argument with which the program of [`Compiler::Child`] is run. It then calls only [`compile_child_main`].
pub const COMPILE_CHILD_ARGUMENT: &str = "compile-stage-child";

/// The argument after it for a plug-in of [`Trust::Own`].
const OWN_ARGUMENT: &str = "own";

/// The address space that the child may use.
const CHILD_ADDRESS_SPACE_BYTES: u64 = 1 << 30;

/// The most threads of the child. More of them gain little, and take cores from the records.
const CHILD_THREADS_MAX: usize = 4;

/// Wall-clock time may be longer than processor time by this factor, as in calls: on a busy machine the child waits.
const WALL_CLOCK_FACTOR: u32 = 10;

/// The largest artefact that is read from the child. Machine code is about ten times the size of the module.
const ARTEFACT_BYTES_MAX: u64 = 256 << 20;

/// The most bytes of the child's error text that are kept.
const CHILD_ERROR_BYTES_MAX: u64 = 4096;

/// The exit code of a child whose compiler rejects the component. Its error text says why.
const EXIT_REFUSED: u8 = 3;

/// The place where plug-ins are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compiler {
    /// In this process: for tools and tests that load their own plug-ins.
    #[default]
    InProcess,
    /// In a child process: runs this program with [`COMPILE_CHILD_ARGUMENT`].
    Child(PathBuf),
}

impl Compiler {
    /// Compiles a component to an artefact for [`wasmtime::component::Component::deserialize`].
    pub(crate) fn compile(
        &self,
        engine: &wasmtime::Engine,
        trust: Trust,
        limits: &Limits,
        component: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        match self {
            Compiler::InProcess => compile(engine, trust, component).map_err(LoadError::Compile),
            Compiler::Child(program) => {
                let time = limits.module.compile_time;
                compile_in_child(program, trust, component, time, time.saturating_mul(WALL_CLOCK_FACTOR))
            }
        }
    }
}

/// Compiles a component in this process, with the checks of the deadline if it needs them.
fn compile(engine: &wasmtime::Engine, trust: Trust, component: &[u8]) -> Result<Vec<u8>, String> {
    let checked;
    let component = match trust {
        Trust::Foreign => {
            checked = checks::insert(component)?;
            &checked
        }
        Trust::Own => component,
    };
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// Runs the compiler as a child process: reads a component from standard input, and writes the artefact to standard
/// output. Bounds its own address space first; the parent bounds the time.
pub fn compile_child_main() -> ExitCode {
    match child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildError::Refused(problem)) => {
            let _ = io::stderr().write_all(problem.as_bytes());
            ExitCode::from(EXIT_REFUSED)
        }
        Err(ChildError::Failed(problem)) => {
            let _ = io::stderr().write_all(problem.as_bytes());
            ExitCode::FAILURE
        }
    }
}

enum ChildError {
    /// The compiler rejects the component.
    Refused(String),
    /// The child itself failed.
    Failed(String),
}

fn child() -> Result<(), ChildError> {
    let failed = |error: io::Error| ChildError::Failed(error.to_string());
    let limit = Rlimit { current: Some(CHILD_ADDRESS_SPACE_BYTES), maximum: Some(CHILD_ADDRESS_SPACE_BYTES) };
    rustix::process::setrlimit(Resource::As, limit).map_err(|error| failed(error.into()))?;
    let limits = Limits::default();
    let mut arguments = std::env::args().skip(2);
    let seconds = arguments.next().and_then(|argument| argument.parse().ok());
    let seconds = seconds.unwrap_or(limits.module.compile_time.as_secs());
    // The signal comes at the first limit, which no code here catches.
    let time = Rlimit { current: Some(seconds), maximum: Some(seconds + 1) };
    rustix::process::setrlimit(Resource::Cpu, time).map_err(|error| failed(error.into()))?;
    let is_own = arguments.next().is_some_and(|argument| argument == OWN_ARGUMENT);
    let trust = if is_own { Trust::Own } else { Trust::Foreign };
    let mut component = Vec::new();
    // The parent has checked the size; its limits may be larger than the default ones.
    let size_max = Limits::large().module.size_bytes as u64;
    io::stdin().take(size_max + 1).read_to_end(&mut component).map_err(failed)?;
    let engine = engine::compiler_engine(&limits).map_err(|error| ChildError::Failed(format!("{error:#}")))?;
    let artefact = compile(&engine, trust, &component).map_err(ChildError::Refused)?;
    io::stdout().write_all(&artefact).map_err(failed)
}

/// Returns the number of threads that compile.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(CHILD_THREADS_MAX)
}

/// The result of a child that ended.
struct Ended {
    status: ExitStatus,
    artefact: Vec<u8>,
    problem: String,
}

fn compile_in_child(
    program: &Path,
    trust: Trust,
    component: &[u8],
    processor_time: Duration,
    time_max: Duration,
) -> Result<Vec<u8>, LoadError> {
    let missing = |source| LoadError::CompilerMissing { program: program.to_owned(), source };
    let child = Command::new(program)
        .arg(COMPILE_CHILD_ARGUMENT)
        .arg(processor_time.as_secs().max(1).to_string())
        .args((trust == Trust::Own).then_some(OWN_ARGUMENT))
        .env_clear()
        // The library that runs the threads reads their number here.
        .env("RAYON_NUM_THREADS", threads().to_string())
        // Each arena of the allocator takes address space, which the child has little of.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let ended = run_child(child, component, time_max).map_err(missing)?;
    let Some(ended) = ended else {
        let seconds = time_max.as_secs();
        return Err(LoadError::CompilerKilled(format!("it took longer than {seconds} s")));
    };
    if ended.status.success() {
        return Ok(ended.artefact);
    }
    if ended.status.code() == Some(i32::from(EXIT_REFUSED)) {
        return Err(LoadError::Compile(ended.problem));
    }
    if ended.status.signal() == Some(Signal::XCPU.as_raw()) {
        let seconds = processor_time.as_secs();
        return Err(LoadError::CompilerKilled(format!("it took longer than {seconds} s of processor time")));
    }
    // An allocation that fails aborts the child, with a message of the allocator.
    let memory = CHILD_ADDRESS_SPACE_BYTES >> 20;
    Err(LoadError::CompilerKilled(format!(
        "{}, with at most {memory} MiB of memory: {}",
        ended.status,
        ended.problem.trim()
    )))
}

/// Passes the component to the child and waits for its end. Returns `None` if it took too long and was killed.
fn run_child(mut child: Child, component: &[u8], time_max: Duration) -> io::Result<Option<Ended>> {
    let deadline = Instant::now() + time_max;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(io::Error::other("the child has no pipes"));
    };
    // A child may fill one pipe while this process waits for another, so each has a thread. A killed child closes them
    // all, so every thread ends.
    thread::scope(|scope| {
        let (sender, done) = mpsc::channel::<()>();
        scope.spawn(move || {
            // A child that rejects early does not read to the end. Its exit code says why.
            let _ = stdin.write_all(component);
        });
        let problem = scope.spawn(move || read_bounded(stderr, CHILD_ERROR_BYTES_MAX));
        let artefact = scope.spawn(move || {
            let artefact = read_bounded(stdout, ARTEFACT_BYTES_MAX);
            drop(sender);
            artefact
        });
        let wait = deadline.saturating_duration_since(Instant::now());
        let is_late = done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
        if is_late {
            child.kill()?;
        }
        let artefact = artefact.join().expect("reading does not panic");
        // If reading stopped early, the child may block on its output.
        let _ = child.kill();
        let status = child.wait()?;
        let problem = problem.join().expect("reading does not panic");
        if is_late {
            return Ok(None);
        }
        Ok(Some(Ended { status, artefact: artefact?, problem: String::from_utf8_lossy(&problem?).into_owned() }))
    })
}

fn read_bounded(pipe: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LONG: Duration = Duration::from_secs(60);

    /// Returns a program that runs a script instead of the compiler.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let child = folder.join("child");
        std::fs::write(&child, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&child, std::fs::Permissions::from_mode(0o700)).unwrap();
        child
    }

    #[test]
    fn a_child_at_the_limit_of_its_processor_time_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // It gets the limit in seconds, and sets it as this shell does.
        let child = program(folder.path(), "ulimit -S -t $2\nwhile :; do :; done");
        let second = Duration::from_secs(1);
        let error = compile_in_child(&child, Trust::Foreign, &[], second, second * 120).unwrap_err().to_string();
        assert!(error.contains("it took longer than 1 s of processor time"), "{error}");
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let child = program(folder.path(), "exec sleep 600");
        let begun = Instant::now();
        // More than a pipe holds, to a child that reads nothing.
        let error =
            compile_in_child(&child, Trust::Foreign, &[0; 1 << 20], LONG, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, LoadError::CompilerKilled(_)), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
