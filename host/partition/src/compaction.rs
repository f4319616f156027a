//! Compaction of a partition's log, as a cleaner drives it.

use millstream_log::{CleaningPlan, Log, LogAccess};

use crate::error::PartitionError;
use crate::partition::Partition;

impl Partition {
    /// Returns what a pass over the log would do now. It stops at the last stable offset. Replicas that do not lead are
    /// compacted as well, each by itself.
    ///
    /// # Errors
    /// The disk failed, or the partition is offline, frozen or deleted.
    pub fn cleaning_plan(&self, now_ms: i64) -> Result<Option<CleaningPlan>, PartitionError> {
        let mut state = self.state.lock();
        let high_watermark = state.role.high_watermark();
        let log = state.log.writable()?;
        let stable_offset = log.last_stable_offset(high_watermark);
        Ok(log.cleaning_plan(now_ms, stable_offset)?)
    }

    /// Returns the first offset that was not compacted, for the checkpoint; `None` if none was.
    pub fn first_dirty_offset(&self) -> Option<i64> {
        self.state.lock().log.open().ok()?.first_dirty_offset()
    }
}

impl LogAccess for Partition {
    fn with_log(&self, work: &mut dyn FnMut(&mut Log)) -> bool {
        Self::with_log(self, work).is_ok()
    }
}
