//! What can go wrong in a client, typed, and whether trying again helps.

use std::sync::Arc;
use std::time::Duration;

use millstream_record::{BatchError, BuildError};
use millstream_stage::{Fault, StageError, VersionName};
use millstream_wire::{ErrorCode, WireError};

use crate::config::ConfigError;

/// Why a call failed. Cheap to clone: one failure may concern a thousand records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is impossible.
    #[error("bad configuration: {0}")]
    Config(#[from] ConfigError),
    /// A broker cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`.
        address: Arc<str>,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// None of the servers can be reached.
    #[error("no broker can be reached; the last try: {last}")]
    NoBroker {
        /// The last failure.
        last: Box<Error>,
    },
    /// The connection was lost before the answer came.
    #[error("the connection to {address} was lost: {reason}")]
    Disconnected {
        /// `host:port`.
        address: Arc<str>,
        /// What ended it.
        reason: Arc<str>,
    },
    /// Something took too long.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// What was waited for.
        what: Arc<str>,
        /// The time that it had.
        limit: Duration,
    },
    /// A message that cannot be written, or an answer that cannot be read.
    #[error("{address}: {source}")]
    Wire {
        /// `host:port`.
        address: Arc<str>,
        /// What was wrong, and where.
        source: WireError,
    },
    /// The broker knows no version of a request that this client knows.
    #[error("{address} does not support {api} in a version that this client knows: {theirs}, here {ours}")]
    UnsupportedVersion {
        /// `host:port`.
        address: Arc<str>,
        /// The request.
        api: &'static str,
        /// The versions there.
        theirs: Arc<str>,
        /// The versions here.
        ours: Arc<str>,
    },
    /// A broker answered with an error.
    #[error("{what}: {code}{}", .message.as_ref().map_or_else(String::new, |text| format!(": {text}")))]
    Broker {
        /// What was asked for, and of what: `create topic quakes`.
        what: Arc<str>,
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's words, if it has any.
        message: Option<Arc<str>>,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}, it has {partitions}")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// A record that no request may hold.
    #[error("the record is {size} bytes long, {key} allows {max}")]
    RecordTooLarge {
        /// Its size with the overhead of the format, in bytes.
        size: usize,
        /// The setting that forbids it.
        key: &'static str,
        /// What it allows, in bytes.
        max: usize,
    },
    /// A record that was stored in no batch, because others of it were bad.
    #[error("not stored: {0}")]
    Invalid(Arc<str>),
    /// A stage failed.
    #[error(transparent)]
    Stage(Arc<StageError>),
    /// A stage refused this record; those beside it are not concerned.
    #[error("stage {}: {message}", VersionName { plugin, version, number: *number })]
    Row {
        /// The plug-in's name.
        plugin: Arc<str>,
        /// The plug-in's version, in its own words.
        version: Arc<str>,
        /// Its number in the cluster's store, if it comes from there.
        number: Option<u32>,
        /// The plug-in's words.
        message: Arc<str>,
    },
    /// A record that was read and that a stage cannot take. `poll` gives the records before it first;
    /// to go on behind it, seek to the offset after it.
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    Record {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// What the stage says.
        source: Box<Error>,
    },
    /// A stage that cannot be used where it was given.
    #[error("stage {plugin}: {reason}")]
    Unusable {
        /// The plug-in's name.
        plugin: Arc<str>,
        /// Why, and what to do.
        reason: Arc<str>,
    },
    /// A batch could not be built.
    #[error(transparent)]
    Build(BuildError),
    /// A batch that arrived damaged or malformed.
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    Batch {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset that was asked for.
        offset: i64,
        /// What is wrong.
        source: BatchError,
    },
    /// There is no offset to go on from, and `auto.offset.reset` is `none`.
    #[error("{topic}-{partition} has {what}, and auto.offset.reset is none")]
    NoOffset {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// What is missing.
        what: Arc<str>,
    },
    /// The call does not fit the state of the client.
    #[error("{0}")]
    State(&'static str),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    pub fn retriable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::NoBroker { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Broker { code, .. } => code.retriable(),
            Error::Stage(error) => matches!(error.fault, Fault::Exhausted(_) | Fault::Deadline { .. }),
            _ => false,
        }
    }

    /// Whether the broker may have done what was asked although no answer says so.
    pub(crate) fn fate_unknown(&self) -> bool {
        matches!(self, Error::Disconnected { .. } | Error::Timeout { .. } | Error::Wire { .. })
    }

    /// A broker's answer to `what`, as a result.
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

    /// The broker's code, where a broker answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<StageError> for Error {
    fn from(error: StageError) -> Self {
        Error::Stage(Arc::new(error))
    }
}
