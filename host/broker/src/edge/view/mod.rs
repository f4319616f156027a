//! Views: read-only topics that show what filters keep of another topic.
//!
//! [`rules`] says which configs make a view and which are rejected, [`link`] gives a view what its source has, and
//! [`scan`] reads the source and keeps what passes the filters.

pub(crate) mod link;
pub(crate) mod rules;
pub(crate) mod scan;
