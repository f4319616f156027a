//! The markers that a coordinator sends to the leaders of a transaction's partitions.
//!
//! Markers for one broker that wait while a request is under way go together in the next one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use millstream_coordinator::transaction::{HostFuture, MarkerResult, Markers, Outcome, TopicPartition};
use millstream_log::TransactionEnd;
use millstream_metadata::{MetadataStore, NO_LEADER};
use millstream_record::EndMarker;
use millstream_wire::messages::{
    WritableTxnMarker, WritableTxnMarkerResult, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::others::OtherBrokers;

/// The version of WriteTxnMarkers. Both sides run this program.
const VERSION: i16 = 2;

/// The most transactions in one request.
const BATCH_MAX: usize = 1_000;

/// Writes markers to partitions that this broker leads.
pub(crate) trait LocalMarkers: Send + Sync + 'static {
    /// Returns the result for each partition when the markers are committed.
    fn write(&self, end: TransactionEnd, partitions: Vec<(Str, i32)>) -> HostFuture<Vec<ErrorCode>>;
}

/// What became of the markers of one transaction at one broker.
type Results = Vec<(TopicPartition, MarkerResult)>;

/// A marker that waits for the next request, and the wait for its results.
struct Queued {
    marker: WritableTxnMarker,
    results: oneshot::Sender<WritableTxnMarkerResult>,
}

/// Sends markers to the leaders of their partitions.
pub(crate) struct MarkerSender {
    node_id: i32,
    metadata: Arc<MetadataStore>,
    others: Arc<OtherBrokers>,
    local: Box<dyn LocalMarkers>,
    /// By broker.
    queues: Mutex<HashMap<i32, mpsc::UnboundedSender<Queued>>>,
}

impl fmt::Debug for MarkerSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MarkerSender").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl MarkerSender {
    pub(crate) fn new(
        node_id: i32,
        metadata: Arc<MetadataStore>,
        others: Arc<OtherBrokers>,
        local: Box<dyn LocalMarkers>,
    ) -> Self {
        Self { node_id, metadata, others, local, queues: Mutex::default() }
    }

    /// Sends the markers of a transaction, each once. Returns a result for each partition.
    pub(super) async fn send(&self, markers: Markers) -> Results {
        let (mut results, mut by_leader) = (Results::new(), BTreeMap::<i32, Vec<TopicPartition>>::new());
        let image = self.metadata.image();
        for partition in &markers.partitions {
            let topic = image.topic(&partition.0);
            let stored = topic.and_then(|topic| topic.partitions.get(usize::try_from(partition.1).ok()?));
            match stored.map(|stored| stored.leader) {
                // The topic was deleted during the transaction.
                None => results.push((partition.clone(), MarkerResult::Written)),
                Some(NO_LEADER) => results.push((partition.clone(), MarkerResult::Retry)),
                Some(leader) => by_leader.entry(leader).or_default().push(partition.clone()),
            }
        }
        let mut waits = JoinSet::new();
        for (leader, partitions) in by_leader {
            if leader == self.node_id {
                let named = partitions.iter().map(|(topic, index)| (Str::from(&**topic), *index)).collect();
                let written = self.local.write(end_of(&markers), named);
                waits.spawn(async move {
                    partitions.into_iter().zip(written.await.into_iter().map(result_of)).collect::<Results>()
                });
            } else {
                let written = self.enqueue(leader, marker(&markers, &partitions));
                waits.spawn(async move { of_partitions(partitions, written.await.ok()) });
            }
        }
        while let Some(of_leader) = waits.join_next().await {
            // Partitions without a result are sent again.
            results.extend(of_leader.unwrap_or_default());
        }
        if results.len() < markers.partitions.len() {
            let missing = markers.partitions.iter().filter(|one| !results.iter().any(|(known, _)| known == *one));
            let missing: Vec<_> = missing.map(|one| (one.clone(), MarkerResult::Retry)).collect();
            results.extend(missing);
        }
        results
    }

    /// Adds a marker to the next request for a broker.
    fn enqueue(&self, broker: i32, marker: WritableTxnMarker) -> oneshot::Receiver<WritableTxnMarkerResult> {
        let (results, receiver) = oneshot::channel();
        let mut queues = self.queues.lock();
        let queue = queues.entry(broker).or_insert_with(|| {
            let (sender, queue) = mpsc::unbounded_channel();
            tokio::spawn(run(Arc::clone(&self.others), broker, queue));
            sender
        });
        // The task ends with the sender only.
        let _ = queue.send(Queued { marker, results });
        receiver
    }
}

