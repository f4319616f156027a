//! Coordinators: the parts of a broker that keep state for clients in an internal topic.
//!
//! A coordinator decides in memory, appends its record, and responds when the record is committed at the leader epoch
//! of the append (`millstream_partition::InternalTopic`). After a restart, a replay of the topic gives the same state.
//! This crate does not know connections, topics or the disk.
//!
//! [`group`] coordinates consumer groups, and [`transaction`] transactions.

pub mod group;
#[cfg(test)]
mod memory_topic;
mod partition_of;
mod settled;
mod shard;
mod shards;
pub mod transaction;

pub use partition_of::partition_of;
