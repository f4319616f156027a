//! What can go wrong with plug-ins of the cluster. Each error says what to do about it.

use super::format::FormatError;
use crate::error::Error;

/// Why something was not done with a plug-in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The cluster cannot be reached, or refuses a request.
    #[error(transparent)]
    Client(#[from] Error),
    /// The cluster does not take the change; nothing is changed.
    #[error("plug-in `{name}` is refused, nothing is changed: {message}")]
    Refused {
        /// The plug-in.
        name: String,
        /// The broker's words.
        message: String,
    },
    /// No plug-in of the cluster has that name.
    #[error("the cluster has no plug-in `{name}`; it has: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The plug-in has no such version.
    #[error("plug-in `{name}` has no version {wanted}; it has: {known}")]
    Version {
        /// The plug-in.
        name: String,
        /// The number that was asked for.
        wanted: u32,
        /// The numbers that there are.
        known: String,
    },
    /// No version of the plug-in is active.
    #[error("no version of plug-in `{name}` is active; activate one: NAME@VERSION, with {known}")]
    Inactive {
        /// The plug-in.
        name: String,
        /// The numbers that there are.
        known: String,
    },
    /// There is no good version before the active one.
    #[error("plug-in `{name}` has no good version before {active} to go back to; activate one by its number: {known}")]
    NothingBefore {
        /// The plug-in.
        name: String,
        /// The active version.
        active: u32,
        /// The numbers that there are.
        known: String,
    },
    /// The version that serves cannot be deleted.
    #[error("version {number} of plug-in `{name}` serves; activate another one first")]
    Serves {
        /// The plug-in.
        name: String,
        /// Its active version.
        number: u32,
    },
    /// A name stands for one kind of stage for ever.
    #[error("plug-in `{name}` is a {have} in the cluster, and this is a {new}; push it under another name")]
    Kind {
        /// The plug-in.
        name: String,
        /// What it is.
        have: &'static str,
        /// What was pushed.
        new: &'static str,
    },
    /// What the topic holds is not what it should be.
    #[error("plug-in `{name}`: {problem}")]
    Damaged {
        /// The plug-in.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A name or a value that cannot be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Others changed the same plug-in every time.
    #[error("plug-in `{0}` was changed by others at the same time, again and again; try once more")]
    Contended(String),
    /// A stage of the cluster cannot be used here.
    #[error("{0}")]
    Stage(String),
}
