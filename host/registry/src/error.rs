//! The errors of planning a change. Each one says what to do about it.

use crate::format::FormatError;

/// Why a change of the registry cannot be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry has no plug-in of that name.
    #[error("the cluster has no plug-in `{name}`; it has: {known}")]
    Unknown {
        /// The requested name.
        name: String,
        /// The existing names.
        known: String,
    },
    /// The plug-in has no such version.
    #[error("plug-in `{name}` has no version {wanted}; it has: {known}")]
    Version {
        /// The plug-in.
        name: String,
        /// The requested number.
        wanted: u32,
        /// The existing numbers.
        known: String,
    },
    /// No version of the plug-in is active.
    #[error("no version of plug-in `{name}` is active; activate one: NAME@VERSION, with {known}")]
    Inactive {
        /// The plug-in.
        name: String,
        /// The existing numbers.
        known: String,
    },
    /// There is no good version before the active one.
    #[error(
        "plug-in `{name}` has no good version before {active} to roll back to; activate one by its number: {known}"
    )]
    NothingBefore {
        /// The plug-in.
        name: String,
        /// The active version.
        active: u32,
        /// The existing numbers.
        known: String,
    },
    /// The active version cannot be deleted.
    #[error("version {number} of plug-in `{name}` is active; activate another one first")]
    Active {
        /// The plug-in.
        name: String,
        /// Its active version.
        number: u32,
    },
    /// A plug-in's kind is fixed by its first version.
    #[error("plug-in `{name}` is a {have} in the cluster, and this is a {new}; push it under another name")]
    Kind {
        /// The plug-in.
        name: String,
        /// The kind in the cluster.
        have: &'static str,
        /// The kind of the pushed component.
        new: &'static str,
    },
    /// A name or a value is malformed.
    #[error(transparent)]
    Format(#[from] FormatError),
}
