//! The cluster, its faults, and what is known of all transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_log::CleanupPolicy;
use millstream_partition::PartitionError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Bug;
use super::broker::Broker;
use super::partition::Replicated;
use crate::group::CONSUMER_OFFSETS;
use crate::partition_of::partition_of;
use crate::transaction::model::TopicPartition;
use crate::transaction::records::TRANSACTION_STATE;

pub(super) const BROKERS: usize = 3;

/// The topic that the producers write to.
pub(super) const DATA: &str = "data";

/// The topics with the numbers of their partitions. The first two are compacted.
const TOPICS: [(&str, i32); 3] = [(TRANSACTION_STATE, 4), (CONSUMER_OFFSETS, 2), (DATA, 3)];

/// How much has happened: a run with too little proves nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) committed: usize,
    pub(super) aborted: usize,
    /// Transactions whose producer does not know the outcome.
    pub(super) unknown: usize,
    pub(super) offsets: usize,
    pub(super) fenced: usize,
    pub(super) crashed_producers: usize,
    pub(super) late: usize,
    pub(super) failovers: usize,
    pub(super) crashes: usize,
    pub(super) suspensions: usize,
    pub(super) compactions: usize,
    pub(super) lost_batches: usize,
    pub(super) timeouts: usize,
    pub(super) marker_retries: usize,
    pub(super) aborted_records: usize,
}

impl Counts {
    /// Returns all counts with their names, and how many a run has on average at least.
    fn all(&mut self) -> [(&'static str, &mut usize, usize); 15] {
        [
            ("committed", &mut self.committed, 15),
            ("aborted", &mut self.aborted, 2),
            ("unknown", &mut self.unknown, 1),
            ("offsets", &mut self.offsets, 10),
            ("fenced", &mut self.fenced, 2),
            ("crashed_producers", &mut self.crashed_producers, 1),
            ("late", &mut self.late, 3),
            ("failovers", &mut self.failovers, 20),
            ("crashes", &mut self.crashes, 1),
            ("suspensions", &mut self.suspensions, 1),
            ("compactions", &mut self.compactions, 1),
            ("lost_batches", &mut self.lost_batches, 1),
            ("timeouts", &mut self.timeouts, 1),
            ("marker_retries", &mut self.marker_retries, 3),
            ("aborted_records", &mut self.aborted_records, 5),
        ]
    }

    pub(super) fn add(&mut self, mut other: Counts) {
        for ((_, sum, _), (_, count, _)) in self.all().into_iter().zip(other.all()) {
            *sum += *count;
        }
    }

    /// Fails if less has happened than a run needs on average.
    pub(super) fn check(mut self, runs: usize) {
        let counts = self;
        for (what, count, least) in self.all() {
            assert!(*count >= least * runs, "too little has happened, {what}: {counts:?}");
        }
    }
}

/// What a producer knows about the end of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has asked for no commit.
    Open,
    /// It has asked for a commit, and has got no response.
    Unknown,
    Committed,
    Aborted,
}

/// A transaction, as its producer sees it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) id: Arc<str>,
    /// The values that were acknowledged.
    pub(super) values: Vec<String>,
    /// Whether its offsets were acknowledged.
    pub(super) has_offsets: bool,
    pub(super) claim: Claim,
}

pub(super) struct State {
    pub(super) partitions: BTreeMap<TopicPartition, Replicated>,
    pub(super) brokers: Vec<Broker>,
    pub(super) sent: Vec<Sent>,
    /// The id and epoch with which the newest instance of each producer has begun.
    pub(super) newest: BTreeMap<Arc<str>, (i64, i16)>,
    /// The transactions that a reader of committed records has seen.
    pub(super) seen: BTreeSet<usize>,
    pub(super) next_producer_id: i64,
    wrong: Option<String>,
    counts: Counts,
}

/// The cluster and its producers.
pub(super) struct World {
    seed: u64,
    pub(super) bug: Bug,
    chaos: AtomicBool,
    /// The brokers that do not know whether they still lead.
    pub(super) suspended: [watch::Sender<bool>; BROKERS],
    pub(super) state: Mutex<State>,
}

fn partition(topic: &str, index: i32) -> TopicPartition {
    (Arc::from(topic), index)
}

fn some_partition(topic: &str, random: &mut fastrand::Rng) -> TopicPartition {
    let count = TOPICS.iter().find(|(name, _)| *name == topic).map_or(1, |(_, count)| *count);
    partition(topic, random.i32(0..count))
}

