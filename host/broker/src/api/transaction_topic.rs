//! The topic of the transaction coordinator, which is created when a client first needs it.

use std::sync::Arc;

use millstream_coordinator::transaction::{TRANSACTION_STATE, TransactionError};
use millstream_wire::ErrorCode;

use crate::broker::Broker;

/// Makes sure that `__transaction_state` exists and the coordinator serves it.
///
/// # Errors
/// The topic could not be created. Clients retry that.
pub(super) async fn ensure(broker: &Arc<Broker>) -> Result<(), TransactionError> {
    if broker.transactions.has_topic() {
        return Ok(());
    }
    broker.controller.ensure_topic(TRANSACTION_STATE).await.map_err(|error| {
        tracing::error!("cannot create {TRANSACTION_STATE}: {error}");
        TransactionError::NotAvailable
    })
}

/// Returns the error code for a version that does not have PRODUCER_FENCED.
pub(super) fn fenced_code(code: ErrorCode) -> ErrorCode {
    if code == ErrorCode::PRODUCER_FENCED { ErrorCode::INVALID_PRODUCER_EPOCH } else { code }
}
