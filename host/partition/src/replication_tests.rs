//! Replicas over real logs: commits, failover, divergence, and what a follower takes from its leader.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::{AppendOrigin, Appended, LogConfig, TransactionEnd, Verification};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, EndMarker, TimestampType};
use tempfile::TempDir;
use uuid::Uuid;

use crate::replica::{LeaderView, LogEnds, NextStep, ResponseError};
use crate::{
    Acks, Arrival, Assignment, Committed, FlushMode, FollowerFetch, FollowerRead, FsyncQueue, Partition,
    PartitionConfig, PartitionError, PartitionSpec, WriteEnd,
};

const FETCH_BYTES: usize = 1 << 20;

/// Three brokers with one replica each, numbered from 1.
struct Replicas {
    folders: Vec<TempDir>,
    partitions: Vec<Arc<Partition>>,
}

fn view(leader_epoch: i32, partition_epoch: i32, isr: &[i32]) -> LeaderView {
    LeaderView { leader_epoch, partition_epoch, replicas: vec![1, 2, 3], isr: isr.to_vec(), min_isr: 2 }
}

fn open(folder: &Path, mode: FlushMode, node_id: i32, assignment: Assignment, high_watermark: i64) -> Arc<Partition> {
    let queue = FsyncQueue::start(mode, folder).expect("threads start");
    let spec = PartitionSpec {
        topic: Arc::from("t"),
        topic_id: Uuid::from_u128(1),
        index: 0,
        node_id,
        data_dir: Some(Arc::from(folder)),
        assignment,
        high_watermark,
        recovery_point: 0,
        log_start_offset: 0,
        log_start_is_lost: false,
        first_dirty_offset: 0,
        clean_shutdown: false,
    };
    let log = Arc::new(LogConfig::default());
    let config = PartitionConfig { log, flush_messages: i64::MAX, flush_ms: i64::MAX };
    Partition::open_all(&queue, vec![(spec, config)]).remove(0)
}

impl Replicas {
    /// Starts with broker 1 as the leader in epoch 1.
    fn start(mode: FlushMode, isr: &[i32]) -> Self {
        let folders: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let assignment = |id| match id {
            1 => Assignment::Leader(view(1, 0, isr)),
            _ => Assignment::Follower { leader: 1, leader_epoch: 1 },
        };
        let partitions = (1..=3).map(|id| open(folders[id as usize - 1].path(), mode, id, assignment(id), 0)).collect();
        Self { folders, partitions }
    }

    fn of(&self, id: i32) -> &Arc<Partition> {
        &self.partitions[id as usize - 1]
    }

    fn log_file(&self, id: i32) -> PathBuf {
        self.folders[id as usize - 1].path().join("t-0").join("00000000000000000000.log")
    }

    /// Makes a broker the leader, and the others its followers.
    fn elect(&self, leader: i32, leader_epoch: i32, isr: &[i32]) {
        for id in 1..=3 {
            let assignment = match id == leader {
                true => Assignment::Leader(view(leader_epoch, 0, isr)),
                false => Assignment::Follower { leader, leader_epoch },
            };
            self.of(id).assign(assignment).expect("online");
        }
    }

    /// Appends a batch of `records` to the log of a broker, and returns the end of it.
    fn append(&self, id: i32, records: usize) -> WriteEnd {
        WriteEnd::of(&self.append_batch(id, &batch(records)).expect("accepted").batch())
    }

    fn append_batch(&self, id: i32, batch: &[u8]) -> Result<Appended, PartitionError> {
        self.of(id).append(&CheckedBatch::of_own(batch).expect("a valid batch"), 0)
    }

    /// Sends one fetch of a follower to its leader.
    fn request(&self, id: i32) -> Result<FollowerRead, PartitionError> {
        let next = self.of(id).next_fetch().expect("online").expect("a follower");
        let fetch = FollowerFetch {
            id,
            broker_epoch: 1,
            position: next.position,
            ends: next.ends,
            log_start: next.log_start,
            eligible: true,
        };
        self.of(next.leader).read_for_follower(&fetch, FETCH_BYTES, true)
    }

