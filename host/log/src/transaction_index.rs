//! Kafka's `.txnindex`: the aborted transactions whose markers are in a segment, in the order of the markers.
//!
//! ```text
//! per transaction, 34 bytes: version i16 (0), producerId i64, firstOffset i64, lastOffset i64, lastStableOffset i64
//! ```
//!
//! `lastOffset` is that of the marker. `lastStableOffset` is where readers of committed records stopped after it: a
//! later transaction of the index cannot have records below it. A segment without aborted transactions has no file.
//!
//! Readers must never miss an entry, since they would take aborted records for committed ones. So a sync of the log
//! includes the index, and a recovery makes it again from the recovery point on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;

use crate::checksums::Checksums;
use crate::fsutil::{remove_if_there, segment_file, write_atomic};

/// Suffix of the file.
pub(crate) const TRANSACTION_INDEX_SUFFIX: &str = "txnindex";

const VERSION: i16 = 0;
/// The bytes of an entry.
pub(crate) const ENTRY_LEN: usize = 34;

/// The most entries that are read at once.
const READ_ENTRIES: u64 = 128;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// Where readers of committed records stopped after the marker.
    pub last_stable_offset: i64,
}

impl AbortedTransaction {
    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset];
        for (at, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            at.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Decodes an entry; `None` for another version.
    fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let (version, fields) = bytes.split_first_chunk::<2>()?;
        let (fields, _) = fields.as_chunks::<8>();
        let [producer_id, first_offset, last_offset, last_stable_offset] = *fields else { return None };
        (i16::from_be_bytes(*version) == VERSION).then(|| Self {
            producer_id: i64::from_be_bytes(producer_id),
            first_offset: i64::from_be_bytes(first_offset),
            last_offset: i64::from_be_bytes(last_offset),
            last_stable_offset: i64::from_be_bytes(last_stable_offset),
        })
    }
}

/// Returns the content of an index with these entries.
pub(crate) fn encode_all(entries: &[AbortedTransaction]) -> Vec<u8> {
    entries.iter().flat_map(AbortedTransaction::encode).collect()
}

/// The index of one segment. Readers do not need the lock of the writer.
#[derive(Debug)]
pub(crate) struct TransactionIndex {
    dir: Arc<Path>,
    base_offset: i64,
    /// The bytes that the file had when the log was opened.
    found: u64,
    entries: AtomicU64,
}

impl TransactionIndex {
    /// Returns the index whose file has `bytes` bytes; 0 without a file.
    pub(crate) fn new(dir: &Arc<Path>, base_offset: i64, bytes: u64) -> Self {
        Self { dir: Arc::clone(dir), base_offset, found: bytes, entries: AtomicU64::new(bytes / ENTRY_LEN as u64) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        segment_file(&self.dir, self.base_offset, TRANSACTION_INDEX_SUFFIX)
    }

    /// Returns the number of entries.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path())
    }

