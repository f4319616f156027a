//! The state of a producer's transaction, without I/O.

use std::collections::BTreeSet;

use crate::consumer::record::TopicPartition;
use crate::error::{Error, Remedy};

/// What the transaction is doing.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// The producer has no id yet.
    Created,
    /// No transaction is open.
    Ready,
    Open,
    /// The transaction ends, and the outcome is not known yet.
    Ending {
        committed: bool,
    },
    /// It can only be aborted.
    Failed(Error),
    /// The producer can do nothing any more.
    Stopped(Error),
}

/// Whether a batch of a partition may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// Not in this phase, or not before the partition is added.
    Waits,
    /// As [`Admission::Waits`], and the partition is to be added now.
    Wanted,
}

/// The state of one producer's transaction.
#[derive(Debug)]
pub(crate) struct State {
    phase: Phase,
    /// Partitions are added by Produce, and the end of a transaction raises the epoch (`transaction.version` 2).
    newer: bool,
    /// The coordinator may know of this transaction, so it has to be ended there.
    started: bool,
    /// The coordinator has confirmed a part of this transaction.
    confirmed: bool,
    wanted: BTreeSet<TopicPartition>,
    added: BTreeSet<TopicPartition>,
    /// A batch failed and its sequences may be used up: the older protocol needs a new epoch.
    epoch_wanted: bool,
    /// Offsets are being added, or the call that did so was dropped.
    offsets_pending: bool,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Created,
            newer: false,
            started: false,
            confirmed: false,
            wanted: BTreeSet::new(),
            added: BTreeSet::new(),
            epoch_wanted: false,
            offsets_pending: false,
        }
    }

    /// Returns whether the newer protocol is used.
    pub(crate) fn newer(&self) -> bool {
        self.newer
    }

    /// Returns whether the coordinator may know of the transaction.
    pub(crate) fn started(&self) -> bool {
        self.started
    }

    /// Returns whether the coordinator knows of the transaction.
    pub(crate) fn confirmed(&self) -> bool {
        self.confirmed
    }

    /// Returns whether the older protocol needs a new epoch before the next transaction.
    pub(crate) fn epoch_wanted(&self) -> bool {
        self.epoch_wanted && !self.newer
    }

    /// Checks that a producer id may be requested.
    pub(crate) fn check_init(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Created => Ok(()),
            Phase::Stopped(error) => Err(fatal(error)),
            _ => Err(Error::State("init_transactions was called before")),
        }
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ready => {
                self.phase = Phase::Open;
                Ok(())
            }
            Phase::Created => Err(Error::State("call init_transactions before the first transaction")),
            Phase::Open => Err(Error::State("a transaction is open already")),
            Phase::Ending { .. } => Err(unfinished()),
            Phase::Failed(error) => Err(abortable(error)),
            Phase::Stopped(error) => Err(fatal(error)),
        }
    }

    /// Checks that the transaction takes records and offsets.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Created | Phase::Ready => Err(Error::State("no transaction is open; call begin_transaction first")),
            Phase::Ending { .. } => Err(unfinished()),
            Phase::Failed(error) => Err(abortable(error)),
            Phase::Stopped(error) => Err(fatal(error)),
        }
    }

    /// Returns whether a batch of the partition may be sent.
    pub(crate) fn admit(&mut self, partition: impl FnOnce() -> TopicPartition) -> Admission {
        if !matches!(self.phase, Phase::Open | Phase::Ending { committed: true }) {
            return Admission::Waits;
        }
        if self.newer {
            self.started = true;
            return Admission::Admitted;
        }
        let partition = partition();
        if self.added.contains(&partition) {
            return Admission::Admitted;
        }
        let is_new = self.wanted.insert(partition);
        if is_new { Admission::Wanted } else { Admission::Waits }
    }

    /// Returns the partitions to be added, and notes that the request is sent.
    pub(crate) fn start_adding(&mut self) -> Vec<TopicPartition> {
        if self.doom().is_some() {
            return Vec::new();
        }
        self.started |= !self.wanted.is_empty();
        self.wanted.iter().cloned().collect()
    }

    /// Notes that the partitions were added.
    pub(crate) fn added(&mut self, partitions: Vec<TopicPartition>) {
        self.confirmed = true;
        for partition in partitions {
            self.wanted.remove(&partition);
            self.added.insert(partition);
        }
    }

    /// Notes that a request is sent that adds offsets.
    pub(crate) fn start_offsets(&mut self) {
        self.started = true;
        self.offsets_pending = true;
    }

    /// Notes that the offsets were added.
    pub(crate) fn offsets_added(&mut self) {
        self.confirmed = true;
        self.offsets_pending = false;
    }

    /// Notes a failure. Returns the error with what to do about it.
    pub(crate) fn fail(&mut self, error: &Error, reason: Remedy) -> Error {
        if matches!(error, Error::Abortable { .. } | Error::Fatal { .. } | Error::Aborted) {
            return error.clone();
        }
        self.epoch_wanted = true;
        match (&self.phase, reason) {
            (Phase::Stopped(first), _) => fatal(first),
            (_, Remedy::Stop) => {
                self.phase = Phase::Stopped(error.clone());
                fatal(error)
            }
            (Phase::Open | Phase::Ending { committed: true }, _) => {
                self.phase = Phase::Failed(error.clone());
                abortable(error)
            }
            (Phase::Created | Phase::Ready | Phase::Ending { .. } | Phase::Failed(_), _) => abortable(error),
        }
    }

    /// Returns why waiting records must fail.
    pub(crate) fn doom(&self) -> Option<Error> {
        match &self.phase {
            Phase::Created | Phase::Ready | Phase::Open | Phase::Ending { committed: true } => None,
            Phase::Ending { committed: false } => Some(Error::Aborted),
            Phase::Failed(error) => Some(abortable(error)),
            Phase::Stopped(error) => Some(fatal(error)),
        }
    }

    /// Starts the end of the transaction. A call that timed out is repeated with the same decision.
    pub(crate) fn start_end(&mut self, committed: bool) -> Result<(), Error> {
        match &self.phase {
            Phase::Open if committed && self.offsets_pending => {
                return Err(Error::State("a call of send_offsets_to_transaction was dropped; repeat it, or abort"));
            }
            Phase::Open => {}
            Phase::Ending { committed: before } if *before == committed => {}
            Phase::Failed(_) if !committed => {}
            Phase::Failed(error) => return Err(abortable(error)),
            Phase::Ending { .. } => return Err(unfinished()),
            Phase::Created | Phase::Ready => return Err(Error::State("no transaction is open")),
            Phase::Stopped(error) => return Err(fatal(error)),
        }
        self.phase = Phase::Ending { committed };
        Ok(())
    }

    /// Checks that nothing has failed since the end started.
    pub(crate) fn check_ending(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Failed(error) => Err(abortable(error)),
            Phase::Stopped(error) => Err(fatal(error)),
            _ => Ok(()),
        }
    }

    /// Lets the next transaction begin with this protocol.
    pub(crate) fn is_ready(&mut self, newer: bool) {
        *self = Self { phase: Phase::Ready, newer, ..Self::new() };
    }

    /// Returns whether an open transaction must be aborted when the producer is closed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Failed(_))
    }
}

