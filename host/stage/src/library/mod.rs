//! Keeps plug-ins by name, and starts stages from them. A stage that is not pinned follows its plug-in: when a version
//! is activated, all live stages of that name are swapped, or none.

mod find;
mod rollback;
mod state;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use self::state::{Code, Entry, Part, State};
use crate::activation::{Activation, ActivationError, Pending};
use crate::contract::Kind;
use crate::counters::Counts;
use crate::engine::Engine;
use crate::error::{LoadError, PublishError, ResolveError};
use crate::failure_detector::{Alarm, Failures, Health, SpikeLimits};
use crate::host_imports::{LogLine, LogSink};
use crate::plugin::{Digest, Plugin};
use crate::source::{EMBEDDED_NUMBER, VersionSource};
use crate::spec::StageSpec;
use crate::stage::{Stage, Swapped};
use crate::watch::Message;

pub use self::rollback::Spike;
pub(crate) use self::state::Direction;

/// The characters of a stage's text that its default label shows.
const LABEL_CHARS: usize = 80;

/// The place that a plug-in of the library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Part of the program.
    Embedded,
    /// A file.
    File(PathBuf),
    /// Bytes that were passed at run time.
    Published,
    /// A numbered version of a store, see [`VersionSource`].
    Store {
        /// Its number, from 1.
        number: u32,
    },
}

impl Origin {
    /// Returns the number that a stage may be pinned to: that of the store, or [`EMBEDDED_NUMBER`].
    pub fn number(&self) -> Option<u32> {
        match self {
            Origin::Embedded => Some(EMBEDDED_NUMBER),
            Origin::Store { number } => Some(*number),
            Origin::File(_) | Origin::Published => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Embedded => formatter.pad("embedded"),
            Origin::File(path) => write!(formatter, "{}", path.display()),
            Origin::Published => formatter.pad("published"),
            Origin::Store { number } => write!(formatter, "version {number}"),
        }
    }
}

/// The plug-ins of a program.
pub struct Library {
    shared: Arc<Shared>,
}

/// The part of a library that activations and alarms keep.
pub(crate) struct Shared {
    engine: Engine,
    state: Mutex<State>,
    /// Held while a file is loaded and activated, so that two of one name stay in order.
    publishing: Mutex<()>,
    source: RwLock<Option<Arc<dyn VersionSource>>>,
    logs: Arc<LogSink>,
    spike_limits: RwLock<SpikeLimits>,
    on_spike: RwLock<Option<OnSpike>>,
    on_failure: RwLock<Option<OnFailure>>,
}

type OnSpike = Arc<dyn Fn(Spike) + Send + Sync>;
type OnFailure = Arc<dyn Fn(&str, u32) + Send + Sync>;

/// Reports an activation.
#[derive(Debug)]
pub struct Published {
    /// The version.
    pub plugin: Plugin,
    /// The live stages that use it now.
    pub swapped: Vec<Swapped>,
}

/// Counts what one version did, in all stages that used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCounts {
    /// The plug-in's name.
    pub plugin: String,
    /// The version that the plug-in states.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// The number of the version in the store, if it has one.
    pub number: Option<u32>,
    /// The number of live stages that use it now.
    pub stages: usize,
    /// What it did since this process started.
    pub counts: Counts,
}