impl World {
    /// Makes a cluster whose brokers run.
    pub(super) fn new(seed: u64, bug: Bug, folder: &Path) -> Arc<Self> {
        let state = State {
            partitions: BTreeMap::new(),
            brokers: Vec::new(),
            sent: Vec::new(),
            newest: BTreeMap::new(),
            seen: BTreeSet::new(),
            next_producer_id: 1000,
            wrong: None,
            counts: Counts::default(),
        };
        let (chaos, suspended) = (AtomicBool::new(true), Default::default());
        let world = Arc::new(Self { seed, bug, chaos, suspended, state: Mutex::new(state) });
        let places = TOPICS.iter().flat_map(|(topic, count)| (0..*count).map(move |index| partition(topic, index)));
        for (number, place) in places.enumerate() {
            let name = format!("{}-{}", place.0, place.1);
            let policy = if &*place.0 == DATA { CleanupPolicy::DELETE } else { CleanupPolicy::COMPACT };
            let made = Replicated::new(&folder.join(&name), policy, number % BROKERS, world.random(&name));
            world.state.lock().partitions.insert(place, made);
        }
        for broker in 0..BROKERS {
            let started = Broker::start(&world, broker, 0);
            world.state.lock().brokers.push(started);
        }
        world
    }

    /// Returns the random choices of one actor. Each has its own, so that no other order of tasks changes them.
    pub(super) fn random(&self, actor: &str) -> fastrand::Rng {
        let salt = actor.bytes().fold(self.seed, |salt, byte| salt.wrapping_mul(1_099_511_628_211) ^ u64::from(byte));
        fastrand::Rng::with_seed(salt)
    }

    pub(super) fn is_chaos(&self) -> bool {
        self.chaos.load(Ordering::Relaxed)
    }

