//! AddPartitionsToTxn: from producers up to version 3, and for several transactions from other brokers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::transaction::{Producer, TopicPartition, TransactionVersion};
use millstream_wire::messages::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult, AddPartitionsToTxnTransaction,
};
use millstream_wire::{ErrorCode, Str};
use tokio::task::JoinSet;

use super::handler::{Handler, RequestContext};
use super::transaction_topic::fenced_code;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which one request has many transactions.
const BATCHED_FROM: i16 = 4;

/// The version from which a fenced producer has its own error code.
const PRODUCER_FENCED_FROM: i16 = 2;

/// The version from which a transaction that has to be aborted has its own error code.
const ABORTABLE_FROM: i16 = 5;

pub(super) struct AddPartitionsToTxn;

impl Handler for AddPartitionsToTxn {
    type Request = AddPartitionsToTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Write, ResourceType::TransactionalId));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: AddPartitionsToTxnRequest,
    ) -> AddPartitionsToTxnResponse {
        if context.version < BATCHED_FROM {
            let transaction = AddPartitionsToTxnTransaction {
                transactional_id: request.v3_and_below_transactional_id,
                producer_id: request.v3_and_below_producer_id,
                producer_epoch: request.v3_and_below_producer_epoch,
                verify_only: false,
                topics: request.v3_and_below_topics,
            };
            let required = named(&request.v3_required_topics);
            let results = transact(broker, transaction, &required, context.version).await.topic_results;
            return AddPartitionsToTxnResponse { results_by_topic_v3_and_below: results, ..Default::default() };
        }
        // One transaction that waits for its markers does not delay the others.
        let mut all = JoinSet::new();
        for (index, transaction) in request.transactions.into_iter().enumerate() {
            let (broker, version) = (Arc::clone(broker), context.version);
            all.spawn(async move { (index, transact(&broker, transaction, &[], version).await) });
        }
        let mut results = all.join_all().await;
        results.sort_by_key(|(index, _)| *index);
        let results_by_transaction = results.into_iter().map(|(_, result)| result).collect();
        AddPartitionsToTxnResponse { results_by_transaction, ..Default::default() }
    }
}

/// Adds the partitions of one transaction beside those that are required, all of them or none, or checks them.
async fn transact(
    broker: &Broker,
    transaction: AddPartitionsToTxnTransaction,
    required: &[TopicPartition],
    version: i16,
) -> AddPartitionsToTxnResult {
    let AddPartitionsToTxnTransaction { transactional_id, producer_id, producer_epoch, verify_only, topics } =
        transaction;
    let producer = Producer { id: producer_id, epoch: producer_epoch };
    let partitions = named(&topics);
    let id = transactional_id.as_str();
    let is_known = |(topic, index): &TopicPartition| broker.topics.load().partition(topic, *index).is_some();
    let unknown: Vec<bool> = partitions.iter().map(|partition| !is_known(partition)).collect();
    let codes: Vec<ErrorCode> = if unknown.contains(&true) {
        // Nothing is added if one of them does not exist.
        let code = |unknown| match unknown {
            true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            false => ErrorCode::OPERATION_NOT_ATTEMPTED,
        };
        unknown.into_iter().map(code).collect()
    } else if verify_only {
        match broker.transactions.verify_partitions(id, producer, &partitions) {
            Ok(results) => results.into_iter().map(|result| result.err().map_or(ErrorCode::NONE, Into::into)).collect(),
            Err(error) => vec![error.into(); partitions.len()],
        }
    } else {
        let client = if version < BATCHED_FROM { TransactionVersion::V0 } else { TransactionVersion::V2 };
        let added = broker.transactions.add_partitions_beside(id, producer, required, &partitions, client).await;
        vec![added.err().map_or(ErrorCode::NONE, Into::into); partitions.len()]
    };
    let mut codes = codes.into_iter().map(|code| match code {
        // What requires partitions is a broker.
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE_FROM && required.is_empty() => {
            ErrorCode::INVALID_TXN_STATE
        }
        code if version < PRODUCER_FENCED_FROM => fenced_code(code),
        code => code,
    });
    let topic_results = topics.into_iter().map(|topic| {
        let results = topic.partitions.iter().zip(&mut codes);
        let results = results.map(|(&partition_index, partition_error_code)| AddPartitionsToTxnPartitionResult {
            partition_index,
            partition_error_code,
        });
        AddPartitionsToTxnTopicResult { results_by_partition: results.collect(), name: topic.name }
    });
    AddPartitionsToTxnResult { topic_results: topic_results.collect(), transactional_id }
}

/// Returns the partitions in the order of a request.
fn named(topics: &[AddPartitionsToTxnTopic]) -> Vec<TopicPartition> {
    let own = |name: &Str| -> Arc<str> { Arc::from(name.as_str()) };
    let of = |topic: &AddPartitionsToTxnTopic| {
        let name = own(&topic.name);
        topic.partitions.iter().map(move |index| (Arc::clone(&name), *index)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}