    /// Lets a follower fetch once, and do what the response says. Returns whether the leader proposed an in-sync set.
    fn fetch(&self, id: i32) -> (NextStep, bool) {
        let read = self.request(id).expect("served");
        let records = read.slice.map(|slice| slice.read_to_bytes().expect("readable")).unwrap_or_default();
        let follower = self.of(id);
        let step = follower.follow(&read.response, &records).expect("the records fit");
        match step {
            NextStep::Truncate { end } => follower.truncate(follower.leader_epoch(), end).expect("the disk works"),
            NextStep::Restart { start } => follower.restart(follower.leader_epoch(), start).expect("the disk works"),
            NextStep::Append | NextStep::Wait | NextStep::Ignore => {}
        }
        (step, read.proposal.is_some())
    }

    fn sync(&self, id: i32) {
        let end = self.end(id);
        self.of(id).synced(end).wait_blocking().expect("the disk works");
    }

    fn end(&self, id: i32) -> i64 {
        self.of(id).log_end_offset().expect("online")
    }

    /// Lets followers fetch until they have everything, synced, and know the high watermark.
    fn catch_up(&self, ids: &[i32]) {
        for _ in 0..8 {
            for id in ids {
                self.fetch(*id);
                self.sync(*id);
            }
        }
    }

    fn high_watermarks(&self) -> [i64; 3] {
        [1, 2, 3].map(|id| self.of(id).high_watermark())
    }
}

fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for _ in 0..records {
        builder.append(0, Some(b"key"), Some(b"value"), []).expect("a small record fits");
    }
    builder.build().expect("a small batch fits")
}

/// Returns whether a write waits; the wait goes on in `committed`.
fn is_pending(committed: &mut Committed) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(committed).poll(&mut context).is_pending()
}

#[test]
fn a_write_is_committed_when_all_in_sync_have_synced_it() {
    let replicas = Replicas::start(FlushMode::Fsync, &[1, 2, 3]);
    let end = replicas.append(1, 3);
    let mut committed = replicas.of(1).committed(end, Acks::All);
    assert!(replicas.of(1).committed(end, Acks::Leader).is_now());
    replicas.sync(1);
    assert_eq!(replicas.fetch(2).0, NextStep::Append);
    assert_eq!(replicas.fetch(3).0, NextStep::Append);
    assert_eq!((replicas.high_watermarks(), replicas.end(2), replicas.end(3)), ([0, 0, 0], 3, 3));
    // The next fetch tells the leader that they have the records, but nothing is synced.
    replicas.fetch(2);
    replicas.fetch(3);
    assert_eq!(replicas.high_watermarks(), [3, 0, 3], "the high watermark comes with the response");
    assert!(is_pending(&mut committed));
    replicas.sync(2);
    replicas.fetch(2);
    assert!(is_pending(&mut committed), "3 has not synced");
    replicas.sync(3);
    replicas.fetch(3);
    assert!(!is_pending(&mut committed));
    assert_eq!(replicas.high_watermarks(), [3, 3, 3]);
    assert!(replicas.of(1).committed(end, Acks::All).is_now());
    let [one, two, three] = [1, 2, 3].map(|id| std::fs::read(replicas.log_file(id)).expect("a log"));
    assert!(one == two && two == three, "replicas hold the same bytes");
}

#[test]
fn in_page_cache_mode_the_position_is_enough() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2]);
    let end = replicas.append(1, 1);
    let mut committed = replicas.of(1).committed(end, Acks::All);
    replicas.fetch(2);
    assert!(is_pending(&mut committed));
    replicas.fetch(2);
    assert!(!is_pending(&mut committed), "3 is not in sync and does not count");
}

#[test]
fn consumers_and_followers_wait_for_their_own_ends() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2]);
    let (consumer, follower) = (Arrival::new(1), Arrival::new(1));
    replicas.of(1).waiters().register(&consumer);
    replicas.of(1).follower_waiters().register(&follower);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let is_ready = |arrival: &Arc<Arrival>| {
        runtime.block_on(async {
            tokio::select! { biased; () = arrival.enough() => true, () = std::future::ready(()) => false }
        })
    };
    replicas.append(1, 1);
    assert!(!is_ready(&consumer) && is_ready(&follower));
    replicas.fetch(2);
    replicas.fetch(2);
    assert!(is_ready(&consumer));
    assert_eq!(replicas.of(1).read(0, FETCH_BYTES, true).expect("readable").high_watermark, 1);
}

