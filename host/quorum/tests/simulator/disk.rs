//! A disk that loses what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_quorum::storage::{Disk, check_length};
use parking_lot::Mutex;

/// The length of a frame's header, after which the payload begins with its kind.
const HEADER: usize = 12;
const KIND_VOTE: u8 = 1;
const KIND_ENTRIES: u8 = 2;

/// A bug that a run seeds into the disk, to prove the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A vote is reported as durable without a sync.
    VoteNotSynced,
    /// Entries are reported as durable without a sync.
    EntriesNotSynced,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The kind of the last frame that was appended, and its bytes.
    last_frame: Option<(u8, Vec<u8>)>,
    /// The last vote whose sync was reported.
    vote: Option<Vec<u8>>,
}

/// One machine's disk. It outlives the processes that use it.
#[derive(Clone)]
pub(crate) struct Platter {
    content: Arc<Mutex<Content>>,
    bug: Bug,
}

/// The disk as one process sees it.
pub(crate) struct SimDisk {
    content: Arc<Mutex<Content>>,
    bug: Bug,
    is_dead: Arc<AtomicBool>,
}

impl Platter {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { content: Arc::default(), bug }
    }

    pub(crate) fn mount(&self) -> Arc<SimDisk> {
        Arc::new(SimDisk { content: Arc::clone(&self.content), bug: self.bug, is_dead: Arc::default() })
    }

    /// Returns a disk of its own with the same content.
    pub(crate) fn copy(&self) -> Arc<SimDisk> {
        let content = Arc::new(Mutex::new(self.content.lock().clone()));
        Arc::new(SimDisk { content, bug: Bug::None, is_dead: Arc::default() })
    }

    /// Returns the last vote that was reported as durable, and the last that was written if it is another.
    pub(crate) fn votes(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let content = self.content.lock();
        let written = content.last_frame.as_ref().filter(|(kind, _)| *kind == KIND_VOTE).map(|(_, vote)| vote.clone());
        (content.vote.clone(), written)
    }

    /// Cuts the power: loses bytes and names that were not synced, or parts of them.
    pub(crate) fn cut_power(&self) {
        let mut content = self.content.lock();
        if fastrand::bool() {
            content.names = content.durable_names.clone();
        }
        for file in &mut content.files {
            // A hole before later bytes would show a seeded bug at once. What it leads to is to be found.
            file.lose(self.bug == Bug::None);
        }
        content.durable_names = content.names.clone();
    }
}

impl File {
    fn lose(&mut self, has_holes: bool) {
        if self.bytes.len() >= self.durable.len() {
            let unsynced = self.bytes.split_off(self.durable.len());
            let kept = fastrand::usize(..=unsynced.len());
            self.bytes.extend(&unsynced[..kept]);
            // A sector in the middle may be missing.
            if has_holes && kept > 0 && fastrand::u8(..4) == 0 {
                let end = self.bytes.len();
                let from = fastrand::usize(self.durable.len()..end) / 512 * 512;
                self.bytes[from.max(self.durable.len())..end.min(from + 512)].fill(0);
            }
        } else if fastrand::bool() {
            self.bytes = self.durable.clone();
        }
        self.durable = self.bytes.clone();
    }
}

impl SimDisk {
    pub(crate) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    fn content(&self) -> io::Result<parking_lot::MutexGuard<'_, Content>> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(self.content.lock())
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.content()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let content = self.content()?;
        let file = *content.names.get(name).ok_or_else(missing)?;
        let bytes = content.files[file].bytes.clone();
        check_length(bytes.len() as u64, bytes_max)?;
        Ok(bytes)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content()?;
        let file = match content.names.get(name) {
            Some(file) => *file,
            None => {
                content.files.push(File::default());
                let file = content.files.len() - 1;
                content.names.insert(name.to_owned(), file);
                file
            }
        };
        content.files[file].bytes.extend(bytes);
        if name.ends_with(".wal") {
            content.last_frame = bytes.get(HEADER).map(|kind| (*kind, bytes[HEADER + 1..].to_vec()));
        }
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let mut content = self.content()?;
        let file = *content.names.get(name).ok_or_else(missing)?;
        content.files[file].bytes.truncate(length as usize);
        content.last_frame = None;
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut content = self.content()?;
        let file = *content.names.get(name).ok_or_else(missing)?;
        let kind = content.last_frame.as_ref().map(|(kind, _)| *kind).filter(|_| name.ends_with(".wal"));
        if kind == Some(KIND_VOTE) {
            content.vote = content.last_frame.as_ref().map(|(_, vote)| vote.clone());
        }
        match (self.bug, kind) {
            (Bug::VoteNotSynced, Some(KIND_VOTE)) | (Bug::EntriesNotSynced, Some(KIND_ENTRIES)) => {}
            _ => content.files[file].durable = content.files[file].bytes.clone(),
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut content = self.content()?;
        let file = content.names.remove(from).ok_or_else(missing)?;
        content.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.content()?.names.remove(name).map(drop).ok_or_else(missing)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut content = self.content()?;
        content.durable_names = content.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn blocks(&self) -> bool {
        false
    }
}
