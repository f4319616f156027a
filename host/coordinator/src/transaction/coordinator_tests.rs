//! The coordinator over a log in memory, in real time. Tests wait for responses, never for the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::TransactionConfig;
use super::coordinator::{InitRequest, TransactionCoordinator};
use super::describe::TransactionFilter;
use super::host::{HostFuture, MarkerResult, Markers, TransactionHost};
use super::model::{Outcome, Producer, TopicPartition, TransactionError, TransactionState, TransactionVersion};
use crate::memory_topic::{Memory, Reads, WAIT_MAX, wait_until};

use TransactionVersion::{V0, V2};

/// Partitions that keep the markers that they get.
#[derive(Clone)]
struct Host {
    next_id: Arc<AtomicI64>,
    written: Arc<Mutex<Vec<Markers>>>,
    /// The results of partitions, if they are not [`MarkerResult::Written`].
    results: Arc<Mutex<BTreeMap<TopicPartition, MarkerResult>>>,
    open: watch::Sender<bool>,
}

impl Host {
    fn new() -> Self {
        let open = watch::Sender::new(true);
        Self { next_id: Arc::new(AtomicI64::new(100)), written: Arc::default(), results: Arc::default(), open }
    }

    fn markers(&self) -> usize {
        self.written.lock().len()
    }
}

impl TransactionHost for Host {
    fn version(&self) -> TransactionVersion {
        V2
    }

    fn new_producer_id(&self) -> HostFuture<Option<i64>> {
        Box::pin(std::future::ready(Some(self.next_id.fetch_add(1, Ordering::Relaxed))))
    }

    fn write_markers(&self, markers: Markers) -> HostFuture<Vec<(TopicPartition, MarkerResult)>> {
        let host = self.clone();
        Box::pin(async move {
            host.written.lock().push(markers.clone());
            let _ = host.open.subscribe().wait_for(|open| *open).await;
            let results = host.results.lock();
            let result = |one: &TopicPartition| results.get(one).copied().unwrap_or(MarkerResult::Written);
            markers.partitions.iter().map(|one| (one.clone(), result(one))).collect()
        })
    }
}

async fn start_with(config: TransactionConfig, memory: &Memory, host: &Host) -> Arc<TransactionCoordinator> {
    let coordinator = TransactionCoordinator::new(config, Box::new(memory.clone()), Box::new(host.clone()));
    coordinator.start().await;
    coordinator
}

async fn start(memory: &Memory, host: &Host) -> Arc<TransactionCoordinator> {
    start_with(TransactionConfig::default(), memory, host).await
}

fn partition(index: i32) -> TopicPartition {
    (Arc::from("t"), index)
}

const INIT: InitRequest = InitRequest { timeout_ms: 60_000, expected: None };

async fn begin(coordinator: &Arc<TransactionCoordinator>, id: &str) -> Producer {
    let producer = coordinator.init(id, INIT).await.unwrap();
    coordinator.add_partitions(id, producer, &[partition(0), partition(1)], V2).await.unwrap();
    producer
}

async fn state_is(coordinator: &Arc<TransactionCoordinator>, id: &str, state: TransactionState) {
    let is = || coordinator.describe(id).is_ok_and(|described| described.state == state);
    wait_until(state.name(), is).await;
}

#[tokio::test]
async fn a_transaction_is_committed_and_the_next_one_follows() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let first = begin(&coordinator, "a").await;
    assert_eq!(first.epoch, 0);
    assert_eq!(coordinator.verify_partitions("a", first, &[partition(0)]), Ok(vec![Ok(())]));
    let next = coordinator.end("a", first, Outcome::Commit, V2).await.unwrap();
    assert_eq!(next, Producer { epoch: 1, ..first });
    // A partition of the next transaction waits until the markers are written.
    coordinator.add_partitions("a", next, &[partition(2)], V2).await.unwrap();
    let written = host.written.lock().clone();
    assert_eq!(written.len(), 1);
    assert_eq!((written[0].producer, written[0].outcome, written[0].coordinator_epoch), (next, Outcome::Commit, 0));
    assert_eq!(written[0].partitions, [partition(0), partition(1)]);
    coordinator.end("a", next, Outcome::Abort, V2).await.unwrap();
    state_is(&coordinator, "a", TransactionState::CompleteAbort).await;
    assert_eq!(host.written.lock()[1].partitions, [partition(2)]);
}

