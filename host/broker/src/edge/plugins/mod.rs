//! The broker's plug-ins: the library for the stages of its topics, and the topic `__millstream_plugins` for new
//! versions.
//!
//! A client that may produce to the topic may change plug-ins; any Kafka client can do so. A produce to it goes through
//! [`produce`]: its records are checked before they are appended, and a version that they activate is used as soon as
//! they are durable. The topic therefore always holds what is active. After a crash the image that is read from it
//! ([`store`]) has one complete version of everything. The records are described in `host/registry`.
//!
//! The broker writes to the topic in the same way. A version that fails is rolled back ([`rollback`]), and a changed
//! file in the folder of `--plugins` becomes the next version ([`folder`]).

mod error;
pub(super) mod failures;
pub(super) mod folder;
pub(super) mod follow;
mod logs;
mod own;
pub(super) mod prepare;
pub(super) mod rollback;
mod stats;
mod store;
mod transition;
mod uses;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_partition::Partition;
use millstream_registry::LOGS_TOPIC;
pub(crate) use millstream_registry::TOPIC;
use millstream_registry::format::TOPIC_CONFIGS;
use millstream_stage::{EMBEDDED_NUMBER, Failures, Library, Plugin, Spike, SpikeLimits, Watcher};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, watch};

use self::failures::{Failing, InVain};
use self::folder::Folder;
pub(crate) use self::follow::catch_up_at_start;
use self::logs::Line;
use self::prepare::Held;
use self::rollback::Rollbacks;
pub(crate) use self::stats::stats;
use self::store::Store;
pub(crate) use self::write::produce;
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::rejected_producers::RejectedProducers;
use crate::edge::stage_repair;
use crate::error::ApiError;
use millstream_metadata::controller::{NewTopic, Replication};

type Make = Box<dyn Fn() -> Result<Arc<Library>, String> + Send + Sync>;

/// The most log lines of plug-ins that wait to be written; more are lost. A plug-in may log ten a second.
const LINES_MAX: usize = 1_000;

/// The plug-ins of a broker. The sandbox starts with the first stage: a broker without stages has no engine.
pub struct Plugins {
    make: Make,
    started: Mutex<Option<Started>>,
    /// Notified when a file that a stage names changes, and when a version is activated.
    changed: Arc<Notify>,
    limits: SpikeLimits,
    /// A folder whose files are pushed.
    folder: Option<PathBuf>,
    store: Arc<Store>,
    /// Held during an operation, from reading the store to the swap.
    turn: Arc<tokio::sync::Mutex<()>>,
    rollbacks: Rollbacks,
    /// In a cluster: what this broker has prepared for the leader of the topic.
    held: Held,
    /// In a cluster: whether the plug-ins were applied that the cluster had at the start.
    caught_up: AtomicBool,
    rejected: RejectedProducers,
    failing: Failing,
    in_vain: InVain,
    spikes: Channel<mpsc::UnboundedSender<Spike>, mpsc::UnboundedReceiver<Spike>>,
    lines: Channel<mpsc::Sender<Line>, mpsc::Receiver<Line>>,
}

/// The library, and the thread that follows the files of stages.
struct Started {
    library: Arc<Library>,
    _watcher: Option<Watcher>,
}

/// The two ends of a channel. The task that reads takes the second one when it starts.
struct Channel<S, R>(S, Mutex<Option<R>>);

impl fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plugins").field("library", &self.library_if_started()).finish_non_exhaustive()
    }
}

impl Plugins {
    /// Creates the plug-ins. `make` starts the sandbox with the plug-ins of the program; its error is returned for
    /// every stage.
    pub fn new(make: impl Fn() -> Result<Arc<Library>, String> + Send + Sync + 'static) -> Self {
        let (spikes, lines) = (mpsc::unbounded_channel(), mpsc::channel(LINES_MAX));
        Self {
            make: Box::new(make),
            started: Mutex::default(),
            changed: Arc::default(),
            limits: SpikeLimits::default(),
            folder: None,
            store: Arc::default(),
            turn: Arc::default(),
            rollbacks: Rollbacks::default(),
            held: Held::default(),
            caught_up: AtomicBool::default(),
            rejected: RejectedProducers::default(),
            failing: Failing::default(),
            in_vain: InVain::default(),
            spikes: Channel(spikes.0, Mutex::new(Some(spikes.1))),
            lines: Channel(lines.0, Mutex::new(Some(lines.1))),
        }
    }

