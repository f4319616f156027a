//! A partition over a real log: appends, commits, epochs, and the end of its life.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use millstream_log::{AppendOrigin, LogConfig, TransactionEnd, Verification};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, EndMarker, TimestampType};
use uuid::Uuid;

use crate::replica::LeaderView;
use crate::{
    Acks, Assignment, FlushMode, FsyncQueue, Partition, PartitionConfig, PartitionError, PartitionSpec, ReplicaFault,
    WriteEnd,
};

const CLIENT: AppendOrigin = AppendOrigin::Client(Verification::Unknown);

fn config() -> PartitionConfig {
    PartitionConfig { log: Arc::new(LogConfig::default()), flush_messages: i64::MAX, flush_ms: i64::MAX }
}

fn open(folder: &Path, mode: FlushMode, leader_epoch: i32) -> Arc<Partition> {
    let queue = FsyncQueue::start(mode, folder).expect("threads start");
    let spec = PartitionSpec {
        topic: Arc::from("t"),
        topic_id: Uuid::from_u128(1),
        index: 0,
        node_id: 1,
        data_dir: Some(Arc::from(folder)),
        assignment: Assignment::Leader(LeaderView::alone(1, leader_epoch)),
        high_watermark: 0,
        recovery_point: 0,
        log_start_offset: 0,
        log_start_is_lost: false,
        first_dirty_offset: 0,
        clean_shutdown: false,
    };
    Partition::open_all(&queue, vec![(spec, config())]).remove(0)
}

fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for _ in 0..records {
        builder.append(0, Some(b"key"), Some(b"value"), []).expect("a small record fits");
    }
    builder.build().expect("a small batch fits")
}

fn append(partition: &Partition, records: usize) -> WriteEnd {
    let batch = batch(records);
    let batch = CheckedBatch::of_own(&batch).expect("a valid batch");
    WriteEnd::of(&partition.append(&batch, 0).expect("accepted").batch())
}

fn recovery_point(partition: &Partition) -> i64 {
    partition.with_log(|log| log.recovery_point()).expect("online")
}

#[test]
fn a_leader_alone_moves_the_high_watermark_with_each_append() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::Fsync, 3);
    assert_eq!((partition.high_watermark(), partition.leader_epoch()), (0, 3));
    assert_eq!(append(&partition, 2).offset, 2);
    assert_eq!(append(&partition, 3).offset, 5);
    assert_eq!((partition.high_watermark(), partition.log_end_offset().expect("online")), (5, 5));
    let read = partition.read(0, 1 << 20, true).expect("readable");
    assert_eq!((read.high_watermark, read.log_start_offset), (5, 0));
    assert!(partition.read(5, 1 << 20, true).expect("readable").slice.is_none());
    assert!(matches!(partition.read(6, 1, true), Err(PartitionError::Read(_))));
    drop(partition);
    assert_eq!(open(folder.path(), FlushMode::Fsync, 4).high_watermark(), 5);
}

#[test]
fn acks_all_waits_for_stable_storage_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::Fsync, 0);
    let end = append(&partition, 1);
    assert!(partition.committed(end, Acks::Leader).is_now() && partition.committed(end, Acks::None).is_now());
    assert_eq!(recovery_point(&partition), 0);
    partition.committed(end, Acks::All).wait_blocking().expect("synced");
    assert_eq!(recovery_point(&partition), 1);
    assert!(partition.committed(end, Acks::All).is_now());
}

#[test]
fn in_page_cache_mode_only_flush_messages_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::PageCache, 0);
    let end = append(&partition, 2);
    assert!(partition.committed(end, Acks::All).is_now());
    partition.set_config(&PartitionConfig { flush_messages: 3, ..config() });
    assert!(partition.committed(end, Acks::Leader).is_now());
    let end = append(&partition, 1);
    partition.committed(end, Acks::Leader).wait_blocking().expect("synced");
    assert_eq!(recovery_point(&partition), 3);
}

#[test]
fn flush_ms_syncs_at_the_next_run_of_the_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::PageCache, 0);
    append(&partition, 1);
    partition.flush_if_due().expect("the disk works");
    assert_eq!(recovery_point(&partition), 0);
    partition.set_config(&PartitionConfig { flush_ms: 0, ..config() });
    partition.flush_if_due().expect("the disk works");
    assert_eq!(recovery_point(&partition), 1);
}

