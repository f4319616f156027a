//! The plug-ins of a cluster, through plain Kafka APIs: manage them ([`PluginStore`]), follow them
//! ([`ClusterPlugins`]), and run the stages that a topic asks for.
//!
//! The records and the state of the registry are in the crate `millstream-registry`.

mod active_stages;
mod error;
mod follow;
mod reader;
mod store;
mod topic_stages;

pub(crate) use active_stages::{ActiveStages, Following, TopicSource, attach};
pub use error::PluginError;
pub use follow::ClusterPlugins;
pub use millstream_registry::{LOGS_TOPIC, RegistryError, TOPIC, VersionStats};
pub use store::{PluginStore, Pushed};
pub use topic_stages::TopicStages;
