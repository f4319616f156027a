//! A leader's view of its followers: their positions, the in-sync set, and what is replicated (KIP-497, KIP-903,
//! KIP-966).
//!
//! Two offsets grow with the positions. Below the high watermark all replicas in sync have the records in their logs,
//! so consumers see them. Below the durable offset all of them have synced the records too. With `flush.mode=fsync` a
//! write with acks=all waits for it, and then survives a power cut of all brokers at once.
//!
//! While a larger in-sync set is being asked for, the followers that it adds count already. While a smaller one is,
//! those that it removes still count. So a leader never needs to know whether a request has arrived.

use std::collections::BTreeMap;

/// How far a log reaches. With `flush.mode=page-cache` both are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// The offset after the last record.
    pub end: i64,
    /// The offset after the last record on stable storage; at most `end`.
    pub synced: i64,
}

/// What the metadata says of a partition that this broker leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderView {
    /// The epoch of this leader.
    pub leader_epoch: i32,
    /// Rises with every change of the partition.
    pub partition_epoch: i32,
    /// All replicas, this broker included.
    pub replicas: Vec<i32>,
    /// Those in sync, this broker included.
    pub isr: Vec<i32>,
    /// `min.insync.replicas`; at most the number of replicas counts.
    pub min_isr: usize,
}

impl LeaderView {
    /// Returns the view of a partition whose only replica is its leader.
    #[must_use]
    pub fn alone(id: i32, leader_epoch: i32) -> Self {
        Self { leader_epoch, partition_epoch: 0, replicas: vec![id], isr: vec![id], min_isr: 1 }
    }
}

/// A fetch of a follower, after the read that proves its position: the offset is in the log, and the epoch before it is
/// the same in both logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerPosition {
    /// The follower.
    pub id: i32,
    /// The epoch of its registration, from the request.
    pub broker_epoch: i64,
    /// The offset that it fetches. It may be ahead of what is in its log.
    pub fetches: i64,
    /// How far its log reaches: it has every record below.
    pub ends: LogEnds,
}

/// The in-sync set that a leader wants: the fields of an AlterPartition request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSyncProposal {
    /// The epoch of the leader.
    pub leader_epoch: i32,
    /// The partition epoch that the proposal is based on.
    pub partition_epoch: i32,
    /// The members. Each with the epoch of the registration whose position the leader knows, or -1 for the leader.
    pub isr: Vec<(i32, i64)>,
}

/// The state of a leader in one epoch.
#[derive(Debug)]
pub struct LeaderState {
    id: i32,
    view: LeaderView,
    /// The end of the log when the epoch began. A follower that reaches it has everything that was ever committed.
    epoch_start: i64,
    log: LogEnds,
    followers: BTreeMap<i32, Follower>,
    /// The members of the proposal that is on its way.
    proposed: Option<Vec<i32>>,
    high_watermark: i64,
    durable: i64,
}

/// A follower that consumers may read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadableFollower {
    /// The follower.
    pub id: i32,
    /// The end of its log.
    pub end: i64,
    /// When it last had all records of the leader, on the clock of the leader.
    pub caught_up_at: u64,
}

#[derive(Debug)]
struct Follower {
    broker_epoch: i64,
    ends: LogEnds,
    /// The first offset of its log, or -1 before its first fetch.
    log_start: i64,
    /// When it last had all records of the leader.
    caught_up_at: u64,
    /// The leader's end at its last fetch, and the time of it. If the next fetch reaches that end, the follower had
    /// caught up at that time.
    fetched_end: i64,
    fetched_at: u64,
}

impl LeaderState {
    /// Begins an epoch. `high_watermark` is the one that this broker knew as a follower.
    #[must_use]
    pub fn new(id: i32, view: LeaderView, log: LogEnds, high_watermark: i64, now: u64) -> Self {
        let mut state = Self {
            id,
            view,
            epoch_start: log.end,
            log,
            followers: BTreeMap::new(),
            proposed: None,
            high_watermark,
            durable: 0,
        };
        state.keep_replicas(now);
        state.advance();
        state
    }

