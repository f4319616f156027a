//! The transaction of a produce: which of its batches begin it in their partition, and what the coordinator says to
//! that (KIP-890).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_coordinator::transaction::TransactionVersion;
use millstream_log::{Verification, VerificationGuard};
use millstream_partition::Partition;
use millstream_record::BatchHeader;
use millstream_wire::messages::TopicProduceData;
use millstream_wire::{ErrorCode, Str};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Produced;
use crate::broker::Broker;
use crate::edge::{Route, ServedTopic, ServedTopics};
use crate::error::ApiError;
use crate::produce::verifier::{ADDS_SINCE, VerifyPartitions, translated};

/// The wait before a coordinator that still ends the last transaction is asked again.
const CONCURRENT_BACKOFF: Duration = Duration::from_millis(20);

/// The longest time for that. The client then waits on its own.
const CONCURRENT_WAIT: Duration = Duration::from_millis(100);

/// A partition by its topic's id.
type Place = (Uuid, i32);

/// The transaction of a request, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) enum Transaction {
    /// The request names none, so none of its batches may be transactional.
    #[default]
    None,
    /// `transaction.partition.verification.enable=false`, and the producer adds its partitions itself.
    Trusted(Str),
    /// The results for the partitions in which the transaction begins. In the others it is open, or it is an error.
    Verified(Str, Arc<HashMap<Place, Result<VerificationGuard, ApiError>>>),
}

impl Transaction {
    /// Returns what is known of the transaction in a partition.
    pub(super) fn of(&self, topic: Uuid, partition: i32) -> Result<Verification, ApiError> {
        match self {
            Self::None => Ok(Verification::Unknown),
            Self::Trusted(_) => Ok(Verification::Disabled),
            Self::Verified(_, results) => match results.get(&(topic, partition)) {
                None => Ok(Verification::Unknown),
                Some(Ok(guard)) => Ok(Verification::Confirmed(*guard)),
                Some(Err(error)) => Err(error.clone()),
            },
        }
    }

    /// Returns the transactional id of the request.
    pub(super) fn id(&self) -> Option<&Str> {
        match self {
            Self::None => None,
            Self::Trusted(id) | Self::Verified(id, _) => Some(id),
        }
    }
}

/// The partitions of a request in which its transaction begins.
#[derive(Debug)]
pub(super) struct Beginning {
    transactional_id: Str,
    version: i16,
    producer: Option<(i64, i16)>,
    waiting: Vec<Waiting>,
    failed: HashMap<Place, Result<VerificationGuard, ApiError>>,
}

/// A partition in which the transaction begins, and the batch that begins it.
#[derive(Debug)]
struct Waiting {
    place: Place,
    topic: Str,
    partition: Arc<Partition>,
    batch: Bytes,
    guard: VerificationGuard,
}

impl Waiting {
    /// Begins the verification again. Returns whether the one that was under way still stands; a marker has ended it
    /// otherwise. `None`: the transaction is open by now.
    fn renew(&mut self, adds: bool) -> Result<Option<bool>, ApiError> {
        let header = BatchHeader::parse(&self.batch)?;
        let Some(guard) = self.partition.begin_verification(&header, adds)? else { return Ok(None) };
        let stands = guard == self.guard;
        self.guard = guard;
        Ok(Some(stands))
    }
}

impl Beginning {
    /// Begins the verification of the batches of a request.
    ///
    /// # Errors
    /// The batches are of several producers.
    pub(super) fn of(
        transactional_id: Str,
        produced: &Produced,
        table: &ServedTopics,
        topics: &[TopicProduceData],
    ) -> Result<Self, ApiError> {
        let (waiting, failed) = (Vec::new(), HashMap::new());
        let mut beginning = Self { transactional_id, version: produced.version, producer: None, waiting, failed };
        for data in topics {
            // What is rejected anyway does not become part of the transaction.
            let Ok(topic) = produced.topic(table, data) else { continue };
            if !matches!(topic.edge.route, Route::Reject(_)) {
                beginning.add(topic, data)?;
            }
        }
        Ok(beginning)
    }

