//! Kafka's producer snapshot, version 1: the state of all producers as of the offset in the file's name.
//!
//! ```text
//!  0 version i16 (1)   2 crc u32: CRC-32C of all that follows   6 count i32
//! 10 per producer, 46 bytes: producerId i64, epoch i16, lastSequence i32, lastOffset i64, offsetDelta i32,
//!    timestamp i64, coordinatorEpoch i32, currentTxnFirstOffset i64 (-1: none)
//! ```
//!
//! It holds the last batch of each producer; the other four of the window come back from the log.

use std::collections::HashMap;

use crc_fast::crc32_iscsi;

use crate::producer_state::{BatchMetadata, ProducerEntry, Producers};

/// Suffix of the file.
pub(crate) const SNAPSHOT_SUFFIX: &str = "snapshot";

const VERSION: i16 = 1;
const CRC_COVERS_FROM: usize = 6;
const HEADER_LEN: usize = 10;
const ENTRY_LEN: usize = 46;
/// Kafka's -1 for "none": sequences, offsets, timestamps.
const NONE: i64 = -1;

/// Encodes the state in Kafka's form, ordered by producer id so that equal states give equal files.
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + producers.by_id.len() * ENTRY_LEN);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend((producers.by_id.len() as i32).to_be_bytes());
    let mut entries: Vec<_> = producers.by_id.iter().collect();
    entries.sort_unstable_by_key(|(id, _)| **id);
    for (id, entry) in entries {
        let none =
            BatchMetadata { last_sequence: -1, last_offset: NONE, offset_delta: 0, timestamp: entry.last_timestamp };
        let last = entry.last_batch().unwrap_or(none);
        bytes.extend(id.to_be_bytes());
        bytes.extend(entry.epoch.to_be_bytes());
        bytes.extend(last.last_sequence.to_be_bytes());
        bytes.extend(last.last_offset.to_be_bytes());
        bytes.extend(last.offset_delta.to_be_bytes());
        bytes.extend(entry.last_timestamp.to_be_bytes());
        bytes.extend(entry.coordinator_epoch.to_be_bytes());
        bytes.extend(entry.transaction_start.unwrap_or(NONE).to_be_bytes());
    }
    let crc = crc32_iscsi(&bytes[CRC_COVERS_FROM..]);
    bytes[2..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Decodes a snapshot; `None` if it is cut or damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Producers> {
    let (header, entries) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *header;
    let count = usize::try_from(i32::from_be_bytes([n0, n1, n2, n3])).ok()?;
    if i16::from_be_bytes([v0, v1]) != VERSION
        || u32::from_be_bytes([c0, c1, c2, c3]) != crc32_iscsi(&bytes[CRC_COVERS_FROM..])
        || count.checked_mul(ENTRY_LEN) != Some(entries.len())
    {
        return None;
    }
    let mut by_id = HashMap::with_capacity(count);
    for entry in entries.chunks_exact(ENTRY_LEN) {
        let mut fields = FieldReader(entry);
        let id = i64::from_be_bytes(fields.take()?);
        let epoch = i16::from_be_bytes(fields.take()?);
        let last = BatchMetadata {
            last_sequence: i32::from_be_bytes(fields.take()?),
            last_offset: i64::from_be_bytes(fields.take()?),
            offset_delta: i32::from_be_bytes(fields.take()?),
            timestamp: i64::from_be_bytes(fields.take()?),
        };
        let mut producer = ProducerEntry::of_snapshot(epoch, Some(last).filter(|last| last.last_offset >= 0));
        producer.last_timestamp = last.timestamp;
        producer.coordinator_epoch = i32::from_be_bytes(fields.take()?);
        let start = i64::from_be_bytes(fields.take()?);
        producer.transaction_start = (start >= 0).then_some(start);
        by_id.insert(id, producer);
    }
    Some(Producers::of(by_id))
}

struct FieldReader<'a>(&'a [u8]);

impl FieldReader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot by Apache Kafka 4.2: producer 0 after 9,977 records, its last batch of 78.
    const OF_KAFKA: [u8; 56] = [
        0x00, 0x01, 0x3f, 0xe3, 0xbe, 0x59, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x26, 0xf8, 0, 0, 0, 0, 0,
        0, 0x26, 0xf8, 0, 0, 0, 0x4d, 0, 0, 0x01, 0xa2, 0x03, 0xd2, 0x38, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];

    #[test]
    fn kafkas_own_file_is_read_and_written_again_the_same() {
        let producers = decode(&OF_KAFKA).unwrap();
        let last = producers.by_id[&0].last_batch().unwrap();
        assert_eq!((last.last_sequence, last.last_offset, last.offset_delta), (9976, 9976, 77));
        assert_eq!(encode(&producers), OF_KAFKA);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for at in 0..OF_KAFKA.len() {
            for bit in 0..8 {
                let mut damaged = OF_KAFKA;
                damaged[at] ^= 1 << bit;
                assert!(decode(&damaged).is_none(), "byte {at} bit {bit}");
            }
            assert!(decode(&OF_KAFKA[..at]).is_none());
        }
    }
}
