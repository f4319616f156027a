//! Plug-ins by name, and the stages that are made of them. A stage that is not pinned follows its
//! plug-in: when a new version takes over, every live stage of that name is swapped, all or none.

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

use self::state::{Entry, State};
use crate::activation::{Activation, ActivationError, Pending};
use crate::contract::Kind;
use crate::counters::Counts;
use crate::engine::Engine;
use crate::error::{LoadError, PublishError, ResolveError};
use crate::failure_detector::{Alarm, Health, SpikeLimits, SpikeReason};
use crate::host_imports::{LogLine, LogSink};
use crate::plugin::{Digest, Plugin};
use crate::source::{EMBEDDED_NUMBER, VersionSource};
use crate::spec::StageSpec;
use crate::stage::{Stage, Swapped};
use crate::watch::Message;

pub use self::rollback::Spike;
pub(crate) use self::state::Direction;

/// Characters of a stage's text that its default label shows.
const LABEL_CHARS: usize = 80;

/// Where a plug-in of the library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Part of the program.
    Embedded,
    /// A file.
    File(PathBuf),
    /// Given as bytes at run time.
    Published,
    /// A numbered version of a store, see [`VersionSource`].
    Store {
        /// Its number, from 1.
        number: u32,
    },
}

impl Origin {
    /// The number that a stage may be pinned to: that of the store, or [`EMBEDDED_NUMBER`].
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

/// The plug-ins that a program knows.
pub struct Library {
    shared: Arc<Shared>,
}

/// What activations and alarms hold of a library.
pub(crate) struct Shared {
    engine: Engine,
    state: Mutex<State>,
    /// Held while a file is loaded and put to use, so that two of one name do not overtake each other.
    publishing: Mutex<()>,
    source: RwLock<Option<Arc<dyn VersionSource>>>,
    logs: Arc<LogSink>,
    spike_limits: RwLock<SpikeLimits>,
    on_spike: RwLock<Option<OnSpike>>,
}

type OnSpike = Arc<dyn Fn(Spike) + Send + Sync>;

/// What putting a version to use did.
#[derive(Debug)]
pub struct Published {
    /// The version.
    pub plugin: Plugin,
    /// The live stages that it serves now.
    pub swapped: Vec<Swapped>,
}

/// What one version has done, in all the stages that it served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCounts {
    /// The plug-in's name.
    pub plugin: String,
    /// The version, in its own words.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// Its number in the store, if it has one.
    pub number: Option<u32>,
    /// The live stages that it serves now.
    pub stages: usize,
    /// What it has done since this process knows it.
    pub counts: Counts,
}

