//! Batches written anew by the leader: the same header around another payload, and the same offsets around fewer records.

use millstream_record::{BatchView, Codec, HEADER_LEN, LOG_OVERHEAD, Records, codec, patch, retain};
use millstream_wire::ErrorCode;

use crate::config::TopicConfig;
use crate::error::ApiError;

/// Where a batch's length and attributes stand.
const LENGTH: std::ops::Range<usize> = 8..12;
const ATTRIBUTES: std::ops::Range<usize> = 21..23;

/// The bits of the attributes that name the codec.
const CODEC_MASK: i16 = 0b111;

/// The batch with another payload under another codec, everything else of its header as it was but for length and CRC.
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

/// The batch in another codec, from its records uncompressed.
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

/// The batch with the records alone that `keeps` names by their places. A batch of which nothing is left is still there for
/// its offsets and sequences.
pub(crate) fn thin(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    keeps: impl Fn(usize) -> bool,
    codec: Codec,
    config: &TopicConfig,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = retain(batch, records, codec, level(codec, config), |place, _| keeps(place))?;
    if BatchView::parse(&bytes)?.count() == 0 {
        // As compaction leaves it. The state of its producer is kept for as long as this time is young.
        patch::set_max_timestamp(&mut bytes, batch.max_timestamp());
    }
    Ok(bytes)
}

fn level(codec: Codec, config: &TopicConfig) -> Option<i32> {
    match codec {
        Codec::Gzip => config.gzip_level,
        Codec::Zstd => Some(config.zstd_level),
        Codec::None | Codec::Snappy | Codec::Lz4 => None,
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, TimestampType, batches};

    use super::*;

    fn config() -> TopicConfig {
        TopicConfig::from_broker(&|_| None).expect("the defaults are good")
    }

    fn sent(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        builder.producer(7, 1, i32::MAX - 1);
        for at in 0..4 {
            builder.append(1000 + at, Some(b"k"), Some(&[at as u8]), []).expect("appended");
        }
        builder.build().expect("built")
    }

    #[test]
    fn what_is_dropped_leaves_gaps_and_all_else_stays() {
        for codec in Codec::ALL {
            let sent = sent(codec);
            let batch = BatchView::parse(&sent).expect("a batch");
            let records = batch.records(1 << 20).expect("records");
            let thinned = thin(&batch, &records, |row| row == 1 || row == 2, codec, &config()).expect("written");
            let thinned = BatchView::parse(&thinned).expect("a batch");
            thinned.verify_crc().expect("the CRC is right");
            assert_eq!((thinned.codec(), thinned.count(), thinned.last_offset_delta()), (Ok(codec), 2, 3));
            assert_eq!((thinned.producer_id(), thinned.producer_epoch()), (7, 1));
            assert_eq!((thinned.base_sequence(), thinned.last_sequence()), (i32::MAX - 1, 1));
            let kept = thinned.records(1 << 20).expect("records");
            let kept: Vec<_> =
                kept.iter().map(|row| row.map(|row| (row.offset, row.timestamp)).expect("kept")).collect();
            assert_eq!(kept, [(1, 1001), (2, 1002)]);
        }
    }

    #[test]
    fn a_batch_without_records_keeps_its_offsets_sequences_and_time() {
        let sent = sent(Codec::Zstd);
        let batch = BatchView::parse(&sent).expect("a batch");
        let records = batch.records(1 << 20).expect("records");
        let empty = thin(&batch, &records, |_| false, Codec::Zstd, &config()).expect("written");
        let all = batches(&empty).collect::<Result<Vec<_>, _>>().expect("one batch");
        let [empty] = all[..] else { panic!("{} batches", all.len()) };
        empty.verify_crc().expect("the CRC is right");
        assert_eq!((empty.count(), empty.last_offset_delta(), empty.size()), (0, 3, HEADER_LEN));
        assert_eq!((empty.last_sequence(), empty.max_timestamp()), (1, 1003));
        assert_eq!(empty.records(0).expect("none").iter().count(), 0);
    }

    #[test]
    fn another_payload_changes_length_codec_and_crc_only() {
        let sent = sent(Codec::None);
        let batch = BatchView::parse(&sent).expect("a batch");
        let recoded = recode(&batch, batch.payload(), Codec::Gzip, &config()).expect("written");
        let recoded = BatchView::parse(&recoded).expect("a batch");
        recoded.verify_crc().expect("the CRC is right");
        assert_eq!((recoded.codec(), recoded.base_timestamp()), (Ok(Codec::Gzip), batch.base_timestamp()));
        assert_eq!(recoded.records(1 << 20).expect("records").payload(), batch.payload());
    }
}
