//! Kafka's messages that are kept in records or passed between clients, one file per subject. They belong to no API.
//!
//! A version in 16 bits stands before each ([`to_versioned_bytes`](crate::codec::to_versioned_bytes)). Field names are
//! those of Kafka's schemas.

#![allow(missing_docs, reason = "fields carry the names of Kafka's schemas; what a name does not say is documented")]

mod consumer_offsets;
mod consumer_protocol;
mod transaction_state;

pub use consumer_offsets::*;
pub use consumer_protocol::*;
pub use transaction_state::*;
