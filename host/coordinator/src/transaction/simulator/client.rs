//! Producers: instances of a transactional id, some of which go on as zombies.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::broker::{Reject, Sender, add_partitions, commit_offset, end, produce};
use super::network::Lateness;
use super::world::{Claim, DATA, Sent, World};
use crate::group::CONSUMER_OFFSETS;
use crate::partition_of::partition_of;
use crate::transaction::coordinator::InitRequest;
use crate::transaction::model::{Outcome, Producer, TopicPartition, TransactionError, TransactionVersion};
use crate::transaction::records::TRANSACTION_STATE;

/// How often a request is sent before the transaction is given up.
const ATTEMPTS_MAX: usize = 12;

/// How an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Fenced,
    Crashed,
    /// The run is over.
    Stopped,
}

/// Runs one instance of a producer after the other, until the run is over.
pub(super) async fn run_id(world: Arc<World>, id: Arc<str>, version: TransactionVersion) {
    let mut random = world.random(&id);
    while world.is_chaos() {
        let instance = Instance {
            sender: Sender { id: Arc::clone(&id), version, producer: Producer::NONE },
            random: random.fork(),
            world: Arc::clone(&world),
            sequences: [0; 3],
            has_unresolved: false,
        };
        let running = tokio::spawn(instance.run());
        // An instance that still runs then goes on as a zombie.
        let _ = timeout(Duration::from_millis(random.u64(1_000..20_000)), running).await;
    }
}

/// A process with a producer.
struct Instance {
    sender: Sender,
    random: fastrand::Rng,
    world: Arc<World>,
    /// The next sequence in each partition.
    sequences: [i32; 3],
    /// A request of the open transaction may still arrive.
    has_unresolved: bool,
}

impl Instance {
    async fn run(mut self) {
        let over = match self.init(None).await {
            Ok(()) => loop {
                if let Err(over) = self.transact().await {
                    break over;
                }
            },
            Err(over) => over,
        };
        self.world.count(|counts| match over {
            Over::Fenced => counts.fenced += 1,
            Over::Crashed => counts.crashed_producers += 1,
            Over::Stopped => {}
        });
    }

