//! Background work of the producer: gets the producer id, refreshes the metadata, expires batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::messages::InitProducerIdRequest;

use super::Inner;
use super::accumulator::{Batch, TopicAccumulator};
use super::completion::{Outcome, finish_failed};
use super::sequence::Identity;
use crate::error::Error;

/// The interval of the check for batches whose `delivery.timeout.ms` has passed.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The interval of metadata refreshes while records wait for a leader that is not known or cannot be reached. It
/// begins with the first one and doubles.
const LEADER_CHECK_INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Runs until the producer is closed and every record has its result.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut failures = 0;
    let mut leader_check = LEADER_CHECK_INTERVALS.0;
    while !inner.finished() {
        let maintained = maintain(&inner).await;
        let wait = match maintained {
            Ok(()) => {
                failures = 0;
                let (shortest, longest) = LEADER_CHECK_INTERVALS;
                let (wait, next) = match lacks_leader(&inner) {
                    true => (leader_check, longest.min(leader_check * 2)),
                    false => (EXPIRY_CHECK_INTERVAL, shortest),
                };
                leader_check = next;
                wait
            }
            Err(error) if error.retriable() => {
                tracing::debug!(%error, "the cluster cannot be reached");
                inner.unreachable(error);
                failures += 1;
                inner.cluster.config().backoff(failures)
            }
            Err(error) => {
                tracing::error!(%error, "the producer cannot go on");
                inner.abort(&error);
                EXPIRY_CHECK_INTERVAL
            }
        };
        expire(&inner);
        match inner.idle() {
            // No record waits: sleep until there is work.
            true => inner.attention.notified().await,
            false if failures > 0 => tokio::time::sleep(wait).await,
            false => drop(tokio::time::timeout(wait, inner.attention.notified()).await),
        }
    }
    inner.changed();
}

async fn maintain(inner: &Arc<Inner>) -> Result<(), Error> {
    if inner.idle() {
        return Ok(());
    }
    if inner.needs_identity() {
        let identity = init_producer_id(inner).await?;
        inner.set_identity(identity);
    }
    if inner.take_refresh() || inner.cluster.stale() || lacks_leader(inner) {
        inner.cluster.refresh(inner.cluster.metadata().generation).await?;
        inner.topics().iter().for_each(|topic| inner.dispatch(topic));
    }
    Ok(())
}

async fn init_producer_id(inner: &Inner) -> Result<Identity, Error> {
    let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..InitProducerIdRequest::default() };
    let response = inner.cluster.ask_any(&request).await?;
    Error::check(|| "get a producer id".into(), response.error_code, None)?;
    Ok(Identity { producer_id: response.producer_id, epoch: response.producer_epoch })
}

/// Returns whether records wait for a partition without a known leader, or with one that cannot be reached.
fn lacks_leader(inner: &Inner) -> bool {
    let metadata = inner.cluster.metadata();
    inner.topics().iter().any(|topic| {
        let partitions = topic.partitions.lock();
        let waiting = partitions.iter().enumerate().filter(|(_, queue)| !queue.batches.is_empty());
        waiting.into_iter().any(|(index, _)| {
            let leader = metadata.leader(&topic.name, index as i32);
            leader.is_none_or(|(node, _)| inner.cluster.is_down(node))
        })
    })
}

/// Fails the waiting batches whose time has passed, or all if none can be sent any more. Batches in flight complete
/// first.
fn expire(inner: &Inner) {
    let (now, doom) = (Instant::now(), inner.doom());
    for topic in inner.topics() {
        for (partition, batch) in take_expired(inner, &topic, now, doom.is_some()) {
            let error = doom.clone().unwrap_or_else(|| {
                let last = batch.last_error.clone().or_else(|| inner.last_unreachable());
                let reason = last.map_or_else(String::new, |error| format!(" (last error: {error})"));
                let what = format!("the delivery to {}-{partition}{reason}", topic.name);
                Error::timeout(what, inner.config.delivery_timeout)
            });
            finish_failed(inner, &batch, &error, &Outcome::NotSent(error.clone()));
        }
    }
}

fn take_expired(inner: &Inner, topic: &TopicAccumulator, now: Instant, all: bool) -> Vec<(usize, Batch)> {
    let mut expired = Vec::new();
    let mut partitions = topic.partitions.lock();
    for (index, queue) in partitions.iter_mut().enumerate() {
        let over = |batch: &Batch| all || batch.created + inner.config.delivery_timeout <= now;
        while queue.batches.front().is_some_and(over) {
            let Some(batch) = queue.batches.pop_front() else { break };
            match batch.maybe_stored {
                true => queue.sequences.unknown(batch.number),
                false => queue.sequences.rejected(batch.number),
            }
            expired.push((index, batch));
        }
    }
    expired
}
