//! The cluster's metadata: a log of changes in `__cluster_metadata-0`, and the image that they add up to.

mod image;
mod record;
mod store;

pub(crate) use image::{MetadataImage, TopicImage};
pub(crate) use record::MetadataRecord;
pub(crate) use store::{MetadataError, MetadataStore};
