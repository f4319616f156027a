//! Numbered versions of plug-ins that are stored elsewhere, such as in a topic of the cluster. The bytes of a
//! version are fetched when it is first used.

use std::error::Error;
use std::fmt;

use crate::plugin::Digest;

/// The number of the plug-in that is built into the program. It is active until a version is stored.
pub const EMBEDDED_NUMBER: u32 = 0;

/// Displays a version of a plug-in: `region@3` if it has a number in a store, else `region 1.2.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionName<'a> {
    /// The plug-in's name.
    pub plugin: &'a str,
    /// The version that the plug-in states.
    pub version: &'a str,
    /// Its number in a store. [`EMBEDDED_NUMBER`] is not displayed.
    pub number: Option<u32>,
}

impl fmt::Display for VersionName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number.filter(|number| *number != EMBEDDED_NUMBER) {
            Some(number) => write!(formatter, "{}@{number}", self.plugin),
            None => write!(formatter, "{} {}", self.plugin, self.version),
        }
    }
}

/// A store of numbered versions of plug-ins. The library reads it when a stage is started, and does not watch it:
/// the owner of the store passes a new active version to [`Library::prepare`](crate::Library::prepare).
pub trait VersionSource: Send + Sync {
    /// Returns the names of all stored plug-ins.
    fn names(&self) -> Vec<String>;

    /// Returns the versions of a plug-in with their digests, from old to new. Empty if it is not stored.
    fn versions(&self, name: &str) -> Vec<(u32, Digest)>;

    /// Returns the number of the active version, which stages that follow the name use. [`EMBEDDED_NUMBER`] is the one
    /// built into the program. `None` if the plug-in is not stored.
    fn active(&self, name: &str) -> Option<u32>;

    /// Returns the bytes of a version. May block while they are fetched.
    ///
    /// # Errors
    /// [`FetchError`] when they cannot be fetched.
    fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, FetchError>;
}

/// The bytes of a stored version cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FetchError(Box<dyn Error + Send + Sync>);

impl FetchError {
    /// Wraps the cause: an error, or a text.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
        FetchError(cause.into())
    }
}
