//! What a follower fetches next, and what a response means for its log (KIP-101, KIP-279, KIP-595).

use millstream_log::seeded_bug::{self, Bug};

/// The leader epochs of the follower's own log.
pub trait EpochLookup {
    /// Returns the offset after the last record.
    fn end(&self) -> i64;

    /// Returns the epoch of the last record, or `None` for an empty log.
    fn latest_epoch(&self) -> Option<i32>;

    /// Returns the largest epoch at or below `epoch`, and the end offset of its records; `None` if there is none.
    fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)>;
}

/// Where a follower fetches: fields of a Fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// The leader epoch that the follower knows. The leader rejects another one.
    pub leader_epoch: i32,
    /// The end of the follower's log.
    pub offset: i64,
    /// The epoch of its last record, or -1. The leader compares it with its own log.
    pub last_fetched_epoch: i32,
    /// The high watermark that it knows, so that the leader responds at once if there is a newer one (KIP-1166).
    pub high_watermark: i64,
}

/// A response of the leader, without the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaResponse {
    /// The position that the request was for.
    pub position: FetchPosition,
    /// The leader's high watermark.
    pub high_watermark: i64,
    /// The leader's log start offset.
    pub log_start: i64,
    /// The end of the leader's log; `None` from a leader that counts the offset of every fetch as synced.
    pub log_end: Option<i64>,
    /// The largest epoch of the leader's log at or below the fetched one, and its end, if the logs differ there.
    pub diverging: Option<(i32, i64)>,
    /// Why the leader has no records for the position.
    pub error: Option<ResponseError>,
}

/// The end of the records of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsEnd {
    /// The offset after the last record.
    pub offset: i64,
    /// The epoch of the last record.
    pub epoch: i32,
}

impl FetchPosition {
    /// Returns where to fetch behind records that came from this position and are not appended yet.
    #[must_use]
    pub fn behind(self, records: RecordsEnd) -> Self {
        Self { offset: records.offset, last_fetched_epoch: records.epoch, ..self }
    }
}

impl ReplicaResponse {
    /// Returns whether the follower appends what came, and does nothing else.
    #[must_use]
    pub fn is_append(&self) -> bool {
        self.error.is_none() && self.diverging.is_none()
    }

    /// Returns whether the leader has more than the records that came. It then takes a fetch of the next ones before
    /// these are synced.
    #[must_use]
    pub fn has_more(&self, records: RecordsEnd) -> bool {
        self.is_append() && self.log_end.is_some_and(|end| end > records.offset)
    }
}

/// An error of the leader that a follower handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// The offset is not in the leader's log (OFFSET_OUT_OF_RANGE).
    OffsetOutOfRange,
    /// The epoch is not that of the leader, or it does not lead (FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
    /// NOT_LEADER_OR_FOLLOWER). The metadata will say more.
    WrongEpoch,
}

/// What a follower does with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Append the records. Then call [`FollowerState::appended`].
    Append,
    /// Remove all records from this offset on, and fetch again.
    Truncate {
        /// The new end of the log.
        end: i64,
    },
    /// Remove all records, and begin at this offset: the leader has deleted what comes before.
    Restart {
        /// The leader's log start offset.
        start: i64,
    },
    /// Wait for newer metadata.
    Wait,
    /// Ignore the response: it is one of an earlier epoch or position.
    Ignore,
}

/// The state of a follower in one epoch.
#[derive(Debug)]
pub struct FollowerState {
    leader_epoch: i32,
    high_watermark: i64,
    /// The newest high watermark of the leader. It may lie beyond this log.
    leaders_high_watermark: i64,
    log_start: i64,
}

impl FollowerState {
    /// Begins an epoch. `high_watermark` and `log_start` are those that this broker knew.
    #[must_use]
    pub fn new(leader_epoch: i32, high_watermark: i64, log_start: i64) -> Self {
        Self { leader_epoch, high_watermark, leaders_high_watermark: high_watermark, log_start }
    }

