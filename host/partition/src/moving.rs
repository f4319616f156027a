//! Moving a replica to another data folder of its broker, while it serves (KIP-113).
//!
//! The records are copied into a second log, as a follower copies those of its leader. The last ones are copied while
//! the replica takes no records. Then the second log takes the place of the first.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::{Log, LogReader, OpenOptions, ReadError};
use uuid::Uuid;

use crate::error::PartitionError;
use crate::fsync_queue::FsyncQueue;
use crate::open::PartitionSpec;
use crate::partition::{LogState, Partition, PartitionConfig, Role};

/// The bytes of one step of a copy.
const STEP_BYTES: usize = 1 << 20;

/// The file in the folder of a log that is not complete yet.
pub const FUTURE_MARKER: &str = "future";

/// How far a copy is after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// Records were copied.
    Copied,
    /// The copy has all records that the replica had.
    CaughtUp,
    /// The replica has removed records that the copy has, or has not yet: begin again.
    Outdated,
}

/// Why a copy does not take the place of a log.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A change of the in-sync set or a truncation is under way. The caller retries.
    #[error("a change of the partition is under way")]
    Busy,
    /// Begin the copy again.
    #[error("the partition has removed records since the copy began")]
    Outdated,
    /// The log cannot be read.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The other folder cannot be written.
    #[error("{0}")]
    Target(String),
}

/// The copy of a log in another data folder.
#[derive(Debug)]
pub struct FutureLog {
    log: Log,
    folder: PathBuf,
    /// The truncations of the copied log when the copy began.
    truncations: u64,
}

/// Keeps a partition from taking records until this is dropped.
struct Held<'a>(&'a Partition);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_moving = false;
    }
}

impl FutureLog {
    /// Begins a copy of a partition in another data folder. Removes what an earlier copy has left there. Blocks for the
    /// disk.
    ///
    /// # Errors
    /// The partition is offline, or the other folder cannot be written.
    pub fn begin(partition: &Partition, topic_id: Uuid, data_dir: &Path) -> Result<Self, MoveError> {
        let reader = partition.reader()?;
        let (config, truncations) = partition.with_log(|log| (Arc::clone(log.config()), log.truncations()))?;
        let folder = data_dir.join(format!("{}-{}", partition.topic(), partition.index()));
        prepare(&folder).map_err(|error| target(&folder, &error))?;
        let options = OpenOptions { topic_id: Some(topic_id), ..OpenOptions::default() };
        let mut log = Log::open(&folder, config, options).map_err(|error| target(&folder, &error))?;
        let start = first_offset(reader)?;
        if start > 0 {
            log.restart_at(start).map_err(|error| target(&folder, &error))?;
        }
        Ok(Self { log, folder, truncations })
    }

    /// Returns the end of the copy, and its size in bytes.
    #[must_use]
    pub fn progress(&self) -> (i64, u64) {
        (self.log.log_end_offset(), self.log.size())
    }

    /// Copies the next records. Blocks for the disk.
    ///
    /// # Errors
    /// The partition is offline, or the other folder cannot be written.
    pub fn copy(&mut self, partition: &Partition) -> Result<CopyStep, MoveError> {
        let copied = self.copy_next(partition);
        if partition.with_log(|log| log.truncations())? != self.truncations {
            return Ok(CopyStep::Outdated);
        }
        copied
    }

    fn copy_next(&mut self, partition: &Partition) -> Result<CopyStep, MoveError> {
        let reader = partition.reader()?;
        let end = self.log.log_end_offset();
        let slice = match reader.read(end, STEP_BYTES, i64::MAX, true) {
            Err(ReadError::OffsetOutOfRange { .. }) => return Ok(CopyStep::Outdated),
            slice => slice.map_err(PartitionError::from)?,
        };
        let Some(slice) = slice else { return Ok(CopyStep::CaughtUp) };
        let bytes = slice.read_to_bytes().map_err(|error| target(&self.folder, &error))?;
        let appended = self.log.append_as_follower(&bytes, partition.leader_epoch());
        appended.map_err(|error| target(&self.folder, &error))?;
        Ok(CopyStep::Copied)
    }

