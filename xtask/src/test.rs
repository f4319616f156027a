//! `cargo xtask test`: runs every test, and prints a table at the end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use lexopt::prelude::*;

use crate::cargo::{self, TestProgram, cargo};
use crate::clients::{self, Clients};
use crate::report::{Counts, Report};

#[derive(Default)]
pub(crate) struct Options {
    /// Runs only the suites whose name contains this.
    filter: Option<String>,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// An argument is unknown.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Value(filter) if options.filter.is_none() => options.filter = Some(filter.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Sets up the clients, runs every suite and prints the table. A failing test is an exit code.
///
/// # Errors
/// The set-up or the build fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    let clients = clients::set_up(&cargo::target_folder()?);
    let mut report = Report::default();
    clients.missing.iter().for_each(|note| report.missing(note.clone()));
    let wanted = |name: &str| options.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));

    if wanted("format") {
        check(&mut report, "format", &["fmt", "--all", "--check"]);
    }
    if wanted("clippy") {
        check(&mut report, "clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    }
    if wanted("millstream-tests::nemesis") {
        cargo::build_seeded_bugs()?;
    }
    cargo::build_everything()?;
    let libraries = cargo::rust_libraries()?;
    for program in cargo::build_tests()?.iter().filter(|program| wanted(&program.name)) {
        let mut command = test_command(program, &clients);
        command.env("LD_LIBRARY_PATH", &libraries);
        suite(&mut report, &program.name, &mut command)?;
    }
    if wanted("documentation") {
        suite(&mut report, "documentation", &mut cargo(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    crate::example::suites(&mut report, &clients, wanted)?;
    if wanted("demo") {
        let start = Instant::now();
        let passed = crate::demo::run(&crate::demo::Options::default());
        if let Err(error) = &passed {
            eprintln!("error: {error:#}");
        }
        report.add("demo", Counts::single(matches!(passed, Ok(code) if code == ExitCode::SUCCESS)), start.elapsed());
    }

    println!("{}", report.render());
    let skips_allowed = std::env::var_os("CI").is_none_or(|value| value != "true");
    Ok(if report.success(skips_allowed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a suite that is one cargo command.
fn check(report: &mut Report, name: &str, arguments: &[&str]) {
    println!("\n== {name}");
    let start = Instant::now();
    let passed = cargo::succeed(&mut cargo(arguments)).is_ok();
    report.add(name, Counts::single(passed), start.elapsed());
}

/// Returns the command of a test program, with the environment that `cargo test` gives it.
fn test_command(program: &TestProgram, clients: &Clients) -> Command {
    let mut command = Command::new(&program.path);
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.envs(clients.environment.iter().map(|(variable, value)| (variable, value)));
    command
}

/// Runs a program of Rust's test harness, prints its output and counts its tests.
fn suite(report: &mut Report, name: &str, command: &mut Command) -> Result<()> {
    println!("\n== {name}");
    let start = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let output = echo(child.stdout.take().expect("the standard output is a pipe"));
    let success = child.wait()?.success();
    let output = output.join().expect("the reader does not panic");
    report.add(name, Counts::parse(&output, success), start.elapsed());
    Ok(())
}

/// Prints a stream line by line, and collects it.
fn echo(stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            all.push_str(&line);
            all.push('\n');
        }
        all
    })
}
