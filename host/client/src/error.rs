//! The errors of a client, and whether a retry may help.

use std::sync::Arc;
use std::time::Duration;

use millstream_record::{BatchError, BuildError};
use millstream_stage::{Fault, StageError, VersionName};
use millstream_wire::{ErrorCode, WireError};

use crate::config::ConfigError;
use crate::consumer::record::TopicPartition;

/// What an application does after a call of a transaction has failed (KIP-1050).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Call it again with the same arguments.
    Retry,
    /// Abort the transaction, and begin another one.
    Abort,
    /// Close the producer, and create another one or end the program.
    Stop,
}

/// Why a call failed. Cheap to clone, because one failure may affect a thousand records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A config is invalid.
    #[error("invalid config: {0}")]
    Config(#[from] ConfigError),
    /// A broker cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`.
        address: Arc<str>,
        /// The error of the operating system.
        source: Arc<std::io::Error>,
    },
    /// None of the brokers can be reached.
    #[error("no broker can be reached; last error: {last}")]
    NoBroker {
        /// The last failure.
        last: Box<Error>,
    },
    /// The connection was closed before the response arrived.
    #[error("the connection to {address} was lost: {reason}")]
    Disconnected {
        /// `host:port`.
        address: Arc<str>,
        /// Why it was closed.
        reason: Arc<str>,
    },
    /// A call timed out.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// What took too long.
        what: Arc<str>,
        /// The time limit.
        limit: Duration,
    },
    /// A request cannot be encoded, or a response cannot be decoded.
    #[error("{address}: {source}")]
    Wire {
        /// `host:port`.
        address: Arc<str>,
        /// What is wrong, and where.
        source: WireError,
    },
    /// The broker and this client have no version of a request in common.
    #[error("{address} and this client have no version of {api} in common: {theirs} there, {ours} here")]
    UnsupportedVersion {
        /// `host:port`.
        address: Arc<str>,
        /// The request.
        api: &'static str,
        /// The versions of the broker.
        theirs: Arc<str>,
        /// The versions of this client.
        ours: Arc<str>,
    },
    /// A broker returned an error.
    #[error("{what}: {code}{}", .message.as_ref().map_or_else(String::new, |text| format!(": {text}")))]
    Broker {
        /// The failed action, such as `create topic quakes`.
        what: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's message, if any.
        message: Option<Arc<str>>,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}; it has {partitions} partitions")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// The requested partition.
        partition: i32,
        /// The number of partitions.
        partitions: usize,
    },
    /// A record is too large for a request.
    #[error("the record has {size} bytes, but {key} is {max}")]
    RecordTooLarge {
        /// Its size in a batch, in bytes.
        size: usize,
        /// The config that limits it.
        key: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// A record was rejected, or its batch was because of another record.
    #[error("not stored: {0}")]
    Invalid(Arc<str>),
    /// A stage failed.
    #[error(transparent)]
    Stage(Arc<StageError>),
    /// A stage rejected this record; the other records are not affected.
    #[error("stage {}: {message}", VersionName { plugin, version, number: *number })]
    Row {
        /// The plug-in's name.
        plugin: Arc<str>,
        /// The version that the plug-in reports.
        version: Arc<str>,
        /// Its number in the registry, if it comes from there.
        number: Option<u32>,
        /// The plug-in's message.
        message: Arc<str>,
    },
    /// A stage rejected a record that was read. `poll` returns the records before it first. To skip the record, seek
    /// to the offset of [`Error::skip_to`].
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    Record {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// The offset after the record, or after its batch if the stage rejected the whole batch.
        next_offset: i64,
        /// The error of the stage.
        source: Box<Error>,
    },
    /// A stage cannot be used here.
    #[error("stage {plugin}: {reason}")]
    Unusable {
        /// The plug-in's name.
        plugin: Arc<str>,
        /// Why, and what to do.
        reason: Arc<str>,
    },
    /// A batch cannot be encoded.
    #[error(transparent)]
    Build(BuildError),
    /// A stored batch cannot be decoded. `poll` returns the records before it first. To skip the batch, seek to the
    /// offset of [`Error::skip_to`].
    #[error("the batch at offset {offset} of {topic}-{partition} cannot be decoded: {source}")]
    Batch {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The first offset of the batch that was requested.
        offset: i64,
        /// The offset after the batch, if its header is readable.
        next_offset: Option<i64>,
        /// What is wrong.
        source: BatchError,
    },
    /// The broker cannot read its records at an offset: a stored batch is corrupt, or the filter of a view fails.
    /// `poll` returns the records before it first. [`Error::skip_to`] is the next offset, which may be in the same
    /// batch.
    #[error("the broker cannot read {topic}-{partition} at offset {offset}: {}", ErrorCode::CORRUPT_MESSAGE)]
    Unreadable {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset of the fetch.
        offset: i64,
    },
    /// There is no offset to start from, and `auto.offset.reset` is `none`.
    #[error("{topic}-{partition} has {what}, and auto.offset.reset is none")]
    NoOffset {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// What is missing.
        what: Arc<str>,
    },
    /// The transaction has failed, and can only be aborted.
    #[error("{source}; abort the transaction")]
    Abortable {
        /// The first failure.
        source: Box<Error>,
    },
    /// The transactional producer has failed: it was fenced by a newer one with the same `transactional.id`, or the
    /// broker rejected its id.
    #[error("{source}; close this producer: the next one with its transactional.id aborts what is open")]
    Fatal {
        /// The failure.
        source: Box<Error>,
    },
    /// The record was not stored because its transaction was aborted.
    #[error("the record was not stored: its transaction was aborted")]
    Aborted,
    /// The call is not possible in the current state of the client.
    #[error("{0}")]
    State(&'static str),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Returns whether a retry of the same call may succeed.
    pub fn retriable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::NoBroker { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Broker { code, .. } => code.retriable(),
            Error::Stage(error) => matches!(error.fault, Fault::Exhausted(_) | Fault::Deadline { .. }),
            _ => false,
        }
    }

    /// Returns what to do after a call or a record of a transaction has failed.
    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Abortable { .. } | Error::Aborted => Remedy::Abort,
            error if error.retriable() => Remedy::Retry,
            _ => Remedy::Stop,
        }
    }

    /// Returns whether the broker may have executed the request although there is no response.
    pub(crate) fn outcome_unknown(&self) -> bool {
        matches!(self, Error::Disconnected { .. } | Error::Timeout { .. } | Error::Wire { .. })
    }

    /// Converts the error code of a response to `what` into a result.
    pub(crate) fn check(what: impl FnOnce() -> String, code: ErrorCode, message: Option<&str>) -> Result<(), Error> {
        match code {
            ErrorCode::NONE => Ok(()),
            code => Err(Error::broker(what(), code, message)),
        }
    }

    pub(crate) fn broker(what: impl Into<Arc<str>>, code: ErrorCode, message: Option<&str>) -> Error {
        Error::Broker { what: what.into(), code, message: message.filter(|text| !text.is_empty()).map(Arc::from) }
    }

    pub(crate) fn timeout(what: impl Into<Arc<str>>, limit: Duration) -> Error {
        Error::Timeout { what: what.into(), limit }
    }

    /// Returns the broker's error code, if a broker returned one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            Error::Unreadable { .. } => Some(ErrorCode::CORRUPT_MESSAGE),
            Error::Abortable { source } | Error::Fatal { source } => source.code(),
            _ => None,
        }
    }
}

impl Error {
    /// Returns the partition and the offset to seek to in order to skip the batch or record that this error is about.
    pub fn skip_to(&self) -> Option<(TopicPartition, i64)> {
        match self {
            Error::Batch { topic, partition, next_offset, .. } => {
                Some((TopicPartition::new(topic.clone(), *partition), (*next_offset)?))
            }
            Error::Record { topic, partition, next_offset, .. } => {
                Some((TopicPartition::new(topic.clone(), *partition), *next_offset))
            }
            Error::Unreadable { topic, partition, offset } => {
                Some((TopicPartition::new(topic.clone(), *partition), offset + 1))
            }
            _ => None,
        }
    }
}

impl From<StageError> for Error {
    fn from(error: StageError) -> Self {
        Error::Stage(Arc::new(error))
    }
}
