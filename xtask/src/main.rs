//! The tasks of the repository: `cargo xtask demo`, `cargo xtask example`, `cargo xtask test`, `cargo xtask bench`
//! and `cargo xtask soak`.
//!
//! It has few dependencies, since it is compiled before everything else.

mod bench;
mod cargo;
mod clients;
mod demo;
mod example;
mod report;
mod soak;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

const HELP: &str = "\
Builds, tests and measures Millstream

Usage: cargo xtask TASK

Tasks:
  demo [--keep]                Build and run the main job on a week of earthquakes
                               --keep: keep the broker running, with its data
  example NAME [ARGUMENTS]     Build and run an example: admit, view, rollback,
                               failover, exactly-once or beside-kafka; its README
                               describes its arguments
  test [FILTER]                Set everything up and run every test, or the suites
                               whose name contains FILTER
  bench [--stages] [--broker] [--cluster] [--only TEXT]
                               Compare stages with native code, one broker with
                               Apache Kafka, and three nodes with three of Apache
                               Kafka, and write docs/benchmarks.md; all of it
                               without an option
                               --only: print only the rows whose name contains TEXT
  soak [--partitions COUNT]    Create 10,000 partitions, write to them, stop and start
                               the broker, and print the times
  soak --sim SEEDS             Run this number of seeds of each simulator
  soak --nemesis FAULTS        Run a cluster of three nodes under this number of
                               random faults
  soak --kills KILLS [--records COUNT] [--compacted]
                               Kill nodes of a cluster of three this often, while
                               this number of records is acknowledged
                               --compacted: the topic is compacted all the time
  soak --minutes MINUTES       Run all tests of a cluster under faults again and
                               again, for this time
  soak --fuzz [--minutes MINUTES]
                               Give each property of the fuzz targets random inputs for
                               this time, or for 2 minutes; a failure names its seed
  soak --reloads RELOADS       Reload a plug-in in Go and one in JavaScript this often,
                               while batches flow through them
  soak --modules COUNT         Send this number of random modules through the sandbox,
                               such as 10000; a failure names the seed of its module
  soak --power-cuts CUTS [--compacted]
                               Cut the power of a cluster of three nodes this often;
                               needs root, mkfs.ext4 and loop devices
";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let mut arguments = lexopt::Parser::from_env();
    let task = match arguments.next()? {
        Some(Value(task)) => task.string()?,
        Some(Long("help") | Short('h')) => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
        None => bail!("name a task: demo, example, test, bench or soak; --help describes them"),
    };
    match task.as_str() {
        "bench" => bench::run(&bench::Options::parse(&mut arguments)?),
        "demo" => demo::run(&demo::Options::parse(&mut arguments)?),
        "example" => example::run(&example::Options::parse(&mut arguments)?),
        "soak" => soak::run(&soak::Options::parse(&mut arguments)?),
        "test" => test::run(&test::Options::parse(&mut arguments)?),
        "help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("there is no task {other}: use demo, example, test, bench or soak"),
    }
}

/// Returns the root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}
