//! `millstream serve`: runs a broker until a signal stops it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use millstream_broker::{ClusterFlags, Flags, HostPort, Plugins, RawConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::sandbox;

/// Run a broker for Kafka clients.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millstream serve
  millstream serve --listen 127.0.0.1:0 --data-dir /var/lib/millstream
  millstream serve --config server.properties --set num.partitions=4
  millstream serve --set flush.mode=page-cache --set log.retention.hours=24
  millstream serve --node-id 1 --listen a.lan:9092 --cluster-listen a.lan:9093
  millstream serve --node-id 2 --listen b.lan:9092 --join a.lan:9093

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

    /// The folder for data; repeat it for several disks [default: ./millstream-data]
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    data_dir: Vec<PathBuf>,

    /// The address to listen on; port 0 chooses a free port [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<HostPort>,

    /// The address that clients connect to
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,

    /// The id of this node in its cluster [default: 0]
    #[arg(long, value_name = "ID")]
    node_id: Option<i32>,

    /// A node of the cluster that this node joins; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<HostPort>,

    /// The address for the other nodes of a cluster [default with --join: the port after that of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    cluster_listen: Option<HostPort>,

    /// Stop when standard input ends, for a process that starts this one
    #[arg(long, hide = true)]
    until_stdin_ends: bool,

    /// A folder of plug-ins (*.wasm); each file is pushed to the cluster at the start and after a change
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

impl Args {
    /// Runs the broker until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        #[cfg(feature = "seeded-bugs")]
        warn_of_seeded_bug()?;
        let mut raw = RawConfig::default();
        if let Some(file) = &self.config {
            raw.load_file(file)?;
        }
        for pair in &self.settings {
            raw.set_pair(pair)?;
        }
        let cluster = ClusterFlags { node_id: self.node_id, join: self.join, listen: self.cluster_listen };
        let raw = raw.with_cluster_flags(cluster, self.listen.as_ref())?;
        let flags = Flags { data_dirs: self.data_dir, listen: self.listen, advertise: self.advertise };
        let config = raw.check()?.with_flags(flags)?;
        let limits = config.plugin_limits().clone();
        let library = move || sandbox::library(limits.clone(), None).map(Arc::new);
        let plugins = Plugins::new(move || library().map_err(|error| format!("{error:#}")));
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
        let done = runtime.block_on(serve(config, plugins, self.until_stdin_ends));
        // A thread that still waits for a disk must not delay the exit: all logs are closed by now.
        runtime.shutdown_background();
        done
    }
}

async fn serve(
    config: millstream_broker::BrokerConfig,
    plugins: Plugins,
    until_stdin_ends: bool,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = tokio::select! {
        running = millstream_broker::start(config, plugins) => running?,
        // A node that waits for the others of its cluster has nothing to close.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut stdout = std::io::stdout().lock();
    for address in running.addresses() {
        writeln!(stdout, "listening on {address}").context("cannot write to stdout")?;
    }
    stdout.flush().context("cannot write to stdout")?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stdin_ended(), if until_stdin_ends => tracing::info!("the input has ended: stopping"),
        error = running.failed() => return Err(error.into()),
    }
    running.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Logs that the broker loses records on purpose.
#[cfg(feature = "seeded-bugs")]
fn warn_of_seeded_bug() -> anyhow::Result<()> {
    let bug = millstream_broker::seeded_bug::chosen().map_err(anyhow::Error::msg)?;
    tracing::warn!(?bug, "THIS IS A TEST BUILD WITH SEEDED BUGS: IT LOSES RECORDS ON PURPOSE");
    Ok(())
}

/// Waits for the end of standard input.
async fn stdin_ended() {
    // An error ends the input as well.
    let read = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    let _ = tokio::task::spawn_blocking(read).await;
}
