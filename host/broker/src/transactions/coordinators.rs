//! The broker that coordinates a transactional id, and what the leader of a partition asks it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millstream_coordinator::partition_of;
use millstream_coordinator::transaction::{
    Producer, TRANSACTION_STATE, TopicPartition, TransactionCoordinator, TransactionError, TransactionVersion,
};
use millstream_metadata::{MetadataImage, MetadataStore};
use millstream_wire::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use millstream_wire::{ErrorCode, Str};

use super::others::OtherBrokers;
use crate::error::ApiError;
use crate::produce::verifier::{TransactionVerifier, Verified, VerifyPartitions};

/// The version of AddPartitionsToTxn. Both sides run this program.
const VERSION: i16 = 5;

/// The version that adds partitions by the older protocol.
const OLDER_VERSION: i16 = 3;

/// Returns the broker that coordinates a transactional id; `None` if there is none now.
pub(crate) fn coordinator_of(image: &MetadataImage, transactional_id: &str) -> Option<i32> {
    let topic = image.topic(TRANSACTION_STATE)?;
    let partition = partition_of(transactional_id, topic.partition_count());
    let leader = image.partition(topic.id, partition)?.leader;
    image.broker(leader).filter(|broker| !broker.fenced).map(|_| leader)
}

/// The coordinators of all transactional ids: this broker and the others.
#[derive(Clone)]
pub(crate) struct Coordinators {
    node_id: i32,
    metadata: Arc<MetadataStore>,
    own: Arc<TransactionCoordinator>,
    others: Arc<OtherBrokers>,
}

impl fmt::Debug for Coordinators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinators").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Coordinators {
    pub(crate) fn new(
        node_id: i32,
        metadata: Arc<MetadataStore>,
        own: Arc<TransactionCoordinator>,
        others: Arc<OtherBrokers>,
    ) -> Self {
        Self { node_id, metadata, own, others }
    }

    async fn ask(self, asked: VerifyPartitions) -> Vec<Result<(), ApiError>> {
        let found = coordinator_of(&self.metadata.image(), &asked.transactional_id);
        let results = match found {
            Some(id) if id == self.node_id => self.ask_own(&asked).await.map_err(ApiError::from),
            Some(id) => self.ask_other(id, &asked).await,
            None => Err(TransactionError::NotAvailable.into()),
        };
        results.unwrap_or_else(|error| asked.partitions.iter().map(|_| Err(error.clone())).collect())
    }

    async fn ask_own(&self, asked: &VerifyPartitions) -> Result<Vec<Result<(), ApiError>>, TransactionError> {
        let producer = Producer { id: asked.producer_id, epoch: asked.producer_epoch };
        let own = |(topic, index): &(Str, i32)| -> TopicPartition { (Arc::from(topic.as_str()), *index) };
        let partitions: Vec<_> = asked.partitions.iter().map(own).collect();
        if let Some(version) = asked.adds {
            let (id, required) = (&asked.transactional_id, asked.required.as_ref().map(own));
            self.own.add_partitions_beside(id, producer, required.as_slice(), &partitions, version).await?;
            return Ok(partitions.iter().map(|_| Ok(())).collect());
        }
        let verified = self.own.verify_partitions(&asked.transactional_id, producer, &partitions)?;
        Ok(verified.into_iter().map(|result| result.map_err(ApiError::from)).collect())
    }

    async fn ask_other(&self, id: i32, asked: &VerifyPartitions) -> Result<Vec<Result<(), ApiError>>, ApiError> {
        let of_one = |(topic, partition): &(Str, i32)| AddPartitionsToTxnTopic {
            name: topic.clone(),
            partitions: vec![*partition],
        };
        let mut topics = BTreeMap::<&Str, Vec<i32>>::new();
        for (topic, partition) in &asked.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics =
            topics.into_iter().map(|(name, partitions)| AddPartitionsToTxnTopic { name: name.clone(), partitions });
        let (transactional_id, topics) = (asked.transactional_id.clone(), topics.collect());
        let (request, version) = match asked.adds {
            Some(version) if version < TransactionVersion::V2 => {
                let request = AddPartitionsToTxnRequest {
                    v3_and_below_transactional_id: transactional_id,
                    v3_and_below_producer_id: asked.producer_id,
                    v3_and_below_producer_epoch: asked.producer_epoch,
                    v3_and_below_topics: topics,
                    v3_required_topics: asked.required.iter().map(of_one).collect(),
                    ..Default::default()
                };
                (request, OLDER_VERSION)
            }
            adds => {
                let transaction = AddPartitionsToTxnTransaction {
                    transactional_id,
                    producer_id: asked.producer_id,
                    producer_epoch: asked.producer_epoch,
                    verify_only: adds.is_none(),
                    topics,
                };
                (AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() }, VERSION)
            }
        };
        let response = self.others.call(id, &request, version).await?;
        Ok(asked.partitions.iter().map(|partition| result_of(&response, partition)).collect())
    }
}

/// Returns the result of one partition in a response for one transaction.
fn result_of(response: &AddPartitionsToTxnResponse, (topic, index): &(Str, i32)) -> Result<(), ApiError> {
    let found = || {
        let results = match response.results_by_transaction.first() {
            Some(transaction) => &transaction.topic_results,
            None => &response.results_by_topic_v3_and_below,
        };
        let partitions = &results.iter().find(|result| result.name == *topic)?.results_by_partition;
        partitions.iter().find(|partition| partition.partition_index == *index)
    };
    let code = match response.error_code {
        ErrorCode::NONE => found().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |found| found.partition_error_code),
        error => error,
    };
    match code {
        ErrorCode::NONE => Ok(()),
        code => Err(ApiError::new(code, format!("the coordinator of the transaction responds with {code}"))),
    }
}

impl TransactionVerifier for Coordinators {
    fn verify(&self, partitions: VerifyPartitions) -> Verified {
        Box::pin(self.clone().ask(partitions))
    }
}
