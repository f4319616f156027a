//! The thread that follows files. The system reports changes in the folders on the path to each file. The thread also
//! checks the files every few seconds, since some changes are never reported: on a network file system, below a folder
//! that was moved, or when something is mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::paths::{FileId, FolderId, folders_on_the_way};

/// A file is read after this long without a change: a build writes in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// A file that changes all the time is still read after this long.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// The time between two checks of the files without a report.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A message to the thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// There are more files to follow.
    Added,
    /// Something changed in a folder that is watched.
    Changed,
    /// The watcher ends.
    Stop,
}

/// The files that are followed.
pub(super) trait Target: Send {
    /// Returns the files to follow, whether they exist or not.
    fn files(&self) -> Vec<PathBuf>;

    /// Returns the folders in which new files are followed too.
    fn folders(&self) -> Vec<PathBuf>;

    /// Handles a file that exists, and is new or changed.
    fn changed(&self, path: &Path);

    /// Handles a file that does not exist any more.
    fn gone(&self, path: &Path);
}

pub(super) struct Follower {
    target: Box<dyn Target>,
    notifier: RecommendedWatcher,
    /// The folders whose changes are reported.
    watched: BTreeMap<PathBuf, FolderId>,
    /// The folders that the system does not watch, for which a line was logged.
    unwatched: BTreeSet<PathBuf>,
    /// The state of each file when it was last read; `None` while it does not exist.
    seen: BTreeMap<PathBuf, Option<FileId>>,
}

impl Follower {
    pub(super) fn new(target: Box<dyn Target>, notifier: RecommendedWatcher) -> Follower {
        Follower { target, notifier, watched: BTreeMap::new(), unwatched: BTreeSet::new(), seen: BTreeMap::new() }
    }

    /// Follows the files until a message ends it.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        // The times of the first and the last change since the last look.
        let mut pending: Option<(Instant, Instant)> = None;
        let mut next_look = Instant::now();
        loop {
            let now = Instant::now();
            let due = match pending {
                Some((first, last)) => (first + QUIET_MAX).min(last + QUIET),
                None => next_look,
            };
            if now >= due {
                if pending.take().is_some() {
                    self.look();
                } else {
                    self.watch_folders();
                    // A changed file may still be written to.
                    pending = self.is_stale().then_some((now, now));
                    next_look = now + LOOK_INTERVAL;
                }
                continue;
            }
            match messages.recv_timeout(due - now) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Message::Added) => {
                    self.watch_folders();
                    pending = Some((now, now));
                }
                Ok(Message::Changed) => {
                    let now = Instant::now();
                    pending = Some((pending.map_or(now, |(first, _)| first), now));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Returns whether any file has changed since it was last read.
    fn is_stale(&self) -> bool {
        self.target.files().iter().any(|path| self.seen.get(path) != Some(&FileId::of(path)))
    }

    /// Reads the files that changed.
    fn look(&mut self) {
        // A change in a new folder on the path, before that folder is watched, is found by checking again.
        loop {
            let files = self.target.files();
            for path in &files {
                let id = FileId::of(path);
                match (self.seen.insert(path.clone(), id), id) {
                    (Some(before), id) if before == id => {}
                    (_, Some(_)) => self.target.changed(path),
                    (Some(Some(_)), None) => self.target.gone(path),
                    (_, None) => {}
                }
            }
            let files: BTreeSet<PathBuf> = files.into_iter().collect();
            self.seen.retain(|path, _| files.contains(path));
            if !self.watch_folders() {
                return;
            }
        }
    }

    /// Watches only the folders on the path to each file. Returns whether there is a new one.
    fn watch_folders(&mut self) -> bool {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for path in self.target.files().iter().chain(&self.target.folders()) {
            folders.extend(folders_on_the_way(path));
        }
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(folder, id)| !folders.contains(*folder) || FolderId::of(folder) != Some(**id))
            .map(|(folder, _)| folder.clone())
            .collect();
        for folder in stale {
            self.watched.remove(&folder);
            // The system itself forgets a folder that is gone.
            let _ = self.notifier.unwatch(&folder);
        }
        self.unwatched.retain(|folder| folders.contains(folder));
        let mut is_new = false;
        for folder in folders {
            if !self.watched.contains_key(&folder) {
                is_new |= self.watch(folder);
            }
        }
        is_new
    }

    /// Makes the system report changes in a folder. Returns whether it does.
    fn watch(&mut self, folder: PathBuf) -> bool {
        let Some(id) = FolderId::of(&folder) else { return false };
        match self.notifier.watch(&folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.unwatched.remove(&folder);
                self.watched.insert(folder, id);
                true
            }
            Err(error) => {
                let (shown, seconds) = (folder.display(), LOOK_INTERVAL.as_secs());
                if !self.unwatched.contains(&folder) {
                    let message = "the system does not report changes in a folder of plug-ins";
                    tracing::warn!(folder = %shown, %error, "{message}: it is checked every {seconds} s");
                    self.unwatched.insert(folder);
                }
                false
            }
        }
    }
}