/// With the older protocol the producer of the next transaction is the same.
#[tokio::test]
async fn a_partition_joins_only_the_transaction_that_has_the_required_one() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = coordinator.init("a", INIT).await.unwrap();
    let letter = |required| {
        let coordinator = Arc::clone(&coordinator);
        let places = [[partition(required)], [partition(9)]];
        async move { coordinator.add_partitions_beside("a", producer, &places[0], &places[1], V0).await }
    };
    let partitions = || coordinator.describe("a").unwrap().partitions;
    assert_eq!(letter(0).await, Err(TransactionError::Abortable), "no transaction is open");
    coordinator.add_partitions("a", producer, &[partition(0)], V0).await.unwrap();
    assert_eq!(letter(0).await, Ok(()));
    assert_eq!(partitions(), [partition(0), partition(9)]);
    coordinator.end("a", producer, Outcome::Commit, V0).await.unwrap();
    state_is(&coordinator, "a", TransactionState::CompleteCommit).await;
    assert_eq!(letter(0).await, Err(TransactionError::Abortable), "it has ended");
    state_is(&coordinator, "a", TransactionState::CompleteCommit).await;
    coordinator.add_partitions("a", producer, &[partition(1)], V0).await.unwrap();
    assert_eq!(letter(0).await, Err(TransactionError::Abortable), "the next one does not have the partition");
    assert_eq!(partitions(), [partition(1)]);
    assert_eq!(letter(1).await, Ok(()));
}

#[tokio::test]
async fn no_response_leaves_before_its_record_is_committed() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    memory.flushed.send_replace(false);
    let batches = memory.batches();
    let ending = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.end("a", producer, Outcome::Commit, V2).await }
    });
    wait_until("the record is appended", || memory.batches() > batches).await;
    assert!(!ending.is_finished());
    // A new instance has to wait for the outcome, and no marker is written for it yet.
    assert_eq!(coordinator.init("a", INIT).await, Err(TransactionError::ConcurrentTransactions));
    assert_eq!(host.markers(), 0);
    memory.flushed.send_replace(true);
    assert!(ending.await.unwrap().is_ok());
    state_is(&coordinator, "a", TransactionState::CompleteCommit).await;
}

#[tokio::test]
async fn markers_are_sent_again_until_all_are_written() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    host.results.lock().insert(partition(1), MarkerResult::Retry);
    coordinator.end("a", producer, Outcome::Commit, V2).await.unwrap();
    wait_until("more attempts", || host.markers() >= 3).await;
    assert_eq!(host.written.lock()[2].partitions, [partition(1)], "only the missing one");
    assert_eq!(coordinator.describe("a").unwrap().partitions, [partition(1)]);
    let retried = coordinator.end("a", producer, Outcome::Commit, V2).await;
    assert_eq!(retried, Err(TransactionError::ConcurrentTransactions));
    host.results.lock().clear();
    state_is(&coordinator, "a", TransactionState::CompleteCommit).await;
}

#[tokio::test]
async fn the_next_leader_completes_what_was_decided() {
    let (memory, host) = (Memory::new(), Host::new());
    let [one, two] = [start(&memory, &host).await, start(&memory, &host).await];
    let producer = begin(&one, "a").await;
    host.results.lock().extend([0, 1].map(|index| (partition(index), MarkerResult::Retry)));
    one.end("a", producer, Outcome::Commit, V2).await.unwrap();
    wait_until("an attempt", || host.markers() >= 1).await;
    // Another broker leads now.
    memory.lead("a", Some(3));
    for coordinator in [&one, &two] {
        coordinator.roles_changed();
    }
    host.results.lock().clear();
    state_is(&two, "a", TransactionState::CompleteCommit).await;
    assert_eq!(host.written.lock().last().unwrap().coordinator_epoch, 3);
    let retried = two.end("a", producer, Outcome::Commit, V2).await;
    assert_eq!(retried, Ok(Producer { epoch: 1, ..producer }));
}

#[tokio::test]
async fn ids_are_loaded_with_the_leadership_and_rejected_meanwhile() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    memory.lead("a", None);
    coordinator.roles_changed();
    assert_eq!(coordinator.init("a", INIT).await, Err(TransactionError::NotCoordinator));
    memory.reads.send_replace(Reads::Wait);
    memory.lead("a", Some(1));
    coordinator.roles_changed();
    assert_eq!(coordinator.init("a", INIT).await, Err(TransactionError::LoadInProgress));
    memory.reads.send_replace(Reads::Work);
    state_is(&coordinator, "a", TransactionState::Ongoing).await;
    assert!(coordinator.end("a", producer, Outcome::Abort, V2).await.is_ok());
    // An id whose log cannot be read is never served.
    memory.reads.send_replace(Reads::Fail);
    memory.lead("a", Some(2));
    coordinator.roles_changed();
    wait_until("the load failed", || coordinator.describe("a") == Err(TransactionError::NotAvailable)).await;
}

