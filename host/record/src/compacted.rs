//! Rewrites batches as compaction does, in the way of Kafka (KIP-98, KIP-534).

use crate::codec::{self, Codec};
use crate::error::BatchError;
use crate::layout::*;
use crate::patch::{put, refresh_crc};
use crate::records::{Record, Records};
use crate::retain::retain;
use crate::varint;
use crate::view::{BatchView, TimestampType};

/// Returns a copy of the batch with only the records for which `keep(place, record)` is true, compressed with `codec`.
/// Base offset, last offset, producer and sequence stay those of the batch.
///
/// `horizon` sets the time from which on the batch's tombstones may be dropped, in milliseconds since 1970. It takes
/// the place of the base timestamp, so every record gets a new timestamp delta. `None` leaves the batch's horizon.
///
/// `records` are those of `batch`. At least one of them should be kept: see [`emptied`].
///
/// # Errors
/// A record is malformed, or the kept records cannot be compressed.
pub fn compacted(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    codec: Codec,
    horizon: Option<i64>,
    mut keep: impl FnMut(usize, &Record<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let Some(horizon) = horizon else {
        return retain(batch, records, codec, None, keep);
    };
    let mut plain = Vec::with_capacity(records.payload().len() + 64);
    let (mut place, mut count, mut newest) = (0, 0, NO_TIMESTAMP);
    let mut iter = records.iter();
    loop {
        let before = iter.rest();
        let Some(record) = iter.next() else { break };
        let record = record?;
        if keep(place, &record) {
            let stored = &before[..before.len() - iter.rest().len()];
            push_with_delta(&mut plain, stored, record.timestamp.wrapping_sub(horizon));
            newest = if count == 0 { record.timestamp } else { newest.max(record.timestamp) };
            count += 1;
        }
        place += 1;
    }
    let mut out = Vec::with_capacity(HEADER_LEN + plain.len());
    out.extend_from_slice(&batch.bytes()[..HEADER_LEN]);
    codec::compress_into(codec, None, &plain, &mut out)?;
    let max = i32::MAX as usize;
    let length = i32::try_from(out.len() - LOG_OVERHEAD).map_err(|_| BatchError::TooLarge { size: out.len(), max })?;
    let attributes = batch.attributes() & !CODEC_MASK | codec.id() | DELETE_HORIZON_BIT;
    put(&mut out, BATCH_LENGTH, length.to_be_bytes());
    put(&mut out, ATTRIBUTES, attributes.to_be_bytes());
    put(&mut out, BASE_TIMESTAMP, horizon.to_be_bytes());
    put(&mut out, COUNT, i32::to_be_bytes(count));
    if batch.timestamp_type() == TimestampType::CreateTime {
        put(&mut out, MAX_TIMESTAMP, newest.to_be_bytes());
    }
    refresh_crc(&mut out);
    Ok(out)
}

/// Returns the header of a batch that has lost all of its records. It keeps the batch's offsets, and the epoch and the
/// last sequence of its producer.
pub fn emptied(batch: &BatchView<'_>) -> [u8; HEADER_LEN] {
    let mut out = *batch.header().as_bytes();
    let attributes = batch.attributes() & (TIMESTAMP_TYPE_BIT | TRANSACTIONAL_BIT | CONTROL_BIT);
    put(&mut out, BATCH_LENGTH, BATCH_LENGTH_MIN.to_be_bytes());
    put(&mut out, ATTRIBUTES, attributes.to_be_bytes());
    put(&mut out, BASE_TIMESTAMP, NO_TIMESTAMP.to_be_bytes());
    put(&mut out, COUNT, 0i32.to_be_bytes());
    refresh_crc(&mut out);
    out
}

/// Appends a record as it is stored, with another timestamp delta.
fn push_with_delta(out: &mut Vec<u8>, stored: &[u8], delta: i64) {
    // The record was read before, so neither of them fails.
    let mut rest = stored;
    let _ = varint::read_i32(&mut rest);
    let Some((attributes, mut rest)) = rest.split_first() else { return };
    let _ = varint::read_i64(&mut rest);
    varint::write_i32(out, (1 + varint::size_i64(delta) + rest.len()) as i32);
    out.push(*attributes);
    varint::write_i64(out, delta);
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;

    const HORIZON: i64 = 1_700_000_100_000;

    fn batch(codec: Codec, kind: TimestampType) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec, kind);
        builder.base_offset(40).leader_epoch(3).producer(9, 2, 100).transactional(true);
        for at in 0..5i64 {
            let value = (at % 2 == 0).then_some(&b"value"[..]);
            builder.append(1_700_000_000_000 + at, Some(&[at as u8]), value, []).unwrap();
        }
        builder.build().unwrap()
    }

    fn content(bytes: &[u8]) -> Vec<(i64, i64, Vec<u8>, bool)> {
        let view = BatchView::parse(bytes).unwrap();
        view.verify_crc().unwrap();
        let records = view.records(1 << 20).unwrap();
        let content = records.iter().map(Result::unwrap);
        content.map(|r| (r.offset, r.timestamp, r.key.unwrap().to_vec(), r.value.is_some())).collect()
    }

    #[test]
    fn a_horizon_leaves_offsets_and_timestamps() {
        for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
            for kind in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                let bytes = batch(codec, kind);
                let view = BatchView::parse(&bytes).unwrap();
                let records = view.records(1 << 20).unwrap();
                let kept = compacted(&view, &records, codec, Some(HORIZON), |_, r| r.offset != 42 && r.offset != 44);
                let kept = kept.unwrap();
                let mut expected = content(&bytes);
                expected.retain(|record| record.0 != 42 && record.0 != 44);
                assert_eq!(content(&kept), expected);
                let after = BatchView::parse(&kept).unwrap();
                assert_eq!(after.delete_horizon_ms(), Some(HORIZON));
                assert_eq!((after.base_offset(), after.last_offset(), after.count()), (40, 44, 3));
                assert_eq!((after.producer_id(), after.producer_epoch(), after.last_sequence()), (9, 2, 104));
                assert_eq!((after.leader_epoch(), after.is_transactional()), (3, true));
                assert_eq!(after.codec(), Ok(codec));
                // A later pass keeps the horizon, and need not touch the records.
                let records = after.records(1 << 20).unwrap();
                let again = compacted(&after, &records, codec, None, |_, r| r.value.is_some()).unwrap();
                let again = BatchView::parse(&again).unwrap();
                assert_eq!((again.delete_horizon_ms(), again.count()), (Some(HORIZON), 1));
                assert_eq!(content(again.bytes()), [expected[0].clone()]);
            }
        }
    }

    #[test]
    fn a_tombstone_grows_as_in_kafka() {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.append(1_700_000_000_000, Some(b"0123456789"), None, []).unwrap();
        let bytes = builder.build().unwrap();
        let view = BatchView::parse(&bytes).unwrap();
        let records = view.records(0).unwrap();
        let kept = compacted(&view, &records, Codec::None, Some(1_700_000_006_000), |_, _| true).unwrap();
        assert_eq!((bytes.len(), kept.len()), (78, 79));
        let kept = BatchView::parse(&kept).unwrap();
        assert_eq!((kept.attributes(), kept.max_timestamp()), (64, 1_700_000_000_000));
    }

    #[test]
    fn an_emptied_batch_keeps_what_its_producer_needs() {
        let bytes = batch(Codec::Zstd, TimestampType::CreateTime);
        let emptied = emptied(&BatchView::parse(&bytes).unwrap());
        let view = BatchView::parse(&emptied).unwrap();
        view.verify_crc().unwrap();
        assert_eq!((view.size(), view.count(), view.base_timestamp()), (61, 0, -1));
        assert_eq!((view.base_offset(), view.last_offset(), view.max_timestamp()), (40, 44, 1_700_000_000_004));
        assert_eq!((view.base_sequence(), view.last_sequence(), view.attributes()), (100, 104, 0x10));
        assert_eq!(view.records(0).unwrap().iter().count(), 0);
    }
}
