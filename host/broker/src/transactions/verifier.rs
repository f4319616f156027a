//! What a leader asks the coordinator of a transaction before it appends the first batch of it (KIP-890).
//!
//! A partition may only get records of a transaction that its coordinator knows to be open in this partition. Otherwise
//! no marker would ever end it, and readers of committed records would wait for ever.

use std::fmt;
use std::pin::Pin;

use millstream_wire::Str;

use crate::error::ApiError;

/// The result for each partition of a [`VerifyPartitions`], in its order.
pub(crate) type Verified = Pin<Box<dyn Future<Output = Vec<Result<(), ApiError>>> + Send>>;

/// The partitions that a producer writes to, and its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifyPartitions {
    pub(crate) transactional_id: Str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// Whether the coordinator adds the partitions to the transaction. Producers do that by a request of their own
    /// before Produce v12, and then the coordinator only checks that they have.
    pub(crate) adds: bool,
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
