//! A batch that has passed its checks.

use std::ops::Deref;

use crate::error::{BatchError, RecordFault};
use crate::view::BatchView;

/// Exactly one whole record batch that may be appended. The type proves the checks, so that a log need not repeat them.
///
/// [`validate_produce`](crate::validate::validate_produce) returns it for a client's batch. [`CheckedBatch::of_own`]
/// takes a batch that this process has built or rewritten. There is no other way to get one.
#[derive(Clone, Copy, Debug)]
pub struct CheckedBatch<'a> {
    batch: BatchView<'a>,
}

impl<'a> CheckedBatch<'a> {
    pub(crate) fn new(batch: BatchView<'a>) -> Self {
        Self { batch }
    }

    /// Takes a batch that this process has built or rewritten. Checks only that it is one whole batch. The builder has
    /// just computed the CRC, and a rewritten batch may have fewer records than offsets.
    ///
    /// # Errors
    /// The bytes are not exactly one batch.
    pub fn of_own(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let batch = BatchView::parse(bytes)?;
        match bytes.len() - batch.size() {
            0 => Ok(Self { batch }),
            trailing => Err(BatchError::batch(RecordFault::MoreThanOneBatch { trailing })),
        }
    }

    /// Returns the batch without the proof, for functions that take any batch.
    #[inline]
    pub fn view(&self) -> BatchView<'a> {
        self.batch
    }
}

impl<'a> Deref for CheckedBatch<'a> {
    type Target = BatchView<'a>;

    #[inline]
    fn deref(&self) -> &BatchView<'a> {
        &self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Codec, TimestampType};

    #[test]
    fn own_batches_are_one_whole_batch_each() {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.append(7, None, Some(b"v"), []).unwrap();
        let bytes = builder.build().unwrap();
        assert_eq!(CheckedBatch::of_own(&bytes).unwrap().bytes(), bytes);
        let two = [&bytes[..], &bytes[..1]].concat();
        let error = CheckedBatch::of_own(&two).unwrap_err();
        assert_eq!(error, BatchError::batch(RecordFault::MoreThanOneBatch { trailing: 1 }));
        assert!(matches!(CheckedBatch::of_own(&bytes[..bytes.len() - 1]), Err(BatchError::Truncated { .. })));
    }
}