    /// Pushes every `*.wasm` in a folder, and again when it changes.
    #[must_use]
    pub fn with_folder(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Sets when a version is rolled back.
    #[must_use]
    pub(crate) fn with_limits(mut self, limits: SpikeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the library. Blocks while the sandbox starts.
    pub(crate) fn library(&self) -> Result<Arc<Library>, ApiError> {
        let mut started = self.started.lock();
        if let Some(started) = &*started {
            return Ok(Arc::clone(&started.library));
        }
        let made = (self.make)().map_err(|error| {
            let message = format!("the sandbox for stages does not start: {error}");
            tracing::error!("{message}");
            ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, message)
        })?;
        made.set_source(self.store.clone());
        made.set_spike_limits(self.limits);
        let spikes = self.spikes.0.clone();
        made.on_spike(move |spike| {
            // The receiver lives as long as the broker.
            let _ = spikes.send(spike);
        });
        let failing = self.failing.clone();
        made.on_failure(move |plugin, number| failing.add(plugin, number));
        let lines = self.lines.0.clone();
        made.on_log(move |line| {
            // A line is lost if there is no room: the plug-in that logs must not wait.
            let _ = lines.try_send(Line::of(line));
        });
        let changed = Arc::clone(&self.changed);
        let watcher = Watcher::start(Arc::clone(&made), move |_| changed.notify_one());
        let watcher = watcher.map_err(|error| tracing::error!(%error, "stages do not follow the files that they name"));
        let started = started.insert(Started { library: made, _watcher: watcher.ok() });
        Ok(Arc::clone(&started.library))
    }

    /// Returns whether the bytes of a plug-in can be loaded again, from the store or from the binary.
    pub(crate) fn keeps(&self, plugin: &Plugin) -> bool {
        let digest = plugin.digest();
        let is_embedded = || {
            let embedded = self.library().ok()?.version(plugin.name(), EMBEDDED_NUMBER).ok()?;
            Some(embedded.digest() == digest)
        };
        self.store.image().user_of(&digest).is_some() || is_embedded() == Some(true)
    }

    /// Returns the library, if a stage has started it.
    fn library_if_started(&self) -> Option<Arc<Library>> {
        self.started.lock().as_ref().map(|started| Arc::clone(&started.library))
    }

    /// Reads the opened topic, so that the stages of the other topics can use its plug-ins. Blocks for the disk.
    pub(crate) fn open(&self, partition: &Arc<Partition>) {
        self.store.open(partition);
    }

    /// Waits for the lock of the store.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Returns the producers whose batches were rejected by stages.
    pub(crate) fn rejected(&self) -> &RejectedProducers {
        &self.rejected
    }

    /// Returns the notification for changed files of stages and activated versions.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the recent failures of a version on this broker.
    pub(crate) fn failures_of(&self, plugin: &str, number: u32) -> Failures {
        self.library_if_started().map_or_else(Failures::default, |library| library.failures(plugin, number))
    }

    /// Returns whether the plug-ins were applied that the cluster had when this broker started.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    fn held(&self) -> &Held {
        &self.held
    }
}

/// Starts the background tasks: rollbacks, logs, the folder. They end with the broker. When this returns for a broker
/// that is alone, the components in the folder are pushed. In a cluster that waits until the broker is unfenced.
pub(crate) async fn start(edge: &Arc<Edge>, changes: &Arc<dyn MetadataChanges>, stop: &watch::Receiver<bool>) {
    let plugins = &edge.plugins;
    if let Some(spikes) = plugins.spikes.1.lock().take() {
        tokio::spawn(rollback::run(Arc::clone(edge), Arc::clone(changes), spikes, stop.clone()));
    }
    if let Some(lines) = plugins.lines.1.lock().take() {
        tokio::spawn(logs::run(Arc::clone(edge), Arc::clone(changes), lines, stop.clone()));
    }
    tokio::spawn(stage_repair::run(Arc::clone(edge), Arc::clone(changes), stop.clone()));
    if edge.cluster.is_some() {
        tokio::spawn(follow::run(Arc::clone(edge), stop.clone()));
        tokio::spawn(failures::run(Arc::clone(edge), Arc::clone(changes), stop.clone()));
    }
    let Some(folder) = plugins.folder.clone() else { return };
    if edge.cluster.is_none() {
        tokio::spawn(Folder::open(edge, changes, &folder).await.run(stop.clone()));
        return;
    }
    let (edge, changes, mut stop) = (Arc::clone(edge), Arc::clone(changes), stop.clone());
    tokio::spawn(async move {
        let opened = async {
            follow::unfenced(&edge).await;
            Folder::open(&edge, &changes, &folder).await
        };
        let folder = tokio::select! {
            folder = opened => folder,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        folder.run(stop).await;
    });
}

/// Returns the plug-ins' own topics as they are created; `None` for all others.
pub(crate) fn topic(name: &str) -> Option<NewTopic> {
    let configs: &[(&str, &str)] = match name {
        TOPIC => &TOPIC_CONFIGS,
        // A day, and 16 MiB, in segments that are small enough to delete by these limits.
        LOGS_TOPIC => &[
            ("cleanup.policy", "delete"),
            ("retention.ms", "86400000"),
            ("retention.bytes", "16777216"),
            ("segment.bytes", "2097152"),
        ],
        _ => return None,
    };
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Some(NewTopic { partitions: Some(1), replication: Replication::UpTo(i32::MAX), configs, ..NewTopic::new(name) })
}

/// Checks that the topic of the plug-ins keeps its records: it is compacted, and nothing is deleted by age.
///
/// # Errors
/// The error names what the topic needs.
pub(crate) fn check_cleanup(name: &str, is_compacted_only: bool) -> Result<(), String> {
    if name == TOPIC && !is_compacted_only { Err(topic_rule()) } else { Ok(()) }
}

/// Checks that the topic of the plug-ins has one partition.
///
/// # Errors
/// The error names what the topic needs.
pub(crate) fn check_partitions(name: &str, count: i32) -> Result<(), String> {
    if name == TOPIC && count != 1 { Err(topic_rule()) } else { Ok(()) }
}

fn topic_rule() -> String {
    format!("{TOPIC} keeps the broker's plug-ins: it has one partition and cleanup.policy=compact")
}
