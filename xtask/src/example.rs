//! `cargo xtask example NAME`: runs one of the examples that are a script, with the binary on the path.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use lexopt::prelude::*;

use crate::cargo;
use crate::clients::{self, Clients, KAFKA_CLASSPATH};
use crate::report::{Counts, Report};

pub(crate) struct Options {
    name: Example,
    /// The arguments of the example itself.
    arguments: Vec<OsString>,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// There is no such example, or none is named.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let name = match arguments.next()? {
            Some(Value(name)) => name.parse_with(Example::named)?,
            Some(other) => return Err(other.unexpected()),
            None => return Err(format!("name an example: {}", Example::names()).into()),
        };
        Ok(Self { name, arguments: arguments.raw_args()?.collect() })
    }
}

/// An example, a folder of `examples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Example {
    Admit,
    View,
    Rollback,
    Failover,
    ExactlyOnce,
    BesideKafka,
    Languages,
}

impl Example {
    const ALL: [Self; 7] = [
        Self::Admit,
        Self::View,
        Self::Rollback,
        Self::Failover,
        Self::ExactlyOnce,
        Self::BesideKafka,
        Self::Languages,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::View => "view",
            Self::Rollback => "rollback",
            Self::Failover => "failover",
            Self::ExactlyOnce => "exactly-once",
            Self::BesideKafka => "beside-kafka",
            Self::Languages => "languages",
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|example| example.name() == name);
        found.ok_or_else(|| format!("there is no such example; there are {}", Self::names()))
    }

    /// Returns the arguments of the short form, which the tests run.
    fn short(self) -> &'static [&'static str] {
        match self {
            Self::ExactlyOnce => &["--kills", "4", "--leader-kills", "1"],
            _ => &[],
        }
    }

    /// Returns the environment variables without which the example cannot run.
    fn prerequisites(self) -> &'static [&'static str] {
        match self {
            Self::BesideKafka => &[KAFKA_CLASSPATH],
            Self::Languages => &[clients::CLANG, clients::GO, clients::QJS],
            _ => &[],
        }
    }
}

/// Builds the programs and runs an example. A wrong result is an exit code.
///
/// # Errors
/// The set-up or the build fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    let clients = clients::set_up(&cargo::target_folder()?);
    clients.missing.iter().for_each(|note| eprintln!("missing: {note}"));
    cargo::build_programs()?;
    let passed = command(options.name, &clients)?.args(&options.arguments).status()?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all examples as suites of the tests.
///
/// # Errors
/// Cargo cannot name the target folder.
pub(crate) fn suites(report: &mut Report, clients: &Clients, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for example in Example::ALL {
        let suite = format!("example {}", example.name());
        if !wanted(&suite) {
            continue;
        }
        println!("\n== {suite}");
        let start = Instant::now();
        let missing = example.prerequisites().iter().find(|variable| clients.value(variable).is_none());
        let counts = match missing {
            Some(variable) => Counts { skipped: vec![format!("needs {variable}")], ..Counts::default() },
            None => {
                let status = command(example, clients)?.args(example.short()).status();
                Counts::single(status.is_ok_and(|status| status.success()))
            }
        };
        report.add(&suite, counts, start.elapsed());
    }
    Ok(())
}

/// Returns the command of an example, with its environment.
fn command(example: Example, clients: &Clients) -> Result<Command> {
    let mut path = vec![cargo::target_folder()?.join("debug")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path).context("the path of the target folder contains a colon")?;
    let script: PathBuf = ["examples", example.name(), "run"].iter().collect();
    let mut command = Command::new(crate::root().join(script));
    command.env("PATH", path).envs(clients.environment.iter().map(|(variable, value)| (variable, value)));
    Ok(command)
}
