//! `millstream serve`: runs a broker until a signal stops it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use millstream_broker::{Flags, HostPort, Plugins, RawConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::sandbox;

/// Run a broker for Kafka clients.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millstream serve
  millstream serve --listen 127.0.0.1:0 --data-dir /var/lib/millstream
  millstream serve --config server.properties --set num.partitions=4
  millstream serve --set flush.mode=page-cache --set log.retention.hours=24

Config keys are those of Kafka. When the broker is ready, it prints a line
`listening on HOST:PORT` to stdout. Its log goes to stderr; RUST_LOG sets the
levels. SIGTERM and Ctrl-C stop it.")]
pub(crate) struct Args {
    /// A Java properties file, such as Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A config, which overrides the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// The folder for all data [default: ./millstream-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The address to listen on; port 0 chooses a free port [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<HostPort>,

    /// The address that clients connect to
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,

    /// A folder of plug-ins (*.wasm); each file is pushed to the cluster at the start and after a change
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

impl Args {
    /// Runs the broker until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut raw = RawConfig::default();
        if let Some(file) = &self.config {
            raw.load_file(file)?;
        }
        for pair in &self.settings {
            raw.set_pair(pair)?;
        }
        let flags = Flags { data_dir: self.data_dir, listen: self.listen, advertise: self.advertise };
        let config = raw.check()?.with_flags(flags)?;
        let plugins = Plugins::new(|| sandbox::library(None).map(Arc::new).map_err(|error| format!("{error:#}")));
        let plugins = match self.plugins {
            Some(folder) => {
                // A folder that is created later would not be watched.
                let entries = std::fs::read_dir(&folder);
                entries.with_context(|| format!("cannot read the folder of plug-ins {}", folder.display()))?;
                plugins.with_folder(folder)
            }
            None => plugins,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(serve(config, plugins));
        // A thread that still waits for a disk must not delay the exit: all logs are closed by now.
        runtime.shutdown_background();
        done
    }
}

async fn serve(config: millstream_broker::BrokerConfig, plugins: Plugins) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = millstream_broker::start(config, plugins).await?;
    let mut stdout = std::io::stdout().lock();
    for address in running.addresses() {
        writeln!(stdout, "listening on {address}").context("cannot write to stdout")?;
    }
    stdout.flush().context("cannot write to stdout")?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    running.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}
