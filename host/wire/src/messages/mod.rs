//! One file per API: its request, its answer and the structs in them.
//!
//! Field names, defaults and versions are those of Kafka 4.2's schemas; -1 stands for "none" where
//! they say so. An `Option` is a null on the wire. A struct's versions are those of its message.

#![allow(missing_docs, reason = "fields carry the names of Kafka's schemas; what a name does not say is documented")]

mod alter_configs;
mod api_versions;
mod consumer_offsets;
mod consumer_protocol;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leader;
mod leave_group;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

pub use alter_configs::*;
pub use api_versions::*;
pub use consumer_offsets::*;
pub use consumer_protocol::*;
pub use create_partitions::*;
pub use create_topics::*;
pub use delete_topics::*;
pub use describe_cluster::*;
pub use describe_configs::*;
pub use describe_groups::*;
pub use fetch::*;
pub use find_coordinator::*;
pub use heartbeat::*;
pub use incremental_alter_configs::*;
pub use init_producer_id::*;
pub use join_group::*;
pub use leader::*;
pub use leave_group::*;
pub use list_groups::*;
pub use list_offsets::*;
pub use metadata::*;
pub use offset_commit::*;
pub use offset_fetch::*;
pub use offset_for_leader_epoch::*;
pub use produce::*;
pub use sync_group::*;
