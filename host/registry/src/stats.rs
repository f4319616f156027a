//! The counters of plug-in versions at a broker: the value of the read-only config [`STATS_CONFIG`], which
//! DescribeConfigs returns when it is requested by name.

use serde::{Deserialize, Serialize};

/// The broker config with the counters, as a JSON array of [`VersionStats`].
pub const STATS_CONFIG: &str = "plugin.stats";

/// The broker's config that lists producers whose batches stages rejected, as a JSON array of [`RejectedProducer`].
pub const REJECTED_PRODUCERS_CONFIG: &str = "plugin.rejected.producers";

/// A producer whose batches stages rejected at one broker, since that broker's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RejectedProducer {
    /// The topic.
    pub topic: String,
    /// The producer id; -1 stands for all producers without one.
    pub producer_id: i64,
    /// The batches that were rejected.
    pub batches: u64,
    /// The records that stages rejected in them.
    pub records: u64,
    /// The time of the last rejection, in milliseconds since the epoch.
    pub last_ms: i64,
}

impl RejectedProducer {
    /// Adds the counts of the same producer at another broker.
    pub fn add(&mut self, other: &RejectedProducer) {
        self.batches += other.batches;
        self.records += other.records;
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

impl VersionStats {
    /// Adds the counters of the same version at another broker.
    pub fn add(&mut self, other: &VersionStats) {
        self.calls += other.calls;
        self.records += other.records;
        self.nanos += other.nanos;
        self.errors += other.errors;
        self.traps += other.traps;
        self.bad_records += other.bad_records;
        self.rollbacks += other.rollbacks;
        self.waits += other.waits;
        self.wait_max_nanos = self.wait_max_nanos.max(other.wait_max_nanos);
    }
}

/// The counters of one version at one broker, since the start of the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionStats {
    /// The plug-in's name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The number of the version in the registry; 0 for the plug-in in the binary and for files.
    pub number: u32,
    /// The version that the plug-in reports.
    pub version: String,
    /// All calls, including failed ones.
    pub calls: u64,
    /// The records of all calls.
    pub records: u64,
    /// The time of all calls, in nanoseconds.
    pub nanos: u64,
    /// The failed calls.
    pub errors: u64,
    /// The calls that trapped or broke a limit.
    pub traps: u64,
    /// The records that it rejected.
    pub bad_records: u64,
    /// The automatic rollbacks.
    pub rollbacks: u64,
    /// The calls that waited until an instance was created.
    pub waits: u64,
    /// The longest of these waits, in nanoseconds.
    pub wait_max_nanos: u64,
}
