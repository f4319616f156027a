//! Record batches, sound and forged.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_record::{BatchBuilder, Codec, TimestampType, patch};

/// The position of a field in a batch's header.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum At {
    Length = 8,
    Magic = 16,
    Crc = 17,
    Attributes = 21,
    LastOffsetDelta = 23,
    Count = 57,
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a clock before the year 292 million")
}

/// Returns a builder with these values, all with the current time.
pub(crate) fn builder(codec: Codec, values: &[&str]) -> BatchBuilder {
    let now = now_ms();
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    for value in values {
        builder.append(now, None, Some(value.as_bytes()), []).expect("room for a record");
    }
    builder
}

/// Returns an uncompressed batch of these values.
pub(crate) fn batch(values: &[&str]) -> Vec<u8> {
    compressed(Codec::None, values)
}

/// Returns a batch of these values, compressed with a codec.
pub(crate) fn compressed(codec: Codec, values: &[&str]) -> Vec<u8> {
    builder(codec, values).build().expect("a batch")
}

/// Returns a batch with one record at each of these times.
pub(crate) fn batch_at(codec: Codec, times: &[i64]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    for time in times {
        builder.append(*time, None, Some(b"value"), []).expect("room for a record");
    }
    builder.build().expect("a batch")
}

/// Returns a batch of an idempotent producer.
pub(crate) fn producer_batch(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Vec<u8> {
    let mut builder = builder(Codec::None, values);
    builder.producer(id, epoch, sequence);
    builder.build().expect("a batch")
}

/// Overwrites a field of a batch and recomputes its CRC, so that only the field is wrong.
pub(crate) fn forge<const N: usize>(mut batch: Vec<u8>, at: At, field: [u8; N]) -> Vec<u8> {
    batch[at as usize..][..N].copy_from_slice(&field);
    if !matches!(at, At::Crc) {
        patch::refresh_crc(&mut batch);
    }
    batch
}