fn unfinished() -> Error {
    Error::State("the end of the transaction has timed out; repeat the same call until its outcome is known")
}

fn abortable(error: &Error) -> Error {
    Error::Abortable { source: Box::new(error.clone()) }
}

fn fatal(error: &Error) -> Error {
    Error::Fatal { source: Box::new(error.clone()) }
}

#[cfg(test)]
mod tests {
    use millstream_wire::ErrorCode;

    use super::super::remedy;
    use super::*;

    fn ready(newer: bool) -> State {
        let mut state = State::new();
        state.is_ready(newer);
        state
    }

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn broker(code: ErrorCode) -> Error {
        Error::broker("produce", code, None)
    }

    #[test]
    fn calls_need_their_order() {
        let mut state = State::new();
        assert!(state.begin().is_err() && state.check_open().is_err() && state.start_end(true).is_err());
        state.is_ready(true);
        assert!(state.check_init().is_err());
        state.begin().unwrap();
        assert!(state.begin().is_err() && state.check_open().is_ok());
        state.start_end(true).unwrap();
        assert!(state.check_open().is_err() && state.begin().is_err());
        // The outcome is not known: the other decision could contradict it.
        assert!(state.start_end(false).is_err() && state.start_end(true).is_ok());
        state.is_ready(true);
        assert!(state.begin().is_ok());
    }

