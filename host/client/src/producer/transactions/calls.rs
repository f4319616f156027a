//! The calls of an application: init, begin, offsets, commit, abort.

use std::collections::BTreeMap;

use super::{Transactions, remedy, requests};
use crate::consumer::group::ConsumerGroupMetadata;
use crate::consumer::record::{CommittedOffset, TopicPartition};
use crate::error::{Error, Remedy};
use crate::producer::Producer;
use crate::producer::inner::Inner;
use crate::producer::sequence::Identity;

/// Transactions. The producer needs a `transactional.id`. [`Error::remedy`] tells whether to call again after an
/// error, to abort the transaction, or to stop.
impl Producer {
    /// Registers the `transactional.id`, and gets the producer id. Fences the producers that had the `transactional.id`
    /// before; a transaction that one of them left open is aborted. Call it once, before the first transaction.
    ///
    /// # Errors
    /// There is no `transactional.id`, or the coordinator did not respond within `max.block.ms`: call it again then.
    pub async fn init_transactions(&self) -> Result<(), Error> {
        let (inner, transactions) = self.transactional()?;
        let _one = transactions.calls.lock().await;
        transactions.state.lock().check_init()?;
        let (identity, newer) = match requests::init(inner, transactions, Identity::NONE).await {
            Ok(found) => found,
            Err(error) => return Err(stop_unless_retriable(transactions, error)),
        };
        inner.set_identity(identity);
        transactions.state.lock().is_ready(newer);
        Ok(())
    }

    /// Begins a transaction. Records that are sent from now on are in it. Sends no request.
    ///
    /// # Errors
    /// A transaction is open, the last one has failed and was not aborted, or the producer has stopped.
    pub async fn begin_transaction(&self) -> Result<(), Error> {
        let (_, transactions) = self.transactional()?;
        let _one = transactions.calls.lock().await;
        transactions.state.lock().begin()
    }

    /// Adds offsets of a consumer group to the transaction: they are committed with its records. Each one is the offset
    /// of the next record to read. `group` is [`Consumer::group_metadata`](crate::Consumer::group_metadata) of the
    /// consumer whose records were processed, so that a member that has left the group is fenced.
    ///
    /// # Errors
    /// No transaction is open, or the transaction can only be aborted.
    pub async fn send_offsets_to_transaction(
        &self,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Error> {
        let (inner, transactions) = self.transactional()?;
        let _one = transactions.calls.lock().await;
        {
            let mut state = transactions.state.lock();
            state.check_open()?;
            if offsets.is_empty() {
                return Ok(());
            }
            state.start_offsets();
        }
        let added = requests::add_offsets(inner, transactions, offsets, group).await;
        added.map_err(|error| {
            let error = transactions.reject(&error);
            inner.wake_all();
            error
        })
    }

    /// Sends all records of the transaction and commits it. Once this returns `Ok`, its records and offsets are
    /// committed, all of them.
    ///
    /// # Errors
    /// A record was not stored, and the transaction can only be aborted. Or the coordinator did not respond within
    /// `max.block.ms`: the outcome is not known then; call it again.
    pub async fn commit_transaction(&self) -> Result<(), Error> {
        self.end_transaction(true).await
    }

    /// Aborts the transaction. Records that were not sent fail with [`Error::Aborted`].
    ///
    /// # Errors
    /// No transaction is open, or the producer has stopped. Or the coordinator did not respond within `max.block.ms`:
    /// call it again then.
    pub async fn abort_transaction(&self) -> Result<(), Error> {
        self.end_transaction(false).await
    }

    async fn end_transaction(&self, committed: bool) -> Result<(), Error> {
        let (inner, transactions) = self.transactional()?;
        let _one = transactions.calls.lock().await;
        {
            let _alone = transactions.sending.write().await;
            transactions.state.lock().start_end(committed)?;
        }
        // An abort fails the records that wait.
        self.flush().await;
        let _alone = transactions.changing.lock().await;
        if let Some(error) = inner.aborted.lock().clone() {
            return Err(transactions.state.lock().fail(&error, Remedy::Stop));
        }
        transactions.state.lock().check_ending()?;
        let (started, epoch_wanted) = {
            let state = transactions.state.lock();
            (state.started(), state.epoch_wanted())
        };
        let mut next = (inner.known_identity()?, transactions.newer());
        if started {
            next = match requests::end(inner, transactions, committed).await {
                Ok(next) => next,
                Err(error) => return Err(stop_or_abort(transactions, error)),
            };
        }
        if epoch_wanted {
            // The sequences after a failed batch are not known (KIP-360).
            next = match requests::init(inner, transactions, next.0).await {
                Ok(next) => next,
                Err(error) => return Err(stop_unless_retriable(transactions, error)),
            };
        }
        let (identity, newer) = next;
        inner.set_identity(identity);
        transactions.state.lock().is_ready(newer);
        Ok(())
    }

    fn transactional(&self) -> Result<(&Inner, &Transactions), Error> {
        let transactions = self.inner.transactions.as_ref();
        let transactions = transactions.ok_or(Error::State("transactions need a transactional.id"))?;
        Ok((&*self.inner, transactions))
    }

    /// Aborts the transaction that is open when the producer is closed.
    pub(in crate::producer) async fn abort_open(&self) {
        let Some(transactions) = &self.inner.transactions else { return };
        if transactions.state.lock().is_open()
            && let Err(error) = self.abort_transaction().await
        {
            tracing::warn!(%error, "the open transaction was not aborted; its timeout will abort it");
        }
    }
}

fn stop_unless_retriable(transactions: &Transactions, error: Error) -> Error {
    match error.retriable() {
        true => error,
        false => transactions.state.lock().fail(&error, Remedy::Stop),
    }
}

fn stop_or_abort(transactions: &Transactions, error: Error) -> Error {
    match remedy::of_coordinator(&error) {
        Remedy::Retry => error,
        remedy => transactions.state.lock().fail(&error, remedy),
    }
}

impl Transactions {
    /// Lets a send take part in the open transaction until the guard is dropped.
    pub(in crate::producer) async fn join(&self) -> Result<tokio::sync::RwLockReadGuard<'_, ()>, Error> {
        let guard = self.sending.read().await;
        self.state.lock().check_open()?;
        Ok(guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends<T: Send>(_: T) {}

    /// Compiles only if an application can spawn a task that makes the calls.
    #[allow(dead_code, reason = "compiled, and never called")]
    fn calls_can_be_spawned(producer: &Producer, group: &ConsumerGroupMetadata) {
        sends(producer.init_transactions());
        sends(producer.begin_transaction());
        sends(producer.send_offsets_to_transaction(&BTreeMap::new(), group));
        sends(producer.commit_transaction());
        sends(producer.abort_transaction());
    }
}
