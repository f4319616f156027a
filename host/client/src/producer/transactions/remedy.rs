//! What a transactional producer does after an error, as Kafka's client (KIP-1050).

use millstream_wire::ErrorCode;

use crate::error::{Error, Remedy};

/// Returns the remedy for a record or a batch that was not stored.
pub(crate) fn of_produce(error: &Error) -> Remedy {
    match error.code() {
        Some(
            ErrorCode::PRODUCER_FENCED
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | ErrorCode::UNSUPPORTED_VERSION,
        ) => Remedy::Stop,
        None if matches!(error, Error::UnsupportedVersion { .. }) => Remedy::Stop,
        _ => Remedy::Abort,
    }
}

/// Returns the remedy for a request that the coordinator of the transaction or of a group has rejected.
pub(crate) fn of_coordinator(error: &Error) -> Remedy {
    match error.code() {
        Some(
            ErrorCode::TRANSACTION_ABORTABLE
            | ErrorCode::OPERATION_NOT_ATTEMPTED
            | ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::GROUP_AUTHORIZATION_FAILED
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::FENCED_MEMBER_EPOCH
            | ErrorCode::STALE_MEMBER_EPOCH
            | ErrorCode::OFFSET_METADATA_TOO_LARGE,
        ) => Remedy::Abort,
        _ if error.retriable() => Remedy::Retry,
        _ => Remedy::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_epoch_can_be_aborted_after_produce_and_stops_at_the_coordinator() {
        let error = Error::broker("x", ErrorCode::INVALID_PRODUCER_EPOCH, None);
        assert_eq!((of_produce(&error), of_coordinator(&error)), (Remedy::Abort, Remedy::Stop));
        let error = Error::broker("x", ErrorCode::CONCURRENT_TRANSACTIONS, None);
        assert_eq!(of_coordinator(&error), Remedy::Retry);
    }
}
