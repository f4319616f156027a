//! `cargo xtask soak`: measures a broker with many partitions, runs many seeds of the simulators, a cluster under many
//! faults, the fuzz targets for long, many reloads of plug-ins, or many random modules in the sandbox.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lexopt::prelude::*;

use crate::cargo::{self, cargo};
use crate::clients;

/// The crates with a simulator. The names of its tests contain `simulator`.
const SIMULATORS: [&str; 3] = ["millstream-coordinator", "millstream-metadata", "millstream-partition"];

/// How long each fuzz target runs without `--minutes`.
const FUZZ_MINUTES: u64 = 2;

#[derive(Default)]
pub(crate) struct Options {
    partitions: u32,
    /// How many seeds of the simulators to run, instead of the broker.
    seeds: Option<u64>,
    /// How many faults happen to a cluster, instead of the broker.
    faults: Option<u64>,
    /// How many times the power of a cluster is cut, instead of the broker.
    cuts: Option<u64>,
    /// How many nodes of a cluster are killed, instead of the broker.
    kills: Option<u64>,
    /// How many records have to be acknowledged meanwhile.
    records: u64,
    /// Whether the topic of the kills and cuts is compacted.
    is_compacted: bool,
    /// How many minutes to run all tests of a cluster under faults, instead of the broker; or each fuzz target.
    minutes: Option<u64>,
    /// Whether to run the fuzz targets, instead of the broker.
    is_fuzz: bool,
    /// How many times plug-ins are reloaded under load, instead of the broker.
    reloads: Option<u64>,
    /// How many random modules to try in the sandbox, instead of the broker.
    modules: Option<u64>,
}

impl Options {
    /// Reads the arguments of the task.
    ///
    /// # Errors
    /// An argument is unknown, or not a number.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self { partitions: 10_000, ..Self::default() };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("partitions") => options.partitions = arguments.value()?.parse()?,
                Long("sim") => options.seeds = Some(arguments.value()?.parse()?),
                Long("nemesis") => options.faults = Some(arguments.value()?.parse()?),
                Long("power-cuts") => options.cuts = Some(arguments.value()?.parse()?),
                Long("kills") => options.kills = Some(arguments.value()?.parse()?),
                Long("records") => options.records = arguments.value()?.parse()?,
                Long("compacted") => options.is_compacted = true,
                Long("minutes") => options.minutes = Some(arguments.value()?.parse()?),
                Long("fuzz") => options.is_fuzz = true,
                Long("reloads") => options.reloads = Some(arguments.value()?.parse()?),
                Long("modules") => options.modules = Some(arguments.value()?.parse()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Builds the binary that the tests use and measures it, or runs what the options name.
///
/// # Errors
/// The build fails, or the broker, or a seed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match options {
        Options { is_fuzz: true, minutes, .. } => fuzz(Duration::from_secs(60 * minutes.unwrap_or(FUZZ_MINUTES))),
        Options { modules: Some(modules), .. } => try_modules(*modules),
        Options { seeds: Some(seeds), .. } => simulate(*seeds),
        Options { faults: Some(faults), .. } => strike("random_faults", &[("MILLSTREAM_NEMESIS_ROUNDS", *faults)]),
        Options { cuts: Some(cuts), is_compacted, .. } => strike(
            if *is_compacted { "last_value_when_the_power" } else { "power_of_all" },
            &[("MILLSTREAM_NEMESIS_CUTS", *cuts)],
        ),
        Options { kills: Some(kills), records, is_compacted, .. } => strike(
            if *is_compacted { "last_value_when_nodes" } else { "when_leaders_are_killed" },
            &[("MILLSTREAM_NEMESIS_KILLS", *kills), ("MILLSTREAM_NEMESIS_RECORDS", *records)],
        ),
        Options { reloads: Some(reloads), .. } => reload(*reloads),
        Options { minutes: Some(minutes), .. } => strike_for(Duration::from_secs(60 * minutes)),
        Options { partitions, .. } => measure(*partitions),
    }
}

/// Runs the tests of a cluster with this part in their names. The variables say how long.
fn strike(tests: &str, variables: &[(&str, u64)]) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::succeed(&mut cargo(["build", "--workspace", "--bins"]))?;
    let mut test = cargo(["test", "--workspace", "--test", "nemesis", tests, "--", "--nocapture"]);
    test.envs(variables.iter().map(|(variable, count)| (variable, count.to_string())));
    cargo::succeed(&mut test)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs all tests of a cluster again and again, until the time is over or a test fails.
fn strike_for(time: Duration) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::succeed(&mut cargo(["build", "--workspace", "--bins"]))?;
    let begun = Instant::now();
    for round in 1.. {
        // The builds with a bug prove the check. They do not say anything about the nodes.
        let test = ["test", "--workspace", "--test", "nemesis", "--", "--nocapture", "--skip", "seeded_bugs"];
        cargo::succeed(&mut cargo(test))?;
        println!("run {round} of the nemesis has passed, {} s after the start", begun.elapsed().as_secs());
        if begun.elapsed() >= time {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn simulate(seeds: u64) -> Result<ExitCode> {
    for package in SIMULATORS {
        let mut test = cargo(["test", "--package", package, "simulator", "--", "--nocapture"]);
        cargo::succeed(test.env("MILLSTREAM_SIM_SEEDS", seeds.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs each property of the fuzz targets for a time. It prints how many inputs each got, and the seed of one that
/// fails.
fn fuzz(time: Duration) -> Result<ExitCode> {
    let mut test = cargo(["test", "--package", "millstream-fuzz", "--", "--nocapture"]);
    cargo::succeed(test.env("BOLERO_RANDOM_TEST_TIME_MS", time.as_millis().to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// Reloads plug-ins in Go and JavaScript this often under load, and prints what batches and memory saw of it.
fn reload(reloads: u64) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    let compilers = clients::set_up_compilers(&cargo::target_folder()?);
    ensure!(compilers.missing.is_empty(), "{}", compilers.missing.join("\n"));
    cargo::succeed(&mut cargo(["build", "--workspace", "--bins"]))?;
    let tests = ["--test-threads", "1", "versions_take_turns", "--nocapture"];
    let mut test = cargo(["test", "--workspace", "--test", "interop", "--"]);
    test.args(tests).envs(compilers.environment).env("MILLSTREAM_RELOADS", reloads.to_string());
    cargo::succeed(&mut test)?;
    Ok(ExitCode::SUCCESS)
}

/// Sends random modules through the sandbox. It prints how far they got, and the seed of one that fails.
fn try_modules(modules: u64) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    let mut test = cargo(["test", "--package", "millstream-fuzz", "--test", "modules", "--", "--nocapture"]);
    cargo::succeed(test.env("MILLSTREAM_MODULES", modules.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(partitions: u32) -> Result<ExitCode> {
    cargo::add_wasm_target()?;
    cargo::succeed(&mut cargo(["build", "--workspace", "--bins"]))?;
    let built = cargo::target_folder()?.join("debug");
    let mut bench = Command::new(built.join("millstream-bench"));
    bench.arg("--scale").arg(built.join("millstream")).args(["--partitions", &partitions.to_string()]);
    cargo::succeed(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
