//! Holds the versions of every name, the files, and the live stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Origin;
use crate::activation::Pending;
use crate::plugin::{Digest, Plugin, WeakPlugin};
use crate::stage::Stage;
use crate::watch::Message;

/// How long a file is followed that no stage could be started from.
const WANTED_FOR: Duration = Duration::from_secs(3600);

/// The most versions whose counts are kept.
const KNOWN_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct State {
    pub(super) plugins: BTreeMap<String, Versions>,
    /// All versions that were ever loaded. If one is loaded again, its counts continue.
    known: Vec<Known>,
    pub(super) folders: Vec<PathBuf>,
    /// The files that were loaded, by their absolute path.
    pub(super) files: BTreeMap<PathBuf, FileVersions>,
    /// The files that a stage was last started from, or could not be started from, and when.
    wanted: BTreeMap<PathBuf, Instant>,
    live: Vec<Live>,
    /// The versions that are prepared and not active yet.
    pending: Vec<Weak<Pending>>,
    watcher: Option<Sender<Message>>,
}

pub(super) struct Known {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) digest: Digest,
    pub(super) plugin: WeakPlugin,
}

/// The versions of one name.
#[derive(Default)]
pub(super) struct Versions {
    /// From old to new.
    pub(super) entries: Vec<Entry>,
    /// The place of the version for stages that follow the name.
    active: usize,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) code: Arc<Code>,
    /// Whether it is an earlier version of a file. It is kept only to roll back to.
    pub(super) is_replaced: bool,
    /// Whether it failed too often and was replaced.
    pub(super) is_bad: bool,
}

/// A plug-in that is loaded, or is loaded when it is first used.
pub(super) struct Code {
    /// `None` for a plug-in that was loaded from elsewhere.
    pub(super) part: Option<Part>,
    digest: OnceLock<Digest>,
    /// The lock is held while it compiles, so that it compiles once.
    pub(super) plugin: Mutex<Option<Plugin>>,
}

/// A part of the program that is a component.
pub(super) struct Part {
    pub(super) needs_deadline: bool,
    /// Returns the component. The program may keep it compressed until then.
    pub(super) component: Box<dyn Fn() -> &'static [u8] + Send + Sync>,
}

/// The versions of a file.
pub(super) struct FileVersions {
    /// The digest that was last read, whether it is in use or not.
    pub(super) seen: Digest,
    pub(super) active: Plugin,
    /// The version before, to roll back to.
    pub(super) previous: Option<Plugin>,
}

/// A live stage, and what it follows.
struct Live {
    follows: Follows,
    stage: Weak<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Follows {
    Name(String),
    File(PathBuf),
    Nothing,
}

/// Whether a version is activated because it is new, or because the one in use is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Back,
}

impl Entry {
    pub(super) fn embedded(part: Part) -> Entry {
        let code = Arc::new(Code { part: Some(part), digest: OnceLock::new(), plugin: Mutex::default() });
        Entry { origin: Origin::Embedded, code, is_replaced: false, is_bad: false }
    }

    pub(super) fn loaded(origin: Origin, plugin: Plugin) -> Entry {
        let digest = OnceLock::from(plugin.digest());
        let code = Arc::new(Code { part: None, digest, plugin: Mutex::new(Some(plugin)) });
        Entry { origin, code, is_replaced: false, is_bad: false }
    }

    /// Returns the plug-in, if it was loaded; `None` while it compiles.
    fn plugin(&self) -> Option<Plugin> {
        self.code.plugin.try_lock().and_then(|plugin| plugin.clone())
    }

    /// Returns the digest of its bytes, without loading them.
    pub(super) fn digest(&self) -> Digest {
        *self.code.digest.get_or_init(|| Digest::of(self.code.component()))
    }

    pub(super) fn has(&self, digest: Digest) -> bool {
        self.digest() == digest
    }
}

impl Code {
    /// Returns the component; nothing for a plug-in that was loaded from elsewhere.
    pub(super) fn component(&self) -> &'static [u8] {
        self.part.as_ref().map_or(&[], |part| (part.component)())
    }
}

