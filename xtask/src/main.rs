//! What a newcomer and the continuous integration run: `cargo xtask demo`, `cargo xtask example` and `cargo xtask test`; and
//! `cargo xtask bench`.

mod bench;
mod cargo;
mod clients;
mod demo;
mod example;
mod report;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests and the demo of Millstream")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures, and writes docs/benchmarks.md
    Bench(bench::Options),
    /// Sets everything up, starts a broker and runs the main job on a week of earthquakes
    Demo(demo::Options),
    /// Sets everything up and runs one of the examples
    Example(example::Options),
    /// Sets everything up and runs every test; the last line is `N passed, N failed, N skipped`
    Test(test::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Example(options) => example::run(&options),
        Task::Test(options) => test::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}
