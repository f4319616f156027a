//! Checksums of the files that follow from a log, in a file beside them: `file-checksums`.
//!
//! ```text
//! 0
//! 2
//! 00000000000000000000.txnindex 68 1a2b3c4d
//! 00000000000000001000.snapshot 102 5e6f7081
//! ```
//!
//! The fields are a file, its bytes, and its CRC-32C. Kafka's formats do not say whether an index of aborted
//! transactions is missing, too old or that of another partition, and readers would take aborted records for committed
//! ones. So a start compares these files with the list, and makes those that differ again from the log.
//!
//! The list is written with each producer snapshot: when a segment is closed, and at a clean stop. It names all indexes
//! of aborted transactions and all snapshots of that time. Damage to the list itself costs time and loses nothing. A
//! folder of Kafka has none, and then the files are trusted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crc_fast::crc32_iscsi;

use crate::checkpoint::{CheckpointError, parse_lines};
use crate::error::LogError;
use crate::fsutil::{parse_segment_file, remove_if_there, segment_file, write_cache};
use crate::log::Log;
use crate::producer_snapshot::SNAPSHOT_SUFFIX;
use crate::recovery::list;
use crate::transaction_index::TRANSACTION_INDEX_SUFFIX;

/// The name of the file in a partition's folder.
pub(crate) const CHECKSUM_FILE: &str = "file-checksums";

/// The bytes of a file and their CRC-32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum {
    len: u64,
    crc: u32,
}

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, crc: crc32_iscsi(bytes) }
    }
}

/// The checksums of files by base offset and suffix. `None` without a list that can be read.
#[derive(Debug, Default)]
pub(crate) struct Checksums(Option<BTreeMap<(i64, String), Checksum>>);

impl Checksums {
    /// Reads the list of a folder.
    pub(crate) fn read(dir: &Path) -> Self {
        match Self::parse(dir) {
            Ok(files) => Self(Some(files)),
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self(None),
            Err(error) => {
                tracing::warn!(%error, "the checksums of files are made again");
                Self(None)
            }
        }
    }

    fn parse(dir: &Path) -> Result<BTreeMap<(i64, String), Checksum>, CheckpointError> {
        let mut files = BTreeMap::new();
        for fields in parse_lines::<3>(&dir.join(CHECKSUM_FILE))? {
            let file = parse_segment_file(fields.text(0)).map(|(offset, suffix)| (offset, suffix.to_owned()));
            let crc = u32::from_str_radix(fields.text(2), 16).map_err(|_| fields.bad("the last field is no CRC"))?;
            let file = file.ok_or_else(|| fields.bad("the first field is no file of a segment"))?;
            files.insert(file, Checksum { len: fields.number(1)?, crc });
        }
        Ok(files)
    }

    /// Returns whether a file is as it was when the list was written. Empty bytes stand for a file that is missing.
    pub(crate) fn match_file(&self, offset: i64, suffix: &str, bytes: &[u8]) -> bool {
        let Some(files) = &self.0 else { return true };
        match files.get(&(offset, suffix.to_owned())) {
            Some(listed) => *listed == Checksum::of(bytes),
            None => bytes.is_empty(),
        }
    }

    /// Returns the bytes that a file had when the list was written, 0 if it was missing; `None` without a list.
    pub(crate) fn len_of(&self, offset: i64, suffix: &str) -> Option<u64> {
        let files = self.0.as_ref()?;
        Some(files.get(&(offset, suffix.to_owned())).map_or(0, |file| file.len))
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let files = self.0.iter().flatten();
        let mut text = format!("0\n{}\n", files.clone().count());
        for ((offset, suffix), Checksum { len, crc }) in files {
            text.push_str(&format!("{offset:020}.{suffix} {len} {crc:08x}\n"));
        }
        write_cache(&dir.join(CHECKSUM_FILE), text.as_bytes())
    }
}

impl Log {
    /// Removes the list before indexes change in other ways than by appends. A crash then leaves none, and not a wrong
    /// one.
    pub(crate) fn forget_checksums(&self) -> Result<(), LogError> {
        let path = self.dir().join(CHECKSUM_FILE);
        remove_if_there(&path).map_err(LogError::io("cannot remove", &path))
    }

    /// Brings the list up to date with the indexes of aborted transactions of these segments, and with a snapshot that
    /// is about to be written.
    pub(crate) fn note_checksums(&self, segments: &[i64], snapshot: Option<(i64, &[u8])>) -> Result<(), LogError> {
        let dir = self.dir();
        let bases: Vec<i64> = self.shared().list.read().segments.iter().map(|segment| segment.base_offset()).collect();
        let snapshots = list(dir)?.snapshots;
        let Checksums(known) = Checksums::read(dir);
        let is_known = known.is_some();
        let mut files = known.unwrap_or_default();
        files.retain(|(offset, suffix), _| match suffix == SNAPSHOT_SUFFIX {
            true => snapshots.contains(offset),
            false => bases.binary_search(offset).is_ok(),
        });
        // A new list has all files that are there.
        let changed = if is_known { segments } else { &bases };
        let indexes = changed.iter().map(|base_offset| (*base_offset, TRANSACTION_INDEX_SUFFIX));
        let old = snapshots.iter().filter(|_| !is_known).map(|offset| (*offset, SNAPSHOT_SUFFIX));
        for (offset, suffix) in indexes.chain(old) {
            let (file, path) = ((offset, suffix.to_owned()), segment_file(dir, offset, suffix));
            match std::fs::read(&path) {
                Ok(bytes) if !bytes.is_empty() => drop(files.insert(file, Checksum::of(&bytes))),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("cannot read", &path)(error));
                }
                _ => drop(files.remove(&file)),
            }
        }
        if let Some((offset, bytes)) = snapshot {
            files.insert((offset, SNAPSHOT_SUFFIX.to_owned()), Checksum::of(bytes));
        }
        Checksums(Some(files)).write(dir).map_err(LogError::io("cannot write", &dir.join(CHECKSUM_FILE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_makes_a_round_trip_and_finds_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Checksums::read(dir.path()).match_file(0, "txnindex", b"anything"), "without a list all is trusted");
        let files =
            [((0, "txnindex".to_owned()), Checksum::of(b"index")), ((7, "snapshot".to_owned()), Checksum::of(b"7"))];
        Checksums(Some(BTreeMap::from(files))).write(dir.path()).unwrap();
        let read = Checksums::read(dir.path());
        assert!(read.match_file(0, "txnindex", b"index") && read.match_file(7, "snapshot", b"7"));
        assert!(read.match_file(7, "txnindex", b""), "it had no such file");
        for (offset, suffix, bytes) in [(0, "txnindex", &b""[..]), (0, "txnindex", b"Index"), (7, "txnindex", b"index")]
        {
            assert!(!read.match_file(offset, suffix, bytes), "{offset}.{suffix}");
        }
        for text in ["0\n1\nnotes 1 00000000\n", "0\n1\n00000000000000000000.snapshot 1 x\n", "0\n2\n"] {
            std::fs::write(dir.path().join(CHECKSUM_FILE), text).unwrap();
            assert!(Checksums::read(dir.path()).0.is_none(), "{text}");
        }
    }
}
