//! `millstream plugin ...`: make, build and look into plug-ins.

mod build;

use clap::Subcommand;

/// The arguments of `millstream plugin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a plug-in's crate into a component.
    Build(build::Args),
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Build(args) => args.run(),
        }
    }
}