#[test]
fn a_new_leader_keeps_what_was_committed_and_the_old_one_gives_up_the_rest() {
    let replicas = Replicas::start(FlushMode::Fsync, &[1, 2, 3]);
    replicas.append(1, 2);
    replicas.catch_up(&[2, 3]);
    // One record reaches broker 2 only, another one no follower.
    replicas.append(1, 1);
    replicas.fetch(2);
    let end = replicas.append(1, 1);
    let waiting = replicas.of(1).committed(end, Acks::All);
    replicas.elect(3, 2, &[1, 2, 3]);
    assert!(matches!(waiting.wait_blocking(), Err(PartitionError::NotLeader { leader: 3 })));
    assert!(matches!(replicas.of(1).check_leader(-1), Err(PartitionError::NotLeader { leader: 3 })));
    assert!(replicas.of(3).check_leader(2).is_ok());
    let late = replicas.of(1).committed(end, Acks::All);
    assert!(matches!(late.wait_blocking(), Err(PartitionError::NotLeader { leader: 3 })));
    let rejected = replicas.append_batch(1, &batch(1));
    assert!(matches!(rejected, Err(PartitionError::NotLeader { leader: 3 })));
    assert_eq!(replicas.append(3, 5).offset, 7);
    assert_eq!(replicas.fetch(1).0, NextStep::Truncate { end: 2 });
    // The checkpoint comes before the truncation.
    replicas.sync(2);
    let read = replicas.request(2).expect("served");
    assert_eq!(replicas.of(2).recovery_point().expect("online"), 3);
    assert_eq!(replicas.of(2).follow(&read.response, &[]).expect("online"), NextStep::Truncate { end: 2 });
    assert_eq!(replicas.of(2).recovery_point().expect("online"), 2);
    assert_eq!(replicas.fetch(2).0, NextStep::Truncate { end: 2 });
    replicas.catch_up(&[1, 2]);
    assert_eq!(replicas.high_watermarks(), [7, 7, 7]);
    // The old leader leads again. Other records have the offsets of its write.
    replicas.elect(1, 3, &[1, 2, 3]);
    let never = replicas.of(1).committed(end, Acks::All).wait_blocking();
    assert!(matches!(never, Err(PartitionError::LeaderEpochChanged { appended: 1, current: 3 })));
    let [one, two, three] = [1, 2, 3].map(|id| std::fs::read(replicas.log_file(id)).expect("a log"));
    assert!(one == two && two == three);
    let epochs = replicas.of(1).with_log(|log| log.epochs().to_vec()).expect("online");
    assert_eq!(
        epochs.iter().map(|entry| (entry.epoch, entry.start_offset)).collect::<Vec<_>>(),
        [(1, 0), (2, 2), (3, 7)]
    );
}

#[test]
fn a_leader_of_no_records_leaves_no_trace() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2, 3]);
    replicas.append(1, 2);
    replicas.catch_up(&[2, 3]);
    replicas.elect(2, 2, &[1, 2, 3]);
    replicas.elect(3, 3, &[1, 2, 3]);
    replicas.append(3, 1);
    replicas.catch_up(&[1, 2]);
    assert_eq!([1, 2, 3].map(|id| replicas.end(id)), [3, 3, 3]);
    assert_eq!(replicas.high_watermarks(), [3, 3, 3]);
}

#[test]
fn a_duplicate_is_found_after_a_failover() {
    let replicas = Replicas::start(FlushMode::Fsync, &[1, 2, 3]);
    let sent = |sequence| {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.append(0, None, Some(b"value"), []).expect("a small record fits");
        builder.producer(7, 0, sequence);
        builder.build().expect("a small batch fits")
    };
    replicas.append_batch(1, &sent(0)).expect("accepted");
    replicas.append_batch(1, &sent(1)).expect("accepted");
    replicas.catch_up(&[2, 3]);
    replicas.elect(2, 2, &[2, 3]);
    assert!(matches!(replicas.append_batch(2, &sent(1)), Ok(Appended::Duplicate(at)) if at.base_offset == 1));
    assert!(matches!(replicas.append_batch(2, &sent(2)), Ok(Appended::New(at)) if at.base_offset == 2));
    replicas.append_batch(2, &sent(4)).expect_err("a sequence is missing");
}

