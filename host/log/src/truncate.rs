//! Truncates a log (of a follower that diverged), restarts it at another offset (of a follower that the leader's start
//! has left behind), and rebuilds the producers' state.

use std::sync::Arc;

use crate::error::LogError;
use crate::fsutil::{remove_if_there, segment_file, sync_dir};
use crate::log::Log;
use crate::producer_snapshot::{self, SNAPSHOT_SUFFIX};
use crate::producer_state::Producers;
use crate::recovery::list;
use crate::segment::Segment;
use crate::transaction_index::AbortedTransaction;

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
        self.reload_producers(list(self.dir())?.snapshots, i64::MAX)?;
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

    /// Rebuilds the producers' state as of the log's end from the newest undamaged snapshot and the batches after it.
    /// As in Kafka, older snapshots stay where a segment starts, for a truncation. Those of earlier shutdowns are
    /// removed.
    ///
    /// The indexes of aborted transactions are made again for markers from `transactions_from` on.
    pub(crate) fn reload_producers(&mut self, mut snapshots: Vec<i64>, transactions_from: i64) -> Result<(), LogError> {
        let log_end_offset = self.log_end_offset();
        let newest = log_end_offset.min(transactions_from);
        snapshots.sort_unstable_by(|a, b| b.cmp(a));
        let (mut producers, mut from) = (Producers::default(), 0);
        self.snapshot_offset = None;
        for offset in snapshots {
            let path = segment_file(self.dir(), offset, SNAPSHOT_SUFFIX);
            let is_kept = offset <= log_end_offset && self.is_segment_base(offset);
            if is_kept && (self.snapshot_offset.is_some() || offset > newest) {
                continue;
            }
            if self.snapshot_offset.is_none() && offset <= newest {
                let bytes = std::fs::read(&path).map_err(LogError::io("cannot read", &path))?;
                if let Some(loaded) = producer_snapshot::decode(&bytes) {
                    (producers, from) = (loaded, offset);
                    self.snapshot_offset = Some(offset);
                    continue;
                }
                tracing::warn!(snapshot = %path.display(), "a damaged producer snapshot is removed");
            }
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
        if from < log_end_offset {
            self.clear_transactions(transactions_from)?;
            let mut aborted = Vec::new();
            self.for_each_with_marker(from, |batch, marker| {
                aborted.extend(producers.update(&batch.header, marker));
                Ok(())
            })?;
            self.add_transactions(aborted.into_iter().filter(|found| found.last_offset >= transactions_from))?;
        }
        self.producers = producers;
        Ok(())
    }

    /// Removes the markers from `offset` on from the indexes of aborted transactions.
    fn clear_transactions(&mut self, offset: i64) -> Result<(), LogError> {
        if offset >= self.log_end_offset() {
            return Ok(());
        }
        let segments = {
            let list = self.shared().list.read();
            list.segments[list.segment_of(offset)..].to_vec()
        };
        for segment in segments {
            let index = segment.transactions();
            if index.truncate(offset).map_err(LogError::io("cannot truncate", &index.path()))? {
                self.unsynced.note_transactions(&segment);
            }
        }
        Ok(())
    }

    /// Adds aborted transactions to the indexes of the segments that have their markers.
    fn add_transactions(&mut self, aborted: impl Iterator<Item = AbortedTransaction>) -> Result<(), LogError> {
        for found in aborted {
            let segment = {
                let list = self.shared().list.read();
                Arc::clone(&list.segments[list.segment_of(found.last_offset)])
            };
            let index = segment.transactions();
            index.append(&found).map_err(LogError::io("cannot append to", &index.path()))?;
            self.unsynced.note_transactions(&segment);
        }
        Ok(())
    }

    fn is_segment_base(&self, offset: i64) -> bool {
        let list = self.shared().list.read();
        list.segments.binary_search_by_key(&offset, |segment| segment.base_offset()).is_ok()
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
