//! `cargo xtask example NAME`: runs one of the examples that are a script, with the binary on the path.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::cargo;
use crate::clients::{self, Clients, KAFKA_CLASSPATH};
use crate::report::{Counts, Report};

#[derive(Args)]
pub(crate) struct Options {
    /// The example, a folder of `examples`
    name: Example,

    /// Arguments of the example itself; its README names them
    #[arg(trailing_var_arg = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Example {
    Admit,
    View,
    Rollback,
    BesideKafka,
}

impl Example {
    fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::View => "view",
            Self::Rollback => "rollback",
            Self::BesideKafka => "beside-kafka",
        }
    }

    /// The environment variable without which it cannot run.
    fn prerequisite(self) -> Option<&'static str> {
        (self == Self::BesideKafka).then_some(KAFKA_CLASSPATH)
    }
}

/// Builds what it needs and runs it.
///
/// # Errors
/// When the set-up or the build fails; an example that finds a wrong result is no error but an exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    let clients = clients::set_up(&cargo::target_folder()?);
    clients.missing.iter().for_each(|note| eprintln!("not there: {note}"));
    cargo::build_everything()?;
    let passed = command(options.name, &clients)?.args(&options.arguments).status()?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all of them as suites of the test command.
///
/// # Errors
/// When the target folder is not known.
pub(crate) fn suites(report: &mut Report, clients: &Clients, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for example in Example::value_variants() {
        let suite = format!("example {}", example.name());
        if !wanted(&suite) {
            continue;
        }
        println!("\n== {suite}");
        let start = Instant::now();
        let missing = example.prerequisite().filter(|variable| clients.value(variable).is_none());
        let counts = match missing {
            Some(variable) => Counts { skipped: vec![format!("needs {variable}")], ..Counts::default() },
            None => Counts::single(command(*example, clients)?.status().is_ok_and(|status| status.success())),
        };
        report.add(&suite, counts, start.elapsed());
    }
    Ok(())
}

fn command(example: Example, clients: &Clients) -> Result<Command> {
    let mut path = vec![cargo::target_folder()?.join("debug")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path).context("the path to the binary holds a colon")?;
    let script: PathBuf = ["examples", example.name(), "run"].iter().collect();
    let mut command = Command::new(crate::root().join(script));
    command.env("PATH", path).envs(clients.environment.iter().map(|(variable, value)| (variable, value)));
    Ok(command)
}
