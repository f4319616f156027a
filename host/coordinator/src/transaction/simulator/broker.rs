//! A broker: the real coordinators, and what a broker does for produces, markers and offsets in transactions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::{AppendError, AppendOrigin, Appended, TransactionEnd};
use millstream_partition::{InternalAppend, InternalTopic, PartitionError, Verification, VerificationGuard};
use millstream_record::{BatchBuilder, BatchHeader, BatchView, CheckedBatch, Codec, EndMarker, TimestampType};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::Bug;
use super::network::Lateness;
use super::world::{DATA, World};
use crate::group::{CONSUMER_OFFSETS, Caller, GroupConfig, GroupCoordinator, GroupError, OffsetToCommit};
use crate::memory_topic::interrupted;
use crate::transaction::config::TransactionConfig;
use crate::transaction::coordinator::TransactionCoordinator;
use crate::transaction::host::{HostFuture, MarkerResult, Markers, TransactionHost};
use crate::transaction::model::{Outcome, Producer, TopicPartition, TransactionError, TransactionVersion};
use crate::transaction::records::TRANSACTION_STATE;

pub(super) const NOW: i64 = 1_700_000_000_000;

/// How often a leader asks the coordinator about one batch.
const VERIFICATIONS_MAX: usize = 5;

/// The pause before a coordinator is asked again that still ends the last transaction.
const CONCURRENT_BACKOFF: Duration = Duration::from_millis(20);

/// Why a request is rejected, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    /// It may be sent again.
    Retry,
    /// Another instance of the producer has begun.
    Fenced,
    /// The transaction has to be aborted.
    Abort,
}

impl From<TransactionError> for Reject {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::ConcurrentTransactions
            | TransactionError::LoadInProgress
            | TransactionError::NotAvailable
            | TransactionError::NotCoordinator => Self::Retry,
            TransactionError::ProducerFenced | TransactionError::InvalidProducerIdMapping => Self::Fenced,
            _ => Self::Abort,
        }
    }
}

impl From<PartitionError> for Reject {
    fn from(error: PartitionError) -> Self {
        let PartitionError::Append(append) = &error else { return Self::Retry };
        match &**append {
            AppendError::InvalidProducerEpoch { .. } => Self::Fenced,
            _ => Self::Abort,
        }
    }
}

/// A process with both coordinators.
#[derive(Clone)]
pub(super) struct Broker {
    pub(super) incarnation: u32,
    pub(super) transactions: Arc<TransactionCoordinator>,
    pub(super) groups: Arc<GroupCoordinator>,
}

impl Broker {
    pub(super) fn start(world: &Arc<World>, broker: usize, incarnation: u32) -> Self {
        let topic = |name, count| Topic { world: Arc::clone(world), broker, incarnation, name, count };
        let host = Host { world: Arc::clone(world), sent: Mutex::default() };
        let transactions = TransactionCoordinator::new(
            TransactionConfig::default(),
            Box::new(topic(TRANSACTION_STATE, 4)),
            Box::new(host),
        );
        let groups = GroupCoordinator::new(GroupConfig::default(), Box::new(topic(CONSUMER_OFFSETS, 2)));
        let started = Self { incarnation, transactions, groups };
        started.roles_changed();
        started
    }

    pub(super) fn stop(&self) {
        self.transactions.stop();
        self.groups.stop();
    }

    pub(super) fn roles_changed(&self) {
        self.transactions.roles_changed();
        self.groups.roles_changed();
    }
}

/// An internal topic, as one process sees it.
struct Topic {
    world: Arc<World>,
    broker: usize,
    incarnation: u32,
    name: &'static str,
    count: i32,
}

impl Topic {
    fn place(&self, partition: i32) -> TopicPartition {
        (Arc::from(self.name), partition)
    }
}

impl InternalTopic for Topic {
    fn partitions(&self) -> i32 {
        self.count
    }

    fn led_epoch(&self, partition: i32) -> Option<i32> {
        self.world.with_led(self.broker, self.incarnation, &self.place(partition), |led| led.epoch)
    }

    fn may_have_moved(&self, _: i32) -> bool {
        *self.world.suspended[self.broker].borrow()
    }

    fn is_empty(&self, partition: i32) -> bool {
        self.world.state.lock().partitions.get(&self.place(partition)).is_none_or(|one| one.log_end_offset() == 0)
    }