    /// Returns the offset below which consumers see records. It never goes back.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Returns the offset below which records are on stable storage of all replicas in sync, and replicated.
    #[must_use]
    pub fn durable(&self) -> i64 {
        self.durable
    }

    /// Returns the epoch of this leader.
    #[must_use]
    pub fn epoch(&self) -> i32 {
        self.view.leader_epoch
    }

    /// Returns the end of the log when the epoch began.
    #[must_use]
    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// Returns the replicas in sync, this broker included.
    #[must_use]
    pub fn isr(&self) -> &[i32] {
        &self.view.isr
    }

    /// Returns whether there are other replicas.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Returns whether the broker is one of the replicas.
    #[must_use]
    pub fn is_replica(&self, id: i32) -> bool {
        self.view.replicas.contains(&id)
    }

    /// Returns the size of the in-sync set and the smallest one that accepts writes with acks=all.
    #[must_use]
    pub fn isr_sizes(&self) -> (usize, usize) {
        (self.view.isr.len(), self.view.min_isr.min(self.view.replicas.len()))
    }

    /// Returns whether the in-sync set is smaller than `min.insync.replicas`: writes with acks=all are rejected, and
    /// nothing more is committed.
    #[must_use]
    pub fn is_under_min_isr(&self) -> bool {
        let (size, min) = self.isr_sizes();
        size < min
    }

    /// Returns how many records a follower lacks; `None` if it has not fetched in this epoch.
    #[must_use]
    pub fn lag(&self, id: i32) -> Option<i64> {
        let follower = self.followers.get(&id).filter(|follower| follower.broker_epoch >= 0)?;
        Some(self.log.end - follower.ends.end)
    }

    /// Returns whether a proposal is on its way.
    #[must_use]
    pub fn has_proposed(&self) -> bool {
        self.proposed.is_some()
    }

    /// Takes a newer state from the metadata, which settles the proposal that is on its way. An older one is ignored.
    pub fn set_view(&mut self, view: LeaderView, now: u64) {
        if view.leader_epoch != self.view.leader_epoch || view.partition_epoch < self.view.partition_epoch {
            return;
        }
        // A change of the config alone does not settle a proposal.
        if view.partition_epoch > self.view.partition_epoch {
            self.proposed = None;
        }
        self.view = view;
        self.keep_replicas(now);
        self.advance();
    }

    /// Notes how far this broker's own log reaches, after an append or an fsync.
    pub fn set_log(&mut self, log: LogEnds) {
        self.log = log;
        self.advance();
    }

    /// Notes the position of a follower. Returns a proposal if the follower may join the in-sync set. `eligible` tells
    /// whether the broker is neither fenced nor shutting down.
    pub fn fetched(&mut self, position: FollowerPosition, eligible: bool, now: u64) -> Option<InSyncProposal> {
        let end = self.log.end;
        let follower = self.followers.get_mut(&position.id)?;
        // A fetch of an earlier start of the broker has been delayed.
        if position.broker_epoch < follower.broker_epoch {
            return None;
        }
        // A follower may append and sync while it fetches more. So where it fetches says whether it keeps up.
        if position.fetches >= end {
            follower.caught_up_at = now;
        } else if position.fetches >= follower.fetched_end {
            follower.caught_up_at = follower.caught_up_at.max(follower.fetched_at);
        }
        follower.broker_epoch = position.broker_epoch;
        follower.ends = position.ends;
        (follower.fetched_end, follower.fetched_at) = (end, now);
        self.advance();
        let joins = eligible && !self.view.isr.contains(&position.id) && self.is_caught_up(position.ends);
        if joins && self.proposed.is_none() { self.propose(|isr| isr.push(position.id)) } else { None }
    }

    /// Returns a proposal without the followers that have lacked records for longer than `replica.lag.time.max.ms`.
    pub fn expire(&mut self, now: u64, lag_max: u64) -> Option<InSyncProposal> {
        let late: Vec<i32> = self.view.isr.iter().copied().filter(|id| self.is_late(*id, now, lag_max)).collect();
        if late.is_empty() || self.proposed.is_some() {
            return None;
        }
        self.propose(|isr| isr.retain(|id| !late.contains(id)))
    }

