//! What has come from a leader, until it is appended and synced.
//!
//! The ranges of one response are appended at a time, in the order of the fetches, while the next ones are fetched.
//! Syncs run beside both. One sync serves all ranges that were appended before it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use millstream_partition::replica::{FetchPosition, NextStep, RecordsEnd, ReplicaResponse, ResponseError};
use millstream_partition::{Committed, NextFetch, PartitionError};
use millstream_record::batches;
use millstream_wire::messages::{FetchResponse, PartitionData};
use millstream_wire::{ErrorCode, Records};
use tokio::task::{JoinError, JoinHandle};

use super::{PartitionKey, Replica, ReplicaHost};

/// Why a partition could not be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("{0}")]
    Partition(#[from] PartitionError),
    #[error("cannot write the recovery points: {0}")]
    Checkpoint(#[from] io::Error),
    #[error("the leader responds with {0}")]
    Leader(ErrorCode),
    /// The metadata will say who leads.
    #[error("the leader has another epoch")]
    Wait,
}

/// A partition that could not be followed.
pub(super) type Failure = (Replica, FollowError);

/// What a response has for one partition.
pub(super) struct Range {
    pub(super) replica: Replica,
    /// The response; the code of an error that a follower cannot handle.
    response: Result<ReplicaResponse, ErrorCode>,
    pub(super) records: Bytes,
}

impl Range {
    fn new(replica: Replica, next: &NextFetch, data: PartitionData) -> Self {
        let error = match data.error_code {
            ErrorCode::NONE => Ok(None),
            ErrorCode::OFFSET_OUT_OF_RANGE => Ok(Some(ResponseError::OffsetOutOfRange)),
            ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            // The leader is behind with the metadata.
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Ok(Some(ResponseError::WrongEpoch)),
            other => Err(other),
        };
        let diverging = &data.diverging_epoch;
        let response = error.map(|error| ReplicaResponse {
            position: next.position,
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
            log_end: (data.log_end_offset >= 0).then_some(data.log_end_offset),
            diverging: (diverging.end_offset >= 0).then_some((diverging.epoch, diverging.end_offset)),
            error,
        });
        let records = match data.records {
            Records::Bytes(bytes) => bytes,
            _ => Bytes::new(),
        };
        Self { replica, response, records }
    }

    /// Returns the end of the records; `None` if they are damaged, which the append will find.
    fn end(&self) -> Option<RecordsEnd> {
        let last = batches(&self.records).last()?.ok()?.header();
        Some(RecordsEnd { offset: last.next_offset(), epoch: last.leader_epoch() })
    }

    fn is_append(&self) -> bool {
        self.response.as_ref().is_ok_and(ReplicaResponse::is_append)
    }

    /// Applies the range to the log, and starts a sync. Blocks for the disk.
    fn append(&self, host: &dyn ReplicaHost) -> Result<Committed, FollowError> {
        let response = self.response.as_ref().map_err(|code| FollowError::Leader(*code))?;
        let (partition, epoch) = (&self.replica.partition, response.position.leader_epoch);
        match partition.follow(response, &self.records)? {
            NextStep::Append | NextStep::Ignore => {}
            NextStep::Truncate { end } => {
                host.write_recovery_points()?;
                partition.truncate(epoch, end)?;
            }
            NextStep::Restart { start } => {
                host.write_recovery_points()?;
                partition.restart(epoch, start)?;
            }
            NextStep::Wait => return Err(FollowError::Wait),
        }
        Ok(partition.synced(partition.log_end_offset()?))
    }
}

/// Returns what a response has for the partitions that were asked for. Others in the response are ignored.
pub(super) fn ranges(wanted: Vec<(Replica, NextFetch)>, response: FetchResponse) -> Vec<Range> {
    let mut found: HashMap<PartitionKey, PartitionData> = HashMap::new();
    for topic in response.responses {
        found.extend(topic.partitions.into_iter().map(|data| ((topic.topic_id, data.partition_index), data)));
    }
    let range = |(replica, next): (Replica, NextFetch)| {
        let data = found.remove(&replica.key())?;
        Some(Range::new(replica, &next, data))
    };
    wanted.into_iter().filter_map(range).collect()
}

/// Returns where to fetch before the ranges are appended: behind the records of each. That is nowhere if the leader has
/// no more, or if a partition needs more than an append.
pub(super) fn ahead(ranges: &[Range]) -> HashMap<PartitionKey, FetchPosition> {
    let responses = || ranges.iter().filter_map(|range| Some((range, range.response.as_ref().ok()?)));
    let has_more = |(range, response): (&Range, &ReplicaResponse)| {
        !range.records.is_empty() && range.end().is_some_and(|end| response.has_more(end))
    };
    if !responses().any(has_more) || !ranges.iter().all(Range::is_append) {
        return HashMap::new();
    }
    let with_records = responses().filter(|(range, _)| !range.records.is_empty());
    let behind = |(range, response): (&Range, &ReplicaResponse)| {
        Some((range.replica.key(), response.position.behind(range.end()?)))
    };
    // Without the end of one, the next fetch waits until all are appended.
    with_records.map(behind).collect::<Option<_>>().unwrap_or_default()
}

/// A range that was appended, or why it was not.
struct Appended {
    replica: Replica,
    bytes: usize,
    outcome: Result<Committed, FollowError>,
}

/// A range whose sync is not known to be done.
struct Unsynced {
    replica: Replica,
    bytes: usize,
    synced: Committed,
}

/// The ranges of one fetcher that are not appended or not synced.
#[derive(Default)]
pub(super) struct Appends {
    running: Option<JoinHandle<Vec<Appended>>>,
    /// Oldest first.
    unsynced: VecDeque<Unsynced>,
    unsynced_bytes: usize,
}

impl Appends {
    /// Begins to append the ranges of a response. Those of the response before are appended, see [`Self::appended`].
    pub(super) fn begin(&mut self, host: &Arc<dyn ReplicaHost>, ranges: Vec<Range>) {
        debug_assert!(self.running.is_none(), "responses are appended one after the other");
        let host = Arc::clone(host);
        self.running = Some(tokio::task::spawn_blocking(move || {
            let append = |range: Range| {
                let outcome = range.append(&*host);
                Appended { replica: range.replica, bytes: range.records.len(), outcome }
            };
            ranges.into_iter().map(append).collect()
        }));
    }

    /// Waits until all ranges are appended. Returns those that were not.
    ///
    /// # Errors
    /// The append panicked, or the runtime shuts down.
    pub(super) async fn appended(&mut self) -> Result<Vec<Failure>, JoinError> {
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        let done = running.await;
        self.running = None;
        let mut failures = Vec::new();
        for Appended { replica, bytes, outcome } in done? {
            match outcome {
                Ok(synced) if synced.is_now() => {}
                Ok(synced) => {
                    self.unsynced_bytes += bytes;
                    self.unsynced.push_back(Unsynced { replica, bytes, synced });
                }
                Err(error) => failures.push((replica, error)),
            }
        }
        Ok(failures)
    }

    /// Waits until at most this many appended bytes are not synced. Returns the partitions whose sync failed.
    pub(super) async fn synced_to(&mut self, unsynced_max: usize) -> Vec<Failure> {
        let mut failures = Vec::new();
        while unsynced_max == 0 || self.unsynced_bytes > unsynced_max {
            let Some(Unsynced { replica, bytes, synced }) = self.unsynced.pop_front() else { break };
            self.unsynced_bytes -= bytes;
            if let Err(error) = synced.await {
                failures.push((replica, error.into()));
            }
        }
        failures
    }
}
