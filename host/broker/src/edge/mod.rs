//! Where stages meet records: what topics with stages do that others do not.

pub(crate) mod stages;
pub(crate) mod view;
