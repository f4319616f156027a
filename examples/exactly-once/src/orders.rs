//! The orders: a producer that writes them, and readers that count them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_client::{
    Consumer, ConsumerConfig, IsolationLevel, OffsetReset, Producer, ProducerConfig, ProducerRecord,
};
use tokio::task::JoinHandle;

use crate::{PARTITIONS, PATIENCE, SOURCE};

/// The interval between two orders.
const PACE: Duration = Duration::from_millis(1);

/// Returns the price of an order, in cents.
fn cents(order: u64) -> u64 {
    order * 37 % 10_000
}

/// Returns an order as the source has it.
fn written(order: u64) -> String {
    let cents = cents(order);
    format!("{order} {}.{:02}", cents / 100, cents % 100)
}

/// Returns an order as the stage has changed it.
fn changed(order: u64) -> String {
    format!(r#"{{"order":{order},"cents":{}}}"#, cents(order))
}

/// Returns the partition of an order.
fn partition(order: u64) -> i32 {
    (order % PARTITIONS as u64) as i32
}

/// Writes orders until it is stopped.
pub(crate) struct Feeder {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

impl Feeder {
    pub(crate) fn start(bootstrap: &str) -> Self {
        let (stop, bootstrap) = (Arc::<AtomicBool>::default(), bootstrap.to_owned());
        let task = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move { feed(&bootstrap, &stop).await }
        });
        Self { stop, task }
    }

    /// Stops, and returns the number of orders once all are acknowledged.
    ///
    /// # Errors
    /// An order was not stored.
    pub(crate) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

async fn feed(bootstrap: &str, stop: &AtomicBool) -> Result<u64> {
    let producer = Producer::builder(ProducerConfig::new(bootstrap)).build()?;
    let mut ticks = tokio::time::interval(PACE);
    let mut deliveries = Vec::new();
    for order in 0_u64.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = written(order);
        let record = ProducerRecord::new(SOURCE).partition(partition(order)).value(value.as_bytes());
        deliveries.push(producer.send(record).await?);
    }
    let count = deliveries.len() as u64;
    for delivery in deliveries {
        delivery.await.context("an order was not stored")?;
    }
    producer.close(PATIENCE).await?;
    Ok(count)
}

/// Reads the values of a topic in order, by partition.
///
/// # Errors
/// The topic cannot be read to its end in time.
pub(crate) async fn read(bootstrap: &str, topic: &str, level: IsolationLevel) -> Result<BTreeMap<i32, Vec<String>>> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    config.isolation_level = level;
    let consumer = Consumer::builder(config).build()?;
    let partitions = consumer.partitions(topic).await?;
    let ends = consumer.end_offsets(&partitions).await?;
    consumer.assign(partitions)?;
    let (mut values, begun) = (BTreeMap::<i32, Vec<String>>::new(), Instant::now());
    while ends.iter().any(|(partition, end)| consumer.position(partition).unwrap_or(0) < *end) {
        ensure!(begun.elapsed() < PATIENCE, "{topic} cannot be read to its end");
        for record in consumer.poll(Duration::from_millis(100)).await? {
            let value = String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec())?;
            values.entry(record.partition).or_default().push(value);
        }
    }
    consumer.close().await?;
    Ok(values)
}

/// Returns the changed orders up to `count`, in order, by partition.
pub(crate) fn expected(count: u64) -> BTreeMap<i32, Vec<String>> {
    let mut values = BTreeMap::<i32, Vec<String>>::new();
    for order in 0..count {
        values.entry(partition(order)).or_default().push(changed(order));
    }
    values
}
