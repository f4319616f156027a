//! A partition with two replicas. Both have a real log.

use std::future::Future;
use std::path::Path;

use millstream_log::{Cleaner, CleanupPolicy, Log, LogConfig, OpenOptions};
use millstream_partition::PartitionError;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::broker::NOW;

/// How a log is compacted.
const CLEANER: Cleaner<'_> = Cleaner {
    map_bytes: 1 << 16,
    load_factor: 0.9,
    piece_bytes: 4096,
    batch_bytes_max: 1 << 20,
    decode: &|_, _| Err("there is no decoder".to_owned()),
    pace: &|_| true,
};

/// The logs and the leader of a partition.
pub(super) struct Replicated {
    /// The leader's log. Both are missing only while a log is recovered.
    leader_log: Option<Log>,
    follower_log: Option<Log>,
    pub(super) leader: usize,
    pub(super) epoch: i32,
    high_watermark: i64,
    /// What the follower knows of it.
    high_watermark_before: i64,
    /// The epoch and the high watermark.
    changed: watch::Sender<(i32, i64)>,
    /// The passes of compaction.
    passes: i64,
    pub(super) random: fastrand::Rng,
}

fn open(folder: &Path, cleanup_policy: CleanupPolicy, options: OpenOptions) -> Log {
    let config = LogConfig {
        segment_bytes: if cleanup_policy.compact { 2_000 } else { 6_000 },
        index_interval_bytes: 300,
        cleanup_policy,
        min_cleanable_dirty_ratio: 0.01,
        delete_retention_ms: 5,
        ..LogConfig::default()
    };
    Log::open(folder, config, options).expect("a sound log")
}

/// Opens a log after a crash of its broker. The state of producers comes from a snapshot if the log was flushed.
fn recover(log: &mut Option<Log>) {
    let crashed = log.take().expect("a log");
    let (folder, cleanup_policy) = (crashed.dir().to_owned(), crashed.config().cleanup_policy);
    let options = OpenOptions {
        recovery_point: crashed.recovery_point(),
        first_dirty_offset: crashed.first_dirty_offset().unwrap_or(0),
        ..OpenOptions::default()
    };
    drop(crashed);
    *log = Some(open(&folder, cleanup_policy, options));
}

/// Runs a pass of compaction up to the last stable offset. Returns whether it has removed something.
fn compact(log: &mut Option<Log>, high_watermark: i64, now_ms: i64) -> bool {
    let compacted = log.as_mut().expect("a log");
    compacted.flush().expect("a sound disk");
    let stable = compacted.last_stable_offset(high_watermark);
    let plan = compacted.cleaning_plan(now_ms, stable).expect("sound indexes");
    let Some(plan) = plan.filter(|plan| plan.is_due()) else { return false };
    let locked = Mutex::new(log.take().expect("a log"));
    let cleaned = plan.run(&CLEANER, &locked).expect("a sound log");
    *log = Some(locked.into_inner());
    cleaned.bytes_after < cleaned.bytes_before
}

impl Replicated {
    pub(super) fn new(folder: &Path, policy: CleanupPolicy, leader: usize, random: fastrand::Rng) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let log = |name| Some(open(&folder.join(name), policy, OpenOptions::default()));
        Self {
            leader_log: log("one"),
            follower_log: log("two"),
            leader,
            epoch: 0,
            high_watermark: 0,
            high_watermark_before: 0,
            changed: watch::Sender::new((0, 0)),
            passes: 0,
            random,
        }
    }

    /// Returns the leader's log.
    pub(super) fn log(&mut self) -> &mut Log {
        self.leader_log.as_mut().expect("a log")
    }

    fn follower(&mut self) -> &mut Log {
        self.follower_log.as_mut().expect("a log")
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    pub(super) fn log_end_offset(&self) -> i64 {
        self.leader_log.as_ref().map_or(0, Log::log_end_offset)
    }

    /// Copies whole batches to the follower, until it has all below `end`.
    fn replicate(&mut self, end: i64, max_bytes: usize) {
        let epoch = self.epoch;
        loop {
            let from = self.follower().log_end_offset();
            if from >= end {
                return;
            }
            let slice = self.log().read(from, max_bytes, i64::MAX, true).expect("a sound log").expect("batches");
            let bytes = slice.read_to_bytes().expect("a sound disk");
            self.follower().append_as_follower(&bytes, epoch).expect("the follower's log continues");
        }
    }

    /// Replicates and commits what the leader of `epoch` has below `end`. Nothing happens if another one leads.
    pub(super) fn commit(&mut self, epoch: i32, end: i64) {
        if epoch != self.epoch || end <= self.high_watermark {
            return;
        }
        self.replicate(end, usize::MAX);
        let before = std::mem::replace(&mut self.high_watermark, end);
        self.high_watermark_before = before;
        self.log().note_high_watermark(end);
        self.follower().note_high_watermark(before);
        self.changed.send_replace((epoch, end));
    }

    /// Returns a future that waits until the records below `end` are committed in an epoch.
    pub(super) fn committed(
        &self,
        epoch: i32,
        end: i64,
    ) -> impl Future<Output = Result<(), PartitionError>> + Send + use<> {
        let mut changed = self.changed.subscribe();
        async move {
            let found = changed.wait_for(|(current, high_watermark)| *current != epoch || *high_watermark >= end).await;
            let current = found.map_err(|_| PartitionError::ShuttingDown)?.0;
            match current == epoch {
                true => Ok(()),
                false => Err(PartitionError::LeaderEpochChanged { appended: epoch, current }),
            }
        }
    }

    /// Compacts both logs, each up to what it knows to be committed. Returns whether something was removed.
    pub(super) fn compact(&mut self) -> bool {
        self.passes += 1;
        // Each pass is later than what the one before has kept for a while.
        let now_ms = NOW + 10 * self.passes;
        let by_leader = compact(&mut self.leader_log, self.high_watermark, now_ms);
        compact(&mut self.follower_log, self.high_watermark_before, now_ms) || by_leader
    }

    /// Makes the follower the leader, on another broker. It may lack batches that are not committed. Returns whether
    /// some are lost. `crashed`: the log of the leader is recovered.
    pub(super) fn fail_over(&mut self, leader: usize, crashed: bool) -> bool {
        while self.random.bool() && self.follower().log_end_offset() < self.log_end_offset() {
            let next = self.follower().log_end_offset() + 1;
            self.replicate(next, 1);
        }
        if crashed {
            recover(&mut self.leader_log);
        }
        std::mem::swap(&mut self.leader_log, &mut self.follower_log);
        let end = self.log_end_offset();
        let is_lost = self.follower().log_end_offset() > end;
        self.follower().truncate_to(end).expect("a sound log");
        self.leader = leader;
        self.epoch += 1;
        let epoch = self.epoch;
        self.log().assign_epoch(epoch, end);
        // The new leader learns later what was committed.
        self.high_watermark = self.high_watermark_before;
        self.changed.send_replace((epoch, self.high_watermark));
        is_lost
    }
}
