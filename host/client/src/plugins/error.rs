//! The errors of working with the plug-ins of a cluster. Each one says what to do about it.

use millstream_registry::{FormatError, RegistryError};

use crate::error::Error;

/// Why an operation on plug-ins failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The cluster cannot be reached, or rejects a request.
    #[error(transparent)]
    Client(#[from] Error),
    /// The cluster rejects the change; nothing is changed.
    #[error("plug-in `{name}` is rejected, nothing is changed: {message}")]
    Rejected {
        /// The plug-in.
        name: String,
        /// The broker's message.
        message: String,
    },
    /// The change does not fit the state of the registry, or a value is malformed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The stored bytes of a plug-in are incomplete or differ from its manifest.
    #[error("plug-in `{name}`: {problem}")]
    Damaged {
        /// The plug-in.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Other clients changed the same plug-in during every attempt.
    #[error("plug-in `{0}` was changed by other clients during every attempt; retry later")]
    Contended(String),
    /// A stage of the cluster cannot be used in this process.
    #[error("{0}")]
    Stage(String),
}

impl From<FormatError> for PluginError {
    fn from(error: FormatError) -> Self {
        PluginError::Registry(error.into())
    }
}