    fn add(&mut self, topic: &ServedTopic, data: &TopicProduceData) -> Result<(), ApiError> {
        for sent in &data.partition_data {
            // A batch that cannot be read is rejected later, with the reason.
            let Some(bytes) = sent.records.as_bytes() else { continue };
            let Ok(header) = BatchHeader::parse(bytes) else { continue };
            if !header.is_transactional() || header.producer_id() < 0 {
                continue;
            }
            let producer = (header.producer_id(), header.producer_epoch());
            if *self.producer.get_or_insert(producer) != producer {
                let message = "the transactional batches of a request are of several producers";
                return Err(ApiError::new(ErrorCode::INVALID_PRODUCER_ID_MAPPING, message));
            }
            let Some(partition) = topic.partition(sent.index) else { continue };
            match partition.begin_verification(&header, self.version >= ADDS_SINCE) {
                Ok(None) => {}
                Ok(Some(guard)) => self.waiting.push(Waiting {
                    place: (topic.id, sent.index),
                    topic: topic.name.clone(),
                    partition: Arc::clone(partition),
                    batch: bytes.clone(),
                    guard,
                }),
                Err(error) => {
                    self.failed.insert((topic.id, sent.index), Err(error.into()));
                }
            }
        }
        Ok(())
    }

    /// Returns the transaction, if the coordinator need not be asked.
    pub(super) fn known(self) -> Result<Transaction, Box<Self>> {
        match self.waiting.is_empty() {
            true => Ok(Transaction::Verified(self.transactional_id, Arc::new(self.failed))),
            false => Err(Box::new(self)),
        }
    }

    /// Asks the coordinator. The markers of the transaction before may come meanwhile, and end a verification that is
    /// under way. The coordinator is then asked again.
    pub(super) async fn verify(self, broker: &Broker) -> Transaction {
        let Self { transactional_id, version, producer, mut waiting, failed: mut results } = self;
        let (producer_id, producer_epoch) = producer.unwrap_or((-1, -1));
        let adds = version >= ADDS_SINCE;
        let until = Instant::now() + CONCURRENT_WAIT;
        loop {
            let mut partitions: Vec<(Str, i32)> = Vec::with_capacity(waiting.len());
            let mut places = HashMap::with_capacity(waiting.len());
            for Waiting { place, topic, .. } in &waiting {
                if let Entry::Vacant(at) = places.entry(*place) {
                    at.insert(partitions.len());
                    partitions.push((topic.clone(), place.1));
                }
            }
            let asked = VerifyPartitions {
                transactional_id: transactional_id.clone(),
                producer_id,
                producer_epoch,
                adds: adds.then_some(TransactionVersion::V2),
                required: None,
                partitions,
            };
            let answered = broker.verifier.verify(asked).await;
            let missing = || Err(ApiError::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, "no response for the partition"));
            let is_last = Instant::now() >= until;
            let mut pauses = false;
            waiting.retain_mut(|one| {
                let found = places.get(&one.place).and_then(|at| answered.get(*at)).cloned().unwrap_or_else(missing);
                let is_concurrent = found.as_ref().is_err_and(|error| error.code == ErrorCode::CONCURRENT_TRANSACTIONS);
                let result = match (found, one.renew(adds)) {
                    (_, Ok(None)) => return false,
                    (_, Err(error)) => Err(error),
                    (Ok(()), Ok(Some(true))) => Ok(one.guard),
                    (Ok(()), Ok(Some(false))) if !is_last => return true,
                    (Ok(()), Ok(Some(false))) => Err(translated(ended(), version)),
                    (Err(_), Ok(Some(_))) if is_concurrent && adds && !is_last => {
                        pauses = true;
                        return true;
                    }
                    (Err(error), Ok(Some(_))) => Err(translated(error, version)),
                };
                results.insert(one.place, result);
                false
            });
            if waiting.is_empty() {
                return Transaction::Verified(transactional_id, Arc::new(results));
            }
            if pauses {
                sleep(CONCURRENT_BACKOFF).await;
            }
        }
    }
}

/// Returns the error for a verification that a marker has ended again and again.
fn ended() -> ApiError {
    ApiError::new(ErrorCode::CONCURRENT_TRANSACTIONS, "a marker came while the transaction was being verified")
}
