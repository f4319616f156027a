//! Taking a partition out of service: for a moment, because its data folder has failed, or for ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_log::Log;

use crate::error::PartitionError;
use crate::partition::{LogState, Partition, Role};
use crate::replica::FollowerState;

/// The id of a leader that is not known.
const NO_LEADER: i32 = -1;

/// Prevents appends to a partition until this is dropped. The partition can still be deleted.
#[derive(Debug)]
#[must_use = "the partition takes records again when this is dropped"]
pub struct Frozen(Arc<Partition>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let log = &mut self.0.state.lock().log;
        *log = match std::mem::replace(log, LogState::Deleted) {
            LogState::Frozen(log) => LogState::Online(log),
            other => other,
        };
    }
}

impl Partition {
    /// Rejects all appends until the returned guard is dropped. No append is in progress when this returns, so the end
    /// of the log stays where it is.
    ///
    /// # Errors
    /// The partition is frozen already, offline or deleted.
    pub fn freeze(self: &Arc<Self>) -> Result<Frozen, PartitionError> {
        let log = &mut self.state.lock().log;
        log.writable()?;
        *log = match std::mem::replace(log, LogState::Deleted) {
            LogState::Online(log) => LogState::Frozen(log),
            other => other,
        };
        Ok(Frozen(Arc::clone(self)))
    }

    /// Takes the partition out of service. Returns its log, so that the caller can remove the files.
    pub fn delete(&self) -> Option<Log> {
        let log = std::mem::replace(&mut self.state.lock().log, LogState::Deleted);
        self.close(log, &PartitionError::NotHosted)
    }

    /// Takes a damaged replica out of service. Returns its log, if it is open. The fault stays until another replica
    /// takes the place of this one.
    pub fn give_up(&self, reason: &str) -> Option<Log> {
        let reason: Arc<str> = Arc::from(reason);
        let damaged = LogState::Offline { reason: Arc::clone(&reason), is_damaged: true };
        let log = std::mem::replace(&mut self.state.lock().log, damaged);
        self.close(log, &PartitionError::Offline(reason))
    }

    /// Takes the partition out of service, because its data folder has failed. It asks for no change of the in-sync set
    /// any more.
    pub fn fail(&self, reason: &Arc<str>) {
        let mut state = self.state.lock();
        if matches!(state.log, LogState::Offline { .. } | LogState::Elsewhere | LogState::Deleted) {
            return;
        }
        let failed = LogState::Offline { reason: Arc::clone(reason), is_damaged: false };
        let log = std::mem::replace(&mut state.log, failed);
        let follower = FollowerState::new(self.leader_epoch(), self.high_watermark(), 0);
        state.role = Role::Follower { leader: NO_LEADER, state: follower };
        drop(state);
        if let Some(log) = self.close(log, &PartitionError::Offline(Arc::clone(reason))) {
            log.retire();
        }
    }

    /// Ends what waits for the partition with an error. Returns its log.
    pub(crate) fn close(&self, log: LogState, error: &PartitionError) -> Option<Log> {
        self.published.closed.store(true, Ordering::Release);
        self.waiters().wake_all();
        self.follower_waiters().wake_all();
        self.sync_waiters.fail_all(error);
        self.commit_waiters().end(error);
        self.log_starts().notify_waiters();
        match log {
            LogState::Online(log) | LogState::Frozen(log) => Some(*log),
            LogState::Offline { .. } | LogState::Elsewhere | LogState::Deleted => None,
        }
    }
}