    fn begin_verification(
        &self,
        partition: i32,
        _: i32,
        batch: &[u8],
    ) -> Result<Option<VerificationGuard>, PartitionError> {
        let header = BatchHeader::parse(batch).expect("a batch");
        let begun = self.world.with_writable(self.broker, self.incarnation, &self.place(partition), |led| {
            led.log().begin_verification(&header, false, NOW)
        });
        Ok(begun.ok_or(PartitionError::NotLeader { leader: -1 })??)
    }

    fn append_in_transaction(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
        verification: Verification,
    ) -> Result<InternalAppend, PartitionError> {
        let place = self.place(partition);
        let batch = CheckedBatch::of_own(batch).expect("a batch");
        let appended = self.world.with_writable(self.broker, self.incarnation, &place, |led| {
            let current = led.epoch;
            if current != leader_epoch {
                return Err(PartitionError::LeaderEpochChanged { appended: leader_epoch, current });
            }
            let appended = led.log().append_of(&batch, current, NOW, AppendOrigin::Broker(verification))?.batch();
            Ok((appended, led.committed(current, appended.last_offset + 1)))
        });
        let (appended, committed) = appended.ok_or(PartitionError::NotLeader { leader: -1 })??;
        self.world.commit_later(&place, leader_epoch, appended.last_offset + 1);
        let at_once = self.world.bug == Bug::RespondAtAppend && self.name == TRANSACTION_STATE;
        let forgets = self.world.bug == Bug::SuspendedForgets;
        let mut suspended = self.world.suspended[self.broker].subscribe();
        let committed = async move { if at_once { Ok(()) } else { committed.await } };
        let suspended = async move { _ = suspended.wait_for(|suspended| *suspended).await };
        let mut committed = interrupted(committed, suspended);
        if forgets {
            committed = Box::pin(async move {
                let lost = PartitionError::LeaderEpochChanged { appended: leader_epoch, current: leader_epoch };
                committed.await.map_err(|_| lost)
            });
        }
        Ok(InternalAppend { base_offset: appended.base_offset, committed })
    }

    fn replay(
        &self,
        partition: i32,
        visit: &mut dyn FnMut(&BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), PartitionError> {
        let reader =
            self.world.with_led(self.broker, self.incarnation, &self.place(partition), |led| led.log().reader());
        let reader = reader.ok_or(PartitionError::NotLeader { leader: -1 })?;
        reader.replay(0..reader.log_end_offset(), visit).expect("a sound log");
        Ok(())
    }
}

/// The broker, as its transaction coordinator knows it.
struct Host {
    world: Arc<World>,
    /// How often the markers of an id were sent.
    sent: Mutex<BTreeMap<Arc<str>, u32>>,
}

impl TransactionHost for Host {
    fn version(&self) -> TransactionVersion {
        TransactionVersion::V2
    }

    fn new_producer_id(&self) -> HostFuture<Option<i64>> {
        let mut state = self.world.state.lock();
        let id = state.next_producer_id;
        state.next_producer_id += 1;
        Box::pin(std::future::ready(Some(id)))
    }

