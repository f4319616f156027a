//! Transactions: which producer may write under a transactional id, which partitions are in its open transaction, and
//! how the transaction ends.
//!
//! | File | Subject |
//! |---|---|
//! | `metadata.rs` | one transactional id, as a pure state machine |
//! | `coordinator.rs` | InitProducerId, AddPartitionsToTxn, EndTxn: locks, records, waits |
//! | `completion.rs` | the markers of a transaction whose outcome is decided |
//! | `timeouts.rs` | transactions that time out, ids that expire |
//! | `shard.rs` | the ids of one partition in one leader epoch |
//! | `load.rs` | ids follow the leaders: a replay of the log, unloading |
//! | `records.rs` | the records of `__transaction_state`, in Kafka's format |
//! | `describe.rs` | ListTransactions, DescribeTransactions |
//! | `host.rs` | what the coordinator needs of its broker |
//! | `config.rs` | limits and periods |
//! | `model.rs` | producers, states, errors |

mod completion;
pub mod config;
mod coordinator;
#[cfg(test)]
mod coordinator_tests;
mod describe;
mod host;
mod load;
mod metadata;
#[cfg(test)]
mod metadata_tests;
mod model;
mod records;
mod shard;
#[cfg(test)]
mod simulator;
mod timeouts;

pub use config::TransactionConfig;
pub use coordinator::{InitRequest, TransactionCoordinator};
pub use describe::{DescribedTransaction, ListedTransaction, TransactionFilter};
pub use host::{HostFuture, MarkerResult, Markers, TransactionHost};
pub use model::{
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Outcome, Producer, TopicPartition, TransactionError, TransactionState,
    TransactionVersion,
};
pub use records::TRANSACTION_STATE;
