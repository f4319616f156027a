//! One broker: its disk, its view of the metadata, and its role for the partition.

use std::collections::VecDeque;

use millstream_metadata::{MetadataImage, PartitionImage};
use millstream_partition::replica::{
    EpochLookup, FetchPosition, FollowerPosition, FollowerState, InSyncProposal, LeaderState, LeaderView, LogEnds,
    NextStep, RecordsEnd, ReplicaResponse, ResponseError,
};

use crate::Bug;

/// A record: the leader epoch of its append, and a value that its producer sends once.
pub(crate) type Record = (i32, u64);

pub(crate) const MIN_ISR: usize = 2;
const RECORDS_PER_RESPONSE: usize = 2;
const RANGES_MAX: usize = 3;

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) image: MetadataImage,
    /// The number of metadata records that its image has.
    pub(crate) applied: usize,
    pub(crate) running: bool,
    /// The epoch of its registration.
    pub(crate) epoch: i64,
    pub(crate) log: Log,
    /// What has come from leaders and is not appended yet. It outlasts a change of the role.
    pub(crate) ranges: VecDeque<(ReplicaResponse, Vec<Record>)>,
    pub(crate) high_watermark: i64,
    pub(crate) role: Role,
}

#[derive(Debug)]
pub(crate) enum Role {
    None,
    Leader(Box<Leader>),
    Follower { state: FollowerState, epoch: i32, leader: i32, fetch_at: u64 },
}

#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) state: LeaderState,
    pub(crate) epoch: i32,
    /// The end of the log when it began to lead.
    pub(crate) start: usize,
    /// The proposal that is on its way, and when to send it.
    pub(crate) proposal: Option<(InSyncProposal, u64)>,
}

/// A log whose tail may not be synced.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) synced: usize,
}

impl Log {
    pub(crate) fn ends(&self) -> LogEnds {
        LogEnds { end: self.records.len() as i64, synced: self.synced as i64 }
    }

    pub(crate) fn truncate(&mut self, end: usize) {
        self.records.truncate(end);
        self.synced = self.synced.min(end);
    }
}

impl EpochLookup for Log {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    fn latest_epoch(&self) -> Option<i32> {
        self.records.last().map(|(epoch, _)| *epoch)
    }

    fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let end = self.records.partition_point(|(of_record, _)| *of_record <= epoch);
        end.checked_sub(1).map(|last| (self.records[last].0, end as i64))
    }
}

impl Broker {
    pub(crate) fn new(id: i32) -> Self {
        Self {
            id,
            image: MetadataImage::new(1),
            applied: 0,
            running: false,
            epoch: -1,
            log: Log::default(),
            ranges: VecDeque::new(),
            high_watermark: 0,
            role: Role::None,
        }
    }

    /// Takes the role that the metadata gives it. Returns the epoch in which it begins to lead.
    pub(crate) fn take_role(&mut self, partition: &PartitionImage, bug: Bug, now: u64) -> Option<i32> {
        let (epoch, leader) = (partition.leader_epoch, partition.leader);
        if leader == self.id {
            let view = LeaderView {
                leader_epoch: epoch,
                partition_epoch: partition.partition_epoch,
                replicas: partition.replicas.to_vec(),
                isr: partition.isr.to_vec(),
                min_isr: MIN_ISR,
            };
            if let Role::Leader(leader) = &mut self.role
                && leader.epoch == epoch
            {
                let newer = |(proposal, _): &(InSyncProposal, u64)| proposal.partition_epoch >= view.partition_epoch;
                leader.proposal = leader.proposal.take().filter(newer);
                leader.state.set_view(view, now);
                return None;
            }
            let state = LeaderState::new(self.id, view, self.log.ends(), self.high_watermark, now);
            let start = self.log.records.len();
            self.role = Role::Leader(Box::new(Leader { state, epoch, start, proposal: None }));
            return Some(epoch);
        }
        if leader < 0 || !partition.replicas.contains(&self.id) {
            self.role = Role::None;
        } else if !matches!(&self.role, Role::Follower { epoch: known, .. } if *known == epoch) {
            if bug == Bug::TruncateToHighWatermark {
                self.log.truncate(self.high_watermark as usize);
            }
            let state = FollowerState::new(epoch, self.high_watermark, 0);
            self.role = Role::Follower { state, epoch, leader, fetch_at: now };
        }
        None
    }

