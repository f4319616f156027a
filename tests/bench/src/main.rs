//! Measures stages beside the same Rust code compiled natively, and brokers and clusters beside those of Apache Kafka.
//! Writes the tables of docs/benchmarks.md; `cargo xtask bench` builds it with optimisation and runs it.

mod broker;
mod call;
mod cluster;
mod compare;
mod disk;
mod edge;
mod frames;
mod hosts;
mod languages;
mod life;
mod measure;
mod nodes;
mod pace;
mod process;
mod replay;
mod report;
mod scale;
mod source;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millstream_stage::{COMPILE_CHILD_ARGUMENT, Compiler, Engine, EngineConfig, compile_child_main};

use crate::measure::Effort;
use crate::nodes::Programs;
use crate::report::Row;

#[derive(Parser)]
#[command(about = "Stages beside the same code compiled natively")]
struct Arguments {
    /// Writes the table into this page, besides printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Runs only the rows whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Compares two `millstream` binaries instead: what produce and fetch cost each broker, in turns
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], conflicts_with = "output")]
    compare: Vec<PathBuf>,
    /// A config of the second broker of --compare, so that one binary can be compared with itself
    #[arg(long, value_name = "NAME=VALUE", requires = "compare")]
    second_set: Vec<String>,
    /// The turns of each load for --compare
    #[arg(long, default_value_t = 12, value_name = "COUNT")]
    rounds: usize,
    /// Measures a `millstream` binary with many partitions instead: creation, stop, start
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["output", "only", "compare"])]
    scale: Option<PathBuf>,
    /// Measures one broker instead: this `millstream` binary beside Apache Kafka
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["compare", "scale", "cluster"])]
    broker: Option<PathBuf>,
    /// The commit that --broker measures, for the page
    #[arg(long, default_value = "unknown", value_name = "COMMIT")]
    commit: String,
    /// How long --broker warms up each broker
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    warm_up: u64,
    /// Divides the work of --broker, to try rows: the figures say nothing then
    #[arg(long, default_value_t = 1, value_name = "DIVISOR")]
    divide: usize,
    /// Measures clusters instead: three nodes of this `millstream` binary beside three of Apache Kafka, or of --beside
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["compare", "scale"])]
    cluster: Option<PathBuf>,
    /// The class path of Apache Kafka for --cluster and --broker
    #[arg(long, value_name = "CLASSPATH")]
    classpath: Option<String>,
    /// Another `millstream` binary for --cluster, in place of Apache Kafka
    #[arg(long, value_name = "BINARY", requires = "cluster", conflicts_with_all = ["classpath", "output"])]
    beside: Option<PathBuf>,
    /// The turns of each system: by default 6 for --cluster, and 3 for --broker
    #[arg(long, value_name = "COUNT")]
    turns: Option<usize>,
    /// The partitions for --scale
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    partitions: i32,
    /// Runs the broker that a row measures, until the standard input ends
    #[arg(long, value_name = "DIR", hide = true)]
    serve: Option<PathBuf>,
}

/// The turns of each system, unless the command line names another number.
const CLUSTER_TURNS: usize = 6;
const BROKER_TURNS: usize = 3;

/// A filter that reads only keys.
const KEYED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keyed.wasm"));

fn main() -> ExitCode {
    // This program compiles plug-ins in a child process that can be killed, as the broker does.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == COMPILE_CHILD_ARGUMENT) {
        return compile_child_main();
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(folder) = &arguments.serve {
        return edge::serve(folder);
    }
    if let Some(binary) = &arguments.scale {
        return scale::run(binary, arguments.partitions);
    }
    if cfg!(debug_assertions) {
        eprintln!("warning: built without optimisation: the figures say nothing (run cargo xtask bench --stages)");
    }
    let only = arguments.only.as_deref().unwrap_or_default();
    if let [first, second] = &arguments.compare[..] {
        let first = compare::Side { binary: first, configs: &[] };
        let second = compare::Side { binary: second, configs: &arguments.second_set };
        return compare::run([first, second], arguments.rounds, only);
    }
    if let (Some(first), Some(second)) = (&arguments.cluster, &arguments.beside) {
        return cluster::compare([first, second], arguments.turns.unwrap_or(CLUSTER_TURNS), only);
    }
    if let Some(millstream) = &arguments.broker {
        return run_broker(arguments, millstream, only);
    }
    let (section, table) = match &arguments.cluster {
        Some(millstream) => {
            let classpath = arguments.classpath.clone().context("name --classpath, or another build with --beside")?;
            let programs = Programs { millstream: millstream.clone(), classpath: Some(classpath) };
            let turns = arguments.turns.unwrap_or(CLUSTER_TURNS);
            ("cluster", report::table("Three nodes", &cluster::rows(&programs, turns, only)?))
        }
        None => {
            let mut rows = rows(Effort::FULL, only)?;
            rows.extend(languages::rows(only)?);
            rows.extend(hosts::rows(only)?);
            let millstream = std::env::current_exe().context("cannot find the program that runs")?;
            rows.extend(source::rows(&millstream.with_file_name("millstream"), only)?);
            ("stages", report::table("Stage", &rows))
        }
    };
    print!("{table}");
    if let Some(path) = &arguments.output {
        let page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let page = report::replaced(&page, section, &table)?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Measures one broker beside Apache Kafka, if that is here.
fn run_broker(arguments: &Arguments, millstream: &Path, only: &str) -> Result<()> {
    let programs = Programs { millstream: millstream.to_owned(), classpath: arguments.classpath.clone() };
    let has_kafka = programs.classpath.is_some();
    let options = broker::Options {
        programs,
        turns: arguments.turns.unwrap_or(BROKER_TURNS),
        warm_up: Duration::from_secs(arguments.warm_up),
        divisor: arguments.divide,
    };
    let measured = broker::measure(options, only)?;
    let run = broker::Run { sections: &measured.sections, commit: &arguments.commit, has_kafka };
    print!("{}", run.printed());
    if let Some(page) = &arguments.output {
        run.write(page)?;
    }
    ensure!(measured.failed.is_empty(), "these rows have failed: {}", measured.failed.join(", "));
    Ok(())
}

/// Returns every row whose name contains `only`.
fn rows(effort: Effort, only: &str) -> Result<Vec<Row>> {
    let engine = Engine::new(EngineConfig { compiler: compiler()?, ..EngineConfig::default() })?;
    let mut rows = call::rows(&engine, effort, only)?;
    rows.extend(life::rows(effort, only)?);
    rows.extend(store::rows(effort, only)?);
    rows.extend(edge::rows(effort, only)?);
    Ok(rows)
}

/// Returns the compiler that the broker uses: this program as a child. A test program cannot be that child.
fn compiler() -> Result<Compiler> {
    if cfg!(test) {
        return Ok(Compiler::InProcess);
    }
    Ok(Compiler::Child(std::env::current_exe().context("cannot find the program that runs")?))
}

/// Returns a default plug-in as a component.
fn component(name: &str) -> &'static [u8] {
    millstream_plugins::find(name).expect("a default plug-in").component()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row runs and prints something. Each row itself checks that its results equal the native ones.
    #[test]
    fn every_row_runs() {
        let rows = rows(Effort::SMALL, "").unwrap();
        assert_eq!(rows.len(), 15);
        assert!(rows.iter().all(|row| !row.figure.is_empty() && !row.goal.is_empty()));
        let table = report::table("Stage", &rows);
        assert!(rows.iter().all(|row| table.contains(&row.name)), "{table}");
    }
}