    /// Ends the instance if the run is over. Sometimes it crashes, or hangs for a while.
    async fn step(&mut self) -> Result<(), Over> {
        if !self.world.is_chaos() {
            return Err(Over::Stopped);
        }
        match self.random.u32(0..500) {
            0..2 => Err(Over::Crashed),
            2..5 => {
                sleep(Duration::from_millis(self.random.u64(500..8_000))).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn back_off(&mut self) {
        sleep(Duration::from_millis(self.random.u64(10..80))).await;
    }

    /// Gets a producer id and epoch, which fences the instances before. With `expected`, a new epoch for this one.
    async fn init(&mut self, expected: Option<Producer>) -> Result<(), Over> {
        loop {
            self.step().await?;
            let id = Arc::clone(&self.sender.id);
            let broker = self.world.coordinator(TRANSACTION_STATE, &id);
            let (world, named) = (Arc::clone(&self.world), Arc::clone(&id));
            let handled = async move {
                let request = InitRequest { timeout_ms: 60_000, expected };
                world.broker(broker).transactions.init(&named, request).await
            };
            match self.world.call(&mut self.random, Lateness::Any, handled).await {
                Some(Ok(producer)) => {
                    self.sender.producer = producer;
                    self.sequences = [0; 3];
                    self.has_unresolved = false;
                    let mut state = self.world.state.lock();
                    let newest = state.newest.entry(id).or_default();
                    *newest = (producer.id, producer.epoch).max(*newest);
                    return Ok(());
                }
                Some(Err(error)) if Reject::from(error) == Reject::Fenced => return Err(Over::Fenced),
                _ => self.back_off().await,
            }
        }
    }

    /// Sends a request until there is a response that counts. Returns `None` if there is none.
    async fn send<F>(&mut self, make: impl Fn(&mut Self) -> F) -> Result<Option<Result<(), Reject>>, Over>
    where
        F: Future<Output = Result<(), Reject>> + Send + 'static,
    {
        for _ in 0..ATTEMPTS_MAX {
            self.step().await?;
            let handled = make(self);
            match self.world.call(&mut self.random, Lateness::Any, handled).await {
                Some(Ok(())) => return Ok(Some(Ok(()))),
                Some(Err(Reject::Fenced)) => return Err(Over::Fenced),
                Some(Err(Reject::Abort)) => return Ok(Some(Err(Reject::Abort))),
                Some(Err(Reject::Retry)) => {}
                None => self.has_unresolved = true,
            }
            self.back_off().await;
        }
        // The log may have the record all the same, at the sequence of the next one.
        self.has_unresolved = true;
        Ok(None)
    }

    /// Adds partitions to the transaction, with the older protocol. Returns whether they are in it.
    async fn add(&mut self, partitions: Vec<TopicPartition>) -> Result<bool, Over> {
        if self.sender.version == TransactionVersion::V2 {
            return Ok(true);
        }
        let added = self.send(|this| {
            let (world, sender) = (Arc::clone(&this.world), this.sender.clone());
            let broker = world.coordinator(TRANSACTION_STATE, &sender.id);
            add_partitions(world, broker, sender, partitions.clone())
        });
        Ok(added.await? == Some(Ok(())))
    }

    /// Runs one transaction.
    async fn transact(&mut self) -> Result<(), Over> {
        self.step().await?;
        let number = self.begin();
        let is_written = self.write(number).await?;
        let outcome = match is_written && self.random.u32(0..10) > 0 {
            true => Outcome::Commit,
            false => Outcome::Abort,
        };
        self.end(number, outcome).await?;
        if self.sender.version == TransactionVersion::V0 && self.has_unresolved {
            // The older protocol keeps the epoch, so only a new one keeps late requests out of the next transaction.
            self.init(Some(self.sender.producer)).await?;
        }
        self.has_unresolved = false;
        Ok(())
    }

    /// Notes a new transaction, and returns its number.
    fn begin(&self) -> usize {
        let mut state = self.world.state.lock();
        let id = Arc::clone(&self.sender.id);
        state.sent.push(Sent { id, values: Vec::new(), has_offsets: false, claim: Claim::Open });
        state.sent.len() - 1
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut Sent)) {
        change(&mut self.world.state.lock().sent[number]);
    }

    /// Writes records and offsets. Returns whether all are acknowledged, and at least one record.
    async fn write(&mut self, number: usize) -> Result<bool, Over> {
        let mut indexes = vec![0_usize, 1, 2];
        self.random.shuffle(&mut indexes);
        indexes.truncate(self.random.usize(1..4));
        let places: Vec<TopicPartition> =
            indexes.iter().map(|index| (Arc::from(DATA), i32::try_from(*index).expect("a small index"))).collect();
        if !self.add(places.clone()).await? {
            return Ok(false);
        }
        let mut written = 0;
        for (index, place) in indexes.into_iter().zip(places) {
            for _ in 0..self.random.u32(1..3) {
                let value = format!("{number}:{written}");
                let record = (self.sequences[index], value.clone());
                let sent = self.send(|this| {
                    let (world, sender) = (Arc::clone(&this.world), this.sender.clone());
                    let broker = world.leader(&place);
                    produce(world, broker, this.random.fork(), sender, place.clone(), record.clone())
                });
                if sent.await? != Some(Ok(())) {
                    return Ok(false);
                }
                self.sequences[index] += 1;
                written += 1;
                self.note(number, |sent| sent.values.push(value));
            }
        }
        if self.random.u32(0..10) < 6 {
            let place = (Arc::from(CONSUMER_OFFSETS), partition_of(&self.sender.id, 2));
            if !self.add(vec![place]).await? {
                return Ok(false);
            }
            let offset = i64::try_from(number).expect("a short run");
            let sent = self.send(|this| {
                let (world, sender) = (Arc::clone(&this.world), this.sender.clone());
                let broker = world.coordinator(CONSUMER_OFFSETS, &sender.id);
                commit_offset(world, broker, this.random.fork(), sender, offset)
            });
            if sent.await? != Some(Ok(())) {
                return Ok(false);
            }
            self.note(number, |sent| sent.has_offsets = true);
        }
        Ok(true)
    }

    /// Ends the transaction, until the outcome is known.
    async fn end(&mut self, number: usize, outcome: Outcome) -> Result<(), Over> {
        let (lateness, is_older) = match self.sender.version {
            TransactionVersion::V0 => (Lateness::None, true),
            _ => (Lateness::Any, false),
        };
        if outcome == Outcome::Commit {
            self.note(number, |sent| sent.claim = Claim::Unknown);
        }
        loop {
            self.step().await?;
            let (world, sender) = (Arc::clone(&self.world), self.sender.clone());
            let broker = world.coordinator(TRANSACTION_STATE, &sender.id);
            let handled = end(world, broker, sender, outcome);
            match self.world.call(&mut self.random, lateness, handled).await {
                Some(Ok(next)) => {
                    self.sender.producer = next;
                    let claim = if outcome == Outcome::Commit { Claim::Committed } else { Claim::Aborted };
                    self.note(number, |sent| sent.claim = claim);
                    if !is_older {
                        self.sequences = [0; 3];
                    }
                    return Ok(());
                }
                // The older protocol cannot abort what was never begun.
                Some(Err(TransactionError::InvalidState)) if is_older && outcome == Outcome::Abort => return Ok(()),
                Some(Err(error)) => match Reject::from(error) {
                    Reject::Retry => {}
                    Reject::Fenced | Reject::Abort => return Err(Over::Fenced),
                },
                None => {}
            }
            self.back_off().await;
        }
    }
}
