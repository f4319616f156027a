//! Memory for requests and responses in flight, over all connections.
//!
//! A share of a request grows with the bytes that arrive, so a client that only announces a large request takes nothing
//! from the others. A response takes its share before it is built, if it is known to be large. The share of a message
//! is released with its bytes: when a request is done, and when the last byte of a response has left.
//!
//! When all memory is taken, shares wait, and one at a time may exceed the limit: its message is completed, and
//! releases its memory. Otherwise messages that do not fit together would wait for each other for ever, each half
//! received.
//!
//! Small messages are not counted. A connection has few of them at a time, and they touch nothing that connections
//! share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most bytes of a message that is not counted.
pub(crate) const UNCOUNTED_MAX: usize = 16 << 10;

/// The unit in which memory is counted, so that the counts fit the semaphore.
const UNIT: usize = 1 << 10;

/// `queued.max.request.bytes`.
#[derive(Debug)]
pub(crate) struct MessageMemory {
    units: Arc<Semaphore>,
    /// The units of the whole memory.
    total: usize,
    overdraft: Arc<Semaphore>,
    /// The number of shares that wait.
    waiting: AtomicUsize,
}

/// The share of one message, which is released when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    units: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl MessageMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let (units, overdraft) = (Arc::new(Semaphore::new(total)), Arc::new(Semaphore::new(1)));
        Self { units, total, overdraft, waiting: AtomicUsize::new(0) }
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
        if self.try_grow(share, bytes) {
            return;
        }
        let _waiting = Waiting::new(&self.waiting);
        tokio::select! {
            taken = Arc::clone(&self.units).acquire_many_owned(units(bytes)) => {
                share.add(taken.expect("the semaphore is never closed"));
            }
            turn = Arc::clone(&self.overdraft).acquire_owned() => {
                share.overdraft = Some(turn.expect("the semaphore is never closed"));
            }
        }
    }

    /// Makes a share cover `bytes`, once they are free or it may exceed the limit.
    pub(crate) async fn cover(&self, share: &mut Share, bytes: usize) {
        if let Some(missing) = share.missing(bytes) {
            self.grow(share, missing).await;
        }
    }

    /// Makes a share cover `bytes` at once, if they are free.
    pub(crate) fn try_cover(&self, share: &mut Share, bytes: usize) -> bool {
        share.missing(bytes).is_none_or(|missing| self.try_grow(share, missing))
    }

    /// Makes a share cover `bytes` that are only kept for later, if half of the memory stays free for messages.
    pub(crate) fn try_keep(&self, share: &mut Share, bytes: usize) -> bool {
        let Some(missing) = share.missing(bytes) else { return true };
        self.units.available_permits() >= self.total / 2 + missing / UNIT && self.try_grow(share, missing)
    }

    /// Returns whether shares wait.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Share {
    fn add(&mut self, taken: OwnedSemaphorePermit) {
        match &mut self.units {
            Some(units) => units.merge(taken),
            None => self.units = Some(taken),
        }
    }

    /// Returns whether it has any memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_none() && self.overdraft.is_none()
    }

    /// Returns the bytes that it has, without those beyond the limit.
    pub(crate) fn bytes(&self) -> usize {
        self.units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT
    }

    /// Returns the bytes that it lacks to cover `bytes`, if any.
    fn missing(&self, bytes: usize) -> Option<usize> {
        bytes.checked_sub(self.bytes()).filter(|&missing| missing > 0 && self.overdraft.is_none())
    }

    /// Releases what it has beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let kept = bytes.div_ceil(UNIT);
        let Some(units) = &mut self.units else {
            self.overdraft.take_if(|_| kept == 0);
            return;
        };
        let Some(surplus) = units.num_permits().checked_sub(kept) else { return };
        drop(units.split(surplus));
        self.overdraft = None;
        self.units.take_if(|_| kept == 0);
    }
}

/// One share that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        let memory = Arc::new(MessageMemory::new(10 * UNIT));
        let (mut first, mut second, mut third) = (Share::default(), Share::default(), Share::default());
        assert!(memory.try_grow(&mut first, 6 * UNIT) && memory.try_grow(&mut second, 4 * UNIT));
        assert!(!memory.try_grow(&mut first, UNIT));
        memory.grow(&mut first, UNIT).await;
        assert!(memory.try_grow(&mut first, 100 * UNIT), "it may still exceed the limit");
        assert!(!memory.is_wanted());
        let waiting = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move {
                memory.grow(&mut third, UNIT).await;
                third
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && memory.is_wanted());
        drop(first);
        drop(waiting.await.expect("no panic"));
        drop(second);
        assert_eq!((memory.units.available_permits(), memory.overdraft.available_permits()), (10, 1));
        assert!(!memory.is_wanted());
    }

    #[tokio::test]
    async fn a_share_covers_and_releases_what_is_asked() {
        let memory = MessageMemory::new(10 * UNIT);
        let mut share = Share::default();
        memory.cover(&mut share, 3 * UNIT - 1).await;
        memory.cover(&mut share, 2 * UNIT).await;
        assert_eq!((share.bytes(), memory.units.available_permits()), (3 * UNIT, 7));
        assert!(memory.try_cover(&mut share, 8 * UNIT) && !memory.try_cover(&mut share, 11 * UNIT));
        share.shrink(9 * UNIT);
        assert_eq!(share.bytes(), 8 * UNIT);
        share.shrink(UNIT + 1);
        assert_eq!((share.bytes(), memory.units.available_permits()), (2 * UNIT, 8));
        memory.cover(&mut share, 20 * UNIT).await;
        assert!(share.overdraft.is_some());
        share.shrink(2 * UNIT);
        assert!(share.overdraft.is_none() && share.bytes() == 2 * UNIT);
        share.shrink(0);
        assert!(share.is_empty() && memory.units.available_permits() == 10);
    }

    #[test]
    fn what_is_kept_leaves_half_to_messages() {
        let memory = MessageMemory::new(10 * UNIT);
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(memory.try_keep(&mut first, 4 * UNIT) && !memory.try_keep(&mut second, 2 * UNIT));
        assert!(memory.try_keep(&mut second, UNIT) && memory.try_keep(&mut first, 4 * UNIT));
        assert!(memory.try_grow(&mut second, 5 * UNIT));
    }
}
