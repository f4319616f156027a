//! The record of a control batch that ends a transaction (KIP-98).

use crate::builder::BatchBuilder;
use crate::codec::Codec;
use crate::layout::NO_SEQUENCE;
use crate::view::{BatchView, TimestampType};

/// The version of key and value that is written. A later one may only append fields.
const VERSION: i16 = 0;

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// The end of a producer's transaction: commit or abort.
///
/// ```text
/// key    version i16 (0)   type i16: 0 abort, 1 commit
/// value  version i16 (0)   coordinator epoch i32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// Whether the transaction is committed, and not aborted.
    pub is_commit: bool,
    /// The leader epoch of the coordinator that ended it.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// Reads the marker of a batch; `None` if the batch is no control batch, ends no transaction, or is empty, as
    /// compaction leaves it. Records are not decompressed: a control batch has no codec.
    pub fn of(batch: &BatchView<'_>) -> Option<Self> {
        if !batch.is_control() || batch.codec() != Ok(Codec::None) {
            return None;
        }
        let records = batch.records(0).ok()?;
        let record = records.iter().next()?.ok()?;
        let key = record.key?.first_chunk::<4>()?;
        let value = record.value?.first_chunk::<6>()?;
        let [v0, v1, t0, t1] = *key;
        let is_commit = match i16::from_be_bytes([t0, t1]) {
            COMMIT => true,
            ABORT => false,
            _ => return None,
        };
        let [w0, w1, e0, e1, e2, e3] = *value;
        let known = i16::from_be_bytes([v0, v1]) >= VERSION && i16::from_be_bytes([w0, w1]) >= VERSION;
        known.then(|| Self { is_commit, coordinator_epoch: i32::from_be_bytes([e0, e1, e2, e3]) })
    }

    /// Writes the batch of the marker, with base offset 0.
    #[must_use]
    pub fn batch(self, producer_id: i64, producer_epoch: i16, timestamp: i64) -> Vec<u8> {
        let kind = if self.is_commit { COMMIT } else { ABORT };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let value = [&VERSION.to_be_bytes()[..], &self.coordinator_epoch.to_be_bytes()].concat();
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.producer(producer_id, producer_epoch, NO_SEQUENCE).transactional(true).control(true);
        // Neither fails: a marker has 78 bytes.
        let _ = batch.append(timestamp, Some(&key), Some(&value), []);
        batch.build().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for is_commit in [true, false] {
            let marker = EndMarker { is_commit, coordinator_epoch: 9 };
            let bytes = marker.batch(4242, 7, 1000);
            assert_eq!(bytes.len(), 78);
            let batch = BatchView::parse(&bytes).unwrap();
            batch.verify_crc().unwrap();
            assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (4242, 7, -1));
            assert_eq!(EndMarker::of(&batch), Some(marker));
        }
    }

    #[test]
    fn other_batches_are_no_markers() {
        let built = |control: bool, key: Option<&[u8]>, value: Option<&[u8]>| {
            let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
            batch.producer(1, 0, -1).transactional(true).control(control);
            batch.append(1, key, value, []).unwrap();
            batch.build().unwrap()
        };
        let (commit, epoch) = (&[0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 1][..]);
        let of = |bytes: Vec<u8>| EndMarker::of(&BatchView::parse(&bytes).unwrap());
        assert!(of(built(true, Some(commit), Some(epoch))).is_some());
        // A later version has more fields.
        assert!(of(built(true, Some(&[0, 1, 0, 1, 7]), Some(&[0, 1, 0, 0, 0, 1, 7]))).is_some());
        for (control, key, value) in [
            (false, Some(commit), Some(epoch)),
            (true, Some(&[0, 0, 0, 2][..]), Some(epoch)),
            (true, Some(&[0, 0, 0][..]), Some(epoch)),
            (true, Some(commit), Some(&[0, 0, 0, 0, 0][..])),
            (true, Some(&[255, 255, 0, 1][..]), Some(epoch)),
            (true, None, Some(epoch)),
            (true, Some(commit), None),
        ] {
            assert_eq!(of(built(control, key, value)), None, "{key:?} {value:?}");
        }
        let mut emptied = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        emptied.producer(1, 0, -1).transactional(true).control(true).last_offset_delta(0);
        assert_eq!(of(emptied.build().unwrap()), None);
    }
}
