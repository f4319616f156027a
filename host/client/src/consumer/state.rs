//! The state of a consumer: its partitions and positions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decode::Decoded;
use super::record::{CommittedOffset, ConsumerRecord, TopicPartition};
use crate::error::Error;

/// The maximum fetched ranges of one partition that wait for `poll`.
const BUFFERED_RANGES_MAX: usize = 2;

/// How long a consumer reads from leaders after the replica in its rack could not be reached.
const RACK_PAUSE: Duration = Duration::from_secs(10);

/// How the partitions are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Nothing,
    /// By the application.
    Assigned,
    /// By the group, for these topics.
    Subscribed(Vec<Arc<str>>),
}

/// The lookup that is needed before a partition can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    /// The group's committed offset, or without one that of `auto.offset.reset`.
    Committed,
    /// The offset at this time: -2 the earliest, -1 the end.
    Timestamp(i64),
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    /// The offset of the next record for `poll`; `None` until it is known.
    pub(crate) position: Option<i64>,
    /// The offset of the next fetch.
    pub(crate) fetch_position: i64,
    pub(crate) wanted: Wanted,
    /// Changes with each seek: the results of earlier requests are dropped.
    pub(crate) version: u64,
    pub(crate) paused: bool,
    pub(crate) fetching: bool,
    pub(crate) not_before: Option<Instant>,
    /// The replica that the leader wants this consumer to read from, and until when (KIP-392).
    pub(crate) preferred: Option<(i32, Instant)>,
    pub(crate) buffered: VecDeque<Decoded>,
    /// The leader epoch of the last returned batch, committed with the position.
    pub(crate) leader_epoch: i32,
}

impl Partition {
    fn new(version: u64, wanted: Wanted) -> Self {
        Self {
            position: None,
            fetch_position: 0,
            wanted,
            version,
            paused: false,
            fetching: false,
            not_before: None,
            preferred: None,
            buffered: VecDeque::new(),
            leader_epoch: -1,
        }
    }

    /// Checks whether a fetch may be sent now. The error is the time to check again.
    pub(crate) fn fetchable(&self, now: Instant) -> Result<(), Option<Instant>> {
        let full =
            self.buffered.len() >= BUFFERED_RANGES_MAX || self.buffered.iter().any(|part| part.failure.is_some());
        if self.position.is_none() || self.paused || self.fetching || full {
            return Err(None);
        }
        match self.not_before.filter(|at| *at > now) {
            Some(at) => Err(Some(at)),
            None => Ok(()),
        }
    }

    /// Continues at `offset` and drops fetched records.
    pub(crate) fn place(&mut self, offset: i64) {
        self.position = Some(offset);
        self.fetch_position = offset;
        self.wanted = Wanted::Nothing;
        self.fetching = false;
        self.not_before = None;
        self.buffered.clear();
    }

    /// Requests a lookup of the position.
    pub(crate) fn look_up(&mut self, wanted: Wanted) {
        self.position = None;
        self.wanted = wanted;
        self.fetching = false;
        self.buffered.clear();
    }

    /// Stores fetched records.
    pub(crate) fn buffer(&mut self, part: Decoded) {
        self.fetch_position = part.next_offset;
        // Nothing is left after filters and markers: only the position moves.
        if part.records.is_empty() && part.failure.is_none() && self.buffered.is_empty() {
            self.position = Some(part.next_offset);
            return;
        }
        self.buffered.push_back(part);
    }
}

/// The state of all partitions.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    pub(crate) partitions: BTreeMap<TopicPartition, Partition>,
    /// Errors for the next `poll`.
    pub(crate) errors: VecDeque<Error>,
    next_version: u64,
    /// No request names the rack before this time: the replica in it could not be reached.
    rack_after: Option<Instant>,
    /// The partition that the next `poll` starts with, so that each one gets its turn.
    turn: usize,
}

