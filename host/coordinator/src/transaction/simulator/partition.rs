//! A partition with two replicas. Both have a real log.

use std::future::Future;
use std::path::Path;

use millstream_log::{Log, LogConfig, OpenOptions};
use millstream_partition::PartitionError;
use tokio::sync::watch;

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
    pub(super) random: fastrand::Rng,
}

fn open(folder: &Path) -> Log {
    let config = LogConfig { segment_bytes: 6_000, index_interval_bytes: 300, ..LogConfig::default() };
    Log::open(folder, config, OpenOptions::default()).expect("a sound log")
}

/// Opens a log after a crash of its broker.
fn recover(log: &mut Option<Log>) {
    let folder = log.take().map(|log| log.dir().to_owned()).expect("a log");
    *log = Some(open(&folder));
}

impl Replicated {
    pub(super) fn new(folder: &Path, leader: usize, random: fastrand::Rng) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let log = |name| Some(open(&folder.join(name)));
        Self {
            leader_log: log("one"),
            follower_log: log("two"),
            leader,
            epoch: 0,
            high_watermark: 0,
            high_watermark_before: 0,
            changed: watch::Sender::new((0, 0)),
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
