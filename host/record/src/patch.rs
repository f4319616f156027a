//! Changes a batch in place, as a leader does on append.
//!
//! Every function takes the bytes of one batch, from its start. The caller must have parsed it
//! ([`crate::BatchView::parse`]): the functions panic on fewer than [`HEADER_LEN`] bytes.

use crate::crc::crc32c;
use crate::layout::*;

/// Sets the base offset. The CRC does not cover it.
#[inline]
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    put(batch, BASE_OFFSET, base_offset.to_be_bytes());
}

/// Sets the partition leader epoch. The CRC does not cover it.
#[inline]
pub fn set_leader_epoch(batch: &mut [u8], leader_epoch: i32) {
    put(batch, LEADER_EPOCH, leader_epoch.to_be_bytes());
}

/// Sets the broker's time: timestamp type `LogAppendTime`, max timestamp `now_ms`, and a new CRC. The slice must end
/// where the batch does.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES], batch[ATTRIBUTES + 1]]);
    put(batch, ATTRIBUTES, (attributes | TIMESTAMP_TYPE_BIT).to_be_bytes());
    set_max_timestamp(batch, now_ms);
}

/// Works like [`set_log_append_time`] for a batch in two pieces: a copy of its header, which is changed, and its
/// payload.
pub fn set_log_append_time_in_header(header: &mut [u8; HEADER_LEN], payload: &[u8], now_ms: i64) {
    let attributes = i16::from_be_bytes([header[ATTRIBUTES], header[ATTRIBUTES + 1]]);
    put(header, ATTRIBUTES, (attributes | TIMESTAMP_TYPE_BIT).to_be_bytes());
    put(header, MAX_TIMESTAMP, now_ms.to_be_bytes());
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&header[ATTRIBUTES..]);
    digest.update(payload);
    put(header, CRC, (digest.finalize() as u32).to_be_bytes());
}

/// Sets the max timestamp and a new CRC. The slice must end where the batch does.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp: i64) {
    put(batch, MAX_TIMESTAMP, max_timestamp.to_be_bytes());
    refresh_crc(batch);
}

/// Sets the idempotent producer's id, epoch and sequence of the first record, and a new CRC. It is for a producer that
/// restarts with a raised epoch. The slice must end where the batch does.
pub fn set_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) {
    put(batch, PRODUCER_ID, id.to_be_bytes());
    put(batch, PRODUCER_EPOCH, epoch.to_be_bytes());
    put(batch, BASE_SEQUENCE, base_sequence.to_be_bytes());
    refresh_crc(batch);
}

/// Sets the batch's last offset, which may not be below that of its last record, and a new CRC. The slice must end
/// where the batch does.
pub fn set_last_offset(batch: &mut [u8], last_offset: i64) {
    let base_offset = i64::from_be_bytes(batch[BASE_OFFSET..BASE_OFFSET + 8].try_into().expect("eight bytes"));
    let delta = i32::try_from(last_offset - base_offset).expect("an offset of the batch");
    put(batch, LAST_OFFSET_DELTA, delta.to_be_bytes());
    refresh_crc(batch);
}

/// Recomputes the CRC. The slice must end where the batch does.
pub fn refresh_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[ATTRIBUTES..]);
    put(batch, CRC, crc.to_be_bytes());
}

#[inline]
pub(crate) fn put<const N: usize>(batch: &mut [u8], at: usize, field: [u8; N]) {
    batch[at..at + N].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, BatchView, Codec, TimestampType};

    #[test]
    fn a_producer_is_set_anew_and_the_crc_holds() {
        let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::CreateTime);
        builder.append(7, Some(b"k"), Some(b"v"), []).unwrap();
        builder.producer(9, 0, 41);
        let mut batch = builder.build().unwrap();
        set_producer(&mut batch, 9, 1, 0);
        let view = BatchView::parse(&batch).unwrap();
        view.verify_crc().unwrap();
        assert_eq!((view.producer_id(), view.producer_epoch(), view.base_sequence()), (9, 1, 0));
        // The payload is unchanged.
        let payload = crate::codec::decompress(Codec::Zstd, view.payload(), 100).unwrap();
        let records = view.records_in(&payload);
        let record = records.iter().next().unwrap().unwrap();
        assert_eq!((record.key, record.value, record.timestamp), (Some(&b"k"[..]), Some(&b"v"[..]), 7));
    }
}
