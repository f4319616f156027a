//! The broker: connections, one handler per API, partitions, consumer groups.
//!
//! A produce request passes through [`net`] (accept, permit, frame), [`api`] (decode), [`produce`] (checks) and
//! `millstream_partition` (append, commit). Its response leaves in request order through [`net::send_queue`]. A fetch
//! enters the same way and waits for records if there are none yet. Its response is file ranges that the kernel sends.
//! Changes of topics are decided in `millstream_metadata`, committed by [`controller`] and take effect in [`apply`].
//! Stages run in [`edge`].

mod api;
mod apply;
mod background;
mod blocking;
mod broker;
mod cluster;
#[cfg(test)]
mod cluster_for_tests;
mod compute_permits;
pub mod config;
mod controller;
mod detached;
mod disk_reserve;
mod edge;
mod error;
mod fetch_sessions;
mod internal_topic;
mod log_dirs;
mod metrics;
mod net;
mod partition_dirs;
mod placement;
#[cfg(test)]
mod placement_tests;
mod produce;
mod producer_ids;
mod replication;
mod security;
mod server;
mod topics;
mod transactions;

pub use config::{BrokerConfig, ClusterFlags, ConfigError, Flags, FlushMode, HostPort, RawConfig};
pub use edge::plugins::Plugins;
pub use metrics::{CleanerStats, RequestStats};
#[cfg(feature = "seeded-bugs")]
pub use millstream_log::seeded_bug;
pub use server::{Recovery, RunningBroker, StartError, start};