impl Versions {
    pub(super) fn active(&self) -> Option<&Entry> {
        self.entries.get(self.active)
    }

    /// Returns the plug-in that is part of the program.
    pub(super) fn embedded(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.origin == Origin::Embedded)
    }

    pub(super) fn stored(&self, number: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.origin == Origin::Store { number })
    }

    /// Adds and activates a version. `is_source` says that stored versions can be fetched again.
    pub(super) fn activate(&mut self, entry: Entry, is_source: bool) {
        let served = self.active().map(|active| Arc::clone(&active.code));
        let serves = |entry: &Entry| served.as_ref().is_some_and(|code| Arc::ptr_eq(code, &entry.code));
        self.entries.retain_mut(|old| {
            let is_same_place = old.origin == entry.origin;
            if is_same_place && old.has(entry.digest()) {
                return false;
            }
            match &entry.origin {
                // The earlier version of a file is kept to roll back to.
                Origin::File(_) if is_same_place => {
                    old.is_replaced = true;
                    serves(old)
                }
                Origin::Embedded | Origin::Store { .. } if is_same_place => false,
                Origin::Store { .. } if is_source && matches!(old.origin, Origin::Store { .. }) => serves(old),
                _ => true,
            }
        });
        if entry.origin == Origin::Embedded {
            self.entries.insert(0, entry);
            self.active = 0;
        } else {
            self.entries.push(entry);
            self.active = self.entries.len() - 1;
        }
    }

    /// Removes the stored versions, and activates the last of the others.
    fn forget_stored(&mut self) {
        self.entries.retain(|entry| !matches!(entry.origin, Origin::Store { .. }));
        self.active = self.entries.len().saturating_sub(1);
    }

    /// Marks a version as bad.
    pub(super) fn mark_bad(&mut self, digest: Digest) {
        self.entries.iter_mut().filter(|entry| entry.has(digest)).for_each(|entry| entry.is_bad = true);
    }

    /// Returns the newest version that is not bad, other than `digest`.
    pub(super) fn last_good(&self, digest: Digest) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| !entry.is_bad && !entry.has(digest))
    }
}

