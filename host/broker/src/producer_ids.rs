//! Ids for idempotent producers. They are unique over all restarts, and allocated in blocks so that few of them cost a
//! write.

use std::ops::Range;

use parking_lot::Mutex;

use crate::error::ApiError;

/// The current block of ids.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    left: Mutex<Range<i64>>,
    /// Held while the next block is allocated, so that concurrent requests share one.
    allocating: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    /// Returns a new producer id. Calls `allocate` for the next block when none is left.
    ///
    /// # Errors
    /// No block could be allocated.
    pub(crate) async fn next<F>(&self, allocate: impl Fn() -> F) -> Result<i64, ApiError>
    where
        F: Future<Output = Result<Range<i64>, ApiError>>,
    {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let _allocating = self.allocating.lock().await;
            if let Some(id) = self.take() {
                // Another request has allocated a block meanwhile.
                return Ok(id);
            }
            *self.left.lock() = allocate().await?;
        }
    }

    fn take(&self) -> Option<i64> {
        self.left.lock().next()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn ids_are_taken_from_blocks() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (ids, blocks) = (ProducerIds::default(), Cell::new(0));
        let allocate = || {
            let block = blocks.replace(blocks.get() + 1);
            std::future::ready(Ok(block * 3..block * 3 + 3))
        };
        let taken: Vec<_> = (0..7).map(|_| runtime.block_on(ids.next(allocate)).expect("an id")).collect();
        assert_eq!((taken, blocks.get()), ((0..7).collect(), 3));
        let failed = || std::future::ready(Err(ApiError::unknown_topic()));
        assert!(runtime.block_on(ids.next(failed)).is_ok() && runtime.block_on(ids.next(failed)).is_ok());
        assert!(runtime.block_on(ids.next(failed)).is_err());
    }
}