    /// Serves a follower.
    pub(crate) fn serve(
        &mut self,
        from: i32,
        position: FetchPosition,
        ends: LogEnds,
        broker_epoch: i64,
        (bug, now): (Bug, u64),
    ) -> (ReplicaResponse, Vec<Record>) {
        let mut response = ReplicaResponse {
            position,
            high_watermark: self.high_watermark,
            log_start: 0,
            log_end: Some(self.log.end()),
            diverging: None,
            error: None,
        };
        let eligible = self.image.is_active(from);
        let Role::Leader(leader) = &mut self.role else {
            response.error = Some(ResponseError::WrongEpoch);
            return (response, Vec::new());
        };
        let blind = bug == Bug::IgnoreEpoch;
        if leader.epoch != position.leader_epoch && !blind {
            response.error = Some(ResponseError::WrongEpoch);
            return (response, Vec::new());
        }
        let offset = position.offset as usize;
        if offset > 0 && !blind && bug != Bug::TruncateToHighWatermark {
            let (epoch, end) = self.log.end_of_epoch(position.last_fetched_epoch).unwrap_or((-1, 0));
            if epoch != position.last_fetched_epoch || end < position.offset {
                response.diverging = Some((epoch, end));
                return (response, Vec::new());
            }
        }
        if offset > self.log.records.len() {
            response.error = Some(ResponseError::OffsetOutOfRange);
            return (response, Vec::new());
        }
        let fetches = position.offset;
        let counted = if bug == Bug::CountFetched { LogEnds { end: fetches, synced: fetches } } else { ends };
        let counted = LogEnds { end: counted.end.min(fetches), synced: counted.synced.min(fetches) };
        let follower = FollowerPosition { id: from, broker_epoch, fetches, ends: counted };
        if let Some(proposal) = leader.state.fetched(follower, eligible, now) {
            leader.proposal = Some((proposal, now));
        }
        self.high_watermark = self.high_watermark.max(leader.state.high_watermark());
        response.high_watermark = leader.state.high_watermark();
        let records = self.log.records[offset..].iter().take(RECORDS_PER_RESPONSE).copied().collect();
        (response, records)
    }

    /// Returns where a follower fetches next: behind what has come, or at the end of its log. The second value is
    /// whether that is ahead of its log.
    pub(crate) fn next_fetch(&self) -> Option<(FetchPosition, bool)> {
        let Role::Follower { state, .. } = &self.role else { return None };
        let position = state.position(&self.log);
        let last = self.ranges.back().filter(|(last, _)| last.position.leader_epoch == position.leader_epoch);
        let ahead = last.and_then(|range| Some(range.0.position.behind(end_of(range)?)));
        Some((ahead.unwrap_or(position), ahead.is_some_and(|ahead| ahead.offset > position.offset)))
    }

    /// Takes the response of the leader. The next fetch leaves before it is appended if the leader has more.
    pub(crate) fn responded(&mut self, response: ReplicaResponse, records: Vec<Record>, now: u64) {
        let Role::Follower { fetch_at, .. } = &mut self.role else { return };
        if self.ranges.len() == RANGES_MAX {
            return;
        }
        let range = (response, records);
        if self.ranges.len() + 1 < RANGES_MAX && end_of(&range).is_some_and(|end| response.has_more(end)) {
            *fetch_at = now;
        }
        self.ranges.push_back(range);
    }

    /// Applies the oldest response that is not appended yet. Returns whether the log was truncated.
    pub(crate) fn append_range(&mut self, now: u64) -> bool {
        let Some((response, records)) = self.ranges.pop_front() else { return false };
        let Role::Follower { state, fetch_at, .. } = &mut self.role else { return false };
        let step = state.responded(&response, &self.log);
        if self.ranges.is_empty() && matches!(step, NextStep::Append | NextStep::Truncate { .. }) {
            *fetch_at = now;
        }
        match step {
            NextStep::Append => {
                self.log.records.extend(records);
                state.appended(self.log.end());
            }
            NextStep::Truncate { end } => {
                self.log.truncate(end as usize);
                state.truncated(end);
                self.high_watermark = self.high_watermark.min(end);
                return true;
            }
            NextStep::Restart { .. } | NextStep::Wait | NextStep::Ignore => {}
        }
        self.high_watermark = self.high_watermark.max(state.high_watermark());
        false
    }

    /// Notes how far its own log reaches.
    pub(crate) fn log_changed(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.state.set_log(self.log.ends());
            self.high_watermark = self.high_watermark.max(leader.state.high_watermark());
        }
    }
}

/// Returns the end of the records of a response; `None` without records.
fn end_of((response, records): &(ReplicaResponse, Vec<Record>)) -> Option<RecordsEnd> {
    let (epoch, _) = records.last()?;
    Some(RecordsEnd { offset: response.position.offset + records.len() as i64, epoch: *epoch })
}
