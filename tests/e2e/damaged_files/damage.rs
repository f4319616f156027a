//! The files, what happens to each, and what is promised then.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_tests::files;

use super::fixture::{Ended, Fixture};

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    Deleted,
    Emptied,
    Halved,
    /// The last byte is missing.
    Cut,
    /// Bytes follow that do not belong to it.
    Longer,
    /// It is as it was before the last writes.
    Stale,
    /// It is that of another topic, or of another broker.
    Foreign,
    /// A bit is flipped: the place in sixteenths of the length, and the bit.
    Flipped(usize, u8),
}

use Damage::*;

const ALL: &[Damage] = &[
    Deleted,
    Emptied,
    Halved,
    Cut,
    Longer,
    Stale,
    Foreign,
    Flipped(0, 0),
    Flipped(3, 1),
    Flipped(5, 4),
    Flipped(8, 0),
    Flipped(11, 3),
    Flipped(14, 0),
    Flipped(16, 2),
];

const SOME: &[Damage] = &[Deleted, Emptied, Halved, Longer, Stale, Foreign, Flipped(8, 1), Flipped(14, 0)];

/// Returns each file with its place in the data folder, and what happens to it.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static [Damage])> {
    let files: [(&str, &[&str], &[Damage]); 7] = [
        (
            "",
            &[
                "meta.properties",
                "recovery-point-offset-checkpoint",
                "log-start-offset-checkpoint",
                "replication-offset-checkpoint",
                "cleaner-offset-checkpoint",
            ],
            ALL,
        ),
        ("", &[".kafka_cleanshutdown", ".lock", ".disk-reserve"], &[Deleted, Emptied, Longer]),
        (
            "topic-0",
            &[
                "partition.metadata",
                "leader-epoch-checkpoint",
                "file-checksums",
                ".index",
                ".timeindex",
                ".txnindex",
                ".snapshot",
            ],
            ALL,
        ),
        ("compacted-0", &["leader-epoch-checkpoint", ".index", ".timeindex"], SOME),
        ("__consumer_offsets-0", &["partition.metadata", "leader-epoch-checkpoint"], SOME),
        ("__transaction_state-0", &["leader-epoch-checkpoint", ".index", ".timeindex"], SOME),
        ("__cluster_metadata-0", &["leader-epoch-checkpoint"], SOME),
    ];
    files.into_iter().flat_map(|(place, names, damages)| names.iter().map(move |name| (place, *name, damages)))
}

/// Returns the paths in a data folder of the files with a name. A suffix has two: the first and the last one.
pub(super) fn named(data: &Path, place: &str, name: &str) -> Vec<PathBuf> {
    let is_named = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file == name || (file.starts_with('0') && name.starts_with('.') && file.ends_with(name))
    };
    let all = files(&data.join(place)).into_iter().filter(is_named);
    let mut found: Vec<PathBuf> = all.map(|path| path.strip_prefix(data).expect("below").to_owned()).collect();
    if found.len() > 2 {
        found.drain(1..found.len() - 1);
    }
    found
}

/// What is promised for a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Clients see what they would without damage.
    Same,
    /// They do, in a new leader epoch.
    NextEpoch,
    /// The log starts where it did before, so that deleted records are there again, and a line says so.
    OlderStart,
    /// The start ends with an error.
    Refused,
    /// The partition is not served, and an error says what to do.
    Offline,
    /// The same if the file still has an id. If not, it is [`Self::Same`].
    MayBeOffline,
}

impl Damage {
    /// Returns the file's content after the damage, `Some(None)` if it is gone; `None` if nothing changes.
    pub(super) fn apply(self, fixture: &Fixture, ended: &Ended, file: &Path) -> Option<Option<Vec<u8>>> {
        let mut bytes = fs::read(ended.folder.join(file)).expect("a file");
        let (sound, len) = (bytes.clone(), bytes.len());
        match self {
            Deleted => return Some(None),
            Emptied => bytes.clear(),
            Halved => bytes.truncate(len / 2),
            Cut => bytes.truncate(len.saturating_sub(1)),
            Longer => bytes.extend([0xa5; 37]),
            Stale => bytes = before(&fixture.stale(), file)?,
            Foreign => bytes = fs::read(fixture.foreign(&ended.folder, file)).ok()?,
            Flipped(place, bit) => *bytes.get_mut((len * place / 16).min(len.saturating_sub(1)))? ^= 1 << bit,
        }
        (bytes != sound).then_some(Some(bytes))
    }

    /// Returns what is promised when this happens to a file.
    pub(super) fn promise(self, file: &Path, is_clean: bool) -> Promise {
        match (file.file_name().and_then(|name| name.to_str()).unwrap_or_default(), self) {
            // The first byte makes the line with the checksum a comment.
            ("meta.properties", Flipped(0, _)) => Promise::Same,
            ("meta.properties", _) => Promise::Refused,
            ("partition.metadata", Foreign) => Promise::Offline,
            ("partition.metadata", Flipped(..)) => Promise::MayBeOffline,
            ("log-start-offset-checkpoint", Stale | Foreign) => Promise::OlderStart,
            (".kafka_cleanshutdown", Deleted) if is_clean => Promise::NextEpoch,
            _ => Promise::Same,
        }
    }
}

/// Returns a file as it was before, or the newest of its kind.
fn before(stale: &Path, file: &Path) -> Option<Vec<u8>> {
    fs::read(stale.join(file)).ok().or_else(|| {
        let suffix = format!(".{}", file.extension()?.to_str()?);
        let newest = named(stale, file.parent()?.to_str()?, &suffix).pop()?;
        fs::read(stale.join(newest)).ok()
    })
}
