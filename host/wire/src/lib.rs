//! Kafka's protocol messages: bounded, zero-copy, without sockets.
//!
//! A message is a plain struct with a `#[derive(Message)]` (see `millstream-wire-derive` for the
//! attributes), one file per API under [`messages`]. Fields have the names of Kafka's schemas in
//! snake case. [`apis`] lists every API that the codec knows.
//!
//! # Decoding hostile bytes
//!
//! Every count and length is checked against the remaining bytes before anything is allocated: a count of
//! elements times the least size of one must fit. The memory of arrays is charged
//! to a budget of the [`Reader`], since an element of one byte on the wire may take a hundred here.
//! Strings and bytes are slices of the frame. They cost no copy and keep the frame alive: copy what is
//! stored for long ([`Str::copied`]).
//!
//! Rejected: negative lengths other than a null's, compact lengths of zero where null is not allowed,
//! varints over 32 bits, tagged fields that repeat, do not ascend or do not fill their size.
//! Skipped: unknown tagged fields. Bytes after the end of a request are ignored, as Kafka
//! does.
//!
//! # Encoding
//!
//! [`Writer`] collects small fields in one buffer and splices large ones in between without a copy.
//! A field of records may stand for bytes that are not in memory ([`Records::External`]): the frame
//! then has a hole of that length, to be filled from a file.
//!
//! A field that a version does not have is left out. When that would change what a *request* asks
//! for, it is an error instead, unless Kafka's schema calls the field ignorable. A response never
//! fails for that: fields are dropped, and a null that the version does not have
//! is written as an empty value.

// The derive names this crate by its path, also inside the crate.
extern crate self as millstream_wire;

pub mod codec;
pub mod frame;
pub mod messages;
pub mod records;

mod acl;
mod api;
mod config_resource;
mod error;
mod error_code;
mod header;
mod reader;
mod record_batches;
mod text;
mod writer;

pub use acl::AclOperation;
pub use api::{ApiInfo, ApiKey, apis};
pub use codec::{Message, Nullable, Request, Versioned};
pub use config_resource::ConfigResourceType;
pub use error::{WireError, WireErrorKind};
pub use error_code::ErrorCode;
pub use header::{RequestHeader, ResponseHeader};
pub use millstream_wire_derive::Message;
pub use reader::Reader;
pub use record_batches::Records;
pub use text::Str;
pub use writer::{Frame, Piece, Writer};
