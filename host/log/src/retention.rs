//! Deletes old records: retention by time and size, and DeleteRecords. Whole segments are removed, oldest first.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::LogError;
use crate::log::Log;
use crate::segment::Segment;

/// The most milliseconds by which a record's timestamp may be ahead of the broker's clock. A later one is ignored:
/// otherwise one bad clock would keep a segment for ever. Kafka's limit for accepting timestamps is of the same order.
const FUTURE_TOLERANCE_MS: i64 = 60 * 60 * 1000;

impl Log {
    /// Deletes segments beyond `retention.ms` and `retention.bytes`, and those below the log's start. Returns their
    /// number. Nothing at or above `high_watermark` is touched. If the active segment has to be deleted, it is rolled
    /// first.
    pub fn apply_retention(&mut self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        self.check_not_poisoned()?;
        let segments = self.shared().list.read().segments.clone();
        let mut excess = match self.config.retention_bytes {
            Some(keep) if self.config.cleanup_policy.delete => self.size().saturating_sub(keep),
            _ => 0,
        };
        let mut doomed = 0;
        for (at, segment) in segments.iter().enumerate() {
            let end_offset = segments.get(at + 1).map_or(self.log_end_offset(), |next| next.base_offset());
            let (size, is_active) = (segment.size(), at + 1 == segments.len());
            let too_much = excess >= size && excess > 0;
            let useless = end_offset <= self.log_start_offset() && !is_active;
            // Compaction may have emptied it.
            let counts = size > 0 || !is_active;
            let goes = useless || (counts && (too_much || self.is_expired(segment, now_ms)?));
            if end_offset > high_watermark || !goes {
                break;
            }
            excess = excess.saturating_sub(size);
            doomed += 1;
        }
        if doomed == segments.len() {
            self.roll(self.log_end_offset())?;
        }
        self.delete_first(doomed)?;
        Ok(doomed)
    }

    fn is_expired(&self, segment: &Segment, now_ms: i64) -> Result<bool, LogError> {
        let Some(retention_ms) = self.config.retention_ms.filter(|_| self.config.cleanup_policy.delete) else {
            return Ok(false);
        };
        let newest = segment.newest()?.timestamp;
        let believed = newest >= 0 && newest <= now_ms.saturating_add(FUTURE_TOLERANCE_MS);
        let newest = if believed { newest } else { segment.modified_ms()? };
        Ok(now_ms.saturating_sub(newest) > retention_ms)
    }

    /// Moves the log's start up to `offset` (DeleteRecords), deletes the segments below it, and returns the new start.
    /// The caller stores it in the log-start-offset checkpoint. An offset beyond the end is lowered to the end.
    pub fn delete_records(&mut self, offset: i64) -> Result<i64, LogError> {
        self.check_not_poisoned()?;
        let start = offset.min(self.log_end_offset());
        self.advance_start(start);
        let doomed = {
            let list = self.shared().list.read();
            let below = |pair: &&[Arc<Segment>]| pair[1].base_offset() <= list.log_start_offset;
            list.segments.windows(2).take_while(below).count()
        };
        self.delete_first(doomed)?;
        Ok(self.log_start_offset())
    }

    fn advance_start(&mut self, offset: i64) {
        let mut list = self.shared().list.write();
        if offset > list.log_start_offset {
            list.log_start_offset = offset;
            drop(list);
            self.forget_epochs_below(offset);
        }
    }

    fn forget_epochs_below(&mut self, offset: i64) {
        if self.epochs.truncate_from_start(offset) {
            self.unsynced.epochs = true;
        }
    }

    /// Deletes the oldest `count` segments. Readers that hold one keep reading it.
    fn delete_first(&mut self, count: usize) -> Result<(), LogError> {
        if count == 0 {
            return Ok(());
        }
        // A reader must never see segments gone while the old start still holds: it would skip records in silence.
        let (doomed, start) = {
            let mut list = self.shared().list.write();
            let doomed: Vec<Arc<Segment>> = list.segments.drain(..count).collect();
            list.log_start_offset = list.log_start_offset.max(list.segments[0].base_offset());
            (doomed, list.segments[0].base_offset())
        };
        self.forget_epochs_below(start);
        self.unsynced.deleted_below(start);
        for segment in doomed {
            self.deleted_files.extend(segment.set_aside()?);
        }
        Ok(())
    }

    /// Returns the files of deleted segments, which the caller removes once readers have ended. To remove a large file
    /// takes long, and needs no lock.
    pub fn take_deleted_files(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.deleted_files)
    }
}
