//! Removes records from a batch, as a filter or compaction does.

use crate::codec::{self, Codec};
use crate::error::BatchError;
use crate::layout::*;
use crate::patch::{put, refresh_crc};
use crate::records::{Record, Records};
use crate::view::{BatchView, TimestampType};

/// Returns a copy of the batch with only the records for which `keep(index, record)` is true. Their bytes are
/// unchanged. Base offset, last offset delta, base timestamp, producer and sequence stay those of the batch, so readers
/// move past the gaps. The records are compressed with `codec` at `level`. A batch that keeps none has no payload and
/// no codec.
///
/// `records` are those of `batch`.
///
/// # Errors
/// A record is malformed, or the kept records cannot be compressed.
pub fn retain(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    codec: Codec,
    level: Option<i32>,
    mut keep: impl FnMut(usize, &Record<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let mut plain = Vec::new();
    let (mut place, mut count, mut newest) = (0, 0, NO_TIMESTAMP);
    let mut iter = records.iter();
    loop {
        let before = iter.rest();
        let Some(record) = iter.next() else { break };
        let record = record?;
        if keep(place, &record) {
            plain.extend_from_slice(&before[..before.len() - iter.rest().len()]);
            newest = if count == 0 { record.timestamp } else { newest.max(record.timestamp) };
            count += 1;
        }
        place += 1;
    }
    let (codec, level) = if count == 0 { (Codec::None, None) } else { (codec, level) };
    let mut out = Vec::with_capacity(HEADER_LEN + plain.len());
    out.extend_from_slice(&batch.bytes()[..HEADER_LEN]);
    codec::compress_into(codec, level, &plain, &mut out)?;
    let max = i32::MAX as usize;
    let length = i32::try_from(out.len() - LOG_OVERHEAD).map_err(|_| BatchError::TooLarge { size: out.len(), max })?;
    put(&mut out, BATCH_LENGTH, length.to_be_bytes());
    put(&mut out, ATTRIBUTES, (batch.attributes() & !CODEC_MASK | codec.id()).to_be_bytes());
    put(&mut out, COUNT, i32::to_be_bytes(count));
    if batch.timestamp_type() == TimestampType::CreateTime {
        put(&mut out, MAX_TIMESTAMP, newest.to_be_bytes());
    }
    refresh_crc(&mut out);
    Ok(out)
}