    fn write_markers(&self, markers: Markers) -> HostFuture<Vec<(TopicPartition, MarkerResult)>> {
        let world = Arc::clone(&self.world);
        let mut sent = self.sent.lock();
        let number = sent.entry(Arc::clone(&markers.transactional_id)).or_default();
        *number += 1;
        let Markers { transactional_id, coordinator_epoch, .. } = &markers;
        let random = world.random(&format!("markers of {transactional_id}, {coordinator_epoch}, {number}"));
        Box::pin(async move { send_markers(world, markers, random).await })
    }
}

/// Sends the markers of a transaction to the leaders of its partitions.
async fn send_markers(
    world: Arc<World>,
    markers: Markers,
    mut random: fastrand::Rng,
) -> Vec<(TopicPartition, MarkerResult)> {
    let end = TransactionEnd {
        producer_id: markers.producer.id,
        producer_epoch: markers.producer.epoch,
        marker: EndMarker {
            is_commit: markers.outcome == Outcome::Commit,
            coordinator_epoch: markers.coordinator_epoch,
        },
        transaction_version: markers.version.level(),
    };
    // Nothing keeps a late marker of the older protocol out of the next transaction, since the epoch is the same.
    let lateness = if markers.version == TransactionVersion::V2 { Lateness::Any } else { Lateness::None };
    let mut waits = JoinSet::new();
    for (number, place) in markers.partitions.into_iter().enumerate() {
        let (world, mut random) = (Arc::clone(&world), random.fork());
        waits.spawn(async move {
            let leader = world.leader(&place);
            let written = write_marker(Arc::clone(&world), leader, end, place.clone());
            let written = world.call(&mut random, lateness, written).await;
            (number, place, written.unwrap_or(MarkerResult::Retry))
        });
    }
    let mut results = waits.join_all().await;
    results.sort_by_key(|(number, ..)| *number);
    let retries = results.iter().filter(|(_, _, result)| *result == MarkerResult::Retry).count();
    world.count(|counts| counts.marker_retries += retries);
    results.into_iter().map(|(_, place, result)| (place, result)).collect()
}

/// Writes a marker at a leader, as `host/broker/src/transactions/markers.rs` does.
async fn write_marker(world: Arc<World>, broker: usize, end: TransactionEnd, place: TopicPartition) -> MarkerResult {
    let running = world.broker(broker);
    let ending = match &*place.0 {
        CONSUMER_OFFSETS => match running.groups.ending_transaction(place.1) {
            Ok(ending) => Some(ending),
            Err(_) => return MarkerResult::Retry,
        },
        _ => None,
    };
    let appended = world.with_writable(broker, running.incarnation, &place, |led| {
        let epoch = led.epoch;
        if ending.as_ref().is_some_and(|ending| ending.leader_epoch() != epoch) {
            return Err(MarkerResult::Retry);
        }
        match led.log().append_marker(&end, epoch, NOW) {
            Ok(marker) => Ok((epoch, marker.base_offset, led.committed(epoch, marker.base_offset + 1))),
            Err(AppendError::InvalidProducerEpoch { .. }) => Err(MarkerResult::Written),
            Err(AppendError::CoordinatorFenced { .. }) => Err(MarkerResult::CoordinatorFenced),
            Err(_) => Err(MarkerResult::Retry),
        }
    });
    let (epoch, offset, committed) = match appended {
        Some(Ok(appended)) => appended,
        Some(Err(result)) => return result,
        None => return MarkerResult::Retry,
    };
    world.commit_later(&place, epoch, offset + 1);
    if world.bug != Bug::MarkerLostAtFailover && world.unless_suspended(broker, committed).await.is_err() {
        return MarkerResult::Retry;
    }
    if let Some(ending) = ending {
        let is_commit = end.marker.is_commit || world.bug == Bug::OffsetsByThemselves;
        ending.ended(end.producer_id, is_commit, offset);
    }
    MarkerResult::Written
}

/// The sender of a request: an instance of a producer.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) id: Arc<str>,
    pub(super) version: TransactionVersion,
    pub(super) producer: Producer,
}

impl Sender {
    /// Returns the producer of the request; with the bug, that of the newest instance.
    fn producer_at(&self, world: &World, coordinator: &TransactionCoordinator) -> Producer {
        match world.bug {
            Bug::UnfencedZombie => coordinator.describe(&self.id).map_or(self.producer, |found| found.producer),
            _ => self.producer,
        }
    }
}

/// Adds partitions to a transaction at its coordinator.
pub(super) async fn add_partitions(
    world: Arc<World>,
    broker: usize,
    sender: Sender,
    partitions: Vec<TopicPartition>,
) -> Result<(), Reject> {
    let coordinator = world.broker(broker).transactions;
    let producer = sender.producer_at(&world, &coordinator);
    Ok(coordinator.add_partitions(&sender.id, producer, &partitions, sender.version).await?)
}

/// Ends a transaction at its coordinator. Returns the producer of the next one.
pub(super) async fn end(
    world: Arc<World>,
    broker: usize,
    sender: Sender,
    outcome: Outcome,
) -> Result<Producer, TransactionError> {
    let coordinator = world.broker(broker).transactions;
    let producer = sender.producer_at(&world, &coordinator);
    coordinator.end(&sender.id, producer, outcome, sender.version).await
}

/// Asks the coordinator of a transaction about a partition, as a leader does.
async fn verify(
    world: &Arc<World>,
    random: &mut fastrand::Rng,
    sender: &Sender,
    place: &TopicPartition,
) -> Result<(), TransactionError> {
    let broker = world.coordinator(TRANSACTION_STATE, &sender.id);
    let (asked, sender, place) = (Arc::clone(world), sender.clone(), place.clone());
    let verified = world.call(random, Lateness::Any, async move {
        let coordinator = asked.broker(broker).transactions;
        let producer = sender.producer_at(&asked, &coordinator);
        match sender.version {
            TransactionVersion::V2 => coordinator.add_partitions(&sender.id, producer, &[place], sender.version).await,
            _ => coordinator.verify_partitions(&sender.id, producer, &[place])?.remove(0),
        }
    });
    verified.await.unwrap_or(Err(TransactionError::NotAvailable))
}