impl State {
    pub(crate) fn new_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }

    /// Reads from leaders for a while, since a replica in the rack of this consumer cannot be reached.
    pub(crate) fn read_from_leaders(&mut self, now: Instant) {
        self.rack_after = Some(now + RACK_PAUSE);
    }

    /// Returns whether requests name the rack of this consumer.
    pub(crate) fn names_rack(&self, now: Instant) -> bool {
        self.rack_after.is_none_or(|after| now >= after)
    }

    /// Replaces the partitions. With `keep`, partitions that stay keep their state.
    pub(crate) fn assign(&mut self, wanted: impl IntoIterator<Item = TopicPartition>, first: Wanted, keep: bool) {
        let mut before = std::mem::take(&mut self.partitions);
        for partition in wanted {
            let kept = before.remove(&partition).filter(|_| keep);
            let state = match kept {
                Some(state) => state,
                None => Partition::new(self.new_version(), first),
            };
            self.partitions.insert(partition, state);
        }
    }

    /// Returns the partition, if it is assigned and was not moved since `version`.
    pub(crate) fn current(&mut self, partition: &TopicPartition, version: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(partition).filter(|state| state.version == version)
    }

    /// Removes up to `max` records. An error is returned alone, after all records before it.
    pub(crate) fn take(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        let mut taken: Vec<ConsumerRecord> = Vec::new();
        let count = self.partitions.len();
        self.turn = self.turn.checked_add(1).filter(|turn| *turn < count).unwrap_or(0);
        for index in 0..count {
            let version = self.next_version + 1;
            let Some((_, state)) = self.partitions.iter_mut().nth((self.turn + index) % count) else { break };
            if state.paused {
                continue;
            }
            while taken.len() < max {
                let Some(part) = state.buffered.front_mut() else { break };
                let room = (max - taken.len()).min(part.records.len());
                taken.extend(part.records.drain(..room));
                let next = part.records.front().map_or(part.next_offset, |record| record.offset);
                state.position = Some(next);
                if part.leader_epoch >= 0 {
                    state.leader_epoch = part.leader_epoch;
                }
                if !part.records.is_empty() {
                    break;
                }
                let Some(failure) = &part.failure else {
                    state.buffered.pop_front();
                    continue;
                };
                if !taken.is_empty() {
                    return Ok(taken);
                }
                let failure = failure.clone();
                // The next poll fetches again: a stage may have been fixed meanwhile.
                state.version = version;
                self.next_version = version;
                state.place(next);
                return Err(failure);
            }
        }
        Ok(taken)
    }

    /// Returns the offsets to commit.
    pub(crate) fn positions(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        let committed = |(partition, state): (&TopicPartition, &Partition)| {
            let offset = state.position?;
            let committed = CommittedOffset { offset, leader_epoch: state.leader_epoch, metadata: String::new() };
            Some((partition.clone(), committed))
        };
        self.partitions.iter().filter_map(committed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_record::TimestampType;

    fn part(offsets: std::ops::Range<i64>, next_offset: i64, failure: Option<Error>) -> Decoded {
        let record = |offset| ConsumerRecord {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp: 0,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        Decoded { records: offsets.map(record).collect(), next_offset, leader_epoch: 3, failure }
    }

    fn state(parts: Vec<Decoded>) -> State {
        let mut state = State::default();
        let partition = TopicPartition::new("t", 0);
        state.assign([partition.clone()], Wanted::Nothing, false);
        let entry = state.partitions.get_mut(&partition).unwrap();
        entry.place(0);
        parts.into_iter().for_each(|part| entry.buffer(part));
        state
    }

    fn position(state: &State) -> Option<i64> {
        state.partitions.values().next().unwrap().position
    }

    #[test]
    fn the_position_follows_what_was_taken_and_skips_gaps() {
        let mut state = state(vec![part(0..3, 5, None), part(5..6, 8, None)]);
        assert_eq!(state.take(2).unwrap().len(), 2);
        assert_eq!(position(&state), Some(2));
        assert_eq!(state.take(1).unwrap().len(), 1);
        assert_eq!(position(&state), Some(5));
        assert_eq!(state.take(10).unwrap()[0].offset, 5);
        assert_eq!(position(&state), Some(8));
        assert_eq!(state.positions()[&TopicPartition::new("t", 0)].leader_epoch, 3);
        let entry = state.partitions.values_mut().next().unwrap();
        entry.buffer(part(0..0, 20, None));
        assert_eq!((position(&state), state.take(1).unwrap().len()), (Some(20), 0));
    }

    #[test]
    fn an_error_comes_after_the_records_before_it_and_the_next_poll_fetches_again() {
        let mut state = state(vec![part(0..2, 2, Some(Error::Closed))]);
        assert!(state.partitions.values().next().unwrap().fetchable(Instant::now()).is_err());
        assert_eq!(state.take(10).unwrap().len(), 2);
        assert!(state.take(10).is_err());
        assert_eq!((position(&state), state.take(10).unwrap().len()), (Some(2), 0));
        let entry = state.partitions.values().next().unwrap();
        assert_eq!((entry.fetch_position, entry.fetchable(Instant::now())), (2, Ok(())));
    }

    #[test]
    fn a_consumer_names_its_rack_again_after_a_pause() {
        let (mut state, now) = (State::default(), Instant::now());
        assert!(state.names_rack(now));
        state.read_from_leaders(now);
        assert!(!state.names_rack(now) && state.names_rack(now + RACK_PAUSE));
    }

    #[test]
    fn a_paused_partition_keeps_its_records() {
        let mut state = state(vec![part(0..2, 2, None)]);
        state.partitions.values_mut().next().unwrap().paused = true;
        assert_eq!(state.take(10).unwrap().len(), 0);
        state.partitions.values_mut().next().unwrap().paused = false;
        assert_eq!(state.take(10).unwrap().len(), 2);
    }

    #[test]
    fn a_new_assignment_drops_the_old_state_unless_it_keeps_it() {
        let mut state = state(vec![part(0..2, 2, None)]);
        let (old, new) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        state.assign([old.clone(), new.clone()], Wanted::Committed, true);
        assert_eq!(state.partitions[&old].buffered.len(), 1);
        assert_eq!(state.partitions[&new].wanted, Wanted::Committed);
        state.assign([old.clone()], Wanted::Committed, false);
        assert_eq!(state.partitions[&old].position, None);
    }
}
