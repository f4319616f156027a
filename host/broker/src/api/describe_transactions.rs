//! DescribeTransactions: the state of transactional ids that this broker coordinates.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::transaction::TransactionError;
use millstream_wire::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, DescribedTransaction, DescribedTransactionTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct DescribeTransactions;

impl Handler for DescribeTransactions {
    type Request = DescribeTransactionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::TransactionalId));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &DescribeTransactionsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeTransactionsRequest,
    ) -> DescribeTransactionsResponse {
        let described = request.transactional_ids.into_iter().map(|id| {
            let found = describe(broker, &id);
            let described =
                found.unwrap_or_else(|error| DescribedTransaction { error_code: error.into(), ..Default::default() });
            DescribedTransaction { transactional_id: id, ..described }
        });
        DescribeTransactionsResponse { transaction_states: described.collect(), ..Default::default() }
    }
}

fn describe(broker: &Broker, id: &str) -> Result<DescribedTransaction, TransactionError> {
    let found = broker.transactions.describe(id)?;
    let mut topics = BTreeMap::<&Arc<str>, Vec<i32>>::new();
    for (topic, partition) in &found.partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| DescribedTransactionTopic { topic: Str::from(&**topic), partitions });
    Ok(DescribedTransaction {
        error_code: ErrorCode::NONE,
        transactional_id: Str::EMPTY,
        transaction_state: Str::from_static(found.state.name()),
        transaction_timeout_ms: found.timeout_ms,
        transaction_start_time_ms: found.started_ms,
        producer_id: found.producer.id,
        producer_epoch: found.producer.epoch,
        topics: topics.collect(),
    })
}
