//! Transactions: their list, their state, and the end of those that hang (KIP-664).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_wire::messages::{
    DescribeProducersRequest, DescribeProducersTopicRequest, DescribeTransactionsRequest, InitProducerIdRequest,
    ListTransactionsRequest, WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use millstream_wire::{ErrorCode, Str};

use super::Admin;
use crate::clock::now_ms;
use crate::consumer::record::TopicPartition;
use crate::error::Error;
use crate::net::{Coordinator, CoordinatorOf, Lane};

/// Which transactional ids to list. The default is all.
#[derive(Debug, Clone, Default)]
pub struct TransactionFilter {
    /// States such as `Ongoing`; empty for all.
    pub states: Vec<String>,
    /// Producer ids; empty for all.
    pub producer_ids: Vec<i64>,
    /// Only transactions that are open for longer.
    pub older_than: Option<Duration>,
    /// A regular expression that matches the whole transactional id.
    pub pattern: Option<String>,
}

/// A transactional id in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionListing {
    /// The transactional id.
    pub transactional_id: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The id of its producer.
    pub producer_id: i64,
    /// Such as `Ongoing` or `CompleteCommit`.
    pub state: String,
}

/// The state of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The transactional id.
    pub transactional_id: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// Such as `Ongoing` or `CompleteCommit`.
    pub state: String,
    /// The id of its producer.
    pub producer_id: i64,
    /// The epoch of its producer.
    pub producer_epoch: i16,
    /// `transaction.timeout.ms` of its producer.
    pub timeout: Duration,
    /// When the open transaction began, in milliseconds since the epoch.
    pub started: Option<i64>,
    /// The partitions of the transaction that have no marker yet.
    pub partitions: Vec<TopicPartition>,
}

/// A producer that a partition remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerDescription {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The epoch of the coordinator that wrote its last marker; -1 if there is none.
    pub coordinator_epoch: i32,
    /// The sequence of its last record; -1 if there is none.
    pub last_sequence: i32,
    /// The time of its last batch, in milliseconds since the epoch.
    pub last_timestamp: i64,
    /// The first offset of its open transaction.
    pub transaction_start: Option<i64>,
}

