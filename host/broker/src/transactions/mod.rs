//! Transactions between brokers: what the leaders of partitions and the coordinators of transactions ask each other.
//!
//! | File | Subject |
//! |---|---|
//! | `coordinators.rs` | the broker that coordinates a transactional id, and the leader's question to it |
//! | `sender.rs` | the markers that a coordinator sends to leaders |
//! | `markers.rs`, `local.rs` | markers in partitions that this broker leads |
//! | `host.rs` | what the coordinator needs of its broker |
//! | `others.rs` | connections to other brokers |

mod coordinators;
mod host;
mod local;
pub(crate) mod markers;
mod others;
mod sender;

pub(crate) use coordinators::Coordinators;
pub(crate) use host::{Host, NewProducerId, SharedHost};
pub(crate) use local::LocalPartitions;
pub(crate) use others::OtherBrokers;
pub(crate) use sender::MarkerSender;
