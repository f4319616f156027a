//! The `millstream` binary: one module per subcommand, each with its `Args` and a `run`.
//!
//! Results go to stdout; logs, progress and errors go to stderr, so that every command works in a pipe. A command that
//! fails prints one line, `error: ...`, and exits with code 1.

mod cluster;
mod connection;
mod consume;
mod embedded;
mod group;
mod output;
mod plugin;
mod produce;
mod runtime;
mod sandbox;
mod serve;
mod stages;
mod table;
mod text;
mod topic;
mod topic_stages;
mod txn;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An event-streaming broker that speaks Kafka's protocol, and a host for sandboxed pipeline stages.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Serve(serve::Args),
    /// Create, list, describe, alter and delete topics
    Topic(topic::Args),
    /// Create, list, describe, alter and delete views
    View(view::Args),
    /// List, describe and delete consumer groups
    Group(group::Args),
    /// List, describe and abort transactions
    Txn(txn::Args),
    /// Describe the nodes of a cluster and the quorum of its metadata
    Cluster(cluster::Args),
    /// Send lines to a topic
    Produce(produce::Args),
    /// Print the records of a topic
    Consume(consume::Args),
    /// Create, build, test and inspect plug-ins, and manage those of a cluster
    Plugin(plugin::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Serve(args) => args.run(),
            Command::Topic(args) => args.run(),
            Command::View(args) => args.run(),
            Command::Group(args) => args.run(),
            Command::Txn(args) => args.run(),
            Command::Cluster(args) => args.run(),
            Command::Produce(args) => args.run(),
            Command::Consume(args) => args.run(),
            Command::Plugin(args) => args.run(),
        }
    }
}

fn main() -> ExitCode {
    // The sandbox compiles plug-ins in a child process, which is this program with a special argument.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == millstream_stage::COMPILE_CHILD_ARGUMENT) {
        return millstream_stage::compile_child_main();
    }
    let cli = Cli::parse();
    start_logging();
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has ended, as `head` does.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::error_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr. `RUST_LOG` sets the levels; the default is `info`, without the details of the consensus library.
fn start_logging() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Examples must fit 80 columns, so that they can be pasted.
    #[test]
    fn examples_fit_a_terminal() {
        fn check(command: &clap::Command) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
