//! Reads the leader epochs of a log, and makes them again from the batches if they do not fit.

use std::io;
use std::sync::Arc;

use crate::batch_walk::BatchHeader;
use crate::checkpoint::CheckpointError;
use crate::error::LogError;
use crate::leader_epochs::{EPOCH_FILE, EpochCache};
use crate::log::Log;

impl Log {
    /// Reads the leader epochs. Rebuilds them from the batches if the file is missing, damaged or contradicts them.
    /// `last_epoch` is that of the last batch after a clean stop. The file may be older, because it is not synced.
    pub(super) fn load_epochs(&mut self, last_epoch: Option<i32>) -> Result<(), LogError> {
        let (start, end) = (self.log_start_offset(), self.log_end_offset());
        self.epochs = match EpochCache::read(self.dir()) {
            Ok(epochs) if start == end || self.agrees(&epochs, last_epoch)? => epochs,
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && start == end => {
                EpochCache::default()
            }
            read => {
                let made = self.epochs_of_batches()?;
                self.report_epochs(read, &made, last_epoch.is_some());
                self.unsynced.epochs = true;
                made
            }
        };
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(start);
        Ok(())
    }

    /// Returns the leader epochs of the batches. The first one starts with the log.
    fn epochs_of_batches(&self) -> Result<EpochCache, LogError> {
        let start = self.log_start_offset();
        let first = self.batch_at(start)?.map_or(start, |batch| batch.base_offset.min(start));
        let mut epochs = EpochCache::default();
        self.for_each_batch(first, i64::MAX, |header| {
            let from = if epochs.entries().is_empty() { start } else { header.base_offset };
            epochs.assign(header.leader_epoch, from);
        })?;
        Ok(epochs)
    }

    /// Says why the leader epochs were made again. After a crash the file may be older than the log.
    fn report_epochs(&self, read: Result<EpochCache, CheckpointError>, made: &EpochCache, after_clean_stop: bool) {
        let first = |epochs: &EpochCache| epochs.entries().first().map(|entry| entry.start_offset);
        let (file, start) = (self.dir().join(EPOCH_FILE), self.log_start_offset());
        let reason = match read {
            Err(error) => return tracing::warn!(%error, "the leader epochs are made again from the log"),
            Ok(found) if first(&found) > first(made) => format!(
                "they start at offset {}, the log at {start}: if log-start-offset-checkpoint is an old copy, deleted \
                 records are there again, and kafka-delete-records removes them",
                first(&found).unwrap_or_default(),
            ),
            Ok(_) => "they do not fit the batches".to_owned(),
        };
        // A follower learns its start from its leader, and writes it a moment later.
        match after_clean_stop {
            true => tracing::warn!(file = %file.display(), "the leader epochs are made again from the log: {reason}"),
            false => tracing::info!(file = %file.display(), "the leader epochs are made again from the log: {reason}"),
        }
    }

    /// Returns whether each epoch starts where the log changes to it, and the last one is that of the last batch.
    fn agrees(&self, epochs: &EpochCache, last_epoch: Option<i32>) -> Result<bool, LogError> {
        let (start, end) = (self.log_start_offset(), self.log_end_offset());
        let mut before = None;
        for entry in epochs.entries().iter().filter(|entry| entry.start_offset < end) {
            if entry.start_offset > start {
                let first = self.batch_at(entry.start_offset)?;
                // Compaction may have removed all records of the epoch: then they are of a later one.
                let starts = first.is_none_or(|first| {
                    let expected = epochs.epoch_of(first.base_offset);
                    Some(first.leader_epoch) == expected && first.base_offset >= entry.start_offset
                });
                let last = self.batch_at(entry.start_offset - 1)?;
                let ends =
                    last.is_none_or(|last| Some(last.leader_epoch) == before || last.base_offset >= entry.start_offset);
                if !starts || !ends {
                    return Ok(false);
                }
            }
            before = Some(entry.epoch);
        }
        let last_epoch = match last_epoch {
            None if end > start => self.batch_at(end - 1)?.map(|last| last.leader_epoch),
            known => known,
        };
        Ok(last_epoch.is_none_or(|last| Some(last) == before))
    }

    fn batch_at(&self, offset: i64) -> Result<Option<BatchHeader>, LogError> {
        let segment = {
            let list = self.shared().list.read();
            Arc::clone(&list.segments[list.segment_of(offset)])
        };
        Ok(segment.locate(offset)?.map(|batch| batch.header))
    }
}
