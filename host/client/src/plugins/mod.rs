//! Plug-ins that live in the cluster: the topic [`TOPIC`], what its records mean, and what can be done
//! with it through plain Kafka APIs, at our broker and at Apache Kafka alike.
//!
//! # Layout
//!
//! One partition, `cleanup.policy=compact`. Four kinds of keys:
//!
//! ```text
//! chunk/<sha256 of the whole component>/<index>   up to 512 KiB of a component
//! plugin/<NAME>                                   the manifest of a plug-in, JSON: all of its state
//! topic/<NAME>                                    the stages of a topic, JSON, where the cluster
//!                                                 takes no `stage.*` options (Apache Kafka)
//! ```
//!
//! A change is one record, so it is there as a whole or not at all; what a manifest needs is written
//! before it. A manifest's `revision` rises by one with every change: of two that were made of the same
//! one, the first in the log counts, and whoever wrote the second finds out by reading back. Our broker
//! refuses the second one instead, with everything else that is wrong; see `host/broker/src/plugins`.
//!
//! # Limits
//!
//! Whoever may write to the topic can write anything. What is read is checked ([`format`]) before it is
//! believed, and what an image keeps has a bound ([`image`]): it knows where chunks are, never their bytes.

mod attached;
mod error;
mod follow;
pub mod format;
pub mod image;
pub mod plan;
mod reader;
mod stats;
mod store;
mod topic_stages;

pub(crate) use attached::{Attached, Following, TopicSource, attach};
pub use error::PluginError;
pub use follow::ClusterPlugins;
pub use format::{LOGS_TOPIC, TOPIC};
pub use stats::{STATS_CONFIG, VersionStats};
pub use store::{PluginStore, Pushed};
pub use topic_stages::TopicStages;
