//! The cluster's metadata: a log of changes in `__cluster_metadata-0`, and the image that they add up to.
//!
//! A change takes these steps: [`controller`] decides on an image and returns records, and [`MetadataStore`] makes them
//! durable. The [`MetadataDelta`] between the images before and after lists what every node has to act on.
//!
//! This crate does not know a partition's disk, stages or connections.

mod broker;
pub mod controller;
mod delta;
pub mod entry;
mod feature;
mod image;
mod partition;
mod record;
pub mod snapshot;
mod store;
mod topic_name;

pub use broker::{BrokerImage, BrokerRegistration, Endpoint};
pub use delta::{MetadataDelta, TopicChange};
pub use feature::{FeatureLevel, TRANSACTION_VERSION, TRANSACTION_VERSION_NEWEST, UnknownLevel};
pub use image::{
    AllBrokerConfigs, BrokerConfigs, CORDONED_LOG_DIRS, ImageError, MetadataImage, TopicConfigs, TopicImage,
    broker_config, source_of,
};
pub use partition::{NO_LEADER, PartitionChange, PartitionImage};
pub use record::{MetadataRecord, RecordError};
pub use store::{Draft, MetadataError, MetadataStore};
pub use topic_name::{TopicNameError, check_name};
