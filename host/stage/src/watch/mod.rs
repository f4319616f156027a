//! Follows files. When one changes it is scanned, compiled, instantiated and probed on the watcher's thread. It then
//! takes over in every live stage that uses it. A broken file leaves the old version in use.

mod follower;
mod paths;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind};

use self::follower::{Follower, Target};
use crate::library::{Library, Published, is_plugin_file};

pub(crate) use self::follower::Message;

/// What happened to a file that is followed.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A new version was loaded and is in use.
    Reloaded {
        /// The file.
        path: PathBuf,
        /// The activation.
        published: Published,
    },
    /// The file is not a plug-in any more, or cannot serve a stage that uses it. The version before stays in use, if
    /// there is one.
    Refused {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
}

/// Files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The folder cannot be read.
    #[error("cannot watch {} for new plug-ins: {source}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// The system offers no more watches.
    #[error("cannot watch for new plug-ins: {0}")]
    Watches(#[from] notify::Error),
    /// The system offers no more threads.
    #[error("cannot start the thread that watches for new plug-ins: {0}")]
    Thread(#[source] io::Error),
}

/// A thread that follows the folders and files of a library, until this value is dropped.
#[derive(Debug)]
pub struct Watcher {
    /// The library that sends it messages.
    library: Option<Arc<Library>>,
    sender: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to follow every folder that was added to the library and every file that a stage uses, including those
    /// that are added later. Calls `on_event` on the watcher's thread; each event is also logged.
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

    /// Follows the components of one folder, `*.wasm`. Calls `on_file` on the watcher's thread with the path of each
    /// that exists, and again when it changes.
    ///
    /// # Errors
    /// [`WatchError`] when there is no such folder, or the system has no watches or threads left.
    pub fn folder(folder: &Path, on_file: impl Fn(&Path) + Send + 'static) -> Result<Watcher, WatchError> {
        let failed = |source| WatchError::Folder { folder: folder.to_owned(), source };
        std::fs::read_dir(folder).map_err(failed)?;
        let folder = std::path::absolute(folder).map_err(failed)?;
        Watcher::watch(Box::new(OfFolder { folder, on_file: Box::new(on_file) }))
    }

    fn watch(target: Box<dyn Target>) -> Result<Watcher, WatchError> {
        let (sender, messages) = mpsc::channel();
        let events = sender.clone();
        let notifier = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if is_change(&event) {
                // The thread may have ended.
                let _ = events.send(Message::Changed);
            }
        })?;
        let follower = Follower::new(target, notifier);
        let thread = thread::Builder::new()
            .name("stage-watcher".to_owned())
            .spawn(move || follower.run(&messages))
            .map_err(WatchError::Thread)?;
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
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn is_change(event: &notify::Result<Event>) -> bool {
    match event {
        // The watcher itself reads files.
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => event.need_rescan(),
            _ => true,
        },
        Err(error) => {
            tracing::warn!(%error, "a report about changed plug-ins was lost");
            true
        }
    }
}

struct OfLibrary {
    library: Arc<Library>,
    on_event: Box<dyn Fn(WatchEvent) + Send>,
}

impl Target for OfLibrary {
    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.library.followed_files();
        for folder in self.library.followed_folders() {
            files.extend(plugin_files(&folder));
        }
        files.sort();
        files.dedup();
        files
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.library.followed_folders()
    }

    fn changed(&self, path: &Path) {
        if let Some(event) = reload(&self.library, path) {
            (self.on_event)(event);
        }
    }

    fn gone(&self, path: &Path) {
        tracing::warn!(path = %path.display(), "the file of a plug-in was removed: its last version stays in use");
    }
}

struct OfFolder {
    folder: PathBuf,
    on_file: Box<dyn Fn(&Path) + Send>,
}

impl Target for OfFolder {
    fn files(&self) -> Vec<PathBuf> {
        plugin_files(&self.folder)
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec![self.folder.clone()]
    }

    fn changed(&self, path: &Path) {
        (self.on_file)(path);
    }

    fn gone(&self, _path: &Path) {}
}

/// Returns the components of a folder by name, so that the same folder always gives the same versions.
fn plugin_files(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> =
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_plugin_file(path)).collect();
    files.sort();
    files
}

fn reload(library: &Library, path: &Path) -> Option<WatchEvent> {
    let shown = path.display();
    match library.reload(path) {
        Ok(None) => None,
        Ok(Some(published)) => {
            let plugin = &published.plugin;
            let (name, version) = (plugin.name(), plugin.version());
            let stages = published.swapped.len();
            tracing::info!(path = %shown, name, version, stages, "loaded a new version of a plug-in");
            let path = path.to_owned();
            Some(WatchEvent::Reloaded { path, published })
        }
        Err(error) => {
            let message = match library.has_loaded(path) {
                true => "a changed plug-in is not used: the version before stays in use",
                false => "a plug-in is not used: no version of this file was loaded before, so no version is in use",
            };
            tracing::error!(path = %shown, %error, "{message}");
            Some(WatchEvent::Refused { path: path.to_owned(), problem: error.to_string() })
        }
    }
}