    /// Allocates room for entries, so that the disk cannot be full when they are appended.
    pub(crate) fn reserve(&self, entries: u64) -> io::Result<()> {
        let (at, len) = (self.entries() * ENTRY_LEN as u64, entries * ENTRY_LEN as u64);
        match rustix::fs::fallocate(self.open()?, FallocateFlags::KEEP_SIZE, at, len) {
            // A file system without reservations.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    /// Appends an entry, and shows it to readers.
    pub(crate) fn append(&self, entry: &AbortedTransaction) -> io::Result<()> {
        let entries = self.entries();
        self.open()?.write_all_at(&entry.encode(), entries * ENTRY_LEN as u64)?;
        self.entries.store(entries + 1, Ordering::Release);
        Ok(())
    }

    /// Removes the entries of markers at or above `offset`. Returns whether there were any.
    pub(crate) fn truncate(&self, offset: i64) -> io::Result<bool> {
        if self.entries() == 0 {
            return Ok(false);
        }
        let file = File::options().write(true).read(true).open(self.path())?;
        let keep = self.first_from(&file, offset)?;
        if keep == self.entries() {
            return Ok(false);
        }
        self.entries.store(keep, Ordering::Release);
        file.set_len(keep * ENTRY_LEN as u64)?;
        Ok(true)
    }

    /// Returns whether the file that was found is that of this segment: whole entries in the order of their markers,
    /// and those that the list of checksums has. Entries of markers at or above `fresh_from` may have followed.
    pub(crate) fn is_sound(&self, checksums: &Checksums, fresh_from: i64) -> io::Result<bool> {
        let listed = checksums.len_of(self.base_offset, TRANSACTION_INDEX_SUFFIX).unwrap_or(self.found);
        if self.found < listed || !self.found.is_multiple_of(ENTRY_LEN as u64) {
            return Ok(false);
        }
        if self.found == 0 {
            return Ok(true);
        }
        let bytes = std::fs::read(self.path())?;
        let (old, fresh) = bytes.split_at((listed as usize).min(bytes.len()));
        let mut last = self.base_offset - 1;
        let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
        let are_ordered = entries.iter().all(|bytes| {
            let entry = AbortedTransaction::decode(bytes);
            let before = entry.map_or(i64::MAX, |entry| std::mem::replace(&mut last, entry.last_offset));
            entry
                .is_some_and(|entry| entry.last_offset > before && (0..entry.last_offset).contains(&entry.first_offset))
        });
        let (fresh, _) = fresh.as_chunks::<ENTRY_LEN>();
        let first_fresh = fresh.first().and_then(AbortedTransaction::decode);
        let is_known = checksums.match_file(self.base_offset, TRANSACTION_INDEX_SUFFIX, old);
        Ok(are_ordered && is_known && first_fresh.is_none_or(|entry| entry.last_offset >= fresh_from))
    }

    /// Replaces all entries if they differ. Returns whether they did.
    pub(crate) fn restore(&self, entries: &[AbortedTransaction]) -> io::Result<bool> {
        let bytes = if self.found == 0 { Vec::new() } else { std::fs::read(self.path())? };
        let differs = bytes != encode_all(entries);
        if differs {
            self.replace(entries)?;
        }
        Ok(differs)
    }

    /// Replaces the entries of markers at or above `offset` if they differ. Returns whether they did.
    pub(crate) fn restore_from(&self, offset: i64, entries: &[AbortedTransaction]) -> io::Result<bool> {
        let mut known = Vec::new();
        if self.entries() > 0 {
            let file = File::open(self.path())?;
            self.visit(&file, self.first_from(&file, offset)?, |entry| {
                known.push(entry);
                true
            })?;
        }
        let differs = known != entries;
        if differs {
            self.truncate(offset)?;
            entries.iter().try_for_each(|entry| self.append(entry))?;
        }
        Ok(differs)
    }

    /// Replaces all entries. A crash leaves the old file or the new one: without a file its transactions would look
    /// like committed ones.
    pub(crate) fn replace(&self, entries: &[AbortedTransaction]) -> io::Result<()> {
        match entries {
            [] => remove_if_there(&self.path())?,
            entries => write_atomic(&self.path(), &encode_all(entries))?,
        }
        self.entries.store(entries.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Adds the transactions with a marker at or above `from` and a record below `to`. Returns whether later segments
    /// can have no more of them.
    pub(crate) fn collect(&self, from: i64, to: i64, found: &mut Vec<AbortedTransaction>) -> io::Result<bool> {
        if self.entries() == 0 {
            return Ok(false);
        }
        let file = File::open(self.path())?;
        let start = self.first_from(&file, from)?;
        let mut is_complete = false;
        self.visit(&file, start, |entry| {
            if entry.first_offset < to {
                found.push(entry);
            }
            is_complete = entry.last_stable_offset >= to;
            !is_complete
        })?;
        Ok(is_complete)
    }

    /// Returns the number of the first entry with a marker at or above an offset.
    fn first_from(&self, file: &File, offset: i64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.entries());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(file, middle)?.last_offset < offset { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn entry(&self, file: &File, number: u64) -> io::Result<AbortedTransaction> {
        let mut bytes = [0; ENTRY_LEN];
        file.read_exact_at(&mut bytes, number * ENTRY_LEN as u64)?;
        AbortedTransaction::decode(&bytes).ok_or_else(|| self.damaged(number))
    }

    /// Visits the entries from a number on, until `visit` returns false.
    fn visit(&self, file: &File, from: u64, mut visit: impl FnMut(AbortedTransaction) -> bool) -> io::Result<()> {
        let (mut number, entries) = (from, self.entries());
        let mut bytes = [[0; ENTRY_LEN]; READ_ENTRIES as usize];
        while number < entries {
            let chunk = &mut bytes[..(entries - number).min(READ_ENTRIES) as usize];
            file.read_exact_at(chunk.as_flattened_mut(), number * ENTRY_LEN as u64)?;
            for bytes in chunk {
                let entry = AbortedTransaction::decode(bytes).ok_or_else(|| self.damaged(number))?;
                if !visit(entry) {
                    return Ok(());
                }
                number += 1;
            }
        }
        Ok(())
    }

    fn damaged(&self, number: u64) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("entry {number} of the transaction index is damaged"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(producer_id: i64, first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset }
    }

    fn index(dir: &Path) -> TransactionIndex {
        let bytes = std::fs::metadata(dir.join("00000000000000000100.txnindex")).map_or(0, |file| file.len());
        TransactionIndex::new(&Arc::from(dir), 100, bytes)
    }

    fn collected(index: &TransactionIndex, from: i64, to: i64) -> (Vec<i64>, bool) {
        let mut found = Vec::new();
        let is_complete = index.collect(from, to, &mut found).unwrap();
        (found.iter().map(|entry| entry.producer_id).collect(), is_complete)
    }

    #[test]
    fn an_entry_is_kafkas() {
        let bytes = entry(1, 2, 3, 4).encode();
        let expected =
            [&[0, 0][..], &1i64.to_be_bytes(), &2i64.to_be_bytes(), &3i64.to_be_bytes(), &4i64.to_be_bytes()];
        assert_eq!(bytes[..], expected.concat());
        assert_eq!(AbortedTransaction::decode(&bytes), Some(entry(1, 2, 3, 4)));
    }

    #[test]
    fn transactions_are_found_by_marker_and_by_first_record() {
        let dir = tempfile::tempdir().unwrap();
        let new = index(dir.path());
        assert_eq!(collected(&new, 0, 1000), (vec![], false));
        assert!(new.is_sound(&Checksums::default(), i64::MAX).unwrap());
        for added in [entry(1, 90, 110, 105), entry(2, 105, 120, 121), entry(3, 130, 140, 141)] {
            new.reserve(1).unwrap();
            new.append(&added).unwrap();
        }
        for opened in [new, index(dir.path())] {
            assert_eq!(opened.entries(), 3);
            assert!(opened.is_sound(&Checksums::default(), i64::MAX).unwrap());
            assert_eq!(collected(&opened, 0, 1000), (vec![1, 2, 3], false));
            assert_eq!(collected(&opened, 110, 111), (vec![1, 2], true));
            assert_eq!(collected(&opened, 111, 130), (vec![2], true));
            assert_eq!(collected(&opened, 141, 150), (vec![], false));
        }
    }

    #[test]
    fn a_truncation_removes_later_markers() {
        let dir = tempfile::tempdir().unwrap();
        let index_ = index(dir.path());
        for number in 0..300 {
            index_.append(&entry(number, 100 + number * 2, 101 + number * 2, 102 + number * 2)).unwrap();
        }
        assert_eq!(collected(&index_, 0, 10_000).0, (0..300).collect::<Vec<_>>());
        assert!(index_.truncate(101 + 2 * 7).unwrap());
        assert!(!index_.truncate(101 + 2 * 7).unwrap());
        assert_eq!(collected(&index(dir.path()), 0, 10_000).0, (0..7).collect::<Vec<_>>());
        index_.replace(&[entry(7, 100, 101, 102)]).unwrap();
        assert_eq!(collected(&index(dir.path()), 0, 10_000).0, [7]);
        index_.replace(&[]).unwrap();
        assert_eq!((index_.entries(), index(dir.path()).entries()), (0, 0));
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let sound = index(dir.path());
        for number in 0..3 {
            sound.append(&entry(number, 100 + number * 2, 101 + number * 2, 102 + number * 2)).unwrap();
        }
        let bytes = std::fs::read(sound.path()).unwrap();
        let is_sound = |bytes: &[u8]| {
            std::fs::write(sound.path(), bytes).unwrap();
            index(dir.path()).is_sound(&Checksums::default(), i64::MAX).unwrap()
        };
        assert!(is_sound(&bytes));
        assert!(!is_sound(&bytes[..bytes.len() - 1]));
        for at in [1, 34 + 10, 34 + 18] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x80;
            assert!(!is_sound(&damaged), "byte {at}");
        }
    }
}
