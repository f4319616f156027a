//! Where the coordinator keeps what it must not forget: the partitions of `__consumer_offsets`, seen as a few calls.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, TimestampType};

use super::model::{GroupError, GroupSnapshot};
use super::offsets::CommittedOffset;
use super::records;

/// A future that the storage gives.
pub(crate) type Later<T> = Pin<Box<dyn Future<Output = Result<T, GroupError>> + Send>>;

/// Records that are in the log, but perhaps not on stable storage yet.
pub(crate) struct Appended {
    /// The offset of the first record.
    pub(crate) base_offset: i64,
    /// Ends when the records are as safe as `acks=all` promises.
    pub(crate) durable: Later<()>,
}

/// The partitions of `__consumer_offsets`.
pub(crate) trait Storage: Send + Sync + 'static {
    /// How many partitions the topic has; 0 if it does not exist.
    fn partitions(&self) -> i32;

    /// Creates the topic if it does not exist, and gives the number of its partitions.
    fn create(&self) -> Later<i32>;

    /// Appends one batch now: calls that follow one another give offsets that do. The coordinator calls this under the lock of
    /// a group, so it must not wait for anything but the page cache.
    ///
    /// # Errors
    /// [`GroupError::TooLargeToWrite`], [`GroupError::WriteFailed`]: nothing was appended.
    fn append(&self, partition: i32, batch: Bytes) -> Result<Appended, GroupError>;

    /// Reads whole batches from `offset` on, at least one and about `max_bytes`; from the start of the log if that is later.
    /// Empty at its end. May block for the disk.
    ///
    /// # Errors
    /// Says why the partition cannot be read.
    fn read(&self, partition: i32, offset: i64, max_bytes: usize) -> Result<Bytes, String>;
}

/// The partition that holds a group: Java's `hashCode` of its id, without the sign, over the partitions.
pub(crate) fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the one value that has no opposite counts as 0.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// Collects the records of one append.
pub(crate) struct Batch {
    builder: BatchBuilder,
    timestamp_ms: i64,
}

impl Batch {
    /// An empty batch whose records get this timestamp.
    pub(crate) fn at(timestamp_ms: i64) -> Self {
        Self { builder: BatchBuilder::new(Codec::None, TimestampType::CreateTime), timestamp_ms }
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), GroupError> {
        let pushed = self.builder.append(self.timestamp_ms, Some(key), value, []);
        pushed.map_err(|_| GroupError::TooLargeToWrite)
    }

    /// Adds a committed offset.
    pub(crate) fn offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        committed: &CommittedOffset,
    ) -> Result<(), GroupError> {
        let key = records::encode_offset_key(group, topic, partition).map_err(|_| GroupError::TooLargeToWrite)?;
        let value = records::encode_offset(committed).map_err(|_| GroupError::TooLargeToWrite)?;
        self.push(&key, Some(&value))
    }

    /// Adds the tombstone of a committed offset.
    pub(crate) fn offset_tombstone(&mut self, group: &str, topic: &str, partition: i32) -> Result<(), GroupError> {
        let key = records::encode_offset_key(group, topic, partition).map_err(|_| GroupError::TooLargeToWrite)?;
        self.push(&key, None)
    }

    /// Adds a group's metadata.
    pub(crate) fn group(&mut self, group: &str, snapshot: &GroupSnapshot) -> Result<(), GroupError> {
        let key = records::encode_group_key(group).map_err(|_| GroupError::TooLargeToWrite)?;
        let value = records::encode_group(snapshot).map_err(|_| GroupError::TooLargeToWrite)?;
        self.push(&key, Some(&value))
    }

    /// Adds the tombstone of a group.
    pub(crate) fn group_tombstone(&mut self, group: &str) -> Result<(), GroupError> {
        let key = records::encode_group_key(group).map_err(|_| GroupError::TooLargeToWrite)?;
        self.push(&key, None)
    }

    /// The bytes to append.
    pub(crate) fn build(self) -> Result<Bytes, GroupError> {
        self.builder.build().map(Bytes::from).map_err(|_| GroupError::TooLargeToWrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_kafka_looks_for_them() {
        // Java's "...".hashCode().
        let hashes =
            [("", 0), ("a", 97), ("test", 3_556_498), ("console-consumer-1", 35_782_224), ("earthquakes", -1417000122)];
        for (group, hash) in hashes {
            assert_eq!(partition_of(group, 50), i32::abs(hash) % 50, "{group}");
        }
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // One unit of UTF-16 after the other, not one character.
        assert_eq!(partition_of("\u{1F600}", 1_000_000), (0xD83D * 31 + 0xDE00) % 1_000_000);
    }
}
