//! ListTransactions and DescribeTransactions.

use std::sync::Arc;

use millstream_partition::now_ms;

use super::coordinator::TransactionCoordinator;
use super::model::{Producer, TopicPartition, TransactionError, TransactionState};

/// The transactional ids that a ListTransactions request asks for.
pub struct TransactionFilter<'a> {
    /// Empty for all states.
    pub states: &'a [TransactionState],
    /// Empty for all producers.
    pub producer_ids: &'a [i64],
    /// Only transactions that began longer ago, in milliseconds; negative for all.
    pub older_than_ms: i64,
    /// Selects by the id.
    pub matches: &'a dyn Fn(&str) -> bool,
}

/// A transactional id in a ListTransactions response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The id.
    pub id: Arc<str>,
    /// The id of its producer.
    pub producer_id: i64,
    /// The state.
    pub state: TransactionState,
}

/// A transactional id in a DescribeTransactions response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// The state.
    pub state: TransactionState,
    /// The timeout of the producer.
    pub timeout_ms: i32,
    /// When the last transaction began; -1 if there was none.
    pub started_ms: i64,
    /// The producer.
    pub producer: Producer,
    /// The partitions of the open transaction, or those whose markers are missing.
    pub partitions: Vec<TopicPartition>,
}

impl TransactionCoordinator {
    /// Returns the transactional ids of the partitions that this broker leads, sorted.
    ///
    /// # Errors
    /// Some are still being loaded.
    pub fn list(&self, filter: &TransactionFilter<'_>) -> Result<Vec<ListedTransaction>, TransactionError> {
        if self.shards.is_loading() {
            return Err(TransactionError::LoadInProgress);
        }
        let now_ms = now_ms();
        let mut listed = Vec::new();
        for (_, (_, transaction)) in self.shards.all() {
            let slot = transaction.slot.lock();
            let metadata = &slot.metadata;
            let is_wanted = metadata.producer.epoch >= 0
                && (filter.states.is_empty() || filter.states.contains(&metadata.state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&metadata.producer.id))
                && (filter.older_than_ms < 0 || now_ms.saturating_sub(metadata.started_ms) > filter.older_than_ms)
                && (filter.matches)(&transaction.id);
            if is_wanted {
                let (id, state) = (Arc::clone(&transaction.id), metadata.state);
                listed.push(ListedTransaction { id, producer_id: metadata.producer.id, state });
            }
        }
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(listed)
    }

    /// Returns one transactional id.
    ///
    /// # Errors
    /// [`TransactionError::NotFound`]; it is not served here, or not yet.
    pub fn describe(&self, id: &str) -> Result<DescribedTransaction, TransactionError> {
        let found = self.shard(id)?.find(id)?.ok_or(TransactionError::NotFound)?;
        let slot = found.slot.lock();
        if slot.removed || slot.metadata.producer.epoch < 0 {
            return Err(TransactionError::NotFound);
        }
        let metadata = &slot.metadata;
        Ok(DescribedTransaction {
            state: metadata.state,
            timeout_ms: metadata.timeout_ms,
            started_ms: metadata.started_ms,
            producer: metadata.producer,
            partitions: metadata.partitions.iter().cloned().collect(),
        })
    }
}
