//! One partition's log on disk, in Apache Kafka's own files and formats: Kafka's tools read these folders.
//!
//! ```text
//! DATA FOLDER                                  [`DataDir`]
//!   .lock                                      held while a broker runs
//!   meta.properties                            cluster id, node id, directory id
//!   .kafka_cleanshutdown                       there after a clean shutdown, gone once logs are opened
//!   recovery-point-offset-checkpoint           [`OffsetCheckpoint`]: text, "topic partition offset" a line
//!   log-start-offset-checkpoint
//!   replication-offset-checkpoint
//!   cleaner-offset-checkpoint
//!   orders-0/                                  [`Log`]: one folder a partition
//!     partition.metadata                       the topic id
//!     leader-epoch-checkpoint                  text, "epoch start-offset" a line
//!     00000000000000000000.log                 record batches, one after the other, nothing between
//!     00000000000000000000.index               8 bytes an entry: relative offset i32, position i32
//!     00000000000000000000.timeindex           12 bytes an entry: timestamp i64, relative offset i32
//!     00000000000000000000.txnindex            34 bytes an aborted transaction; without one, there is no file
//!     00000000000000001000.log                 the next segment; a file's name is its first offset
//!     00000000000000001000.snapshot            the producers' state as of that offset
//!     file-checksums                           of the indexes of aborted transactions and the snapshots
//! ```
//!
//! All integers are big-endian. A batch's layout is in `millstream_record`. An index entry names the *last* offset of
//! a batch and where the batch starts; there is one for each `index.interval.bytes` of log. A time entry says that no
//! batch up to and including an offset is newer than a timestamp. Relative means minus the segment's base offset.
//!
//! # Data and caches
//!
//! The `.log` files are the truth. Indexes, producer snapshots and leader epochs follow from them, and are built
//! again when they are missing, damaged, or do not fit. The index of aborted transactions is synced with the log, and
//! its checksum is in another file, since a missing one looks like none. The checkpoints are promises: nothing below a
//! recovery point may ever be missing, so a log that breaks the promise is not opened ([`LogError::Corrupt`],
//! [`LogError::Shorter`]), and not shortened.
//!
//! # Limits
//!
//! A segment is at most 2,147,483,647 bytes and as many offsets, since index entries are signed 32-bit. A batch is at
//! most `max.message.bytes` for a leader, and never larger than a segment. An index is at most `segment.index.bytes`;
//! a full one rolls the segment. Descriptors are shared by all logs of the process: a partition at rest holds none,
//! and no map. Nothing is allocated by a length that a file claims.

mod append;
mod batch_walk;
mod checkpoint;
mod checksums;
mod compaction;
mod config;
mod data_dir;
mod durability;
mod error;
mod fault;
mod file_cache;
mod file_system;
mod folder;
mod fsutil;
mod index;
mod leader_epochs;
mod log;
mod lookup;
mod meta_properties;
mod partition_directories;
mod partition_metadata;
mod preallocation;
mod producer_snapshot;
mod producer_state;
mod read;
mod recovery;
mod reload;
mod replay;
mod retention;
pub mod seeded_bug;
mod segment;
mod transaction_index;
mod transactions;
mod truncate;
mod verification;

pub use append::{AppendOrigin, Appended, AppendedBatch};
pub use checkpoint::{CheckpointError, OffsetCheckpoint, Offsets};
pub use compaction::{CleanError, Cleaned, Cleaner, CleaningPlan, DecodeRecords, LogAccess};
pub use config::{CleanupPolicy, LogConfig};
pub use data_dir::{DataDir, DataDirError};
pub use durability::SyncTarget;
pub use error::{AppendError, LogError, ReadError};
pub use fault::{LogFault, faults_noted};
pub use file_system::FileSystem;
pub use leader_epochs::EpochEntry;
pub use log::{Log, LogReader};
pub use lookup::{Decode, TimestampedOffset};
pub use meta_properties::MetaProperties;
pub use millstream_record::TimestampType;
pub use partition_directories::{Directories, PartitionDirectories, PartitionDirectory};
pub use producer_state::ProducerState;
pub use read::LogSlice;
pub use recovery::OpenOptions;
pub use replay::ReplayError;
pub use transaction_index::AbortedTransaction;
pub use transactions::TransactionEnd;
pub use verification::{Verification, VerificationGuard};