    /// Forgets the proposal that is based on a partition epoch: the controller has rejected it, and nothing of it will
    /// happen.
    ///
    /// Without a response nothing is known, and the same proposal has to be sent again.
    pub fn rejected(&mut self, partition_epoch: i32) {
        if self.view.partition_epoch == partition_epoch {
            self.proposed = None;
            self.advance();
        }
    }

    /// Notes the first offset of a follower's log. Returns whether it has changed.
    pub fn set_log_start(&mut self, id: i32, log_start: i64) -> bool {
        let follower = self.followers.get_mut(&id);
        follower.is_some_and(|follower| std::mem::replace(&mut follower.log_start, log_start) != log_start)
    }

    /// Returns the followers in sync whose logs have an offset (KIP-392).
    pub fn readable_followers(&self, offset: i64) -> impl Iterator<Item = ReadableFollower> {
        let has = move |follower: &Follower| (0..=offset).contains(&follower.log_start) && follower.ends.end >= offset;
        let in_sync = self.followers.iter().filter(|(id, _)| self.view.isr.contains(id));
        in_sync.filter(move |(_, follower)| has(follower)).map(|(id, follower)| ReadableFollower {
            id: *id,
            end: follower.ends.end,
            caught_up_at: follower.caught_up_at,
        })
    }

    /// Returns the offset below which the leader and all `alive` followers have deleted their records; -1 if a follower
    /// has not fetched yet. `own` is the first offset of the leader's log.
    pub fn low_watermark(&self, own: i64, alive: impl Fn(i32) -> bool) -> i64 {
        let alive = self.followers.iter().filter(|(id, _)| alive(**id));
        alive.map(|(_, follower)| follower.log_start).fold(own, i64::min)
    }

    /// Returns whether a follower has every committed record, and has synced every acknowledged one. What leaders of
    /// earlier epochs have acknowledged lies below the start of this one.
    fn is_caught_up(&self, ends: LogEnds) -> bool {
        ends.end >= self.high_watermark.max(self.epoch_start) && ends.synced >= self.durable.max(self.epoch_start)
    }

    fn is_late(&self, id: i32, now: u64, lag_max: u64) -> bool {
        let Some(follower) = self.followers.get(&id) else { return false };
        follower.ends.end < self.log.end && now.saturating_sub(follower.caught_up_at) > lag_max
    }

    fn propose(&mut self, change: impl FnOnce(&mut Vec<i32>)) -> Option<InSyncProposal> {
        let mut isr = self.view.isr.clone();
        change(&mut isr);
        let epoch = |id: &i32| self.followers.get(id).map_or(-1, |follower| follower.broker_epoch);
        let proposal = InSyncProposal {
            leader_epoch: self.view.leader_epoch,
            partition_epoch: self.view.partition_epoch,
            isr: isr.iter().map(|id| (*id, epoch(id))).collect(),
        };
        self.proposed = Some(isr);
        Some(proposal)
    }

    /// Keeps one state for each follower among the replicas. One without a fetch yet has the lag time from now on.
    fn keep_replicas(&mut self, now: u64) {
        let replicas = &self.view.replicas;
        self.followers.retain(|id, _| replicas.contains(id));
        for id in replicas.iter().copied().filter(|id| *id != self.id) {
            self.followers.entry(id).or_insert(Follower {
                broker_epoch: -1,
                ends: LogEnds::default(),
                log_start: -1,
                caught_up_at: now,
                fetched_end: i64::MAX,
                fetched_at: now,
            });
        }
    }

