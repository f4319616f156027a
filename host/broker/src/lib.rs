//! The broker: connections, one handler per API, partitions, consumer groups.
//!
//! A produce request walks [`listener`] (accept, permit), [`connection`] (length check, frame), [`api`] (decode),
//! [`intake`] (checks), [`partition`] (append) and [`group_commit`] (fsync), and its answer leaves in request order through
//! [`outgoing`]. A fetch walks the same way in, waits on [`waiters`] if there is nothing yet, and its answer is file ranges
//! that the kernel sends.
//! Changes of topics go through [`controller`] into [`metadata`]. What a topic with stages does beside is in [`edge`].

mod api;
mod attachments;
mod background;
mod broker;
mod budget;
pub mod config;
mod connection;
mod controller;
mod edge;
mod error;
mod folders;
mod frame_buffer;
mod group;
mod group_commit;
mod intake;
mod listener;
mod metadata;
mod outgoing;
mod partition;
mod plugins;
mod producer_ids;
mod server;
mod time;
mod topics;
mod turns;
mod views;
mod waiters;

pub use config::{BrokerConfig, ConfigError, Flags, FlushMode, HostPort, RawConfig};
pub use plugins::Plugins;
pub use server::{RunningBroker, StartError, start};