#[test]
fn an_internal_record_is_committed_at_the_epoch_of_its_append_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::Fsync, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let appended = partition.append_internal(1, &batch(1), millstream_log::Verification::Disabled).expect("appended");
    runtime.block_on(appended.committed).expect("committed");
    let appended = partition.append_internal(1, &batch(1), millstream_log::Verification::Disabled).expect("appended");
    partition.assign(Assignment::Leader(LeaderView::alone(1, 2))).expect("online");
    let outcome = runtime.block_on(appended.committed);
    assert!(matches!(outcome, Err(PartitionError::LeaderEpochChanged { appended: 1, current: 2 })));
    // An older epoch, which comes late, changes nothing.
    partition.assign(Assignment::Leader(LeaderView::alone(1, 1))).expect("online");
    assert_eq!(partition.leader_epoch(), 2);
    assert!(matches!(partition.check_leader(1), Err(PartitionError::FencedLeaderEpoch { known: 1, current: 2 })));
    assert!(matches!(partition.check_leader(3), Err(PartitionError::UnknownLeaderEpoch { known: 3, current: 2 })));
    assert!(partition.check_leader(-1).is_ok() && partition.check_leader(2).is_ok());
    let mut epochs = Vec::new();
    let visit = |batch: &millstream_record::BatchView<'_>| {
        epochs.push(batch.leader_epoch());
        ControlFlow::Continue(())
    };
    let late = partition.append_internal(1, &batch(1), millstream_log::Verification::Disabled).map(drop);
    assert!(matches!(late, Err(PartitionError::LeaderEpochChanged { appended: 1, current: 2 })));
    assert_eq!(partition.led_epoch(), Some(2));
    partition.append_internal(2, &batch(1), millstream_log::Verification::Disabled).expect("appended");
    partition.replay(visit).expect("readable");
    assert_eq!(epochs, [1, 1, 2]);
}

#[test]
fn a_frozen_partition_takes_no_records_and_a_deleted_one_ends_every_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::Fsync, 0);
    let frozen = partition.freeze().expect("online");
    assert!(matches!(partition.freeze(), Err(PartitionError::Frozen)));
    let one = batch(1);
    let one = CheckedBatch::of_own(&one).expect("a valid batch");
    assert!(matches!(partition.append(&one, 0), Err(PartitionError::Frozen)));
    drop(frozen);
    let end = append(&partition, 1);
    assert!(partition.append_at(0, &one, 0, CLIENT).expect("online").is_none());
    assert!(partition.append_at(1, &one, 0, CLIENT).expect("online").is_some());
    let frozen = partition.freeze().expect("online");
    assert!(partition.delete().is_some() && partition.delete().is_none());
    // A deleted partition stays deleted when its guard goes.
    drop(frozen);
    assert!(matches!(partition.read(0, 1, true), Err(PartitionError::NotHosted)));
    assert!(matches!(partition.append(&one, 0), Err(PartitionError::NotHosted)));
    assert!(matches!(partition.committed(end, Acks::All).wait_blocking(), Err(PartitionError::NotHosted)));
}

#[test]
fn a_log_that_cannot_be_opened_is_offline_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("t-0"), "not a folder").expect("written");
    let partition = open(folder.path(), FlushMode::Fsync, 0);
    assert!(!partition.is_online());
    let error = partition.read(0, 1, true).expect_err("offline");
    assert!(error.is_fault() && error.to_string().contains("t-0"), "{error}");
    let one = batch(1);
    let one = CheckedBatch::of_own(&one).expect("a valid batch");
    assert!(matches!(partition.append(&one, 0), Err(PartitionError::Offline(_))));
}

#[test]
fn a_partition_whose_folder_has_failed_is_offline_and_ends_what_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::Fsync, 0);
    let end = append(&partition, 1);
    assert_eq!(partition.data_dir(), Some(folder.path()));
    partition.fail(&Arc::from("the disk is gone"));
    assert!(!partition.is_online() && partition.is_replica());
    assert_eq!(partition.fault(), Some(ReplicaFault::Offline("the disk is gone".to_owned())));
    let error = partition.read(0, 1, true).expect_err("offline");
    assert!(matches!(error, PartitionError::Offline(_)) && error.to_string().contains("the disk is gone"), "{error}");
    let one = batch(1);
    let one = CheckedBatch::of_own(&one).expect("a valid batch");
    assert!(matches!(partition.append(&one, 0), Err(PartitionError::Offline(_))));
    assert!(matches!(partition.committed(end, Acks::All).wait_blocking(), Err(PartitionError::Offline(_))));
    // It takes no role until a restart, and can be deleted.
    assert!(partition.assign(Assignment::Leader(LeaderView::alone(1, 1))).is_err());
    assert!(partition.delete().is_none());
    assert!(matches!(partition.read(0, 1, true), Err(PartitionError::NotHosted)));
}

