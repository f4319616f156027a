//! Follows files: when one changes it is scanned, compiled, instantiated and probed on this thread,
//! and then takes over in every live stage of its name. A broken file leaves the old version serving.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::library::{Library, Published};

/// A file is read when nothing happened to it for this long: a build writes in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// A file that never rests is read after this long all the same.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// What happened to a file that is followed.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A new version was published.
    Reloaded {
        /// The file.
        path: PathBuf,
        /// What it did.
        published: Published,
    },
    /// The file is no plug-in any more, or does not serve where it would have to; the version before serves
    /// on.
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// Files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch for new plug-ins: {0}")]
pub struct WatchError(String);

/// To the thread that watches.
#[derive(Debug)]
pub(crate) enum Message {
    /// Watch this folder too.
    Watch(PathBuf),
    /// These paths changed.
    Changed(Vec<PathBuf>),
    /// The system lost events: look at everything.
    Rescan,
    /// End.
    Stop,
}

/// A thread that follows the folders and files of a library, until this value is dropped.
#[derive(Debug)]
pub struct Watcher {
    /// To be told that nobody watches any more.
    library: Option<Arc<Library>>,
    sender: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to follow every folder that was added to the library and every file that a stage was
    /// made of, those to come as well. `on_event` is called on the watcher's thread; each event is
    /// logged besides.
    ///
    /// # Errors
    /// [`WatchError`] when the system has no watches or threads left.
    pub fn start(library: Arc<Library>, on_event: impl Fn(WatchEvent) + Send + 'static) -> Result<Watcher, WatchError> {
        let target = OfLibrary { library: Arc::clone(&library), on_event: Box::new(on_event) };
        let mut watcher = Watcher::watch(Box::new(target))?;
        library.connect(Some(watcher.sender.clone()));
        watcher.library = Some(library);
        Ok(watcher)
    }

    /// Follows the components of one folder, `*.wasm`: `on_file` is called with the path of each that is there, and
    /// again when it changes, on the watcher's thread.
    ///
    /// # Errors
    /// [`WatchError`] when there is no such folder, or the system has no watches or threads left.
    pub fn folder(folder: &Path, on_file: impl Fn(&Path) + Send + 'static) -> Result<Watcher, WatchError> {
        let folder = folder.canonicalize().map_err(|error| WatchError(format!("{}: {error}", folder.display())))?;
        let watcher = Watcher::watch(Box::new(OfFolder { folder: folder.clone(), on_file: Box::new(on_file) }))?;
        // The thread waits for its first message.
        let _ = watcher.sender.send(Message::Watch(folder));
        Ok(watcher)
    }