#[tokio::test]
async fn transactions_time_out_and_ids_expire() {
    let (memory, host) = (Memory::new(), Host::new());
    let config = TransactionConfig { id_expiration: std::time::Duration::ZERO, ..TransactionConfig::default() };
    let coordinator = start_with(config, &memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    let started_ms = coordinator.describe("a").unwrap().started_ms;
    coordinator.abort_timed_out(started_ms + 60_000);
    assert_eq!(coordinator.describe("a").unwrap().state, TransactionState::Ongoing);
    coordinator.abort_timed_out(started_ms + 60_001);
    state_is(&coordinator, "a", TransactionState::CompleteAbort).await;
    assert_eq!(host.written.lock()[0].producer, Producer { epoch: 1, ..producer });
    let late = coordinator.add_partitions("a", producer, &[partition(0)], V2).await;
    assert_eq!(late, Err(TransactionError::ProducerFenced));
    coordinator.remove_expired(i64::MAX);
    wait_until("the id is gone", || coordinator.describe("a") == Err(TransactionError::NotFound)).await;
    // So it is after a load.
    memory.lead("a", Some(1));
    coordinator.roles_changed();
    wait_until("the id is gone", || coordinator.describe("a") == Err(TransactionError::NotFound)).await;
}

#[tokio::test]
async fn ids_and_timeouts_are_checked_and_a_failed_write_leaves_nothing() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    assert_eq!(coordinator.init("", INIT).await, Err(TransactionError::InvalidTransactionalId));
    for timeout_ms in [-1, 0, 900_001] {
        let request = InitRequest { timeout_ms, ..INIT };
        assert_eq!(coordinator.init("a", request).await, Err(TransactionError::InvalidTimeout), "{timeout_ms}");
    }
    let unknown = Producer { id: 1, epoch: 0 };
    let ended = coordinator.end("a", unknown, Outcome::Commit, V2).await;
    assert_eq!(ended, Err(TransactionError::InvalidProducerIdMapping));
    *memory.batch_bytes_max.lock() = 0;
    assert_eq!(coordinator.init("a", INIT).await, Err(TransactionError::NotAvailable));
    assert_eq!(coordinator.describe("a"), Err(TransactionError::NotFound));
    *memory.batch_bytes_max.lock() = usize::MAX;
    assert_eq!(coordinator.init("a", INIT).await.unwrap().epoch, 0);
}

#[tokio::test]
async fn ids_are_listed_by_state_producer_age_and_name() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let a = begin(&coordinator, "a").await;
    let b = coordinator.init("b", INIT).await.unwrap();
    let all = TransactionFilter { states: &[], producer_ids: &[], older_than_ms: -1, matches: &|_| true };
    let ids = |filter: &TransactionFilter<'_>| -> Vec<String> {
        coordinator.list(filter).unwrap().into_iter().map(|one| one.id.to_string()).collect()
    };
    assert_eq!(ids(&all), ["a", "b"]);
    assert_eq!(ids(&TransactionFilter { states: &[TransactionState::Ongoing], ..all }), ["a"]);
    assert_eq!(ids(&TransactionFilter { producer_ids: &[b.id], ..all }), ["b"]);
    assert_eq!(ids(&TransactionFilter { matches: &|id| id != "b", ..all }), ["a"]);
    assert_eq!(ids(&TransactionFilter { older_than_ms: 3_600_000, producer_ids: &[a.id], ..all }), [""; 0]);
}

/// The leader goes on in the same epoch: nothing loads the log again.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_suspended_goes_on_with_its_transactions() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    memory.flushed.send_replace(false);
    let ended = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.end("a", producer, Outcome::Commit, V2).await }
    });
    wait_until("the record of the end", || memory.batches() == 3).await;
    memory.suspended.send_replace(true);
    assert_eq!(ended.await.unwrap(), Err(TransactionError::NotCoordinator), "the client does not wait");
    memory.suspended.send_replace(false);
    memory.flushed.send_replace(true);
    wait_until("the markers", || host.markers() == 1).await;
    // The same request again.
    let next = wait_for_end(&coordinator, producer).await;
    assert_eq!(next, Producer { epoch: producer.epoch + 1, ..producer });
}

/// The markers are written, and the record that says so is rejected for a while.
#[tokio::test]
async fn a_transaction_is_completed_after_a_suspension() {
    let (memory, host) = (Memory::new(), Host::new());
    let coordinator = start(&memory, &host).await;
    let producer = begin(&coordinator, "a").await;
    host.open.send_replace(false);
    coordinator.end("a", producer, Outcome::Commit, V2).await.unwrap();
    wait_until("the markers", || host.markers() == 1).await;
    memory.suspended.send_replace(true);
    host.open.send_replace(true);
    wait_until("a rejected record", || memory.rejected.load(Ordering::Acquire) > 0).await;
    memory.suspended.send_replace(false);
    state_is(&coordinator, "a", TransactionState::CompleteCommit).await;
}

/// Repeats the end of a transaction until its first attempt is over.
async fn wait_for_end(coordinator: &Arc<TransactionCoordinator>, producer: Producer) -> Producer {
    let repeated = async {
        loop {
            match coordinator.end("a", producer, Outcome::Commit, V2).await {
                Err(TransactionError::ConcurrentTransactions) => {}
                ended => return ended.unwrap(),
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, repeated).await.expect("in time")
}