impl fmt::Debug for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Library").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl Library {
    /// Creates an empty library.
    pub fn new(engine: Engine) -> Library {
        Library {
            shared: Arc::new(Shared {
                engine,
                state: Mutex::default(),
                publishing: Mutex::default(),
                source: RwLock::default(),
                logs: Arc::default(),
                spike_limits: RwLock::default(),
                on_spike: RwLock::default(),
                on_failure: RwLock::default(),
            }),
        }
    }

    /// Returns the engine that plug-ins are loaded into.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Sets the source of numbered versions.
    pub fn set_source(&self, source: Arc<dyn VersionSource>) {
        *self.shared.source.write() = Some(source);
    }

    /// Calls `on_log` with every line that a plug-in logs, besides the log of this process. It runs within the
    /// plug-in's call, and must not block.
    pub fn on_log(&self, on_log: impl Fn(LogLine<'_>) + Send + Sync + 'static) {
        self.shared.logs.set(on_log);
    }

    /// Calls `on_spike` when a version fails too often, see [`Spike`]. It runs on the thread of the call that failed,
    /// after that call.
    pub fn on_spike(&self, on_spike: impl Fn(Spike) + Send + Sync + 'static) {
        *self.shared.on_spike.write() = Some(Arc::new(on_spike));
    }

    /// Calls `on_failure` with the plug-in and the number of a version from a store when a call of it fails. A version
    /// that was reported to [`Library::on_spike`] is left out. It runs on the thread of the call, and must not block.
    pub fn on_failure(&self, on_failure: impl Fn(&str, u32) + Send + Sync + 'static) {
        *self.shared.on_failure.write() = Some(Arc::new(on_failure));
    }

    /// Returns the recent failures of a version from a store.
    pub fn failures(&self, plugin: &str, number: u32) -> Failures {
        let state = self.shared.state.lock();
        let mut sum = Failures::default();
        for known in state.all_known() {
            if known.name == plugin && known.plugin.health.number() == Some(number) {
                sum.add(known.plugin.health.failures());
            }
        }
        sum
    }

    /// Sets when a version counts as broken, for versions that are loaded after this.
    pub fn set_spike_limits(&self, limits: SpikeLimits) {
        *self.shared.spike_limits.write() = limits;
    }

    /// Adds a plug-in that is part of the program. Its calls have no deadline, see [`Trust::Own`](crate::Trust::Own),
    /// unless it needs one because its work is not in proportion to its input. It is loaded when it is first used:
    /// `component` then returns its bytes.
    pub fn add_embedded(
        &self,
        name: &str,
        needs_deadline: bool,
        component: impl Fn() -> &'static [u8] + Send + Sync + 'static,
    ) {
        let mut state = self.shared.state.lock();
        let entry = Entry::embedded(Part { needs_deadline, component: Box::new(component) });
        state.plugins.entry(name.to_owned()).or_default().activate(entry, false);
    }

    /// Adds the plug-ins of a folder, every `*.wasm` in it. Returns the files that cannot be loaded, and why.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn add_folder(&self, folder: &Path) -> io::Result<Vec<(PathBuf, PublishError)>> {
        let folder = std::path::absolute(folder)?;
        let files = std::fs::read_dir(&folder)?;
        {
            let mut state = self.shared.state.lock();
            state.folders.push(folder);
            state.notify_watcher();
        }
        let mut paths = Vec::new();
        for entry in files {
            let path = entry?.path();
            if is_plugin_file(&path) {
                paths.push(path);
            }
        }
        // By name, so that the same folder always gives the same library.
        paths.sort();
        let mut bad = Vec::new();
        for path in paths {
            if let Err(error) = self.reload(&path) {
                bad.push((path, error));
            }
        }
        Ok(bad)
    }

    /// Activates a plug-in under the name that it states, and swaps the stages that follow it.
    ///
    /// # Errors
    /// [`PublishError`]; the old version stays in use everywhere.
    pub fn publish(&self, bytes: &[u8]) -> Result<Published, PublishError> {
        let plugin = self.shared.load(None, bytes)?;
        let _in_order = self.shared.publishing.lock();
        Ok(self.prepare(&plugin, Origin::Published)?.commit())
    }

    /// Loads a plug-in under `name`, whatever name it states. No stage uses it yet. Bytes that are loaded already are
    /// not loaded again.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be loaded.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Plugin, LoadError> {
        self.shared.load(Some(name), bytes)
    }

    /// Prepares a version for every live stage that follows its name (or its file): creates instances, configures them
    /// as the stage is, and probes them. [`Activation::commit`] then activates it in all of them; dropping it changes
    /// nothing. It is also prepared for a stage that starts in between, which fails if this version rejects it.
    ///
    /// # Errors
    /// [`ActivationError`] names the stages that reject it; nothing has changed.
    pub fn prepare(&self, plugin: &Plugin, origin: Origin) -> Result<Activation, ActivationError> {
        self.shared.prepare(plugin, origin, Direction::Forward)
    }

    /// Removes the stored versions of a plug-in that was deleted from the store. Live stages continue. A new stage uses
    /// the remaining versions of that name.
    pub fn forget(&self, name: &str) {
        self.shared.state.lock().forget(name);
    }

    /// Loads a file again if its bytes are new, and swaps the stages that use it. A file of an added folder also
    /// becomes the newest version of its name, as with [`Library::publish`].
    ///
    /// # Errors
    /// [`PublishError`]; the old version stays in use everywhere.
    pub fn reload(&self, path: &Path) -> Result<Option<Published>, PublishError> {
        let path = absolute(path)?;
        let bytes = self.read(&path)?;
        let _in_order = self.shared.publishing.lock();
        let seen = self.shared.state.lock().files.get(&path).map(|file| file.seen);
        if seen == Some(Digest::of(&bytes)) {
            return Ok(None);
        }
        let plugin = self.shared.load(None, &bytes)?;
        Ok(Some(self.prepare(&plugin, Origin::File(path))?.commit()))
    }

    /// Returns whether a version was loaded from a file. The last one that was accepted is in use.
    pub(crate) fn has_loaded(&self, path: &Path) -> bool {
        absolute(path).is_ok_and(|path| self.shared.state.lock().files.contains_key(&path))
    }

    /// Calls [`Library::resolve_for`] with the text of the stage as its attachment.
    ///
    /// # Errors
    /// As [`Library::resolve_for`].
    pub fn resolve(&self, spec: &StageSpec, kind: Kind) -> Result<Arc<Stage>, ResolveError> {
        let text: String = spec.to_string().chars().take(LABEL_CHARS).collect();
        self.resolve_for(&format!("the {kind} `{text}`"), spec, kind)
    }

    /// Starts a stage from its specification: finds its plug-in, checks its kind, and configures it. The stage follows
    /// new versions for as long as it lives, unless the specification pins one. `attachment` names its place in
    /// messages, such as `topic orders, stage.admit`.
    ///
    /// # Errors
    /// [`ResolveError`] says what is wrong with the specification, the plug-in or its configuration.
    pub fn resolve_for(&self, attachment: &str, spec: &StageSpec, kind: Kind) -> Result<Arc<Stage>, ResolveError> {
        let (plugin, follows) = self.find(&spec.source)?;
        if plugin.kind() != kind {
            return Err(ResolveError::WrongKind { spec: spec.to_string(), have: plugin.kind(), want: kind });
        }
        let logs = Arc::clone(&self.shared.logs);
        let stage = Arc::new(Stage::start(plugin, &spec.config, attachment, logs)?);
        let (active, pending) = {
            let mut state = self.shared.state.lock();
            state.add_live(&follows, &stage);
            (state.active(&follows), state.pending(&follows))
        };
        // A version that was activated while the stage started has not swapped it.
        if let Some(active) = active
            && !active.is_same(&stage.plugin())
        {
            stage.swap(active)?;
        }
        // A version that is about to be activated must serve it too.
        for pending in pending {
            pending.prepare_one(&stage)?;
        }
        Ok(stage)
    }

    /// Starts a chain of stages of one kind from one text, see [`Library::resolve`].
    ///
    /// # Errors
    /// As [`Library::resolve`], for the first stage that fails.
    pub fn resolve_chain(&self, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, ResolveError> {
        StageSpec::parse_chain(text)?.iter().map(|spec| self.resolve(spec, kind)).collect()
    }

    /// Starts a chain of stages of one kind from one text, see [`Library::resolve_for`].
    ///
    /// # Errors
    /// As [`Library::resolve_for`], for the first stage that fails.
    pub fn resolve_chain_for(&self, attachment: &str, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, ResolveError> {
        StageSpec::parse_chain(text)?.iter().map(|spec| self.resolve_for(attachment, spec, kind)).collect()
    }

    /// Returns the counts of every version that was ever loaded here, by name and from old to new.
    pub fn counts(&self) -> Vec<VersionCounts> {
        let state = self.shared.state.lock();
        let serving: Vec<Plugin> = state.stages().map(|stage| stage.plugin()).collect();
        let mut counts: Vec<VersionCounts> = state
            .all_known()
            .iter()
            .map(|known| VersionCounts {
                plugin: known.name.clone(),
                version: known.version.clone(),
                digest: known.digest,
                number: known.plugin.health.number(),
                stages: serving.iter().filter(|plugin| plugin.is_version(&known.name, known.digest)).count(),
                counts: known.plugin.health.counters.counts(),
            })
            .collect();
        counts.sort_by(|one, other| one.plugin.cmp(&other.plugin));
        counts
    }

    /// Connects a watcher, which gets a message whenever there are more files to follow.
    pub(crate) fn connect(&self, watcher: Option<Sender<Message>>) {
        self.shared.state.lock().connect(watcher);
    }

    /// Returns the files that stages use, or that a stage could not be started from.
    pub(crate) fn followed_files(&self) -> Vec<PathBuf> {
        self.shared.state.lock().followed_files()
    }

    /// Returns the folders whose plug-ins are all part of the library.
    pub(crate) fn followed_folders(&self) -> Vec<PathBuf> {
        self.shared.state.lock().folders.clone()
    }

    /// Reads a file up to the size limit and one byte more, which the scan rejects.
    fn read(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let bytes_max = self.shared.engine.limits().module.size_bytes as u64 + 1;
        let mut bytes = Vec::new();
        // Reading a pipe may wait for ever.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        file.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

impl Shared {
    pub(crate) fn prepare(
        self: &Arc<Self>,
        plugin: &Plugin,
        origin: Origin,
        direction: Direction,
    ) -> Result<Activation, ActivationError> {
        let pending = Pending::new(plugin.clone(), origin.clone(), direction);
        let followers = {
            let mut state = self.state.lock();
            state.add_pending(&pending);
            state.followers(plugin.name(), &origin)
        };
        pending.prepare(followers)?;
        Ok(Activation::new(self, pending))
    }

    /// Activates a version for new stages.
    pub(crate) fn activate(&self, plugin: &Plugin, origin: &Origin, direction: Direction) {
        let is_source = self.source.read().is_some();
        self.state.lock().activate(plugin, origin, direction, is_source);
    }

    /// Loads bytes, unless they are loaded already, and counts what they do under this name.
    fn load(self: &Arc<Self>, name: Option<&str>, bytes: &[u8]) -> Result<Plugin, LoadError> {
        self.load_with(name, bytes, |engine| engine.load(bytes))
    }

    /// Loads bytes that are part of the program. The same bytes from elsewhere are the same plug-in: the first that is
    /// loaded is used for both.
    fn load_part(self: &Arc<Self>, name: &str, code: &Code) -> Result<Plugin, LoadError> {
        let bytes = code.component();
        let needs_deadline = code.part.as_ref().is_some_and(|part| part.needs_deadline);
        let load = |engine: &Engine| if needs_deadline { engine.load(bytes) } else { engine.load_own(bytes) };
        self.load_with(Some(name), bytes, load)
    }

    fn load_with(
        self: &Arc<Self>,
        name: Option<&str>,
        bytes: &[u8],
        load: impl FnOnce(&Engine) -> Result<Plugin, LoadError>,
    ) -> Result<Plugin, LoadError> {
        let digest = Digest::of(bytes);
        if let Some(name) = name
            && let Some(plugin) = self.loaded(name, digest)
        {
            return Ok(plugin);
        }
        let plugin = load(&self.engine)?;
        let name = name.unwrap_or(plugin.name());
        let mut state = self.state.lock();
        // Another thread may have loaded it meanwhile.
        if let Some(plugin) = state.known(name, digest).and_then(|known| known.plugin.upgrade()) {
            return Ok(plugin);
        }
        let health = match state.known(name, digest) {
            Some(known) => Arc::clone(&known.plugin.health),
            None => Arc::new(self.health(name, digest)),
        };
        let plugin = plugin.known_as(name, health);
        state.remember(&plugin);
        Ok(plugin)
    }

    /// Returns a plug-in that is in use.
    fn loaded(&self, name: &str, digest: Digest) -> Option<Plugin> {
        self.state.lock().known(name, digest)?.plugin.upgrade()
    }

    fn health(self: &Arc<Self>, name: &str, digest: Digest) -> Health {
        let library: Weak<Shared> = Arc::downgrade(self);
        let name = name.to_owned();
        let alarm: Alarm = Box::new(move |reason| match (library.upgrade(), reason) {
            (Some(library), Some(reason)) => library.spiked(&name, digest, reason),
            (Some(library), None) => library.failed(&name, digest),
            (None, _) => {}
        });
        Health::new(*self.spike_limits.read(), Some(alarm))
    }
}

pub(crate) fn is_plugin_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

/// Makes a path absolute. Links are not resolved: each of them may lead elsewhere later.
fn absolute(path: &Path) -> Result<PathBuf, LoadError> {
    std::path::absolute(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}