    /// Ends the faults. Producers begin nothing from now on.
    pub(super) fn heal(&self) {
        self.chaos.store(false, Ordering::Relaxed);
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state.lock().counts);
    }

    pub(super) fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Notes a broken promise. The first one counts.
    pub(super) fn note(&self, wrong: String) {
        self.state.lock().wrong.get_or_insert(wrong);
    }

    /// Fails if a promise is broken.
    pub(super) fn wrong(&self) -> Result<(), String> {
        self.state.lock().wrong.clone().map_or(Ok(()), Err)
    }

    /// Drops the brokers and logs, which hold the world.
    pub(super) fn forget(&self) {
        let mut state = self.state.lock();
        let brokers = std::mem::take(&mut state.brokers);
        let partitions = std::mem::take(&mut state.partitions);
        drop(state);
        brokers.iter().for_each(Broker::stop);
        drop((brokers, partitions));
    }

    /// Returns the broker that leads a partition.
    pub(super) fn leader(&self, place: &TopicPartition) -> usize {
        self.state.lock().partitions[place].leader
    }

    /// Returns the leader of the partition of a key, which coordinates it.
    pub(super) fn coordinator(&self, topic: &str, key: &str) -> usize {
        let count = TOPICS.iter().find(|(name, _)| *name == topic).map_or(1, |(_, count)| *count);
        self.leader(&partition(topic, partition_of(key, count)))
    }

    /// Returns the broker that runs now.
    pub(super) fn broker(&self, broker: usize) -> Broker {
        self.state.lock().brokers[broker].clone()
    }

    /// Works with a partition if this process leads it.
    pub(super) fn with_led<T>(
        &self,
        broker: usize,
        incarnation: u32,
        place: &TopicPartition,
        work: impl FnOnce(&mut Replicated) -> T,
    ) -> Option<T> {
        let mut state = self.state.lock();
        let is_alive = state.brokers.get(broker).is_none_or(|running| running.incarnation == incarnation);
        let found = state.partitions.get_mut(place)?;
        (is_alive && found.leader == broker).then(|| work(found))
    }

    /// Works with a partition as [`Self::with_led`] does, if this process is not suspended.
    pub(super) fn with_writable<T>(
        &self,
        broker: usize,
        incarnation: u32,
        place: &TopicPartition,
        work: impl FnOnce(&mut Replicated) -> T,
    ) -> Option<T> {
        if *self.suspended[broker].borrow() { None } else { self.with_led(broker, incarnation, place, work) }
    }

    /// Waits for the commit of a client's batch. A suspension ends the wait with an error.
    pub(super) async fn unless_suspended(
        &self,
        broker: usize,
        committed: impl Future<Output = Result<(), PartitionError>>,
    ) -> Result<(), PartitionError> {
        let mut suspended = self.suspended[broker].subscribe();
        tokio::select! {
            biased;
            committed = committed => committed,
            _ = suspended.wait_for(|suspended| *suspended) => Err(PartitionError::Suspended),
        }
    }

    /// Lets a broker lose its controller for a while. It stays the leader in its epoch if no failover comes.
    fn suspend(self: &Arc<Self>, broker: usize, time: Duration) {
        self.count(|counts| counts.suspensions += 1);
        self.suspended[broker].send_replace(true);
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(time).await;
            world.suspended[broker].send_replace(false);
        });
    }

    /// Suspends each broker for a moment, one after the other.
    pub(super) async fn suspend_all(self: &Arc<Self>, random: &mut fastrand::Rng) {
        for broker in 0..BROKERS {
            let time = Duration::from_millis(random.u64(20..200));
            self.suspend(broker, time);
            sleep(2 * time).await;
        }
    }

    fn compact(&self, place: &TopicPartition) {
        let mut state = self.state.lock();
        let has_removed = state.partitions.get_mut(place).is_some_and(Replicated::compact);
        state.counts.compactions += usize::from(has_removed);
    }

    /// Commits, a moment later, what a leader has appended.
    pub(super) fn commit_later(self: &Arc<Self>, place: &TopicPartition, epoch: i32, end: i64) {
        let (world, place) = (Arc::clone(self), place.clone());
        let chaos = self.is_chaos();
        tokio::spawn(async move {
            let delay = {
                let mut state = world.state.lock();
                let Some(found) = state.partitions.get_mut(&place) else { return };
                let is_late = found.random.u32(0..20) == 0 && chaos;
                found.random.u64(if is_late { 100..3_000 } else { 1..15 })
            };
            sleep(Duration::from_millis(delay)).await;
            if let Some(found) = world.state.lock().partitions.get_mut(&place) {
                found.commit(epoch, end);
            }
        });
    }

    /// Lets something fail.
    pub(super) async fn fail(self: &Arc<Self>, random: &mut fastrand::Rng) {
        match random.u32(0..100) {
            0..8 => self.crash(random.usize(0..BROKERS), random).await,
            8..14 => self.time_out(),
            14..20 => self.suspend(random.usize(0..BROKERS), Duration::from_millis(random.u64(5..5_000))),
            20..90 => {
                let topic = match random.u32(0..10) {
                    0..4 => TRANSACTION_STATE,
                    4..6 => CONSUMER_OFFSETS,
                    _ => DATA,
                };
                let leader = random.usize(0..BROKERS);
                self.fail_over(&some_partition(topic, random), leader, false);
                self.roles_changed(random).await;
            }
            _ => {}
        }
        if random.bool() {
            let topic = if random.bool() { TRANSACTION_STATE } else { CONSUMER_OFFSETS };
            self.compact(&some_partition(topic, random));
        }
    }

    fn fail_over(self: &Arc<Self>, place: &TopicPartition, leader: usize, crashed: bool) {
        let mut state = self.state.lock();
        let Some(found) = state.partitions.get_mut(place) else { return };
        let is_lost = found.fail_over(leader, crashed);
        let (epoch, end) = (found.epoch, found.log_end_offset());
        state.counts.failovers += 1;
        state.counts.lost_batches += usize::from(is_lost);
        drop(state);
        self.commit_later(place, epoch, end);
    }

    /// Brings the metadata to all brokers, each a moment later than the one before.
    async fn roles_changed(self: &Arc<Self>, random: &mut fastrand::Rng) {
        for broker in 0..BROKERS {
            sleep(Duration::from_millis(random.u64(1..20))).await;
            self.broker(broker).roles_changed();
        }
    }

    /// Ends a process. Its partitions move, and the next process starts at once.
    async fn crash(self: &Arc<Self>, broker: usize, random: &mut fastrand::Rng) {
        let led: Vec<_> = {
            let state = self.state.lock();
            state.partitions.iter().filter(|(_, one)| one.leader == broker).map(|(place, _)| place.clone()).collect()
        };
        let dead = self.broker(broker);
        let started = Broker::start(self, broker, dead.incarnation + 1);
        self.state.lock().brokers[broker] = started;
        self.suspended[broker].send_replace(false);
        dead.stop();
        self.count(|counts| counts.crashes += 1);
        for place in led {
            self.fail_over(&place, (broker + random.usize(1..BROKERS)) % BROKERS, true);
        }
        self.roles_changed(random).await;
    }

    /// Times out the transactions that are open.
    pub(super) fn time_out(&self) {
        self.count(|counts| counts.timeouts += usize::from(self.is_chaos()));
        let brokers = self.state.lock().brokers.clone();
        brokers.iter().for_each(|broker| broker.transactions.abort_timed_out(i64::MAX));
    }
}
