//! The storage of a voter: a write-ahead log of votes and entries, and a snapshot.

mod disk;
mod frame;
pub mod snapshot;
mod wal;

pub use disk::{Disk, FileDisk, check_length};
pub use frame::Purged;
pub use wal::{PROPOSAL_BYTES_MAX, SEGMENT_BYTES, StorageError, Wal};