impl Admin {
    /// Returns the transactional ids of all brokers, in order.
    ///
    /// # Errors
    /// A broker cannot be reached, or it does not know one of the states.
    pub async fn list_transactions(&self, filter: &TransactionFilter) -> Result<Vec<TransactionListing>, Error> {
        let request = ListTransactionsRequest {
            state_filters: filter.states.iter().map(|state| Str::from(state.as_str())).collect(),
            producer_id_filters: filter.producer_ids.clone(),
            duration_filter: filter.older_than.map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            transactional_id_pattern: filter.pattern.as_deref().map(Str::from),
        };
        let mut found = BTreeMap::new();
        for broker in self.describe_cluster().await?.brokers {
            let mut retry = self.retry("the list of transactions");
            let response = loop {
                let attempt = async {
                    let response = self.cluster.ask(broker.id, Lane::Main, &request).await?;
                    Error::check(|| "list transactions".into(), response.error_code, None).map(|()| response)
                };
                if let Some(response) = retry.attempt(attempt).await? {
                    break response;
                }
            };
            if let Some(unknown) = response.unknown_state_filters.first() {
                let message = format!("the broker knows no state {:?} of a transaction", &**unknown);
                return Err(Error::broker("list transactions", ErrorCode::INVALID_REQUEST, Some(&message)));
            }
            for listed in &response.transaction_states {
                let listing = TransactionListing {
                    transactional_id: listed.transactional_id.to_string(),
                    coordinator: broker.id,
                    producer_id: listed.producer_id,
                    state: listed.transaction_state.to_string(),
                };
                found.insert(listing.transactional_id.clone(), listing);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Returns the state of a transactional id.
    ///
    /// # Errors
    /// Its coordinator does not know it, or cannot be reached.
    pub async fn describe_transaction(&self, transactional_id: &str) -> Result<TransactionDescription, Error> {
        let coordinator = self.coordinator_of(transactional_id);
        let request = DescribeTransactionsRequest { transactional_ids: vec![Str::from(transactional_id)] };
        let mut retry = self.retry("the description of a transaction");
        loop {
            let attempt = async {
                let node = coordinator.node(&self.cluster).await?;
                let response = coordinator.ask_up_to(&self.cluster, Lane::Main, &request, i16::MAX).await?;
                let Some(described) = response.transaction_states.first() else {
                    return Err(Error::Invalid(format!("the response lacks {transactional_id}").into()));
                };
                let what = || format!("describe transactional id {transactional_id}");
                coordinator.check(what, described.error_code, None)?;
                let partitions = described.topics.iter().flat_map(|topic| {
                    topic.partitions.iter().map(|number| TopicPartition::new(&*topic.topic, *number))
                });
                Ok(TransactionDescription {
                    transactional_id: transactional_id.to_owned(),
                    coordinator: node,
                    state: described.transaction_state.to_string(),
                    producer_id: described.producer_id,
                    producer_epoch: described.producer_epoch,
                    timeout: Duration::from_millis(described.transaction_timeout_ms.try_into().unwrap_or(0)),
                    started: (described.transaction_start_time_ms >= 0).then_some(described.transaction_start_time_ms),
                    partitions: partitions.collect(),
                })
            };
            if let Some(description) = retry.attempt(attempt).await? {
                return Ok(description);
            }
        }
    }

    fn coordinator_of(&self, transactional_id: &str) -> Coordinator {
        let timeout = self.cluster.config().request_timeout;
        Coordinator::new(CoordinatorOf::TransactionalId, transactional_id, timeout)
    }

    /// Aborts the open transaction of a transactional id and fences its producer, as a new producer with the same id
    /// does. Returns once the transaction is aborted.
    ///
    /// # Errors
    /// The coordinator cannot be reached, or rejects the timeout.
    pub async fn terminate_transaction(&self, description: &TransactionDescription) -> Result<(), Error> {
        let id = description.transactional_id.as_str();
        let coordinator = self.coordinator_of(id);
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(id)),
            // Kept as it is.
            transaction_timeout_ms: i32::try_from(description.timeout.as_millis()).unwrap_or(i32::MAX),
            ..InitProducerIdRequest::default()
        };
        let mut retry = self.retry("the abort of a transaction");
        loop {
            let attempt = async {
                let response = coordinator.ask_up_to(&self.cluster, Lane::Main, &request, i16::MAX).await?;
                let what = || format!("abort the transaction of {id}");
                coordinator.check(what, response.error_code, None)
            };
            if retry.attempt(attempt).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Returns the producers that these partitions remember, in the order of the partitions.
    ///
    /// # Errors
    /// A partition does not exist, or its leader cannot be reached.
    pub async fn describe_producers(&self, partitions: &[TopicPartition]) -> Result<Vec<ProducerDescription>, Error> {
        let mut retry = self.retry("the producers of partitions");
        loop {
            if let Some(found) = retry.attempt(self.describe_producers_once(partitions)).await? {
                return Ok(found);
            }
        }
    }

    async fn describe_producers_once(&self, partitions: &[TopicPartition]) -> Result<Vec<ProducerDescription>, Error> {
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
        for TopicPartition { topic, partition } in partitions {
            let (leader, _) = self.cluster.leader(topic, *partition).await?;
            by_leader.entry(leader).or_default().entry(&**topic).or_default().push(*partition);
        }
        let mut found = Vec::new();
        for (leader, topics) in by_leader {
            let topics = topics.into_iter().map(|(name, partition_indexes)| DescribeProducersTopicRequest {
                name: Str::from(name),
                partition_indexes,
            });
            let request = DescribeProducersRequest { topics: topics.collect() };
            let response = self.cluster.ask_leader(leader, &request).await?;
            for topic in &response.topics {
                for part in &topic.partitions {
                    let partition = TopicPartition::new(&*topic.name, part.partition_index);
                    let what = || format!("describe the producers of {partition}");
                    Error::check(what, part.error_code, part.error_message.as_deref())?;
                    found.extend(part.active_producers.iter().map(|producer| ProducerDescription {
                        partition: partition.clone(),
                        producer_id: producer.producer_id,
                        producer_epoch: producer.producer_epoch.try_into().unwrap_or(-1),
                        coordinator_epoch: producer.coordinator_epoch,
                        last_sequence: producer.last_sequence,
                        last_timestamp: producer.last_timestamp,
                        transaction_start:
                            (producer.current_txn_start_offset >= 0).then_some(producer.current_txn_start_offset),
                    }));
                }
            }
        }
        found.sort_by(|a, b| (&a.partition, a.producer_id).cmp(&(&b.partition, b.producer_id)));
        Ok(found)
    }

    /// Returns the transactions that are open in these partitions without a batch for `idle` (zero: all), and that no
    /// coordinator knows. Nothing will end them, and readers with `read_committed` wait for them.
    ///
    /// # Errors
    /// A partition does not exist, or a broker cannot be reached.
    pub async fn hanging_transactions(
        &self,
        partitions: &[TopicPartition],
        idle: Duration,
    ) -> Result<Vec<ProducerDescription>, Error> {
        let before = now_ms().saturating_sub(i64::try_from(idle.as_millis()).unwrap_or(i64::MAX));
        let mut open = self.describe_producers(partitions).await?;
        open.retain(|producer| producer.transaction_start.is_some());
        // A producer may set timestamps of the future.
        open.retain(|producer| idle.is_zero() || producer.last_timestamp <= before);
        if open.is_empty() {
            return Ok(open);
        }
        let ids: BTreeSet<i64> = open.iter().map(|producer| producer.producer_id).collect();
        let filter = TransactionFilter { producer_ids: ids.into_iter().collect(), ..TransactionFilter::default() };
        let mut known = BTreeSet::new();
        for listing in self.list_transactions(&filter).await? {
            match self.describe_transaction(&listing.transactional_id).await {
                Ok(described) => {
                    let partitions = described.partitions.into_iter();
                    known.extend(partitions.map(|partition| (described.producer_id, partition)));
                }
                // It was removed meanwhile.
                Err(error) if error.code() == Some(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        open.retain(|producer| !known.contains(&(producer.producer_id, producer.partition.clone())));
        Ok(open)
    }

    /// Aborts a transaction that hangs in one partition, by a marker to its leader. Only for a transaction that no
    /// coordinator knows: it does not change the coordinator's state.
    ///
    /// # Errors
    /// The leader cannot be reached, or does not take markers from this client.
    pub async fn abort_hanging(&self, producer: &ProducerDescription) -> Result<(), Error> {
        let TopicPartition { topic, partition } = &producer.partition;
        let request = WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: producer.producer_id,
                producer_epoch: producer.producer_epoch,
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic { name: Str::from(&**topic), partition_indexes: vec![*partition] }],
                // A producer without a marker has none to compare with.
                coordinator_epoch: producer.coordinator_epoch.max(0),
                transaction_version: 0,
            }],
        };
        let mut retry = self.retry("the abort of a hanging transaction");
        loop {
            let attempt = async {
                let (leader, _) = self.cluster.leader(topic, *partition).await?;
                let response = self.cluster.ask_leader(leader, &request).await?;
                let topics = response.markers.iter().flat_map(|marker| &marker.topics);
                let results = topics.flat_map(|topic| &topic.partitions);
                for result in results {
                    let what = || {
                        format!("abort the transaction of producer {} in {}", producer.producer_id, producer.partition)
                    };
                    Error::check(what, result.error_code, None)?;
                }
                Ok(())
            };
            if retry.attempt(attempt).await?.is_some() {
                return Ok(());
            }
        }
    }
}