    /// Copies the last records while the partition takes none, and calls `commit`, which notes durably that the
    /// partition is in the other folder. Returns the partition with the copy as its log. The old one is closed: what
    /// waits for it looks for the leader again.
    ///
    /// The caller lets no change of the metadata reach the partition meanwhile. Blocks for the disk.
    ///
    /// # Errors
    /// The partition goes on with its old log.
    pub fn take_over(
        &mut self,
        partition: &Partition,
        commit: impl FnOnce() -> io::Result<()>,
    ) -> Result<TakenOver, MoveError> {
        let failed = |error: &dyn std::fmt::Display| MoveError::Target(error.to_string());
        self.log.flush().map_err(|error| failed(&error))?;
        let held = partition.hold()?;
        loop {
            match self.copy(partition)? {
                CopyStep::Copied => {}
                CopyStep::CaughtUp => break,
                CopyStep::Outdated => return Err(MoveError::Outdated),
            }
        }
        let epochs = partition.with_log(|log| log.epochs().to_vec())?;
        for entry in epochs {
            if self.log.latest_epoch().is_none_or(|latest| latest < entry.epoch) {
                self.log.assign_epoch(entry.epoch, entry.start_offset);
            }
        }
        self.log.flush().map_err(|error| failed(&error))?;
        fs::remove_file(self.folder.join(FUTURE_MARKER))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .and_then(|()| commit())
            .map_err(|error| failed(&error))?;
        let high_watermark = partition.high_watermark();
        let start = partition.close_for_move();
        drop(held);
        Ok(TakenOver { high_watermark, start })
    }

    /// Makes the partition of the copy, which has taken over.
    #[must_use]
    pub fn into_partition(
        mut self,
        taken: &TakenOver,
        mut spec: PartitionSpec,
        config: &PartitionConfig,
        fsync_queue: &Arc<FsyncQueue>,
    ) -> Arc<Partition> {
        if taken.start > self.log.log_start_offset()
            && let Err(error) = self.log.delete_records(taken.start)
        {
            tracing::error!(topic = &*spec.topic, partition = spec.index, "the first offset is not moved: {error}");
        }
        spec.high_watermark = taken.high_watermark;
        spec.assignment.begin_epoch(&mut self.log);
        Arc::new(Partition::new(spec, Ok(self.log), config, fsync_queue))
    }

    /// Removes the copy.
    pub fn discard(self) {
        let folder = self.folder;
        self.log.retire();
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::error!("cannot remove {}: {error}", folder.display());
        }
    }
}

/// What the old log of a moved partition was at its end.
#[derive(Debug, Clone, Copy)]
pub struct TakenOver {
    high_watermark: i64,
    start: i64,
}

impl Partition {
    /// Lets the partition take no records, neither from producers nor from its leader.
    fn hold(&self) -> Result<Held<'_>, MoveError> {
        let mut state = self.state.lock();
        let proposes = matches!(&state.role, Role::Leader(leader) if leader.has_proposed());
        if proposes || state.truncating_to.is_some() || state.is_moving {
            return Err(MoveError::Busy);
        }
        state.log.writable()?;
        state.is_moving = true;
        drop(state);
        Ok(Held(self))
    }

    /// Closes the log whose place a copy has taken. Returns its first offset.
    fn close_for_move(&self) -> i64 {
        let mut state = self.state.lock();
        let start = state.log.open().map_or(0, |log| log.log_start_offset());
        let log = std::mem::replace(&mut state.log, LogState::Deleted);
        drop(state);
        if let Some(log) = self.close(log, &PartitionError::NotLeader { leader: self.leader() }) {
            log.retire();
        }
        start
    }
}

/// Makes an empty folder with the marker of an incomplete log.
fn prepare(folder: &Path) -> io::Result<()> {
    if folder.join(FUTURE_MARKER).exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    File::create(folder.join(FUTURE_MARKER))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Returns the base offset of the first batch, or the end of an empty log.
fn first_offset(log: &LogReader) -> Result<i64, PartitionError> {
    let start = log.log_start_offset();
    let slice = log.read(start, 0, i64::MAX, true)?;
    let Some(slice) = slice else { return Ok(start) };
    let bytes = slice.read_to_bytes().map_err(|error| PartitionError::Offline(Arc::from(error.to_string())))?;
    let first = bytes.first_chunk::<8>().map_or(start, |offset| i64::from_be_bytes(*offset));
    Ok(first)
}

fn target(folder: &Path, error: &dyn std::fmt::Display) -> MoveError {
    MoveError::Target(format!("{}: {error}", folder.display()))
}
