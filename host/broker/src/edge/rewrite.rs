//! Batches that the edge rewrites: the same header and offsets around fewer records.

use millstream_record::{BatchView, Codec, Records, patch, retain};

use crate::config::TopicConfig;
use crate::error::ApiError;
use crate::produce::recode::level;

/// Returns the batch with only the records whose indexes `keeps` has. A batch without any records still has its offsets
/// and sequences.
pub(crate) fn thin(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    keeps: impl Fn(usize) -> bool,
    codec: Codec,
    config: &TopicConfig,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = retain(batch, records, codec, level(codec, config), |place, _| keeps(place))?;
    if BatchView::parse(&bytes)?.count() == 0 {
        // Compaction leaves such batches too. This timestamp decides how long the state of the producer is kept.
        patch::set_max_timestamp(&mut bytes, batch.max_timestamp());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, HEADER_LEN, TimestampType, batches};

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
    fn dropped_records_leave_gaps_and_the_others_stay_unchanged() {
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
}
