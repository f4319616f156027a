//! One broker: its disk, its view of the metadata, and its role for the partition.

use millstream_metadata::{MetadataImage, PartitionImage};
use millstream_partition::replica::{
    EpochLookup, FetchPosition, FollowerPosition, FollowerState, InSyncProposal, LeaderState, LeaderView, LogEnds,
    NextStep, ReplicaResponse, ResponseError,
};

use crate::Bug;

/// A record: the leader epoch of its append, and a value that its producer sends once.
pub(crate) type Record = (i32, u64);

pub(crate) const MIN_ISR: usize = 2;
const RECORDS_PER_RESPONSE: usize = 4;

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
        let follower = FollowerPosition { id: from, broker_epoch, ends };
        if let Some(proposal) = leader.state.fetched(follower, eligible, now) {
            leader.proposal = Some((proposal, now));
        }
        self.high_watermark = self.high_watermark.max(leader.state.high_watermark());
        response.high_watermark = leader.state.high_watermark();
        let records = self.log.records[offset..].iter().take(RECORDS_PER_RESPONSE).copied().collect();
        (response, records)
    }

    /// Handles the response of the leader. Returns whether the log was truncated.
    pub(crate) fn responded(&mut self, response: &ReplicaResponse, records: Vec<Record>, now: u64) -> bool {
        let Role::Follower { state, fetch_at, .. } = &mut self.role else { return false };
        match state.responded(response, &self.log) {
            NextStep::Append => {
                self.log.records.extend(records);
                state.appended(self.log.end());
                *fetch_at = now;
            }
            NextStep::Truncate { end } => {
                self.log.truncate(end as usize);
                self.high_watermark = self.high_watermark.min(end);
                *fetch_at = now;
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