    /// Raises both offsets to what every member of the in-sync set has, the proposed members included.
    fn advance(&mut self) {
        if self.is_under_min_isr() {
            return;
        }
        let proposed = self.proposed.iter().flatten();
        let members = self.view.isr.iter().chain(proposed).filter(|id| **id != self.id);
        let ends = members.filter_map(|id| self.followers.get(id)).map(|follower| follower.ends);
        let (mut end, mut synced) = (self.log.end, self.log.synced);
        for ends in ends {
            (end, synced) = (end.min(ends.end), synced.min(ends.synced));
        }
        self.high_watermark = self.high_watermark.max(end);
        self.durable = self.durable.max(synced.min(self.high_watermark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(partition_epoch: i32, isr: &[i32]) -> LeaderView {
        LeaderView { leader_epoch: 5, partition_epoch, replicas: vec![1, 2, 3], isr: isr.to_vec(), min_isr: 2 }
    }

    fn ends(end: i64) -> LogEnds {
        LogEnds { end, synced: end }
    }

    fn at(id: i32, end: i64) -> FollowerPosition {
        FollowerPosition { id, broker_epoch: i64::from(id), fetches: end, ends: ends(end) }
    }

    fn leader(isr: &[i32]) -> LeaderState {
        LeaderState::new(1, view(7, isr), ends(100), 90, 0)
    }

    #[test]
    fn records_are_committed_when_all_in_sync_have_them() {
        let mut leader = leader(&[1, 2, 3]);
        assert_eq!((leader.high_watermark(), leader.durable()), (90, 0), "no follower has fetched");
        leader.set_log(LogEnds { end: 110, synced: 105 });
        leader.fetched(at(2, 110), true, 1);
        assert_eq!(leader.high_watermark(), 90, "3 has not fetched");
        leader.fetched(FollowerPosition { ends: LogEnds { end: 108, synced: 95 }, ..at(3, 0) }, true, 1);
        assert_eq!((leader.high_watermark(), leader.durable()), (108, 95));
        leader.fetched(at(3, 110), true, 2);
        assert_eq!((leader.high_watermark(), leader.durable()), (110, 105), "the leader itself has synced to 105");
        // A follower that starts again begins lower: nothing goes back.
        leader.fetched(FollowerPosition { broker_epoch: 9, ..at(3, 50) }, true, 3);
        assert_eq!((leader.high_watermark(), leader.durable()), (110, 105));
        assert_eq!((leader.lag(3), leader.lag(2), leader.lag(7)), (Some(60), Some(0), None));
        leader.fetched(at(3, 110), true, 4);
        assert_eq!(leader.lag(3), Some(60), "a fetch of the process of before is ignored");
    }

    #[test]
    fn what_a_follower_fetches_ahead_does_not_count() {
        let mut leader = leader(&[1, 2]);
        leader.set_log(ends(120));
        let ahead = |fetches| FollowerPosition { fetches, ..at(2, 100) };
        leader.fetched(ahead(120), true, 1000);
        assert_eq!((leader.high_watermark(), leader.durable(), leader.lag(2)), (100, 100, Some(20)));
        assert_eq!(leader.fetched(FollowerPosition { fetches: 120, ..at(3, 99) }, true, 1000), None);
        // It keeps up with the leader, although what it reports is always a fetch behind.
        leader.set_log(ends(130));
        leader.fetched(FollowerPosition { fetches: 125, ..at(2, 120) }, true, 2000);
        assert_eq!(leader.expire(2400, 1500), None);
        assert!(leader.expire(4000, 1500).is_some(), "it fetches no more");
    }

    #[test]
    fn nothing_is_committed_below_the_minimum() {
        let mut leader = leader(&[1]);
        assert!(leader.is_under_min_isr());
        leader.set_log(ends(120));
        assert_eq!(leader.high_watermark(), 90);
        leader.set_view(LeaderView { min_isr: 1, ..view(7, &[1]) }, 0);
        assert_eq!(leader.high_watermark(), 120, "the config of the topic has changed");
        let one = LeaderView { replicas: vec![1], ..view(7, &[1]) };
        let alone = LeaderState::new(1, one, ends(10), 0, 0);
        assert_eq!((alone.high_watermark(), alone.durable()), (10, 10), "the minimum is at most the replicas");
    }

    #[test]
    fn a_follower_joins_when_it_has_all_committed_records_of_this_epoch() {
        let mut leader = leader(&[1, 2]);
        leader.fetched(at(2, 100), true, 1);
        leader.set_log(ends(130));
        assert_eq!(leader.fetched(at(3, 99), true, 2), None, "it lacks records from before the epoch");
        assert_eq!(leader.fetched(at(3, 100), false, 3), None, "the broker is fenced");
        let lazy = FollowerPosition { ends: LogEnds { end: 100, synced: 99 }, ..at(3, 0) };
        assert_eq!(
            leader.fetched(lazy, true, 3),
            None,
            "it has not synced what an earlier leader may have acknowledged"
        );
        let proposal = leader.fetched(at(3, 100), true, 4).expect("it has caught up");
        let isr = vec![(1, -1), (2, 2), (3, 3)];
        assert_eq!(proposal, InSyncProposal { leader_epoch: 5, partition_epoch: 7, isr });
        assert_eq!(leader.fetched(at(3, 101), true, 5), None, "one proposal at a time");
        // It counts already, since the controller may have accepted.
        leader.fetched(at(2, 130), true, 6);
        assert_eq!(leader.high_watermark(), 101);
        leader.rejected(7);
        assert_eq!(leader.high_watermark(), 130);
        assert_eq!(leader.fetched(at(3, 101), true, 7), None, "it lacks what was committed without it");
        assert!(leader.fetched(at(3, 130), true, 8).is_some());
        leader.set_view(view(8, &[1, 2, 3]), 9);
        leader.set_log(ends(140));
        leader.fetched(at(2, 140), true, 10);
        assert_eq!(leader.high_watermark(), 130);
        leader.set_view(view(6, &[1, 2]), 11);
        assert_eq!(leader.high_watermark(), 130, "an older state is ignored");
    }

    #[test]
    fn consumers_read_from_followers_in_sync_that_have_the_offset() {
        let mut leader = leader(&[1, 2]);
        let readable = |leader: &LeaderState, offset| leader.readable_followers(offset).map(|one| one.id).collect();
        let nothing: Vec<i32> = readable(&leader, 0);
        assert!(nothing.is_empty(), "no follower has fetched");
        for id in [2, 3] {
            leader.fetched(at(id, 95), false, 1);
            leader.set_log_start(id, 10);
        }
        assert_eq!([95, 96, 10, 9].map(|offset| readable(&leader, offset)), [vec![2], vec![], vec![2], vec![]]);
    }

    #[test]
    fn the_low_watermark_is_what_all_live_replicas_have_deleted() {
        let mut leader = leader(&[1, 2, 3]);
        assert_eq!(leader.low_watermark(40, |_| true), -1, "no follower has fetched");
        assert!(leader.set_log_start(2, 30) && !leader.set_log_start(2, 30) && !leader.set_log_start(9, 1));
        assert_eq!((leader.low_watermark(40, |_| true), leader.low_watermark(40, |id| id == 2)), (-1, 30));
        leader.set_log_start(3, 50);
        assert_eq!(leader.low_watermark(40, |_| true), 30);
        assert_eq!(leader.low_watermark(40, |id| id == 3), 40);
    }

    #[test]
    fn a_follower_that_lacks_records_for_too_long_leaves() {
        let mut leader = leader(&[1, 2, 3]);
        assert_eq!(leader.expire(1000, 1000), None, "a new epoch gives each follower the time");
        for now in (0..5000).step_by(500) {
            // 2 is always behind the newest record, but reaches the end that it was at half a second before.
            leader.set_log(ends(100 + i64::try_from(now).expect("small")));
            leader.fetched(at(2, (100 + i64::try_from(now).expect("small") - 500).max(0)), true, now);
            leader.fetched(at(3, 100), true, now);
        }
        let proposal = leader.expire(5000, 1500).expect("3 is late");
        assert_eq!(proposal.isr, [(1, -1), (2, 2)]);
        assert_eq!(leader.high_watermark(), 100, "3 counts until the set is smaller");
        leader.set_view(view(8, &[1, 2]), 5000);
        assert_eq!(leader.high_watermark(), 4100, "2 has as much");
        assert_eq!(leader.expire(5000, 1500), None);
        leader.fetched(at(2, 4600), true, 9000);
        assert_eq!(leader.expire(90_000, 1500), None, "a follower with all records is never late");
    }
}
