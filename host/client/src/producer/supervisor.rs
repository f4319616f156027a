//! Looks after what no sender does: the producer's id, the picture of the cluster, and batches whose
//! time is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::messages::InitProducerIdRequest;

use super::Inner;
use super::queue::{Batch, TopicQueue};
use super::sequence::Identity;
use super::settle::{Outcome, finish_failed};
use crate::error::Error;

/// How often batches are looked through for those whose `delivery.timeout.ms` is over.
const EXPIRY_CHECK: Duration = Duration::from_millis(200);

/// Runs until the producer is closed and has nothing left.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut failures = 0;
    while !inner.finished() {
        let worked = tend(&inner).await;
        let wait = match worked {
            Ok(()) => {
                failures = 0;
                EXPIRY_CHECK
            }
            Err(error) if error.retriable() => {
                tracing::debug!(%error, "the cluster cannot be asked");
                inner.unreachable(error);
                failures += 1;
                inner.cluster.config().backoff(failures)
            }
            Err(error) => {
                tracing::error!(%error, "the producer cannot go on");
                inner.abort(&error);
                EXPIRY_CHECK
            }
        };
        expire(&inner);
        match inner.idle() {
            // Nothing waits for anything: until there is something to do.
            true => inner.attention.notified().await,
            false if failures > 0 => tokio::time::sleep(wait).await,
            false => drop(tokio::time::timeout(wait, inner.attention.notified()).await),
        }
    }
    inner.changed();
}

async fn tend(inner: &Arc<Inner>) -> Result<(), Error> {
    if inner.idle() {
        return Ok(());
    }
    if inner.config.idempotent() && inner.needs_identity() {
        let identity = init_producer_id(inner).await?;
        inner.set_identity(identity);
    }
    if inner.take_refresh() || inner.cluster.stale() || leaderless(inner) {
        inner.cluster.refresh(inner.cluster.metadata().generation).await?;
        inner.topics().iter().for_each(|topic| inner.dispatch(topic));
    }
    Ok(())
}

async fn init_producer_id(inner: &Inner) -> Result<Identity, Error> {
    let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..InitProducerIdRequest::default() };
    let answer = inner.cluster.ask_any(&request).await?;
    Error::check(|| "get a producer id".into(), answer.error_code, None)?;
    Ok(Identity { producer_id: answer.producer_id, epoch: answer.producer_epoch })
}

/// Whether records wait for a partition that nobody is known to lead.
fn leaderless(inner: &Inner) -> bool {
    let metadata = inner.cluster.metadata();
    inner.topics().iter().any(|topic| {
        let partitions = topic.partitions.lock();
        let waiting = partitions.iter().enumerate().filter(|(_, queue)| !queue.batches.is_empty());
        waiting.into_iter().any(|(index, _)| metadata.leader(&topic.name, index as i32).is_none())
    })
}

/// Fails the batches that wait and whose time is over. What is in flight gets its verdict first.
fn expire(inner: &Inner) {
    let now = Instant::now();
    for topic in inner.topics() {
        for (partition, batch) in take_expired(inner, &topic, now) {
            let limit = inner.config.delivery_timeout;
            let last = batch.last_error.clone().or_else(|| inner.last_unreachable());
            let reason = last.map_or_else(String::new, |error| format!(" (last error: {error})"));
            let error = Error::timeout(format!("the delivery to {}-{partition}{reason}", topic.name), limit);
            finish_failed(inner, &batch, &error, &Outcome::NotSent(error.clone()));
        }
    }
}

fn take_expired(inner: &Inner, topic: &TopicQueue, now: Instant) -> Vec<(usize, Batch)> {
    let mut expired = Vec::new();
    let mut partitions = topic.partitions.lock();
    for (index, queue) in partitions.iter_mut().enumerate() {
        let over = |batch: &Batch| inner.aborted() || batch.created + inner.config.delivery_timeout <= now;
        while queue.batches.front().is_some_and(over) {
            let Some(batch) = queue.batches.pop_front() else { break };
            match batch.maybe_stored {
                true => queue.sequences.unknown(batch.number),
                false => queue.sequences.refused(batch.number),
            }
            expired.push((index, batch));
        }
    }
    expired
}
