//! ListTransactions: the transactional ids that this broker coordinates, all or some.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::transaction::{TransactionFilter, TransactionState};
use millstream_wire::messages::{ListTransactionsRequest, ListTransactionsResponse, ListedTransaction};
use millstream_wire::{ErrorCode, Str};
use regex::Regex;

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ListTransactions;

impl Handler for ListTransactions {
    type Request = ListTransactionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::TransactionalId));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &ListTransactionsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse {
        let failed = |error_code| ListTransactionsResponse { error_code, ..Default::default() };
        let pattern = request.transactional_id_pattern.filter(|pattern| !pattern.is_empty());
        // The expression has to match the whole id.
        let Ok(pattern) = pattern.map(|pattern| Regex::new(&format!("^(?:{})$", pattern.as_str()))).transpose() else {
            return failed(ErrorCode::INVALID_REGULAR_EXPRESSION);
        };
        let state = |name: &Str| TransactionState::of_name(name).filter(|state| *state != TransactionState::Dead);
        let (known, unknown): (Vec<_>, Vec<_>) =
            request.state_filters.into_iter().partition(|name| state(name).is_some());
        let states: Vec<_> = known.iter().filter_map(state).collect();
        if states.is_empty() && !unknown.is_empty() {
            return ListTransactionsResponse { unknown_state_filters: unknown, ..Default::default() };
        }
        let filter = TransactionFilter {
            states: &states,
            producer_ids: &request.producer_id_filters,
            older_than_ms: request.duration_filter,
            matches: &|id| pattern.as_ref().is_none_or(|pattern| pattern.is_match(id)),
        };
        match broker.transactions.list(&filter) {
            Ok(listed) => {
                let listed = listed.into_iter().map(|transaction| ListedTransaction {
                    transactional_id: Str::from(&*transaction.id),
                    producer_id: transaction.producer_id,
                    transaction_state: Str::from_static(transaction.state.name()),
                });
                let transaction_states = listed.collect();
                ListTransactionsResponse { transaction_states, unknown_state_filters: unknown, ..Default::default() }
            }
            Err(error) => failed(error.into()),
        }
    }
}
