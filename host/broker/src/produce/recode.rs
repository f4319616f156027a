//! Recoding of batches: the same header around another payload.

use millstream_record::{BatchView, Codec, HEADER_LEN, LOG_OVERHEAD, codec, patch};
use millstream_wire::ErrorCode;

use crate::config::TopicConfig;
use crate::error::ApiError;

/// The positions of a batch's length and attributes.
const LENGTH: std::ops::Range<usize> = 8..12;
const ATTRIBUTES: std::ops::Range<usize> = 21..23;

/// The bits of the attributes with the codec.
const CODEC_MASK: i16 = 0b111;

/// Returns the batch with another payload and codec. Only its length and CRC change in the header.
pub(crate) fn with_payload(batch: &BatchView<'_>, codec_id: i16, payload: &[u8]) -> Result<Vec<u8>, ApiError> {
    let too_large = || ApiError::new(ErrorCode::MESSAGE_TOO_LARGE, "the batch is too large in the topic's codec");
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&batch.bytes()[..HEADER_LEN]);
    bytes.extend_from_slice(payload);
    let length = i32::try_from(bytes.len() - LOG_OVERHEAD).map_err(|_| too_large())?;
    let attributes = batch.attributes() & !CODEC_MASK | codec_id;
    bytes[LENGTH].copy_from_slice(&length.to_be_bytes());
    bytes[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
    patch::refresh_crc(&mut bytes);
    Ok(bytes)
}

/// Returns the batch in another codec, from its uncompressed records.
pub(crate) fn recode(
    batch: &BatchView<'_>,
    payload: &[u8],
    to: Codec,
    config: &TopicConfig,
) -> Result<Vec<u8>, ApiError> {
    let payload = codec::compress(to, level(to, config), payload)
        .map_err(|error| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string()))?;
    with_payload(batch, to.id(), &payload)
}

/// Returns a topic's compression level for a codec.
pub(crate) fn level(codec: Codec, config: &TopicConfig) -> Option<i32> {
    match codec {
        Codec::Gzip => config.gzip_level,
        Codec::Zstd => Some(config.zstd_level),
        Codec::None | Codec::Snappy | Codec::Lz4 => None,
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, TimestampType};

    use super::*;

    #[test]
    fn another_payload_changes_length_codec_and_crc_only() {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.producer(7, 1, i32::MAX - 1);
        for at in 0..4 {
            builder.append(1000 + at, Some(b"k"), Some(&[at as u8]), []).expect("a small record fits");
        }
        let sent = builder.build().expect("a small batch fits");
        let batch = BatchView::parse(&sent).expect("a batch");
        let config = TopicConfig::from_broker(&|_| None).expect("the defaults are valid");
        let recoded = recode(&batch, batch.payload(), Codec::Gzip, &config).expect("written");
        let recoded = BatchView::parse(&recoded).expect("a batch");
        recoded.verify_crc().expect("the CRC is right");
        assert_eq!((recoded.codec(), recoded.base_timestamp()), (Ok(Codec::Gzip), batch.base_timestamp()));
        assert_eq!(recoded.records(1 << 20).expect("records").payload(), batch.payload());
    }
}
