//! Rebuilds what follows from the batches of a log: the producers' state, and the indexes of aborted transactions.
//!
//! It has two parts. The first only reads, and may find damage: then no file has been changed. The second changes
//! files, and fails only with the disk.

use std::path::PathBuf;

use crate::checksums::Checksums;
use crate::error::LogError;
use crate::fsutil::{remove_if_there, segment_file};
use crate::log::Log;
use crate::producer_snapshot::{self, SNAPSHOT_SUFFIX};
use crate::producer_state::Producers;
use crate::transaction_index::AbortedTransaction;

/// From where on the indexes of aborted transactions are made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaleTransactions {
    /// The entries of markers at or above this offset are made again.
    pub(crate) from: i64,
    /// The start of the first segment with a damaged index. From there on the files are replaced as a whole.
    pub(crate) damaged: i64,
}

impl StaleTransactions {
    /// All indexes are as they should be.
    pub(crate) const NONE: Self = Self { from: i64::MAX, damaged: i64::MAX };

    /// Returns the lowest offset of a marker whose entry is made again.
    fn first(&self) -> i64 {
        self.from.min(self.damaged)
    }
}

/// What follows from the batches of a log.
pub(crate) struct Reloaded {
    producers: Producers,
    /// The snapshot that the state was read from.
    snapshot_offset: Option<i64>,
    /// Snapshots that are not needed any more.
    removed: Vec<PathBuf>,
    stale: StaleTransactions,
    /// The transactions that the indexes have to get again.
    aborted: Vec<AbortedTransaction>,
}

impl Log {
    /// Reads the producers' state as of the log's end from the newest undamaged snapshot and the batches after it. As
    /// in Kafka, older snapshots stay where a segment starts, for a truncation. Those of earlier shutdowns will be
    /// removed. Changes no file.
    pub(crate) fn reload(
        &self,
        mut snapshots: Vec<i64>,
        checksums: &Checksums,
        stale: StaleTransactions,
    ) -> Result<Reloaded, LogError> {
        let log_end_offset = self.log_end_offset();
        let newest = log_end_offset.min(stale.first());
        snapshots.sort_unstable_by(|a, b| b.cmp(a));
        let (mut producers, mut snapshot_offset, mut removed) = (Producers::default(), None, Vec::new());
        for offset in snapshots {
            let path = segment_file(self.dir(), offset, SNAPSHOT_SUFFIX);
            let is_kept = offset <= log_end_offset && self.is_segment_base(offset);
            if is_kept && (snapshot_offset.is_some() || offset > newest) {
                continue;
            }
            if snapshot_offset.is_none() && offset <= newest {
                let bytes = std::fs::read(&path).map_err(LogError::io("cannot read", &path))?;
                if let Some(loaded) = producer_snapshot::decode(&bytes)
                    && checksums.match_file(offset, SNAPSHOT_SUFFIX, &bytes)
                {
                    (producers, snapshot_offset) = (loaded, Some(offset));
                    continue;
                }
                tracing::warn!(snapshot = %path.display(), "a damaged producer snapshot is removed");
            }
            removed.push(path);
        }
        let from = snapshot_offset.unwrap_or(0);
        let mut aborted = Vec::new();
        if from < log_end_offset {
            self.for_each_with_marker(from, |batch, marker| {
                aborted.extend(producers.update(&batch.header, marker));
                Ok(())
            })?;
            aborted.retain(|found| found.last_offset >= stale.first());
        }
        Ok(Reloaded { producers, snapshot_offset, removed, stale, aborted })
    }

    /// Takes the state over, removes the snapshots that are not needed any more, and makes the indexes of aborted
    /// transactions again.
    pub(crate) fn install_reloaded(&mut self, reloaded: Reloaded) -> Result<(), LogError> {
        let Reloaded { producers, snapshot_offset, removed, stale, aborted } = reloaded;
        for path in removed {
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
        let segments = self.shared().list.read().segments.clone();
        let mut made_again = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let end = segments.get(at + 1).map_or(i64::MAX, |next| next.base_offset());
            if end <= stale.first() {
                continue;
            }
            let is_in = |found: &&AbortedTransaction| (segment.base_offset()..end).contains(&found.last_offset);
            let found: Vec<AbortedTransaction> = aborted.iter().filter(is_in).copied().collect();
            let index = segment.transactions();
            let changed = match segment.base_offset() >= stale.damaged {
                true => index.restore(&found),
                false => index.restore_from(stale.from, &found),
            };
            if changed.map_err(LogError::io("cannot change", &index.path()))? {
                self.unsynced.note_transactions(segment);
                made_again.push(segment.base_offset());
            }
        }
        if !made_again.is_empty() && stale.damaged < i64::MAX {
            self.note_checksums(&made_again, None)?;
        }
        self.producers = producers;
        self.snapshot_offset = snapshot_offset;
        Ok(())
    }

    /// Returns from where on the indexes of aborted transactions are made again. After an unclean end that is where
    /// the batches are read again. The list of checksums says which others are not as they were.
    pub(crate) fn stale_transactions(
        &self,
        snapshots: &[i64],
        checksums: &Checksums,
        recovery_point: Option<i64>,
    ) -> Result<StaleTransactions, LogError> {
        let end = self.log_end_offset();
        let newest = snapshots.iter().copied().filter(|offset| *offset <= end).max();
        let segments = self.shared().list.read().segments.clone();
        let Some(newest) = newest else {
            // All batches are read again.
            return Ok(StaleTransactions { from: 0, damaged: segments[0].base_offset() });
        };
        let from = recovery_point.map_or(i64::MAX, |recovery_point| recovery_point.min(newest));
        for (at, segment) in segments.iter().enumerate() {
            // An index that has got entries since the list was written is sound if those are the ones to make again.
            let fresh_from = if at + 1 == segments.len() { from } else { i64::MAX };
            let index = segment.transactions();
            let is_sound = index.is_sound(checksums, fresh_from).map_err(LogError::io("cannot read", &index.path()))?;
            if !is_sound {
                tracing::warn!(index = %index.path().display(), "a damaged transaction index is made again");
                return Ok(StaleTransactions { from, damaged: segment.base_offset() });
            }
        }
        Ok(StaleTransactions { from, damaged: i64::MAX })
    }

    fn is_segment_base(&self, offset: i64) -> bool {
        let list = self.shared().list.read();
        list.segments.binary_search_by_key(&offset, |segment| segment.base_offset()).is_ok()
    }
}