    #[test]
    fn the_older_protocol_adds_a_partition_before_its_first_batch() {
        let mut state = ready(false);
        assert_eq!(state.admit(|| partition(0)), Admission::Waits);
        state.begin().unwrap();
        assert_eq!(state.admit(|| partition(0)), Admission::Wanted);
        assert_eq!(state.admit(|| partition(0)), Admission::Waits);
        assert!(!state.started());
        let sent = state.start_adding();
        assert!(state.started() && !state.confirmed());
        assert_eq!(state.admit(|| partition(1)), Admission::Wanted);
        state.added(sent);
        assert_eq!(state.admit(|| partition(0)), Admission::Admitted);
        assert_eq!(state.start_adding(), [partition(1)]);
        state.start_end(true).unwrap();
        assert_eq!(state.admit(|| partition(0)), Admission::Admitted);
        state.is_ready(false);
        state.begin().unwrap();
        assert_eq!(state.admit(|| partition(0)), Admission::Wanted);
    }

    #[test]
    fn the_newer_protocol_needs_no_request_for_a_partition() {
        let mut state = ready(true);
        state.begin().unwrap();
        assert!(!state.started());
        assert_eq!(state.admit(|| partition(0)), Admission::Admitted);
        assert!(state.started() && state.start_adding().is_empty());
    }

    #[test]
    fn offsets_without_a_result_are_not_committed() {
        let mut state = ready(true);
        state.begin().unwrap();
        state.start_offsets();
        assert!(state.started() && state.start_end(true).is_err());
        state.offsets_added();
        assert!(state.start_end(true).is_ok());
    }

    #[test]
    fn an_abort_adds_no_partition() {
        let mut state = ready(false);
        state.begin().unwrap();
        assert_eq!(state.admit(|| partition(0)), Admission::Wanted);
        state.start_end(false).unwrap();
        assert!(state.start_adding().is_empty() && !state.started());
    }

    #[test]
    fn a_failed_batch_leaves_only_the_abort() {
        let mut state = ready(false);
        state.begin().unwrap();
        let error = broker(ErrorCode::TRANSACTION_ABORTABLE);
        let shown = state.fail(&error, Remedy::Abort);
        assert_eq!((shown.remedy(), shown.code()), (Remedy::Abort, error.code()));
        assert_eq!(state.doom().unwrap().remedy(), Remedy::Abort);
        assert_eq!(state.admit(|| partition(0)), Admission::Waits);
        assert_eq!(state.check_open().unwrap_err().remedy(), Remedy::Abort);
        assert_eq!(state.start_end(true).unwrap_err().remedy(), Remedy::Abort);
        state.start_end(false).unwrap();
        // The batches that the abort gives up fail with another error.
        assert!(matches!(state.doom(), Some(Error::Aborted)));
        assert!(state.check_ending().is_ok() && state.epoch_wanted());
        state.is_ready(false);
        assert!(!state.epoch_wanted() && state.doom().is_none());
    }

    #[test]
    fn a_fenced_producer_stops() {
        let mut state = ready(true);
        state.begin().unwrap();
        let error = broker(ErrorCode::PRODUCER_FENCED);
        assert_eq!(state.fail(&error, remedy::of_produce(&error)).remedy(), Remedy::Stop);
        for error in [state.begin(), state.check_open(), state.start_end(false), state.check_init()] {
            let error = error.unwrap_err();
            assert_eq!((error.remedy(), error.code()), (Remedy::Stop, Some(ErrorCode::PRODUCER_FENCED)));
        }
        // A later failure does not hide the first one.
        assert_eq!(state.fail(&broker(ErrorCode::INVALID_RECORD), Remedy::Abort).code(), error.code());
    }
}
