//! The Kafka record batch: a borrowed view, a builder, varints, CRC-32C and the standard codecs. Also Kafka's text form
//! of a UUID, [`KafkaUuid`].
//!
//! This crate has no I/O, clock or threads. It supports only magic 2 (KIP-98), the format of Kafka since 0.11.
//!
//! # Layout
//!
//! All integers are big-endian. The CRC covers everything from the attributes to the end, so the base offset and the
//! leader epoch may be patched in place without a new CRC.
//!
//! ```text
//!  0  base offset            i64
//!  8  batch length           i32   bytes that follow this field
//! 12  partition leader epoch i32
//! 16  magic                  i8    2
//! 17  crc                    u32   CRC-32C of bytes 21..
//! 21  attributes             i16   0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//! 23  last offset delta      i32
//! 27  base timestamp         i64
//! 35  max timestamp          i64
//! 43  producer id            i64   -1: none
//! 51  producer epoch         i16
//! 53  base sequence          i32   -1: none
//! 57  record count           i32
//! 61  records, as one compressed block unless the codec is none
//! ```
//!
//! A record is a zigzag varint length and then: attributes `i8`, timestamp delta varlong, offset delta varint, key and
//! value (varint length, -1 for null), header count varint, and for each header its name and value in the same form (a
//! name is never null).
//!
//! # Limits
//!
//! Nothing is ever allocated by a size that the input claims. A decompression grows with its real output and stops at
//! the caller's limit ([`codec`]). Record, key and header sizes are checked against the available bytes before they are
//! used.
//!
//! # Which check when
//!
//! [`validate::validate_produce`] is for the plain path of Produce: it checks header, lengths, CRC and counts, and
//! never decodes a record. [`validate::check_records`] walks over the records (decompressing with a limit where
//! needed). It is for topics whose records are read anyway.

pub mod builder;
mod checked;
pub mod codec;
mod compacted;
pub mod crc;
mod end_marker;
mod error;
mod kafka_uuid;
pub mod layout;
pub mod patch;
mod record_walk;
mod records;
mod retain;
pub mod validate;
pub mod varint;
mod view;

pub use builder::{BatchBuilder, BuildError};
pub use checked::CheckedBatch;
pub use codec::{Codec, CodecError};
pub use compacted::{compacted, emptied};
pub use end_marker::EndMarker;
pub use error::{BatchError, ErrorKind, RecordFault, RejectReason, RejectedRecord};
pub use kafka_uuid::{KafkaUuid, ParseKafkaUuidError};
pub use layout::{HEADER_LEN, LOG_OVERHEAD, MAGIC};
pub use records::{Header, Headers, Record, RecordIter, Records};
pub use retain::retain;
pub use view::{BatchHeader, BatchView, Batches, TimestampType, batches};
