//! The cluster's metadata: a log of changes in `__cluster_metadata-0`, and the image that they add up to.
//!
//! A change takes this way: [`controller`] decides on an image and returns records, [`MetadataStore`] makes them durable, and the
//! [`MetadataDelta`] between the images before and after says what every node has to act on.

//!
//! The crate knows no partition's disk, no stage and no connection.

pub mod controller;
mod delta;
mod feature;
mod image;
mod record;
mod store;
mod topic_name;

pub use delta::{MetadataDelta, TopicChange};
pub use feature::{FeatureLevel, UnknownLevel};
pub use image::{ImageError, MetadataImage, PartitionImage, TopicConfigs, TopicImage, source_of};
pub use record::{MetadataRecord, RecordError};
pub use store::{Draft, MetadataError, MetadataStore};
pub use topic_name::{TopicNameError, check_name};
