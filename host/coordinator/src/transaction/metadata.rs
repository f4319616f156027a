//! The state of one transactional id, and its changes: a pure state machine.
//!
//! A change returns the state to write. It counts once its record is committed. Until then the caller keeps the old
//! state, and lets no other change begin.
//!
//! ```text
//! Empty -> Ongoing -> PrepareCommit -> CompleteCommit
//!             |                              |
//!             +-----> PrepareAbort --> CompleteAbort
//! ```
//!
//! Both states at the end go on as `Empty` does. With [`TransactionVersion::V2`] the producer gets a new epoch whenever
//! a transaction ends, so that nothing late from the one before lands in the next one.

use std::collections::BTreeSet;

use millstream_partition::seeded_bug::{self, Bug};

use super::model::{
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Outcome, Producer, TopicPartition, TransactionError, TransactionState,
    TransactionVersion,
};

/// The state of a transactional id, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionMetadata {
    /// The producer that may write. Its epoch is -1 until the first InitProducerId is written.
    pub(crate) producer: Producer,
    /// The id before the last change of the id.
    pub(crate) previous_producer_id: i64,
    /// The id that the producer gets once the markers are written.
    pub(crate) next_producer_id: i64,
    /// The epoch before the current one, if the same instance had it. It is not in the record.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) state: TransactionState,
    /// The partitions of the open transaction. In memory those that have their marker are removed.
    pub(crate) partitions: BTreeSet<TopicPartition>,
    /// When the transaction began; -1 before the first one.
    pub(crate) started_ms: i64,
    pub(crate) updated_ms: i64,
    /// The protocol of the last change.
    pub(crate) client_version: TransactionVersion,
}

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The state changes.
    Write(Box<TransactionMetadata>),
    /// The response is known, and nothing changes.
    Done(Producer),
    /// The caller has to ask again with a new producer id.
    NeedsProducerId,
}