/// Sends the markers for one broker, until nothing can come any more.
async fn run(others: Arc<OtherBrokers>, broker: i32, mut queue: mpsc::UnboundedReceiver<Queued>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (markers, mut waiting): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Queued { marker, results }| (marker.clone(), (marker, Some(results)))).unzip();
        match others.call(broker, &WriteTxnMarkersRequest { markers }, VERSION).await {
            Ok(response) => {
                for result in response.markers {
                    let is_of =
                        |marker: &WritableTxnMarker| marker.producer_id == result.producer_id && names(marker, &result);
                    let found = waiting.iter_mut().find(|(marker, sender)| sender.is_some() && is_of(marker));
                    // A transaction that was dropped does not wait any more.
                    if let Some(sender) = found.and_then(|(_, sender)| sender.take()) {
                        let _ = sender.send(result);
                    }
                }
            }
            // Who waits sends again, perhaps to another leader.
            Err(error) => tracing::info!("cannot send markers of transactions to {error}"),
        }
    }
}

/// Returns whether a result is for the partitions of a marker.
fn names(marker: &WritableTxnMarker, result: &WritableTxnMarkerResult) -> bool {
    result.topics.iter().all(|topic| {
        let named = marker.topics.iter().find(|named| named.name == topic.name);
        named.is_some_and(|named| {
            topic.partitions.iter().all(|one| named.partition_indexes.contains(&one.partition_index))
        })
    })
}

fn marker(markers: &Markers, partitions: &[TopicPartition]) -> WritableTxnMarker {
    let mut topics = BTreeMap::<&Arc<str>, Vec<i32>>::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partition_indexes)| WritableTxnMarkerTopic { name: Str::from(&**name), partition_indexes });
    WritableTxnMarker {
        producer_id: markers.producer.id,
        producer_epoch: markers.producer.epoch,
        transaction_result: markers.outcome == Outcome::Commit,
        topics: topics.collect(),
        coordinator_epoch: markers.coordinator_epoch,
        transaction_version: markers.version.level(),
    }
}

fn end_of(markers: &Markers) -> TransactionEnd {
    let is_commit = markers.outcome == Outcome::Commit;
    TransactionEnd {
        producer_id: markers.producer.id,
        producer_epoch: markers.producer.epoch,
        marker: EndMarker { is_commit, coordinator_epoch: markers.coordinator_epoch },
        transaction_version: markers.version.level(),
    }
}

/// Returns the results of partitions; those that the response does not name are sent again.
fn of_partitions(partitions: Vec<TopicPartition>, written: Option<WritableTxnMarkerResult>) -> Results {
    let topics = written.map(|written| written.topics).unwrap_or_default();
    let code = |(name, index): &TopicPartition| {
        let topic = topics.iter().find(|topic| topic.name.as_str() == &**name)?;
        let partition = topic.partitions.iter().find(|partition| partition.partition_index == *index)?;
        Some(partition.error_code)
    };
    let results: Vec<_> =
        partitions.iter().map(|partition| code(partition).map_or(MarkerResult::Retry, result_of)).collect();
    partitions.into_iter().zip(results).collect()
}

fn result_of(code: ErrorCode) -> MarkerResult {
    match code {
        // A partition that knows a later epoch of the producer has no open transaction of this one.
        ErrorCode::NONE | ErrorCode::INVALID_PRODUCER_EPOCH => MarkerResult::Written,
        ErrorCode::TRANSACTION_COORDINATOR_FENCED => MarkerResult::CoordinatorFenced,
        _ => MarkerResult::Retry,
    }
}
