//! Memory for large requests in flight, over all connections: taken before a frame is read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain in which memory is counted, so that the counts fit the semaphore.
const UNIT: usize = 1 << 10;

/// `queued.max.request.bytes`.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    units: Arc<Semaphore>,
    most: usize,
}

impl RequestMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        let most = bytes.div_ceil(UNIT).clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Self { units: Arc::new(Semaphore::new(most)), most }
    }

    /// Waits until `bytes` are free; they are given back when the permit is dropped.
    pub(crate) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = bytes.div_ceil(UNIT).min(self.most) as u32;
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        permit.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_the_largest_always_fits() {
        let memory = RequestMemory::new(10 * UNIT);
        let most = memory.take(100 * UNIT).await;
        let waiting = tokio::spawn({
            let units = Arc::clone(&memory.units);
            async move { units.acquire_many_owned(1).await.is_ok() }
        });
        assert!(!waiting.is_finished());
        drop(most);
        assert!(waiting.await.expect("no panic"));
    }
}