    /// Returns where to fetch.
    #[must_use]
    pub fn position(&self, log: &impl EpochLookup) -> FetchPosition {
        let ignores_epochs = seeded_bug::is(Bug::TruncateToHighWatermark);
        FetchPosition {
            leader_epoch: self.leader_epoch,
            offset: log.end(),
            last_fetched_epoch: log.latest_epoch().filter(|_| !ignores_epochs).unwrap_or(-1),
            high_watermark: self.high_watermark,
        }
    }

    /// Returns the epoch of the leader.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Returns the offset below which records are committed, as far as this follower knows.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Returns how many committed records this log lacks, as far as the leader's last response says.
    #[must_use]
    pub fn lag(&self, end: i64) -> i64 {
        (self.leaders_high_watermark - end).max(0)
    }

    /// Returns the offset below which the leader has deleted records. The follower may delete them as well.
    #[must_use]
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Decides what a response means.
    pub fn responded(&mut self, response: &ReplicaResponse, log: &impl EpochLookup) -> NextStep {
        // The log may have been truncated and have grown to the same end since.
        let (asked, now) = (response.position, self.position(log));
        if (asked.leader_epoch, asked.offset, asked.last_fetched_epoch)
            != (now.leader_epoch, now.offset, now.last_fetched_epoch)
        {
            return NextStep::Ignore;
        }
        match response.error {
            Some(ResponseError::WrongEpoch) => return NextStep::Wait,
            // Below the leader's start nothing is left to compare. Above its end the logs differ, and the comparison of
            // epochs comes first. So an offset out of range is one below.
            Some(ResponseError::OffsetOutOfRange) if response.log_start > log.end() => {
                self.log_start = response.log_start;
                return NextStep::Restart { start: response.log_start };
            }
            Some(ResponseError::OffsetOutOfRange) => return NextStep::Wait,
            None => {}
        }
        if let Some((epoch, end)) = response.diverging {
            return self.truncate(epoch, end, log);
        }
        self.leaders_high_watermark = response.high_watermark;
        self.log_start = self.log_start.max(response.log_start);
        NextStep::Append
    }

    /// Notes the end of the log after an append. The high watermark follows that of the leader as far as the log goes.
    pub fn appended(&mut self, end: i64) {
        self.high_watermark = self.high_watermark.max(self.leaders_high_watermark.min(end));
    }

    /// Notes the end of the log after a truncation, which removes whole batches.
    pub fn truncated(&mut self, end: i64) {
        self.high_watermark = self.high_watermark.min(end);
        self.leaders_high_watermark = self.leaders_high_watermark.min(end);
    }

