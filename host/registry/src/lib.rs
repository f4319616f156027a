//! The registry of plug-ins: the records of the topic [`TOPIC`], the state that they add up to, and the records
//! that change it.
//!
//! Pure: no sockets, no files, no clock. The client, the broker and the command line all use it, through plain
//! Kafka APIs, so it works on a cluster of Millstream and on Apache Kafka.
//!
//! # Layout
//!
//! The topic has one partition and `cleanup.policy=compact`. Its records have three kinds of keys:
//!
//! ```text
//! chunk/<sha256 of the whole component>/<index>   up to 512 KiB of a component
//! plugin/<NAME>                                   the manifest of a plug-in, JSON: all of its state
//! topic/<NAME>                                    the stages of a topic, JSON, for clusters that
//!                                                 do not know `stage.*` configs (Apache Kafka)
//! ```
//!
//! A change is one record, so it is stored as a whole or not at all. The chunks that a manifest needs are
//! written before it. A manifest's `revision` rises by one with every change. If two changes start from the same
//! revision, the first one in the log wins; the writer of the second one finds out by reading back. Millstream's
//! broker rejects the second one instead, along with every other invalid record: see `host/broker/src/plugins`.
//!
//! # Limits
//!
//! Any client with access to the topic can write any bytes. Every record is checked ([`format`]) before it is
//! used. The state ([`image`]) is bounded: it holds the offsets of chunks, never their bytes.

mod error;
pub mod format;
pub mod image;
pub mod plan;
mod stats;

pub use error::RegistryError;
pub use format::{FormatError, LOGS_TOPIC, TOPIC};
pub use stats::{REJECTED_PRODUCERS_CONFIG, RejectedProducer, STATS_CONFIG, VersionStats};