    fn watch(target: Box<dyn Target>) -> Result<Watcher, WatchError> {
        let (sender, messages) = mpsc::channel();
        let events = sender.clone();
        let notifier = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // When the thread has ended nobody wants events any more.
            let _ = events.send(message(event));
        })
        .map_err(|error| WatchError(error.to_string()))?;
        let follower = Follower { target, notifier, watched: BTreeSet::new(), changed: BTreeSet::new() };
        let thread = thread::Builder::new()
            .name("stage-watcher".to_owned())
            .spawn(move || follower.run(&messages))
            .map_err(|error| WatchError(error.to_string()))?;
        Ok(Watcher { library: None, sender, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(library) = &self.library {
            library.connect(None);
        }
        let _ = self.sender.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn message(event: notify::Result<Event>) -> Message {
    match event {
        Ok(event) if event.need_rescan() => Message::Rescan,
        Ok(event) => match event.kind {
            // Somebody reads, the watcher itself among others.
            EventKind::Access(notify::event::AccessKind::Close(notify::event::AccessMode::Write))
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Any
            | EventKind::Other => Message::Changed(event.paths),
            EventKind::Access(_) | EventKind::Remove(_) => Message::Changed(Vec::new()),
        },
        Err(error) => {
            tracing::warn!(%error, "watching plug-ins");
            Message::Rescan
        }
    }
}

/// Whose files are followed.
trait Target: Send {
    /// Whether a file is one of them.
    fn is_followed(&self, path: &Path) -> bool;

    /// Those that are in a folder now.
    fn files_in(&self, folder: &Path) -> Vec<PathBuf>;

    /// A file is there, or is another one now.
    fn changed(&self, path: &Path);
}

struct OfLibrary {
    library: Arc<Library>,
    on_event: Box<dyn Fn(WatchEvent) + Send>,
}

impl Target for OfLibrary {
    fn is_followed(&self, path: &Path) -> bool {
        self.library.is_followed(path)
    }

    fn files_in(&self, folder: &Path) -> Vec<PathBuf> {
        self.library.files_in(folder)
    }

    fn changed(&self, path: &Path) {
        if let Some(event) = reload(&self.library, path) {
            (self.on_event)(event);
        }
    }
}

struct OfFolder {
    folder: PathBuf,
    on_file: Box<dyn Fn(&Path) + Send>,
}

impl Target for OfFolder {
    fn is_followed(&self, path: &Path) -> bool {
        path.parent() == Some(&self.folder) && path.extension().is_some_and(|extension| extension == "wasm")
    }

    fn files_in(&self, folder: &Path) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(folder).into_iter().flatten();
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| self.is_followed(path)).collect()
    }

    fn changed(&self, path: &Path) {
        (self.on_file)(path);
    }
}

struct Follower {
    target: Box<dyn Target>,
    notifier: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    /// Files that changed and are not read yet.
    changed: BTreeSet<PathBuf>,
}

impl Follower {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut first_change = Instant::now();
        loop {
            let next = if self.changed.is_empty() {
                messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let left = QUIET_MAX.saturating_sub(first_change.elapsed());
                messages.recv_timeout(QUIET.min(left))
            };
            let was_quiet = self.changed.is_empty();
            match next {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Message::Watch(folder)) => self.watch(folder),
                Ok(Message::Changed(paths)) => self.changed(paths),
                Ok(Message::Rescan) => self.rescan(),
                Err(RecvTimeoutError::Timeout) => self.reload(),
            }
            if was_quiet {
                first_change = Instant::now();
            }
        }
    }

    fn watch(&mut self, folder: PathBuf) {
        if !self.watched.insert(folder.clone()) {
            return;
        }
        if let Err(error) = self.notifier.watch(&folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::error!(%folder, %error, "this folder cannot be watched for new plug-ins");
            return;
        }
        // What changed between the first reading and now has made no event.
        let files = self.target.files_in(&folder);
        self.changed.extend(files);
    }

    fn changed(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            if self.target.is_followed(&path) {
                self.changed.insert(path);
            } else if path.is_symlink()
                && let Some(folder) = path.parent()
            {
                // What lies behind it may be another file now, as where Kubernetes mounts a ConfigMap.
                self.changed.extend(self.target.files_in(folder));
            }
        }
    }

    fn rescan(&mut self) {
        for folder in &self.watched {
            self.changed.extend(self.target.files_in(folder));
        }
    }

    fn reload(&mut self) {
        for path in std::mem::take(&mut self.changed) {
            self.target.changed(&path);
        }
    }
}

fn reload(library: &Library, path: &Path) -> Option<WatchEvent> {
    let shown = path.display();
    match library.reload(path) {
        Ok(None) => None,
        Ok(Some(published)) => {
            let plugin = &published.plugin;
            let (name, version) = (plugin.name(), plugin.version());
            let stages = published.swapped.len();
            tracing::info!(path = %shown, name, version, stages, "new version of a plug-in");
            let path = path.to_owned();
            Some(WatchEvent::Reloaded { path, published })
        }
        Err(error) => {
            tracing::error!(path = %shown, %error, "not put to use: the version before serves on");
            Some(WatchEvent::Refused { path: path.to_owned(), problem: error.to_string() })
        }
    }
}