/// Handles a produce of one record, as `host/broker/src/api/produce/transaction.rs` does.
pub(super) async fn produce(
    world: Arc<World>,
    broker: usize,
    mut random: fastrand::Rng,
    sender: Sender,
    place: TopicPartition,
    (sequence, value): (i32, String),
) -> Result<(), Reject> {
    let incarnation = world.broker(broker).incarnation;
    let id = sender.producer.id;
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(id, sender.producer.epoch, sequence).transactional(true);
    builder.append(NOW, None, Some(value.as_bytes()), []).expect("a small record");
    let bytes = builder.build().expect("a small batch");
    let batch = CheckedBatch::of_own(&bytes).expect("a batch");
    let adds = sender.version == TransactionVersion::V2;
    let begin = || {
        let begin = |led: &mut super::partition::Replicated| led.log().begin_verification(&batch.header(), adds, NOW);
        let begun = world.with_writable(broker, incarnation, &place, begin).ok_or(Reject::Retry)?;
        begun.map_err(|error| Reject::from(PartitionError::from(error)))
    };
    let mut guard = begin()?;
    let mut attempts = 0;
    while let Some(asked) = guard.filter(|_| world.bug != Bug::Unverified) {
        attempts += 1;
        let verified = verify(&world, &mut random, &sender, &place).await;
        guard = begin()?;
        match verified {
            Ok(()) if guard == Some(asked) || guard.is_none() => break,
            Ok(()) if attempts < VERIFICATIONS_MAX => {}
            Err(TransactionError::ConcurrentTransactions) if attempts < VERIFICATIONS_MAX => {
                sleep(CONCURRENT_BACKOFF).await;
            }
            Ok(()) => return Err(Reject::Retry),
            Err(error) => return Err(error.into()),
        }
    }
    let verification = match world.bug {
        Bug::Unverified => Verification::Disabled,
        _ => guard.map_or(Verification::Unknown, Verification::Confirmed),
    };
    let appended = world.with_writable(broker, incarnation, &place, |led| {
        let epoch = led.epoch;
        let appended = led.log().append_of(&batch, epoch, NOW, AppendOrigin::Client(verification));
        appended.map(|appended| (epoch, appended, led.committed(epoch, appended.batch().last_offset + 1)))
    });
    let (epoch, appended, committed) =
        appended.ok_or(Reject::Retry)?.map_err(|error| Reject::from(PartitionError::from(error)))?;
    if matches!(appended, Appended::New(_)) {
        let newest = world.state.lock().newest.get(&sender.id).copied();
        if newest.is_some_and(|newest| newest > (id, sender.producer.epoch)) {
            world.note(format!("{place:?} takes {value} of {sender:?}, although {newest:?} has begun"));
        }
    }
    world.commit_later(&place, epoch, appended.batch().last_offset + 1);
    world.unless_suspended(broker, committed).await.map_err(Reject::from)
}

/// Handles a TxnOffsetCommit, as `host/broker/src/api/txn_offset_commit.rs` does.
pub(super) async fn commit_offset(
    world: Arc<World>,
    broker: usize,
    mut random: fastrand::Rng,
    sender: Sender,
    offset: i64,
) -> Result<(), Reject> {
    let groups = world.broker(broker).groups;
    let reject = |error: GroupError| match error {
        GroupError::NotInTransaction(millstream_wire::ErrorCode::INVALID_PRODUCER_EPOCH) => Reject::Fenced,
        GroupError::NotInTransaction(_) => Reject::Abort,
        _ => Reject::Retry,
    };
    let offsets = vec![OffsetToCommit {
        topic: Arc::from(DATA),
        topic_id: Uuid::from_u128(5),
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: Arc::from(""),
    }];
    let begun = groups.begin_commit_in_transaction(&sender.id, sender.producer, offsets);
    let mut commit = begun.map_err(reject)?;
    let mut attempts = 0;
    while let Some(place) = commit.to_verify() {
        attempts += 1;
        if attempts > VERIFICATIONS_MAX {
            return Err(Reject::Retry);
        }
        verify(&world, &mut random, &sender, &place).await?;
        if groups.renew_commit_in_transaction(&mut commit).map_err(reject)? {
            break;
        }
    }
    let caller = Caller { member_id: "", instance_id: None };
    groups.commit_in_transaction(commit, caller, -1).await.map_err(reject)
}