#[test]
fn many_partitions_are_opened_in_order_and_closed_in_parallel() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = FsyncQueue::start(FlushMode::Fsync, folder.path()).expect("threads start");
    let data_dir: Arc<Path> = Arc::from(folder.path());
    let specs = |clean_shutdown| {
        let data_dir = Arc::clone(&data_dir);
        let spec = move |index| PartitionSpec {
            topic: Arc::from("many"),
            topic_id: Uuid::from_u128(1),
            index,
            node_id: 1,
            data_dir: Some(Arc::clone(&data_dir)),
            assignment: Assignment::Leader(LeaderView::alone(1, 0)),
            high_watermark: 0,
            recovery_point: i64::from(clean_shutdown),
            log_start_offset: 0,
            log_start_is_lost: false,
            first_dirty_offset: 0,
            clean_shutdown,
        };
        (0..100).map(move |index| (spec(index), config())).collect()
    };
    let partitions = Partition::open_all(&queue, specs(false));
    assert_eq!(partitions.iter().map(|partition| partition.index()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    partitions.iter().for_each(|partition| _ = append(partition, 1));
    assert!(Partition::close_all(&partitions));
    assert!(partitions.iter().all(|partition| recovery_point(partition) == 1));
    drop(partitions);
    let partitions = Partition::open_all(&queue, specs(true));
    assert!(partitions.iter().all(|partition| partition.high_watermark() == 1));
    partitions[7].delete();
    assert!(!Partition::close_all(&partitions), "a partition without a log is not closed");
}

#[test]
fn readers_of_committed_records_see_a_transaction_after_its_marker() {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = open(folder.path(), FlushMode::PageCache, 0);
    append(&partition, 1);
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(7, 0, 0).transactional(true).append(0, None, Some(b"value"), []).expect("a small record fits");
    let transactional = builder.build().expect("a small batch fits");
    let transactional = CheckedBatch::of_own(&transactional).expect("a valid batch");
    let guard = partition.begin_verification(&transactional.header(), false).expect("it leads").expect("a guard");
    partition
        .append_of(&transactional, 0, AppendOrigin::Client(Verification::Confirmed(guard)))
        .expect("its transaction is known");
    append(&partition, 1);
    assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (3, 1));
    let read = partition.read_committed(0, usize::MAX, true).expect("readable");
    let len = read.slice.expect("records").len;
    assert_eq!((read.high_watermark, read.last_stable_offset, read.aborted), (3, 1, Some(vec![])));
    assert!(partition.read_committed(1, usize::MAX, true).expect("readable").slice.is_none());
    assert!(len < partition.read(0, usize::MAX, true).expect("readable").slice.expect("records").len);
    let arrival = crate::Arrival::of(1_000_000, true);
    partition.waiters().register(&arrival);
    let marker = EndMarker { is_commit: false, coordinator_epoch: 0 };
    let end = TransactionEnd { producer_id: 7, producer_epoch: 0, marker, transaction_version: 0 };
    partition.append_marker(&end, None).expect("accepted").committed.wait_blocking().expect("committed");
    assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (4, 4));
    // The fetch is woken: how many bytes became stable is not known.
    assert_woken(&arrival);
    let aborted = partition.read_committed(0, usize::MAX, true).expect("readable").aborted.expect("a list");
    assert_eq!(aborted.iter().map(|found| (found.producer_id, found.first_offset)).collect::<Vec<_>>(), [(7, 1)]);
}

fn assert_woken(arrival: &crate::Arrival) {
    use std::task::{Context, Poll, Waker};
    let mut context = Context::from_waker(Waker::noop());
    let poll = std::future::Future::poll(std::pin::pin!(arrival.enough()), &mut context);
    assert_eq!(poll, Poll::Ready(()), "the fetch is woken");
}
