//! Why a write to the plug-in topic is rejected. Each message names what to do.

use millstream_partition::PartitionError;
use millstream_record::BatchError;
use millstream_registry::RegistryError;
use millstream_registry::format::{FormatError, Key};
use millstream_stage::{ActivationError, Kind, LoadError, ResolveError};
use millstream_wire::ErrorCode;

use super::store::StoreError;
use super::transition::TransitionError;
use super::uses::UseError;
use crate::error::ApiError;

/// Why a record may not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The key or the value is malformed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The manifest is malformed.
    #[error("plug-in {name}: {error}")]
    Manifest { name: String, error: FormatError },
    /// The manifest does not follow the one before.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// A version consists of the chunk that would be deleted.
    #[error("{name}@{number} needs {key}: delete the version first")]
    ChunkNeeded { name: String, number: u32, key: Key },
    /// A version consists of the chunk that would be replaced.
    #[error("{name}@{number} is immutable: {key} cannot be replaced")]
    ChunkImmutable { name: String, number: u32, key: Key },
    /// A stored chunk cannot be compared with the new one.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new version does not work.
    #[error("plug-in {name}@{number}: {error}")]
    Version { name: String, number: u32, error: VersionError },
    /// The binary has a plug-in with this name but another kind.
    #[error("plug-in {name} is a {built_in} in the binary, and this is a {new}; push it under another name")]
    BuiltInKind { name: String, built_in: Kind, new: Kind },
    /// A version that would be deleted is used.
    #[error(transparent)]
    InUse(#[from] UseError),
    /// The version that would become active cannot be found.
    #[error("{error}")]
    NotFound { number: u32, error: ResolveError },
    /// The version that would become active does not work in every stage that uses it.
    #[error("{error}")]
    DoesNotServe { number: u32, error: ActivationError },
    /// Other brokers cannot prepare the version. The message names them.
    #[error("{name}@{number} cannot be prepared on every broker, so nothing has changed: {message}")]
    OtherBrokers { name: String, number: u32, message: String },
}

/// Why a new version does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionError {
    /// Chunks are missing.
    #[error(transparent)]
    Chunks(#[from] FormatError),
    /// Its bytes cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not a plug-in that can run here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The manifest names another kind.
    #[error("it is a {actual}, and the manifest says {manifest}")]
    Kind { actual: Kind, manifest: Kind },
    /// The manifest names another version.
    #[error("it calls its version {actual}, and the manifest says {manifest}")]
    Name { actual: String, manifest: String },
}

/// A record that may not be written, with its index in the batch.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct RecordError {
    pub(super) index: usize,
    pub(super) error: WriteError,
}

impl WriteError {
    /// Returns the number of the version that would become active and does not work here.
    pub(super) fn failing_version(&self) -> Option<u32> {
        match self {
            Self::NotFound { number, .. } | Self::DoesNotServe { number, .. } | Self::OtherBrokers { number, .. } => {
                Some(*number)
            }
            _ => None,
        }
    }

    /// Adds the index of the invalid record.
    pub(super) fn at(self, index: usize) -> RecordError {
        RecordError { index, error: self }
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        let message = error.to_string();
        let records = u32::try_from(error.index).ok().map(|index| (index, message.clone())).into_iter().collect();
        ApiError { records, ..ApiError::new(ErrorCode::INVALID_RECORD, message) }
    }
}

/// Why a component of the folder is not pushed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// It is not a plug-in that can run here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store rejects it.
    #[error(transparent)]
    Plan(#[from] RegistryError),
    /// A record of it was rejected.
    #[error(transparent)]
    Write(#[from] ApiError),
}

/// Why the plug-in topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadTopicError {
    /// The partition cannot be read.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The disk fails.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A stored batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
