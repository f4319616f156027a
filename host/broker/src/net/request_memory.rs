//! Memory for large requests in flight, over all connections.
//!
//! A share grows with the bytes that arrive, so a client that only announces a large request takes nothing from the
//! others. When all memory is taken, shares wait, and one at a time may exceed the limit: its request is completed,
//! processed, and releases its memory. Otherwise requests that do not fit together would wait for each other for ever,
//! each half received.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted, so that the counts fit the semaphore.
const UNIT: usize = 1 << 10;

/// `queued.max.request.bytes`.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    units: Arc<Semaphore>,
    overdraft: Arc<Semaphore>,
}

/// One request's share of the memory, which is released when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    units: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl RequestMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), overdraft: Arc::new(Semaphore::new(1)) }
    }

    /// Adds `bytes` to a share at once, if they are free or the share may already exceed the limit.
    pub(crate) fn try_grow(&self, share: &mut Share, bytes: usize) -> bool {
        if share.overdraft.is_some() {
            return true;
        }
        let taken = Arc::clone(&self.units).try_acquire_many_owned(units(bytes));
        taken.map(|taken| share.add(taken)).is_ok()
    }

    /// Adds `bytes` to a share, once they are free or the share may exceed the limit.
    pub(crate) async fn grow(&self, share: &mut Share, bytes: usize) {
        tokio::select! {
            taken = Arc::clone(&self.units).acquire_many_owned(units(bytes)) => {
                share.add(taken.expect("the semaphore is never closed"));
            }
            turn = Arc::clone(&self.overdraft).acquire_owned() => {
                share.overdraft = Some(turn.expect("the semaphore is never closed"));
            }
        }
    }
}

impl Share {
    fn add(&mut self, taken: OwnedSemaphorePermit) {
        match &mut self.units {
            Some(units) => units.merge(taken),
            None => self.units = Some(taken),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn when_all_is_taken_one_share_exceeds_the_limit_and_the_next_waits() {
        let memory = Arc::new(RequestMemory::new(10 * UNIT));
        let (mut first, mut second, mut third) = (Share::default(), Share::default(), Share::default());
        assert!(memory.try_grow(&mut first, 6 * UNIT) && memory.try_grow(&mut second, 4 * UNIT));
        assert!(!memory.try_grow(&mut first, UNIT));
        memory.grow(&mut first, UNIT).await;
        assert!(memory.try_grow(&mut first, 100 * UNIT), "it may still exceed the limit");
        let waiting = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move {
                memory.grow(&mut third, UNIT).await;
                third
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.expect("no panic"));
        drop(second);
        assert_eq!((memory.units.available_permits(), memory.overdraft.available_permits()), (10, 1));
    }
}