impl State {
    /// Returns whether plug-ins of this origin are known by their names, not only by their paths.
    fn is_named(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Embedded | Origin::Published | Origin::Store { .. } => true,
            Origin::File(path) => self.folders.iter().any(|folder| path.parent() == Some(folder)),
        }
    }

    /// Returns whether a stage that follows `follows` uses a version of `name` from `origin`.
    fn concerns(&self, name: &str, origin: &Origin, follows: &Follows) -> bool {
        match (follows, origin) {
            (Follows::Name(followed), _) => self.is_named(origin) && followed == name,
            (Follows::File(file), Origin::File(path)) => file == path,
            (Follows::File(_) | Follows::Nothing, _) => false,
        }
    }

    /// Returns the live stages that use a new version.
    pub(super) fn followers(&self, name: &str, origin: &Origin) -> Vec<Arc<Stage>> {
        let live = self.live.iter().filter(|live| self.concerns(name, origin, &live.follows));
        live.filter_map(|live| live.stage.upgrade()).collect()
    }

    /// Iterates over the live stages.
    pub(super) fn stages(&self) -> impl Iterator<Item = Arc<Stage>> + '_ {
        self.live.iter().filter_map(|live| live.stage.upgrade())
    }

    pub(super) fn add_live(&mut self, follows: &Follows, stage: &Arc<Stage>) {
        self.live.retain(|live| live.stage.strong_count() > 0);
        self.live.push(Live { follows: follows.clone(), stage: Arc::downgrade(stage) });
    }

    pub(super) fn add_pending(&mut self, pending: &Arc<Pending>) {
        self.pending.retain(|pending| pending.strong_count() > 0);
        self.pending.push(Arc::downgrade(pending));
    }

    /// Returns the versions that are about to be activated for `follows`.
    pub(super) fn pending(&self, follows: &Follows) -> Vec<Arc<Pending>> {
        let live = self.pending.iter().filter_map(Weak::upgrade);
        live.filter(|pending| self.concerns(pending.plugin.name(), &pending.origin, follows)).collect()
    }

    /// Activates a version.
    pub(super) fn activate(&mut self, plugin: &Plugin, origin: &Origin, direction: Direction, is_source: bool) {
        if let Some(number) = origin.number() {
            plugin.health().set_number(number);
        }
        if let Origin::File(path) = origin {
            let before = self.files.remove(path);
            let seen = match (&before, direction) {
                (Some(before), Direction::Back) => before.seen,
                _ => plugin.digest(),
            };
            let previous = before.map(|file| file.active).filter(|_| direction == Direction::Forward);
            self.files.insert(path.clone(), FileVersions { seen, active: plugin.clone(), previous });
        }
        if self.is_named(origin) {
            let entry = match (origin, self.plugins.get(plugin.name()).and_then(Versions::embedded)) {
                // The entry has its bytes.
                (Origin::Embedded, Some(embedded)) => embedded.clone(),
                _ => Entry::loaded(origin.clone(), plugin.clone()),
            };
            self.plugins.entry(plugin.name().to_owned()).or_default().activate(entry, is_source);
        }
    }

    /// Removes the stored versions of a name.
    pub(super) fn forget(&mut self, name: &str) {
        let Some(versions) = self.plugins.get_mut(name) else { return };
        versions.forget_stored();
        if versions.entries.is_empty() {
            self.plugins.remove(name);
        }
    }

    /// Returns the active version of what a stage follows, if it is loaded.
    pub(super) fn active(&self, follows: &Follows) -> Option<Plugin> {
        match follows {
            Follows::Name(name) => self.plugins.get(name)?.active()?.plugin(),
            Follows::File(path) => Some(self.files.get(path)?.active.clone()),
            Follows::Nothing => None,
        }
    }

    /// Returns what is known of a digest under a name.
    pub(super) fn known(&self, name: &str, digest: Digest) -> Option<&Known> {
        self.known.iter().find(|known| known.digest == digest && known.name == name)
    }

    pub(super) fn remember(&mut self, plugin: &Plugin) {
        self.known.retain(|known| known.digest != plugin.digest() || known.name != plugin.name());
        if self.known.len() >= KNOWN_MAX {
            // The oldest that is not in use. The limit of instances bounds those in use.
            if let Some(gone) = self.known.iter().position(|known| known.plugin.upgrade().is_none()) {
                self.known.remove(gone);
            }
        }
        let (name, version) = (plugin.name().to_owned(), plugin.version().to_owned());
        self.known.push(Known { name, version, digest: plugin.digest(), plugin: plugin.downgrade() });
    }

    pub(super) fn all_known(&self) -> &[Known] {
        &self.known
    }

    /// Connects a watcher, which gets a message whenever there are more files to follow.
    pub(super) fn connect(&mut self, watcher: Option<Sender<Message>>) {
        self.watcher = watcher;
        self.notify_watcher();
    }

    /// Tells the watcher that there are more files to follow.
    pub(super) fn notify_watcher(&self) {
        if let Some(watcher) = &self.watcher {
            // The watcher may have ended.
            let _ = watcher.send(Message::Added);
        }
    }

    /// Follows a file from which a stage is about to be started.
    pub(super) fn want(&mut self, path: &Path, now: Instant) {
        self.wanted.retain(|_, since| now.duration_since(*since) < WANTED_FOR);
        if self.wanted.insert(path.to_owned(), now).is_none() && !self.files.contains_key(path) {
            self.notify_watcher();
        }
    }

    /// Returns the files that stages use, or that a stage could not be started from.
    pub(super) fn followed_files(&self) -> Vec<PathBuf> {
        self.files.keys().chain(self.wanted.keys()).cloned().collect()
    }
}
