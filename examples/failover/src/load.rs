//! The work of the cluster: producers that note each acknowledgement, and a group that reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_client::{
    Consumer, ConsumerConfig, ConsumerRecord, Delivery, OffsetReset, Producer, ProducerConfig, ProducerRecord,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::{PATIENCE, TOPIC};

/// The records of one producer that wait for their acknowledgement.
const IN_FLIGHT_MAX: usize = 500;

/// The interval between two records of a producer.
const PACE: Duration = Duration::from_millis(1);

/// How often each value was read.
pub(crate) type Counts = BTreeMap<String, usize>;

/// What one producer has seen.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) values: Vec<String>,
    /// The longest time between two acknowledgements.
    pub(crate) longest_gap: Duration,
}

/// Producers that run until they are stopped.
pub(crate) struct Producers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Result<Acknowledged>>>,
}

impl Producers {
    /// Starts idempotent producers with acks=all.
    pub(crate) fn start(bootstrap: &str, count: usize) -> Self {
        let (stop, acknowledged) = (Arc::default(), Arc::default());
        let tasks = (0..count).map(|id| {
            let producer = OneProducer {
                id,
                bootstrap: bootstrap.to_owned(),
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
            };
            tokio::spawn(producer.run())
        });
        Self { tasks: tasks.collect(), stop, acknowledged }
    }

    /// Returns the number of records that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the producers when each record has its acknowledgement.
    ///
    /// # Errors
    /// A producer got an error.
    pub(crate) async fn stop(self) -> Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for (id, task) in self.tasks.into_iter().enumerate() {
            all.push(task.await?.with_context(|| format!("producer {id}"))?);
        }
        Ok(all)
    }
}

struct OneProducer {
    id: usize,
    bootstrap: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl OneProducer {
    async fn run(self) -> Result<Acknowledged> {
        // Its defaults are acks=all and idempotence.
        let producer = Producer::builder(ProducerConfig::new(&self.bootstrap)).build()?;
        let (sent, deliveries) = mpsc::channel(IN_FLIGHT_MAX);
        let settled = tokio::spawn(settle(deliveries, Arc::clone(&self.acknowledged)));
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0_u64.. {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (key, value) =
                (format!("{}-{}", self.id, number % 10), format!("producer {} record {number}", self.id));
            let record = ProducerRecord::new(TOPIC).key(key.as_bytes()).value(value.as_bytes());
            let delivery = producer.send(record).await?;
            if sent.send((value, delivery)).await.is_err() {
                // The other task has ended with an error.
                break;
            }
        }
        drop(sent);
        let acknowledged = settled.await??;
        producer.close(Duration::from_secs(10)).await?;
        Ok(acknowledged)
    }
}

/// Waits for the acknowledgement of each record, in the order of sending.
async fn settle(mut deliveries: mpsc::Receiver<(String, Delivery)>, count: Arc<AtomicUsize>) -> Result<Acknowledged> {
    let mut seen = Acknowledged::default();
    let mut last: Option<Instant> = None;
    while let Some((value, delivery)) = deliveries.recv().await {
        delivery.await.with_context(|| format!("`{value}` was not stored"))?;
        let now = Instant::now();
        let gap = last.replace(now).map_or(Duration::ZERO, |before| now - before);
        seen.longest_gap = seen.longest_gap.max(gap);
        seen.values.push(value);
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(seen)
}

/// A consumer group whose members read until it is stopped.
pub(crate) struct Group {
    stop: Arc<AtomicBool>,
    read: Arc<Mutex<Counts>>,
    members: Vec<JoinHandle<Result<()>>>,
}

impl Group {
    /// Starts the members.
    pub(crate) fn start(bootstrap: &str, members: usize) -> Self {
        let (stop, read) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Counts>>::default());
        let members = (0..members).map(|_| {
            let (bootstrap, stop, read) = (bootstrap.to_owned(), Arc::clone(&stop), Arc::clone(&read));
            tokio::spawn(async move { consume(&bootstrap, &stop, &read).await })
        });
        Self { members: members.collect(), stop, read }
    }

    /// Returns how many different records the group has read.
    pub(crate) fn read(&self) -> usize {
        lock(&self.read).len()
    }

    /// Stops the members, and returns what they have read.
    ///
    /// # Errors
    /// A member got an error.
    pub(crate) async fn stop(self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        for member in self.members {
            member.await?.context("a member of the group")?;
        }
        Ok(std::mem::take(&mut lock(&self.read)))
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn consume(bootstrap: &str, stop: &AtomicBool, read: &Mutex<Counts>) -> Result<()> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.group_id = Some("readers".to_owned());
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).build()?;
    consumer.subscribe([TOPIC])?;
    while !stop.load(Ordering::Relaxed) {
        let records = consumer.poll(Duration::from_millis(50)).await?;
        if !records.is_empty() {
            count(&mut lock(read), &records)?;
            // A commit that finds no coordinator for a moment is made up for by the next one.
            consumer.commit_async(|_| {});
        }
    }
    consumer.close().await?;
    Ok(())
}

fn count(counts: &mut Counts, records: &[ConsumerRecord]) -> Result<()> {
    for record in records {
        let value = String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec())?;
        *counts.entry(value).or_default() += 1;
    }
    Ok(())
}

/// Reads the topic from its start to its end, without a group.
///
/// # Errors
/// It cannot be read in time.
pub(crate) async fn read_back(bootstrap: &str) -> Result<Counts> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).build()?;
    let partitions = consumer.partitions(TOPIC).await?;
    let ends = consumer.end_offsets(&partitions).await?;
    consumer.assign(partitions)?;
    let (mut counts, begun) = (Counts::new(), Instant::now());
    while ends.iter().any(|(partition, end)| consumer.position(partition).unwrap_or(0) < *end) {
        ensure!(begun.elapsed() < PATIENCE, "the topic cannot be read to its end");
        count(&mut counts, &consumer.poll(Duration::from_millis(100)).await?)?;
    }
    consumer.close().await?;
    Ok(counts)
}
