//! Plug-ins by name, and the stages that are made of them. A stage that is not pinned follows its
//! plug-in: when a new version is published, every live stage of that name is swapped.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::contract::Kind;
use crate::engine::Engine;
use crate::error::{LoadError, ResolveError, StageError};
use crate::plugin::{Digest, Plugin};
use crate::spec::{Source, StageSpec};
use crate::stage::{Stage, Swapped};
use crate::watch::Message;

/// Where a plug-in of the library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Part of the program.
    Embedded,
    /// A file.
    File(PathBuf),
    /// Given as bytes at run time.
    Published,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Embedded => formatter.pad("embedded"),
            Origin::File(path) => write!(formatter, "{}", path.display()),
            Origin::Published => formatter.pad("published"),
        }
    }
}

/// The plug-ins that a program knows.
pub struct Library {
    engine: Engine,
    state: Mutex<State>,
    /// Held while versions are published, so that two files of one name do not overtake each other.
    publishing: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The versions of each name, the newest last.
    plugins: BTreeMap<String, Vec<Entry>>,
    folders: Vec<PathBuf>,
    /// The files that were loaded, by their real path.
    files: BTreeMap<PathBuf, Plugin>,
    live: Vec<Live>,
    watcher: Option<Sender<Message>>,
}

#[derive(Clone)]
struct Entry {
    origin: Origin,
    code: Arc<Code>,
}

/// A plug-in that is loaded, or loads when it is first wanted.
struct Code {
    bytes: &'static [u8],
    /// The lock is held while it compiles, so that it does so once.
    plugin: Mutex<Option<Plugin>>,
}

/// A stage that somebody holds, and what it follows.
struct Live {
    follows: Follows,
    stage: Weak<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Follows {
    Name(String),
    File(PathBuf),
    Nothing,
}

/// What publishing a version did.
#[derive(Debug)]
pub struct Published {
    /// The new version.
    pub plugin: Plugin,
    /// The live stages that it serves now.
    pub swapped: Vec<Swapped>,
    /// The live stages that it could not serve; their old version serves on.
    pub refused: Vec<StageError>,
}

impl fmt::Debug for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Library").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl Library {
    /// An empty library.
    pub fn new(engine: Engine) -> Library {
        Library { engine, state: Mutex::default(), publishing: Mutex::default() }
    }

    /// The engine that plug-ins are loaded into.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Adds a plug-in that is part of the program. It is loaded when it is first wanted.
    pub fn add_embedded(&self, name: &str, bytes: &'static [u8]) {
        let entry = Entry { origin: Origin::Embedded, code: Arc::new(Code { bytes, plugin: Mutex::default() }) };
        let mut state = self.state.lock();
        state.plugins.entry(name.to_owned()).or_default().push(entry);
    }

