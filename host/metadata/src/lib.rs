//! The cluster's metadata: a log of changes in `__cluster_metadata-0`, and the image that they add up to.
//!
//! A change takes this way: [`controller`] decides on an image and returns records, [`store`] makes them durable, and the
//! [`MetadataDelta`] between the images before and after says what every node has to act on.

pub(crate) mod controller;
mod delta;
mod feature;
mod image;
mod record;
mod store;
mod topic_name;

pub(crate) use delta::{MetadataDelta, TopicChange};
pub(crate) use feature::FeatureLevel;
pub(crate) use image::{MetadataImage, TopicConfigs, TopicImage, source_of};
pub(crate) use record::MetadataRecord;
pub(crate) use store::{Draft, MetadataError, MetadataStore};
pub(crate) use topic_name::{TopicNameError, check_name};