#[test]
fn a_follower_joins_the_in_sync_set_and_leaves_it() {
    let replicas = Replicas::start(FlushMode::Fsync, &[1, 2]);
    replicas.append(1, 1);
    replicas.catch_up(&[2]);
    assert!(!replicas.fetch(3).1, "it had nothing when it fetched");
    replicas.sync(3);
    assert!(replicas.fetch(3).1);
    assert!(!replicas.fetch(3).1, "one proposal is on its way");
    replicas.of(1).assign(Assignment::Leader(view(1, 1, &[1, 2, 3]))).expect("online");
    assert_eq!(&*replicas.of(1).isr(), [1, 2, 3]);
    replicas.append(1, 1);
    assert!(replicas.of(1).expire_followers(3_600_000).is_none(), "no follower lags for an hour");
    let lagging = || replicas.of(1).expire_followers(1);
    let proposal = std::iter::repeat_with(lagging).flatten().next().expect("a follower lags");
    assert!(proposal.isr[0] == (1, -1) && proposal.isr.len() < 3, "{proposal:?}");
    replicas.of(1).assign(Assignment::Leader(view(1, 2, &[1]))).expect("online");
    assert_eq!(replicas.of(1).high_watermark(), 1, "one replica is fewer than min.insync.replicas");
}

#[test]
fn fetches_with_another_epoch_or_of_no_replica_are_rejected() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2, 3]);
    replicas.append(1, 1);
    let next = replicas.of(2).next_fetch().expect("online").expect("a follower");
    let fetch = |id, leader_epoch| {
        let position = crate::replica::FetchPosition { leader_epoch, ..next.position };
        let fetch =
            FollowerFetch { id, broker_epoch: 1, position, ends: LogEnds::default(), log_start: 0, eligible: true };
        replicas.of(1).read_for_follower(&fetch, FETCH_BYTES, true)
    };
    assert!(matches!(fetch(2, 0), Err(PartitionError::FencedLeaderEpoch { known: 0, current: 1 })));
    assert!(matches!(fetch(2, 2), Err(PartitionError::UnknownLeaderEpoch { known: 2, current: 1 })));
    assert!(matches!(fetch(9, 1), Err(PartitionError::NotReplica { id: 9 })));
    // A response that comes after the next election is not used.
    let late = replicas.request(2).expect("served");
    replicas.elect(3, 2, &[1, 2, 3]);
    let records = late.slice.expect("records").read_to_bytes().expect("readable");
    assert_eq!(replicas.of(2).follow(&late.response, &records).expect("online"), NextStep::Ignore);
    assert!(matches!(
        replicas.of(1).read_for_follower(
            &FollowerFetch {
                id: 2,
                broker_epoch: 1,
                position: next.position,
                ends: LogEnds::default(),
                log_start: 0,
                eligible: true
            },
            1,
            true
        ),
        Err(PartitionError::FencedLeaderEpoch { .. })
    ));
}

#[test]
fn damaged_records_are_not_appended() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2, 3]);
    replicas.append(1, 1);
    let read = replicas.request(2).expect("served");
    let records = read.slice.expect("records").read_to_bytes().expect("readable");
    for at in [20, records.len() - 1] {
        let mut damaged = records.to_vec();
        damaged[at] ^= 1;
        let error = replicas.of(2).follow(&read.response, &damaged).expect_err("the checksum differs");
        assert!(matches!(error, PartitionError::Append(_)), "{error}");
    }
    assert_eq!(replicas.end(2), 0);
    assert_eq!(replicas.of(2).follow(&read.response, &records).expect("fits"), NextStep::Append);
}

#[test]
fn a_follower_takes_the_leaders_log_start_and_restarts_behind_it() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2]);
    replicas.append(1, 4);
    replicas.append(1, 4);
    replicas.catch_up(&[2]);
    replicas.of(1).with_log(|log| log.delete_records(4)).expect("online").expect("the disk works");
    assert_eq!(replicas.request(3).expect("served").response.error, Some(ResponseError::OffsetOutOfRange));
    assert_eq!(replicas.fetch(3).0, NextStep::Restart { start: 4 });
    replicas.catch_up(&[2, 3]);
    for id in [2, 3] {
        let start = replicas.of(id).with_log(|log| log.log_start_offset()).expect("online");
        assert_eq!((start, replicas.end(id), replicas.of(id).high_watermark()), (4, 8, 8), "broker {id}");
    }
}