impl fmt::Debug for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Library").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl Library {
    /// An empty library.
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
            }),
        }
    }

    /// The engine that plug-ins are loaded into.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Has numbered versions come from there.
    pub fn set_source(&self, source: Arc<dyn VersionSource>) {
        *self.shared.source.write() = Some(source);
    }

    /// Has every line that a plug-in logs given to `on_log`, besides this process's own log. It is called
    /// within the plug-in's call, whose time it takes: it only hands the line on.
    pub fn on_log(&self, on_log: impl Fn(LogLine<'_>) + Send + Sync + 'static) {
        self.shared.logs.set(on_log);
    }

    /// Has `on_spike` called when a version goes wrong too often, see [`Spike`]. It is called on the
    /// thread of the call that failed, after that call.
    pub fn on_spike(&self, on_spike: impl Fn(Spike) + Send + Sync + 'static) {
        *self.shared.on_spike.write() = Some(Arc::new(on_spike));
    }

    /// When a version is taken to be broken; for versions that are loaded after this.
    pub fn set_spike_limits(&self, limits: SpikeLimits) {
        *self.shared.spike_limits.write() = limits;
    }

    /// Adds a plug-in that is part of the program, and trusted as that is: its calls have no deadline, see
    /// [`Trust::Own`](crate::Trust::Own). It is loaded when it is first wanted.
    pub fn add_embedded(&self, name: &str, bytes: &'static [u8]) {
        let mut state = self.shared.state.lock();
        state.plugins.entry(name.to_owned()).or_default().activate(Entry::embedded(bytes), false);
    }

    /// Adds the plug-ins of a folder, every `*.wasm` in it. A file that is no plug-in is left out and
    /// told; the others are added.
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
        // By name, so that the same folder gives the same library.
        paths.sort();
        let mut bad = Vec::new();
        for path in paths {
            if let Err(error) = self.reload(&path) {
                bad.push((path, error));
            }
        }
        Ok(bad)
    }

    /// Publishes a plug-in that is given as bytes, under the name that it gives itself, and swaps the
    /// stages that follow it.
    ///
    /// # Errors
    /// [`PublishError`]; the old version serves on, everywhere.
    pub fn publish(&self, bytes: &[u8]) -> Result<Published, PublishError> {
        let plugin = self.shared.load(None, bytes)?;
        let _in_order = self.shared.publishing.lock();
        Ok(self.prepare(&plugin, Origin::Published)?.commit())
    }

    /// Loads a plug-in, known as `name` whatever it calls itself. It serves nobody yet. Bytes that are
    /// loaded already are not loaded again.
    ///
    /// # Errors
    /// [`LoadError`]: why it is no plug-in that this host runs.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Plugin, LoadError> {
        self.shared.load(Some(name), bytes)
    }

    /// Makes a version ready for every live stage that follows its name (or its file): instances are made,
    /// configured as the stage is, and probed. [`Activation::commit`] then puts it to use in all of them;
    /// dropping it changes nothing. A stage that is made in between is made ready as well, and refused if
    /// this version refuses it.
    ///
    /// # Errors
    /// [`ActivationError`] names the stages that it cannot serve; nothing has changed.
    pub fn prepare(&self, plugin: &Plugin, origin: Origin) -> Result<Activation, ActivationError> {
        self.shared.prepare(plugin, origin, Direction::Forward)
    }

    /// Forgets the stored versions of a plug-in that is not stored any more. Stages that live go on; what
    /// is made anew finds what is left of that name.
    pub fn forget(&self, name: &str) {
        self.shared.state.lock().forget(name);
    }

    /// Loads a file again, if its bytes are new, and swaps the stages that were made of it. A file of
    /// a folder that was added is also the newest version of its name, as with
    /// [`Library::publish`].
    ///
    /// # Errors
    /// [`PublishError`]; the old version serves on, everywhere.
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

    /// [`Library::resolve_for`] where the stage itself is all that there is to name.
    ///
    /// # Errors
    /// As [`Library::resolve_for`].
    pub fn resolve(&self, spec: &StageSpec, kind: Kind) -> Result<Arc<Stage>, ResolveError> {
        let text: String = spec.to_string().chars().take(LABEL_CHARS).collect();
        self.resolve_for(&format!("the {kind} `{text}`"), spec, kind)
    }

    /// Makes a stage as it is written: finds its plug-in, checks that it is of `kind`, and starts it
    /// with its configuration. While somebody holds the stage it follows new versions, unless the
    /// specification pins one. `attachment` says where it is attached (`topic orders, stage.admit`), for
    /// messages about it.
    ///
    /// # Errors
    /// [`ResolveError`] names what is wrong with the specification, the plug-in or its configuration.
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
        // A version that took over while the stage started did not see it among the living.
        if let Some(active) = active
            && !active.is_same(&stage.plugin())
        {
            stage.swap(active)?;
        }
        // One that is about to has to serve it too.
        for pending in pending {
            pending.prepare_one(&stage)?;
        }
        Ok(stage)
    }

    /// [`Library::resolve`] for a chain of stages of one kind, written as one text.
    ///
    /// # Errors
    /// As [`Library::resolve`], for the first stage that fails.
    pub fn resolve_chain(&self, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, ResolveError> {
        StageSpec::parse_chain(text)?.iter().map(|spec| self.resolve(spec, kind)).collect()
    }

    /// [`Library::resolve_for`] for a chain of stages of one kind, written as one text.
    ///
    /// # Errors
    /// As [`Library::resolve_for`], for the first stage that fails.
    pub fn resolve_chain_for(&self, attachment: &str, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, ResolveError> {
        StageSpec::parse_chain(text)?.iter().map(|spec| self.resolve_for(attachment, spec, kind)).collect()
    }

    /// What every version has done that was ever loaded here, by name and from old to new.
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

    /// Reads a file up to the limit of a module, and one byte more for the scan to refuse.
    fn read(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let bytes_max = self.shared.engine.limits().module.size_bytes as u64 + 1;
        let mut bytes = Vec::new();
        // A pipe would be waited for, maybe for ever.
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

    /// A version serves from now on what is made new.
    pub(crate) fn activate(&self, plugin: &Plugin, origin: &Origin, direction: Direction) {
        let is_source = self.source.read().is_some();
        self.state.lock().activate(plugin, origin, direction, is_source);
    }

    /// Loads bytes, or takes what is loaded of them, and counts what it does under its name.
    fn load(self: &Arc<Self>, name: Option<&str>, bytes: &[u8]) -> Result<Plugin, LoadError> {
        self.load_with(name, bytes, |engine| engine.load(bytes))
    }

    /// [`Shared::load`] for what is part of the program. The same bytes from elsewhere are the same plug-in: what they
    /// were loaded as first serves both.
    fn load_own(self: &Arc<Self>, name: &str, bytes: &'static [u8]) -> Result<Plugin, LoadError> {
        self.load_with(Some(name), bytes, |engine| engine.load_own(bytes))
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
        // Another thread may have loaded it meanwhile: what is in use stays the one.
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

    /// A plug-in that something uses.
    fn loaded(&self, name: &str, digest: Digest) -> Option<Plugin> {
        self.state.lock().known(name, digest)?.plugin.upgrade()
    }

    fn health(self: &Arc<Self>, name: &str, digest: Digest) -> Health {
        let library: Weak<Shared> = Arc::downgrade(self);
        let name = name.to_owned();
        let alarm: Alarm = Box::new(move |reason: SpikeReason| {
            if let Some(library) = library.upgrade() {
                library.spiked(&name, digest, reason);
            }
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
