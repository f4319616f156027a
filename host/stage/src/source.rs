//! Numbered versions of plug-ins that are kept elsewhere, such as in a topic of the cluster: their bytes
//! are fetched when one is wanted.

use std::fmt;

use crate::plugin::Digest;

/// The number of the plug-in that is part of the program: what serves before anything was stored.
pub const EMBEDDED_NUMBER: u32 = 0;

/// A version of a plug-in as it is shown: `region@3` by its number in a store, and `region 1.2.0` in its own words where it has
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionName<'a> {
    /// The plug-in's name.
    pub plugin: &'a str,
    /// The version, in its own words.
    pub version: &'a str,
    /// Its number in a store; that of the plug-in in the program is none to show.
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

/// A place that keeps numbered versions of plug-ins. The library asks it when a stage is made; it does not
/// watch it: whoever owns the source tells the library of a new active version, with
/// [`Library::prepare`](crate::Library::prepare).
pub trait VersionSource: Send + Sync {
    /// Every plug-in that it keeps, by name.
    fn names(&self) -> Vec<String>;

    /// The versions of a plug-in, from old to new, with their digests; empty when it keeps none of that
    /// name.
    fn versions(&self, name: &str) -> Vec<(u32, Digest)>;

    /// The number of the version that serves stages that follow the name; [`EMBEDDED_NUMBER`] is the one in
    /// the program. `None` when it keeps none of that name.
    fn active(&self, name: &str) -> Option<u32>;

    /// The bytes of a version. It may take a while: they may be far away.
    ///
    /// # Errors
    /// Why they cannot be had, in words.
    fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, String>;
}
