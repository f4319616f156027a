//! What a leader asks the coordinator of a transaction before it appends the first batch of it (KIP-890).
//!
//! A partition may only get records of a transaction that its coordinator knows to be open in this partition. Otherwise
//! no marker would ever end it, and readers of committed records would wait for ever.

use std::fmt;
use std::pin::Pin;

use millstream_coordinator::transaction::TransactionVersion;
use millstream_wire::{ErrorCode, Str};

use crate::error::ApiError;

/// The first version of Produce that adds its partitions to the transaction.
pub(crate) const ADDS_SINCE: i16 = 12;

/// The first version of Produce whose clients know the error TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 11;

/// The result for each partition of a [`VerifyPartitions`], in its order.
pub(crate) type Verified = Pin<Box<dyn Future<Output = Vec<Result<(), ApiError>>> + Send>>;

/// The partitions that a producer writes to, and its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifyPartitions {
    pub(crate) transactional_id: Str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// The protocol by which the coordinator adds the partitions to the transaction. Producers do that by a request of
    /// their own before Produce v12. `None`: the coordinator only checks that they have.
    pub(crate) adds: Option<TransactionVersion>,
    /// What has to be in the transaction already, if the coordinator adds partitions by the older protocol. The
    /// producer keeps its epoch there, so nothing else tells a transaction that has ended from the next one.
    pub(crate) required: Option<(Str, i32)>,
    /// Topics and partitions, each pair once.
    pub(crate) partitions: Vec<(Str, i32)>,
}

/// Asks the broker that coordinates a transactional id: AddPartitionsToTxn from version 4 on, with `verify_only` where
/// the coordinator does not add the partitions.
///
/// The results have the codes of the coordinator's response; Produce translates them for its own version. A
/// coordinator that is not known or not reached is COORDINATOR_NOT_AVAILABLE or NETWORK_EXCEPTION.
pub(crate) trait TransactionVerifier: fmt::Debug + Send + Sync {
    /// Returns the result for each partition.
    fn verify(&self, partitions: VerifyPartitions) -> Verified;
}

/// Translates an error of the coordinator into one that producers of a version know.
pub(crate) fn translated(error: ApiError, version: i16) -> ApiError {
    let code = match error.code {
        ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE_SINCE => ErrorCode::INVALID_TXN_STATE,
        // Producers retry it without new metadata, which would not help.
        ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR => ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::CONCURRENT_TRANSACTIONS if version < ADDS_SINCE => ErrorCode::NOT_ENOUGH_REPLICAS,
        code => code,
    };
    let message = match code {
        ErrorCode::NOT_ENOUGH_REPLICAS => {
            format!("Unable to verify the partition has been added to the transaction: {error}")
        }
        _ => error.message,
    };
    ApiError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_coordinator_are_ones_that_the_producer_knows() {
        let code = |code, version| translated(ApiError::new(code, "words"), version).code;
        use ErrorCode as E;
        for version in [3, 10, 11, 12, 13] {
            assert_eq!(code(E::PRODUCER_FENCED, version), E::INVALID_PRODUCER_EPOCH);
            assert_eq!(code(E::NOT_COORDINATOR, version), E::NOT_ENOUGH_REPLICAS);
            assert_eq!(code(E::INVALID_PRODUCER_ID_MAPPING, version), E::INVALID_PRODUCER_ID_MAPPING);
        }
        assert_eq!(code(E::TRANSACTION_ABORTABLE, 10), E::INVALID_TXN_STATE);
        assert_eq!(code(E::TRANSACTION_ABORTABLE, 11), E::TRANSACTION_ABORTABLE);
        assert_eq!(code(E::CONCURRENT_TRANSACTIONS, 11), E::NOT_ENOUGH_REPLICAS);
        assert_eq!(code(E::CONCURRENT_TRANSACTIONS, 12), E::CONCURRENT_TRANSACTIONS);
    }
}
