//! What the versions of plug-ins have done at a broker: the value of its read-only option [`STATS_CONFIG`],
//! which DescribeConfigs answers when it is asked for it by name.

use serde::{Deserialize, Serialize};

/// The broker's option that holds the counts, as a JSON array of [`VersionStats`].
pub const STATS_CONFIG: &str = "plugin.stats";

/// The counts of one version of a plug-in at one broker, since that broker's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionStats {
    /// The plug-in's name.
    pub name: String,
    /// What it is for.
    pub kind: String,
    /// The number of the version in the cluster; 0 for the plug-in in the binary and for files.
    pub number: u32,
    /// What the plug-in calls its version.
    pub version: String,
    /// Calls, failed ones too.
    pub calls: u64,
    /// Records of all calls.
    pub records: u64,
    /// Time of all calls, in nanoseconds.
    pub nanos: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because the plug-in misbehaved.
    pub traps: u64,
    /// Records that it failed for.
    pub bad_records: u64,
    /// How often it was rolled back by itself.
    pub rollbacks: u64,
}
