//! Truncates a log (of a follower that diverged), and restarts it at another offset (of a follower that the leader's
//! start has left behind).

use std::sync::Arc;

use crate::checksums::Checksums;
use crate::error::LogError;
use crate::fsutil::{remove_if_there, segment_file, sync_dir};
use crate::log::Log;
use crate::producer_snapshot::SNAPSHOT_SUFFIX;
use crate::producer_state::Producers;
use crate::recovery::list;
use crate::reload::StaleTransactions;
use crate::segment::Segment;

/// The bytes of log that are searched for the batches that a producer had in flight.
const WINDOW_SEARCH_BYTES: u64 = 64 * 1024 * 1024;

impl Log {
    /// Removes every batch that reaches `offset` or lies beyond it. Returns the new end, at or below `offset`.
    ///
    /// The caller first lowers the recovery-point checkpoint to `offset` durably. Otherwise a crash between the two
    /// looks like a log that has lost durable records. No lock-free reader may be reading beyond `offset`, which the
    /// high watermark ensures.
    pub fn truncate_to(&mut self, offset: i64) -> Result<i64, LogError> {
        self.check_not_poisoned()?;
        let end = self.log_end_offset();
        if offset >= end {
            // An epoch that was assigned and has no record goes all the same, as in Kafka.
            if self.epochs.truncate_from_end(end) {
                self.unsynced.epochs = true;
            }
            return Ok(end);
        }
        let checksums = Checksums::read(self.dir());
        self.forget_checksums()?;
        let (keep, removed) = {
            let list = self.shared().list.read();
            let keep = list.segment_of(offset);
            (Arc::clone(&list.segments[keep]), list.segments[keep + 1..].to_vec())
        };
        let cut = keep.locate(offset)?;
        let end = match cut {
            Some(batch) => batch.header.base_offset,
            None => offset,
        };
        let size = cut.map_or(keep.size(), |batch| batch.position);
        {
            let mut list = self.shared().list.write();
            list.segments.retain(|segment| segment.base_offset() <= keep.base_offset());
            list.log_end_offset = end;
            list.log_start_offset = list.log_start_offset.min(end);
            keep.set_size(size);
        }
        self.unsynced.truncated(end, &keep);
        self.first_dirty = self.first_dirty.min(end);
        let open = keep.open()?;
        open.file.set_len(size).map_err(LogError::io("cannot truncate", &keep.path()))?;
        self.unsynced.note(&keep, &open.file);
        keep.rebuild()?;
        let index = keep.transactions();
        if index.truncate(end).map_err(LogError::io("cannot truncate", &index.path()))? {
            self.unsynced.note_transactions(&keep);
        }
        for segment in removed {
            segment.delete()?;
        }
        if self.epochs.truncate_from_end(end) {
            self.unsynced.epochs = true;
        }
        let earlier = self.producers.transactions.clone();
        let reloaded = self.reload(list(self.dir())?.snapshots, &checksums, StaleTransactions::NONE)?;
        self.install_reloaded(reloaded)?;
        self.producers.transactions.keep_uncommitted(&earlier, end);
        Ok(end)
    }

    /// Removes every batch, and continues at `offset`: Kafka's `truncateFullyAndStartAt`. Epochs and producers are
    /// forgotten with the batches. Blocks for the disk.
    ///
    /// The caller first lowers the recovery-point checkpoint to 0 durably, as before [`Self::truncate_to`]. A crash in
    /// between leaves the newest batches, or an empty log.
    pub fn restart_at(&mut self, offset: i64) -> Result<(), LogError> {
        self.check_not_poisoned()?;
        self.forget_checksums()?;
        let old = {
            let mut list = self.shared().list.write();
            (list.log_start_offset, list.log_end_offset) = (offset, offset);
            list.segments.clone()
        };
        for segment in &old {
            segment.delete()?;
        }
        for snapshot in list(self.dir())?.snapshots {
            let path = segment_file(self.dir(), snapshot, SNAPSHOT_SUFFIX);
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
        self.snapshot_offset = None;
        let first = Arc::new(Segment::create(&self.shared().dir, offset, &self.config, &self.files)?);
        self.shared().list.write().segments = vec![first];
        sync_dir(self.dir()).map_err(LogError::io("cannot fsync", self.dir()))?;
        self.unsynced.restarted(offset);
        self.first_dirty = 0;
        self.producers = Producers::default();
        self.epochs.clear();
        Ok(())
    }

    /// Finds the batches of a producer's window that its snapshot does not have. After a restart a producer may resend
    /// all that it had in flight, and the log may hold more of that than the last batch. Returns whether there was
    /// anything to find.
    ///
    /// This is done once for each producer, and only when a sequence does not fit, so that a start does not wait for
    /// it.
    pub(crate) fn complete_window(&mut self, producer_id: i64) -> Result<bool, LogError> {
        let Some(below) = self.producers.missing_below(producer_id) else {
            return Ok(false);
        };
        let mut older = Vec::new();
        self.for_each_batch(self.offset_before(below, WINDOW_SEARCH_BYTES)?, below, |header| {
            if header.producer_id == producer_id && !header.is_control() {
                older.push(*header);
            }
        })?;
        self.producers.complete(producer_id, &older);
        Ok(true)
    }

    /// Returns an offset about `bytes` before another.
    fn offset_before(&self, offset: i64, bytes: u64) -> Result<i64, LogError> {
        let list = self.shared().list.read();
        let at = list.segment_of(offset);
        let mut left = bytes;
        for segment in list.segments[..=at].iter().rev() {
            let end = segment.locate(offset)?.map_or(segment.size(), |batch| batch.position);
            if end > left {
                return segment.offset_at(end - left);
            }
            left -= end;
        }
        Ok(list.log_start_offset)
    }

    /// Visits the header of each batch that starts at or after `from` and below `to`.
    pub(crate) fn for_each_batch(
        &self,
        from: i64,
        to: i64,
        mut visit: impl FnMut(&crate::batch_walk::BatchHeader),
    ) -> Result<(), LogError> {
        let segments: Vec<Arc<Segment>> = {
            let list = self.shared().list.read();
            let first = list.segment_of(from);
            list.segments[first..].iter().take_while(|segment| segment.base_offset() < to).cloned().collect()
        };
        for segment in segments {
            segment.for_each_in(from..to, |batch| {
                visit(&batch.header);
                Ok(())
            })?;
        }
        Ok(())
    }
}