    /// Truncates to where both logs agree on the epoch. If this log ends the epoch earlier, it ends there. If it lacks
    /// the epoch, the next comparison is one epoch lower.
    fn truncate(&mut self, epoch: i32, end: i64, log: &impl EpochLookup) -> NextStep {
        let ours = log.end_of_epoch(epoch).map_or(self.log_start, |(_, end)| end);
        // A truncation always gets shorter, so that the comparison ends.
        let end = end.min(ours).min(log.end()).max(self.log_start);
        self.truncated(end);
        NextStep::Truncate { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log by the epoch of each record, from offset 0.
    struct Records(Vec<i32>);

    impl EpochLookup for Records {
        fn end(&self) -> i64 {
            self.0.len() as i64
        }

        fn latest_epoch(&self) -> Option<i32> {
            self.0.last().copied()
        }

        fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
            let end = self.0.partition_point(|of_record| *of_record <= epoch);
            end.checked_sub(1).map(|last| (self.0[last], end as i64))
        }
    }

    fn response(log: &Records) -> ReplicaResponse {
        let position = FollowerState::new(4, 0, 0).position(log);
        ReplicaResponse { position, high_watermark: 9, log_start: 0, log_end: None, diverging: None, error: None }
    }

    #[test]
    fn records_are_appended_and_the_high_watermark_follows() {
        let (mut follower, log) = (FollowerState::new(4, 2, 0), Records(vec![1, 1, 3]));
        let position = FetchPosition { leader_epoch: 4, offset: 3, last_fetched_epoch: 3, high_watermark: 2 };
        assert_eq!(follower.position(&log), position);
        assert_eq!(follower.responded(&ReplicaResponse { log_start: 1, ..response(&log) }, &log), NextStep::Append);
        follower.appended(6);
        assert_eq!((follower.high_watermark(), follower.log_start()), (6, 1), "the log ends at 6");
        assert_eq!(FollowerState::new(4, 0, 0).position(&Records(vec![])).last_fetched_epoch, -1);
    }

    #[test]
    fn the_next_fetch_goes_ahead_of_the_append_only_while_the_leader_has_more() {
        let (mut follower, mut log) = (FollowerState::new(4, 0, 0), Records(vec![1, 1]));
        let first = ReplicaResponse { log_end: Some(5), ..response(&log) };
        let came = RecordsEnd { offset: 4, epoch: 3 };
        let ahead = first.position.behind(came);
        assert_eq!((ahead.offset, ahead.last_fetched_epoch, ahead.leader_epoch), (4, 3, 4));
        assert!(first.has_more(came) && !first.has_more(RecordsEnd { offset: 5, epoch: 3 }));
        assert!(!ReplicaResponse { log_end: None, ..first }.has_more(came), "the leader would count it as synced");
        assert!(!ReplicaResponse { diverging: Some((1, 1)), ..first }.has_more(came));
        assert!(!ReplicaResponse { error: Some(ResponseError::WrongEpoch), ..first }.is_append());
        // The response to the fetch ahead counts once the records before it are in the log, and never otherwise.
        let second = ReplicaResponse { position: ahead, ..first };
        assert_eq!(follower.responded(&second, &log), NextStep::Ignore);
        assert_eq!(follower.responded(&first, &log), NextStep::Append);
        log.0.extend([3, 3]);
        assert_eq!(follower.responded(&second, &log), NextStep::Append);
    }

    #[test]
    fn a_log_that_differs_is_truncated_to_where_both_agree() {
        let step = |log: &[i32], diverging| {
            let (mut follower, log) = (FollowerState::new(4, 0, 0), Records(log.to_vec()));
            follower.responded(&ReplicaResponse { diverging: Some(diverging), ..response(&log) }, &log)
        };
        // The leader has epoch 1 up to 2, and this log up to 3.
        assert_eq!(step(&[1, 1, 1], (1, 2)), NextStep::Truncate { end: 2 });
        // This log has epoch 2, which the leader has not. Epoch 1 ends at 2 here and at 5 there.
        assert_eq!(step(&[1, 1, 2, 2], (1, 5)), NextStep::Truncate { end: 2 });
        // The leader knows nothing at or below the epoch.
        assert_eq!(step(&[2, 2], (1, 0)), NextStep::Truncate { end: 0 });
    }

    #[test]
    fn a_follower_behind_the_leaders_start_begins_there() {
        let (mut follower, log) = (FollowerState::new(4, 2, 0), Records(vec![1, 1]));
        let out =
            |log_start| ReplicaResponse { error: Some(ResponseError::OffsetOutOfRange), log_start, ..response(&log) };
        assert_eq!(follower.responded(&out(1), &log), NextStep::Wait);
        assert_eq!(follower.responded(&out(50), &log), NextStep::Restart { start: 50 });
        assert_eq!(follower.log_start(), 50);
    }

    #[test]
    fn responses_to_other_requests_are_ignored() {
        let (mut follower, log) = (FollowerState::new(4, 0, 0), Records(vec![1, 2]));
        let mut of_epoch = response(&log);
        of_epoch.position.leader_epoch = 3;
        // The log has ended at the same offset before, with other records.
        for other in [of_epoch, response(&Records(vec![1])), response(&Records(vec![1, 1]))] {
            let diverging = ReplicaResponse { diverging: Some((1, 1)), ..other };
            assert_eq!(follower.responded(&diverging, &log), NextStep::Ignore);
        }
        let wrong = ReplicaResponse { error: Some(ResponseError::WrongEpoch), ..response(&log) };
        assert_eq!(follower.responded(&wrong, &log), NextStep::Wait);
    }
}
