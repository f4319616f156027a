//! Lists the folder of a log.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::checksums::CHECKSUM_FILE;
use crate::compaction::SWAP;
use crate::error::LogError;
use crate::fsutil::parse_segment_file;
use crate::producer_snapshot::SNAPSHOT_SUFFIX;
use crate::transaction_index::TRANSACTION_INDEX_SUFFIX;

/// Suffixes of files that were being written or removed, by this program or by Apache Kafka.
const LEFTOVERS: [&str; 4] = [".tmp", ".deleted", ".cleaned", SWAP];

/// The content of a folder.
pub(crate) struct Listing {
    /// The segments by base offset, with the sizes of their log files.
    pub(super) sizes: BTreeMap<i64, u64>,
    /// The offsets of the producer snapshots.
    pub(crate) snapshots: Vec<i64>,
    /// The sizes of the indexes of aborted transactions, by base offset.
    pub(super) transactions: BTreeMap<i64, u64>,
    /// Whether there is a list of checksums.
    pub(super) has_checksums: bool,
    /// Whether a compaction was interrupted while a copy took the place of its sources.
    pub(super) has_swaps: bool,
    /// Temporary files, and indexes without a segment.
    pub(super) leftovers: Vec<PathBuf>,
}

/// Lists a folder.
pub(crate) fn list(dir: &Path) -> Result<Listing, LogError> {
    let list_error = LogError::io("cannot list", dir);
    let (mut sizes, mut snapshots, mut transactions) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    let (mut others, mut has_checksums, mut has_swaps) = (Vec::new(), false, false);
    let entries: Result<Vec<_>, _> = fs::read_dir(dir).and_then(Iterator::collect);
    for entry in entries.map_err(list_error)? {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            continue;
        };
        match parse_segment_file(name) {
            Some((base, "log")) => {
                sizes.insert(base, size_of(&entry)?);
            }
            Some((base, TRANSACTION_INDEX_SUFFIX)) => {
                transactions.insert(base, size_of(&entry)?);
                others.push((Some(base), entry.path()));
            }
            Some((offset, SNAPSHOT_SUFFIX)) => snapshots.push(offset),
            Some((base, "index" | "timeindex")) => others.push((Some(base), entry.path())),
            None if name == CHECKSUM_FILE => has_checksums = true,
            _ if LEFTOVERS.iter().any(|suffix| name.ends_with(suffix)) => {
                has_swaps |= name.ends_with(SWAP);
                others.push((None, entry.path()));
            }
            _ => {}
        }
    }
    let is_leftover = |base: Option<i64>| base.is_none_or(|base| !sizes.contains_key(&base));
    let leftovers = others.into_iter().filter(|(base, _)| is_leftover(*base)).map(|(_, path)| path).collect();
    Ok(Listing { sizes, snapshots, transactions, has_checksums, has_swaps, leftovers })
}

fn size_of(entry: &fs::DirEntry) -> Result<u64, LogError> {
    Ok(entry.metadata().map_err(LogError::io("cannot stat", &entry.path()))?.len())
}
