//! Transactions of a producer (KIP-98), with the newer protocol of KIP-890 where the cluster uses `transaction.version`
//! 2, and with the older one elsewhere.
//!
//! [`state`] decides, without I/O. [`requests`] talks to the coordinators. The sender of a broker sends a batch only if
//! [`Transactions::admits`] its partition. Everything that fails leaves the transaction abortable, or stops the
//! producer; [`remedy`] tells which.

mod calls;
mod remedy;
mod requests;
mod state;

use std::sync::Arc;
use std::time::Duration;

use millstream_wire::Str;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock};

use super::config::ProducerConfig;
use super::inner::Inner;
use crate::consumer::record::TopicPartition;
use crate::error::{Error, Remedy};
use crate::net::{Coordinator, CoordinatorOf};
use state::{Admission, State};

/// The wait before a batch or a request is repeated because the markers of the last transaction are being written.
pub(super) const MARKERS_WAIT: Duration = Duration::from_millis(20);

/// The transactions of one producer.
pub(crate) struct Transactions {
    id: Str,
    timeout_ms: i32,
    coordinator: Coordinator,
    state: Mutex<State>,
    /// Shared by the running sends. The end of a transaction takes it alone, so that each record is in the transaction
    /// that was open when its send began.
    sending: RwLock<()>,
    /// Allows one call of the application at a time.
    calls: tokio::sync::Mutex<()>,
    /// Allows either the end of the transaction or a request that adds partitions: one that arrives after the end would
    /// begin another transaction.
    changing: tokio::sync::Mutex<()>,
    /// Wakes the task that adds partitions.
    wanted: Notify,
}

impl Transactions {
    /// Returns the transactions of a producer with a `transactional.id`.
    pub(super) fn new(config: &ProducerConfig) -> Option<Self> {
        let id = config.transactional_id.as_deref()?;
        Some(Self {
            id: Str::from(id),
            timeout_ms: i32::try_from(config.transaction_timeout.as_millis()).unwrap_or(i32::MAX),
            coordinator: Coordinator::new(CoordinatorOf::TransactionalId, id, config.client.request_timeout),
            state: Mutex::new(State::new()),
            sending: RwLock::new(()),
            calls: tokio::sync::Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
            wanted: Notify::new(),
        })
    }

    pub(super) fn id(&self) -> &Str {
        &self.id
    }

    /// Returns whether partitions are added by Produce.
    pub(super) fn newer(&self) -> bool {
        self.state.lock().newer()
    }

    /// Returns whether a batch of the partition may be sent. Has it added otherwise.
    pub(super) fn admits(&self, topic: &Arc<str>, partition: usize) -> bool {
        let admission = self.state.lock().admit(|| TopicPartition::new(topic.clone(), partition as i32));
        if admission == Admission::Wanted {
            self.wanted.notify_one();
        }
        admission == Admission::Admitted
    }

    /// Wakes the task that adds partitions.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Notes that a record was not stored. Returns the error with what to do about it.
    pub(super) fn fail(&self, error: &Error) -> Error {
        self.state.lock().fail(error, remedy::of_produce(error))
    }

    /// Returns why waiting records must fail.
    pub(super) fn doom(&self) -> Option<Error> {
        self.state.lock().doom()
    }

    /// Notes that a coordinator has rejected a request of the open transaction.
    fn reject(&self, error: &Error) -> Error {
        // A request that was retried until its time limit leaves the transaction in an unknown state.
        let remedy = match remedy::of_coordinator(error) {
            Remedy::Retry => Remedy::Abort,
            remedy => remedy,
        };
        self.state.lock().fail(error, remedy)
    }
}

/// Adds the partitions that batches wait for, with the older protocol. Runs until the producer is closed and every
/// record has its result.
pub(super) async fn run(inner: Arc<Inner>) {
    let Some(transactions) = &inner.transactions else { return };
    while !inner.finished() {
        let alone = transactions.changing.lock().await;
        let wanted = transactions.state.lock().start_adding();
        if wanted.is_empty() {
            drop(alone);
            transactions.wanted.notified().await;
            continue;
        }
        match requests::add_partitions(&inner, transactions, &wanted).await {
            Ok(()) => {
                transactions.state.lock().added(wanted);
                inner.changed();
            }
            Err(error) => {
                let _ = transactions.reject(&error);
                // Fails the waiting records.
                inner.wake_all();
            }
        }
    }
}
