//! `compression.type` other than `producer`: the batch is stored in the topic's codec, whatever the producer chose.

use millstream_record::{BatchView, Codec, Records, codec, patch};
use millstream_wire::ErrorCode;

use crate::config::TopicConfig;
use crate::error::ApiError;

/// Where a batch's attributes stand.
const ATTRIBUTES: std::ops::Range<usize> = 21..23;

/// The bits of the attributes that name the codec.
const CODEC_MASK: i16 = 0b111;

/// Where the length of a batch stands.
const LENGTH: std::ops::Range<usize> = 8..12;

/// Offset and length, which the length does not count.
const OVERHEAD: usize = 12;

/// The same records in another codec, with everything else of the header as it was.
pub(crate) fn recode(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    to: Codec,
    config: &TopicConfig,
) -> Result<Vec<u8>, ApiError> {
    let level = match to {
        Codec::Gzip => config.gzip_level,
        Codec::Zstd => Some(config.zstd_level),
        Codec::None | Codec::Snappy | Codec::Lz4 => None,
    };
    let failed = |error: codec::CodecError| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
    let payload = codec::compress(to, level, records.payload()).map_err(failed)?;
    let header = &batch.bytes()[..batch.bytes().len() - batch.payload().len()];
    let mut recoded = Vec::with_capacity(header.len() + payload.len());
    recoded.extend_from_slice(header);
    recoded.extend_from_slice(&payload);
    let too_large = |_| ApiError::new(ErrorCode::MESSAGE_TOO_LARGE, "the batch is too large in the topic's codec");
    let length = i32::try_from(recoded.len() - OVERHEAD).map_err(too_large)?;
    let attributes = batch.attributes() & !CODEC_MASK | to as i16;
    recoded[LENGTH].copy_from_slice(&length.to_be_bytes());
    recoded[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
    patch::refresh_crc(&mut recoded);
    Ok(recoded)
}