    /// Adds the plug-ins of a folder, every `*.wasm` in it. A file that is no plug-in is left out and
    /// told; the others are added.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn add_folder(&self, folder: &Path) -> io::Result<Vec<(PathBuf, LoadError)>> {
        let folder = folder.canonicalize()?;
        {
            let mut state = self.state.lock();
            state.folders.push(folder.clone());
            state.watch(&folder);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
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

    /// Publishes a plug-in that is given as bytes, and swaps the stages that follow its name.
    ///
    /// # Errors
    /// [`LoadError`]; the old version serves on.
    pub fn publish(&self, bytes: &[u8]) -> Result<Published, LoadError> {
        let plugin = self.engine.load(bytes)?;
        let _in_order = self.publishing.lock();
        Ok(self.publish_loaded(plugin, Origin::Published))
    }

    /// Loads a file again, if its bytes are new, and swaps the stages that were made of it. A file of
    /// a folder that was added is also the newest version of its name, as with
    /// [`Library::publish`].
    ///
    /// # Errors
    /// [`LoadError`]; the old version serves on.
    pub fn reload(&self, path: &Path) -> Result<Option<Published>, LoadError> {
        let path = real_path(path)?;
        let bytes = self.read(&path)?;
        let _in_order = self.publishing.lock();
        let known = self.state.lock().files.get(&path).map(Plugin::digest);
        if known == Some(Digest::of(&bytes)) {
            return Ok(None);
        }
        let plugin = self.engine.load(&bytes)?;
        Ok(Some(self.publish_loaded(plugin, Origin::File(path))))
    }

    /// Makes a stage as it is written: finds its plug-in, checks that it is of `kind`, and starts it
    /// with its configuration. While somebody holds the stage it follows new versions, unless the
    /// specification pins one.
    ///
    /// # Errors
    /// [`ResolveError`] names what is wrong with the specification, the plug-in or its configuration.
    pub fn resolve(&self, spec: &StageSpec, kind: Kind) -> Result<Arc<Stage>, ResolveError> {
        let (plugin, follows) = self.find(&spec.source)?;
        if plugin.kind() != kind {
            return Err(ResolveError::WrongKind { spec: spec.to_string(), have: plugin.kind(), want: kind });
        }
        let stage = Arc::new(Stage::new(plugin, &spec.config)?);
        let newest = {
            let mut state = self.state.lock();
            state.live.retain(|live| live.stage.strong_count() > 0);
            state.live.push(Live { follows: follows.clone(), stage: Arc::downgrade(&stage) });
            state.newest(&follows)
        };
        // A version that was published while the stage started did not see it among the living.
        if let Some(newest) = newest
            && newest.digest() != stage.plugin().digest()
        {
            stage.swap(newest)?;
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

    /// Every name, in order.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().plugins.keys().cloned().collect()
    }

    /// Every plug-in with its origin, loaded; the versions of a name from old to new.
    ///
    /// # Errors
    /// [`ResolveError::Load`] for the first that does not load.
    pub fn list(&self) -> Result<Vec<(Origin, Plugin)>, ResolveError> {
        let entries: Vec<(String, Entry)> = {
            let state = self.state.lock();
            let versions = |(name, entries): (&String, &Vec<Entry>)| {
                let named = entries.iter().map(|entry| (name.clone(), entry.clone()));
                named.collect::<Vec<_>>()
            };
            state.plugins.iter().flat_map(versions).collect()
        };
        entries.into_iter().map(|(name, entry)| Ok((entry.origin.clone(), self.loaded(&name, &entry)?))).collect()
    }

    /// Connects a watcher: it is told the folders to watch, those of now and those to come.
    pub(crate) fn connect(&self, watcher: Option<Sender<Message>>) {
        let mut state = self.state.lock();
        state.watcher = watcher;
        let folders = state.folders.clone();
        let parents: Vec<PathBuf> = state.files.keys().filter_map(|path| path.parent().map(Path::to_owned)).collect();
        for folder in folders.iter().chain(&parents) {
            state.watch(folder);
        }
    }

    /// The files of a folder that may be plug-ins of this library: all of a folder that was added,
    /// and those that stages were made of.
    pub(crate) fn is_followed(&self, path: &Path) -> bool {
        let state = self.state.lock();
        let in_folder = || {
            let parent = path.parent();
            is_plugin_file(path) && state.folders.iter().any(|folder| parent == Some(folder.as_path()))
        };
        state.files.contains_key(path) || in_folder()
    }

    /// The files of `folder` that are followed now.
    pub(crate) fn files_in(&self, folder: &Path) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(folder).into_iter().flatten();
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| self.is_followed(path)).collect()
    }

    /// Swaps the stages that follow a plug-in and makes it the newest, unless it misbehaves where it
    /// would serve.
    fn publish_loaded(&self, plugin: Plugin, origin: Origin) -> Published {
        let live = self.state.lock().followers(&plugin, &origin);
        let (mut swapped, mut refused) = (Vec::new(), Vec::new());
        for stage in live {
            match stage.swap(plugin.clone()) {
                Ok(report) => swapped.push(report),
                Err(error) => refused.push(error),
            }
        }
        if !refused.iter().any(|error| error.fault.is_trap()) {
            self.state.lock().add(plugin.clone(), origin);
        }
        Published { plugin, swapped, refused }
    }

    fn find(&self, source: &Source) -> Result<(Plugin, Follows), ResolveError> {
        match source {
            Source::Name { name, version } => {
                let plugin = self.find_name(name, version.as_deref())?;
                let follows = match version {
                    None => Follows::Name(name.clone()),
                    Some(_) => Follows::Nothing,
                };
                Ok((plugin, follows))
            }
            Source::File(path) => {
                self.find_file(path).map_err(|source| ResolveError::Load { plugin: path.display().to_string(), source })
            }
        }
    }

