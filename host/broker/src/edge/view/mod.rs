//! Views: read-only topics that show what filters keep of another topic.
//!
//! [`rules`] decides which configs make a view and which are rejected. [`link`] gives a view the partitions of its
//! source, and [`scan`] reads the source and keeps the records that pass the filters. [`unreadable`] handles
//! batches of the source that cannot be read.

pub(crate) mod link;
pub(crate) mod rules;
pub(crate) mod scan;
pub(crate) mod unreadable;