#[test]
fn a_replica_that_starts_again_knows_what_was_committed() {
    let mut replicas = Replicas::start(FlushMode::Fsync, &[1, 2, 3]);
    replicas.append(1, 2);
    replicas.catch_up(&[2, 3]);
    replicas.append(1, 1);
    assert!(Partition::close_all(&replicas.partitions));
    replicas.partitions.clear();
    for id in 1..=3 {
        let assignment = match id {
            1 => Assignment::Leader(view(2, 1, &[1, 2, 3])),
            _ => Assignment::Follower { leader: 1, leader_epoch: 2 },
        };
        let folder = replicas.folders[id as usize - 1].path();
        replicas.partitions.push(open(folder, FlushMode::Fsync, id, assignment, 2));
    }
    assert_eq!(replicas.high_watermarks(), [2, 2, 2]);
    replicas.catch_up(&[2, 3]);
    assert_eq!(replicas.high_watermarks(), [3, 3, 3], "the record of before is committed by the replicas in sync");
    // A checkpoint beyond the log, of a disk that has lost its end.
    replicas.partitions.clear();
    let follower = Assignment::Follower { leader: -1, leader_epoch: 2 };
    let partition = open(replicas.folders[1].path(), FlushMode::Fsync, 2, follower, 50);
    assert_eq!((partition.high_watermark(), partition.next_fetch().expect("online")), (3, None));
}

#[test]
fn an_internal_record_needs_the_leader_of_its_epoch_and_enough_replicas() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1]);
    let append = |id: i32, epoch| {
        replicas.of(id).append_internal(epoch, &batch(1), millstream_log::Verification::Disabled).map(drop)
    };
    assert!(matches!(append(1, 1), Err(PartitionError::NotEnoughReplicas { in_sync: 1 })));
    assert!(matches!(append(2, 1), Err(PartitionError::NotLeader { leader: 1 })));
    replicas.elect(2, 2, &[1, 2]);
    assert!(matches!(append(2, 1), Err(PartitionError::LeaderEpochChanged { appended: 1, current: 2 })));
    assert_eq!([1, 2, 3].map(|id| replicas.of(id).led_epoch()), [None, Some(2), None]);
    assert_eq!([1, 2, 3].map(|id| replicas.end(id)), [0; 3]);
    append(2, 2).expect("appended");
    assert_eq!(replicas.end(2), 1);
}

#[test]
fn a_failover_keeps_open_transactions_and_a_marker_counts_once_it_is_committed() {
    let replicas = Replicas::start(FlushMode::PageCache, &[1, 2, 3]);
    let round = || {
        for _ in 0..3 {
            replicas.fetch(2);
            replicas.fetch(3);
        }
    };
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(7, 0, 0).transactional(true).append(0, None, Some(b"value"), []).expect("a small record fits");
    let transactional = builder.build().expect("a small batch fits");
    let transactional = CheckedBatch::of_own(&transactional).expect("a valid batch");
    let origin = AppendOrigin::Client(Verification::Disabled);
    replicas.of(1).append_of(&transactional, 0, origin).expect("accepted");
    replicas.append(1, 1);
    round();
    for id in 1..=3 {
        let partition = replicas.of(id);
        assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (2, 0), "broker {id}");
    }
    let marker = EndMarker { is_commit: false, coordinator_epoch: 0 };
    let end = TransactionEnd { producer_id: 7, producer_epoch: 0, marker, transaction_version: 0 };
    let lost = replicas.of(1).append_marker(&end, None).expect("accepted").committed;
    assert!(!lost.is_now());
    // The marker is only in the old leader's log, so nothing is decided.
    assert_eq!(replicas.of(1).last_stable_offset(), 0);
    replicas.elect(2, 2, &[2, 3]);
    assert!(lost.wait_blocking().is_err());
    assert_eq!(replicas.of(2).last_stable_offset(), 0);
    for _ in 0..3 {
        replicas.fetch(1);
        replicas.fetch(3);
    }
    let decided = replicas.of(2).append_marker(&end, None).expect("accepted").committed;
    for _ in 0..3 {
        replicas.fetch(1);
        replicas.fetch(3);
    }
    decided.wait_blocking().expect("committed");
    for id in 1..=3 {
        let partition = replicas.of(id);
        assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (3, 3), "broker {id}");
        let read = partition.read_committed(0, usize::MAX, true).expect("readable");
        assert_eq!(read.aborted.expect("a list").len(), 1, "broker {id}");
    }
}