    fn find_name(&self, name: &str, version: Option<&str>) -> Result<Plugin, ResolveError> {
        let entries = self.state.lock().plugins.get(name).cloned().unwrap_or_default();
        let Some(newest) = entries.last() else {
            return Err(ResolveError::Unknown { name: name.to_owned(), known: self.names().join(", ") });
        };
        let Some(wanted) = version else {
            return self.loaded(name, newest);
        };
        let mut known = Vec::new();
        for entry in entries.iter().rev() {
            let plugin = self.loaded(name, entry)?;
            if is_version(plugin.version(), wanted) {
                return Ok(plugin);
            }
            known.push(plugin.version().to_owned());
        }
        Err(ResolveError::Version { name: name.to_owned(), wanted: wanted.to_owned(), known: known.join(", ") })
    }

    fn find_file(&self, path: &Path) -> Result<(Plugin, Follows), LoadError> {
        let path = real_path(path)?;
        if let Some(folder) = path.parent() {
            self.state.lock().watch(folder);
        }
        self.reload(&path)?;
        let known = self.state.lock().files.get(&path).cloned();
        // A file that was just refused by a stage that lives leaves what that stage runs.
        let plugin =
            known.ok_or_else(|| LoadError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() })?;
        Ok((plugin, Follows::File(path)))
    }

    fn loaded(&self, name: &str, entry: &Entry) -> Result<Plugin, ResolveError> {
        let failed = |source| ResolveError::Load { plugin: name.to_owned(), source };
        let mut loaded = entry.code.plugin.lock();
        if let Some(plugin) = &*loaded {
            return Ok(plugin.clone());
        }
        let plugin = self.engine.load(entry.code.bytes).map_err(failed)?;
        if plugin.name() != name {
            let problem = format!("it calls itself `{}`", plugin.name());
            return Err(failed(LoadError::Description(problem)));
        }
        *loaded = Some(plugin.clone());
        Ok(plugin)
    }

    /// Reads a file up to the limit of a module, and one byte more for the scan to refuse.
    fn read(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let bytes_max = self.engine.limits().module.size_bytes as u64 + 1;
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

impl State {
    /// Whether what comes from there is known by its name, not by its path alone.
    fn is_named(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Embedded | Origin::Published => true,
            Origin::File(path) => self.folders.iter().any(|folder| path.parent() == Some(folder)),
        }
    }

    /// The live stages that a new version concerns.
    fn followers(&self, plugin: &Plugin, origin: &Origin) -> Vec<Arc<Stage>> {
        let is_named = self.is_named(origin);
        let follows = |live: &&Live| match (&live.follows, origin) {
            (Follows::Name(name), _) => is_named && name == plugin.name(),
            (Follows::File(file), Origin::File(path)) => file == path,
            (Follows::File(_) | Follows::Nothing, _) => false,
        };
        let live = self.live.iter().filter(follows);
        live.filter_map(|live| live.stage.upgrade()).collect()
    }

    fn add(&mut self, plugin: Plugin, origin: Origin) {
        if let Origin::File(path) = &origin {
            self.files.insert(path.clone(), plugin.clone());
        }
        if !self.is_named(&origin) {
            return;
        }
        let versions = self.plugins.entry(plugin.name().to_owned()).or_default();
        // A file is its newest contents; everything else keeps its versions.
        if matches!(origin, Origin::File(_)) {
            versions.retain(|entry| entry.origin != origin);
        }
        versions.push(Entry { origin, code: Arc::new(Code { bytes: &[], plugin: Mutex::new(Some(plugin)) }) });
    }

    /// The newest version of what a stage follows, if it is loaded.
    fn newest(&self, follows: &Follows) -> Option<Plugin> {
        match follows {
            Follows::Name(name) => {
                let newest = self.plugins.get(name)?.last()?;
                newest.code.plugin.lock().clone()
            }
            Follows::File(path) => self.files.get(path).cloned(),
            Follows::Nothing => None,
        }
    }

    fn watch(&mut self, folder: &Path) {
        if let Some(watcher) = &self.watcher {
            // A watcher that has ended takes no more folders.
            let _ = watcher.send(Message::Watch(folder.to_owned()));
        }
    }
}

/// Whether a version is meant by `wanted`: the same, or `wanted` and more after a dot.
fn is_version(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_plugin_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

/// The real folder of a file and its name: a file that is replaced keeps its path.
fn real_path(path: &Path) -> Result<PathBuf, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(folder.canonicalize().map_err(failed)?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_pinned_by_its_leading_numbers() {
        assert!(is_version("3.1.4", "3"));
        assert!(is_version("3.1.4", "3.1"));
        assert!(is_version("3.1.4", "3.1.4"));
        assert!(!is_version("3.1.4", "3.1.4.1"));
        assert!(!is_version("31.4", "3"));
        assert!(!is_version("2.3", "3"));
    }
}