impl TransactionMetadata {
    /// Makes the state of a transactional id that is not in the log.
    pub(crate) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer: Producer { id: producer_id, epoch: NO_PRODUCER_EPOCH },
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            last_epoch: NO_PRODUCER_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            started_ms: -1,
            updated_ms: now_ms,
            client_version: TransactionVersion::V0,
        }
    }

    /// Begins an instance of the producer: it gets the next epoch, which fences the instance before. `expected` is the
    /// producer of an instance that goes on after an error (KIP-360). An open transaction is aborted first: the state
    /// to write is then [`TransactionState::PrepareAbort`].
    ///
    /// # Errors
    /// Another instance has begun since; the markers of the last transaction are not written yet.
    pub(crate) fn init(
        &self,
        timeout_ms: i32,
        expected: Option<Producer>,
        new_id: Option<i64>,
        server: TransactionVersion,
        now_ms: i64,
    ) -> Result<Step, TransactionError> {
        if !expected.is_none_or(|expected| self.may_be(expected)) {
            return Err(TransactionError::ProducerFenced);
        }
        match self.state {
            TransactionState::Ongoing => Ok(Step::Write(Box::new(self.fenced(server, now_ms)))),
            state if state.is_idle() => {
                let epoch = self.producer.epoch;
                let (producer, last_epoch) = match expected {
                    _ if self.producer.is_exhausted() && expected.is_none_or(|expected| expected.epoch == epoch) => {
                        let Some(id) = new_id else { return Ok(Step::NeedsProducerId) };
                        (Producer { id, epoch: 0 }, expected.map_or(NO_PRODUCER_EPOCH, |_| epoch))
                    }
                    None => (self.producer.bumped(), NO_PRODUCER_EPOCH),
                    Some(expected) if epoch == NO_PRODUCER_EPOCH || expected.epoch == epoch => {
                        (self.producer.bumped(), epoch)
                    }
                    // A retry: the response before was lost, and no other instance has begun.
                    Some(expected) if expected.epoch == self.last_epoch => (self.producer, self.last_epoch),
                    Some(_) => return Err(TransactionError::ProducerFenced),
                };
                Ok(Step::Write(Box::new(Self {
                    producer,
                    previous_producer_id: self.previous_of(producer.id),
                    last_epoch,
                    timeout_ms,
                    state: TransactionState::Empty,
                    partitions: BTreeSet::new(),
                    started_ms: -1,
                    updated_ms: now_ms,
                    ..self.clone()
                })))
            }
            _ => Err(TransactionError::ConcurrentTransactions),
        }
    }

    /// Returns whether an instance with this producer may go on. Its epoch is checked later.
    fn may_be(&self, expected: Producer) -> bool {
        self.producer.epoch == NO_PRODUCER_EPOCH
            || expected.id == self.producer.id
            // A retry of a call that has changed the id.
            || (expected.id == self.previous_producer_id && expected.is_exhausted())
    }

    /// Returns the previous id once `id` is the current one.
    fn previous_of(&self, id: i64) -> i64 {
        if id == self.producer.id { self.previous_producer_id } else { self.producer.id }
    }

    /// Checks that the producer is the current one.
    fn check(&self, producer: Producer) -> Result<(), TransactionError> {
        if producer.id != self.producer.id {
            Err(TransactionError::InvalidProducerIdMapping)
        } else if producer.epoch != self.producer.epoch && !seeded_bug::is(Bug::UnfencedZombie) {
            Err(TransactionError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    /// Adds partitions to the transaction, and begins it with the first ones.
    ///
    /// # Errors
    /// The producer is not the current one; the markers of the last transaction are not written yet.
    pub(crate) fn add_partitions(
        &self,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Step, TransactionError> {
        self.check(producer)?;
        let is_open = self.state == TransactionState::Ongoing;
        if !is_open && !self.state.is_idle() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if is_open && partitions.iter().all(|partition| self.partitions.contains(partition)) {
            return Ok(Step::Done(self.producer));
        }
        let mut next = Self {
            state: TransactionState::Ongoing,
            started_ms: if is_open { self.started_ms } else { now_ms },
            updated_ms: now_ms,
            client_version: version,
            ..self.clone()
        };
        next.partitions.extend(partitions.iter().cloned());
        Ok(Step::Write(Box::new(next)))
    }

    /// Checks for each partition that it is in the transaction.
    ///
    /// # Errors
    /// As [`Self::add_partitions`].
    pub(crate) fn verify(
        &self,
        producer: Producer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.check(producer)?;
        if self.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let check =
            |partition| if self.partitions.contains(partition) { Ok(()) } else { Err(TransactionError::Abortable) };
        Ok(partitions.iter().map(check).collect())
    }

    /// Ends the transaction for its producer.
    ///
    /// # Errors
    /// The producer is not the current one; nothing is open; the markers are not written yet.
    pub(crate) fn end(
        &self,
        producer: Producer,
        outcome: Outcome,
        version: TransactionVersion,
        new_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Step, TransactionError> {
        let is_retry = version == TransactionVersion::V2 && self.is_retry_of_end(producer);
        if !is_retry {
            self.check(producer)?;
            // The client has its new epoch from the response to the last end, and ends the next transaction before the
            // markers of the last one are written. Kafka fences it, though no other producer has begun: Java's producer
            // does this when it aborts before its first batch is sent.
            if version == TransactionVersion::V2
                && self.client_version == TransactionVersion::V2
                && self.state.is_prepared()
            {
                return Err(TransactionError::ConcurrentTransactions);
            }
        }
        let decided = match self.state {
            TransactionState::PrepareCommit | TransactionState::CompleteCommit => Some(Outcome::Commit),
            TransactionState::PrepareAbort | TransactionState::CompleteAbort => Some(Outcome::Abort),
            _ => None,
        };
        let is_repeated = is_retry || version < TransactionVersion::V2;
        match self.state {
            TransactionState::Ongoing => self.prepare(outcome, version, new_id, now_ms),
            state if state.is_prepared() && decided == Some(outcome) => Err(TransactionError::ConcurrentTransactions),
            TransactionState::CompleteCommit | TransactionState::CompleteAbort
                if is_repeated && decided == Some(outcome) =>
            {
                Ok(Step::Done(self.producer))
            }
            // A producer that does not know whether anything was added aborts, to get a new epoch.
            state if state.is_idle() && !is_repeated && outcome == Outcome::Abort => {
                self.prepare(outcome, version, new_id, now_ms)
            }
            _ => Err(TransactionError::InvalidState),
        }
    }

    /// Returns whether a client that ended the transaction with this producer got the current one.
    fn is_retry_of_end(&self, producer: Producer) -> bool {
        let was_bumped = producer.id == self.producer.id && producer.epoch == self.producer.epoch.wrapping_sub(1);
        let got_new_id = producer.id == self.previous_producer_id
            && producer.epoch == i16::MAX - 1
            && self.producer.epoch == 0
            && !self.state.is_prepared();
        let has_ended = self.state.is_prepared()
            || matches!(self.state, TransactionState::CompleteCommit | TransactionState::CompleteAbort);
        self.client_version == TransactionVersion::V2 && has_ended && (was_bumped || got_new_id)
    }

    /// Decides the outcome. The markers follow.
    fn prepare(
        &self,
        outcome: Outcome,
        version: TransactionVersion,
        new_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Step, TransactionError> {
        let mut next = Self {
            state: match outcome {
                Outcome::Commit => TransactionState::PrepareCommit,
                Outcome::Abort => TransactionState::PrepareAbort,
            },
            started_ms: if self.state == TransactionState::Ongoing { self.started_ms } else { now_ms },
            updated_ms: now_ms,
            client_version: version,
            next_producer_id: NO_PRODUCER_ID,
            ..self.clone()
        };
        if version == TransactionVersion::V2 {
            if self.producer.is_exhausted() {
                let Some(id) = new_id else { return Ok(Step::NeedsProducerId) };
                next.next_producer_id = id;
            }
            next.producer = self.producer.bumped();
            next.last_epoch = self.producer.epoch;
        }
        Ok(Step::Write(Box::new(next)))
    }

    /// Returns the state that aborts the open transaction and fences its producer.
    pub(crate) fn fenced(&self, server: TransactionVersion, now_ms: i64) -> Self {
        Self {
            producer: self.producer.bumped(),
            last_epoch: NO_PRODUCER_EPOCH,
            next_producer_id: NO_PRODUCER_ID,
            state: TransactionState::PrepareAbort,
            updated_ms: now_ms,
            client_version: server,
            ..self.clone()
        }
    }

    /// Returns the state once all markers are written.
    pub(crate) fn completed(&self, now_ms: i64) -> Self {
        let producer = self.producer_after();
        Self {
            producer,
            previous_producer_id: self.previous_of(producer.id),
            next_producer_id: NO_PRODUCER_ID,
            state: match self.state {
                TransactionState::PrepareCommit => TransactionState::CompleteCommit,
                _ => TransactionState::CompleteAbort,
            },
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    /// Returns the producer of the next transaction, once this one has ended.
    pub(crate) fn producer_after(&self) -> Producer {
        match self.next_producer_id {
            NO_PRODUCER_ID => self.producer,
            id => Producer { id, epoch: 0 },
        }
    }

    /// Returns the outcome that the markers have.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.state {
            TransactionState::PrepareCommit => Some(Outcome::Commit),
            TransactionState::PrepareAbort => Some(Outcome::Abort),
            _ => None,
        }
    }

    /// Returns whether a transaction is open for longer than its timeout.
    pub(crate) fn has_timed_out(&self, now_ms: i64) -> bool {
        self.state == TransactionState::Ongoing && self.started_ms.saturating_add(i64::from(self.timeout_ms)) < now_ms
    }

    /// Returns whether the transactional id has had no transaction for this long.
    pub(crate) fn has_expired(&self, expiration_ms: i64, now_ms: i64) -> bool {
        self.state.is_idle() && self.updated_ms <= now_ms.saturating_sub(expiration_ms)
    }
}
