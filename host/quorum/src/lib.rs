//! The replicated log of a cluster's metadata. It knows bytes and node ids, not topics.

pub mod storage;
