//! Writes that wait until their log has reached an offset in some way: synced, or committed.

use tokio::sync::oneshot;

use crate::error::PartitionError;

type Outcome = Result<(), PartitionError>;

/// The end of one wait.
pub(crate) type Reported = oneshot::Receiver<Outcome>;

/// Returns the end of a wait that is over before it began.
pub(crate) fn rejected(error: PartitionError) -> Reported {
    let (sender, receiver) = oneshot::channel();
    // The receiver is at hand.
    let _ = sender.send(Err(error));
    receiver
}

/// Waits, each for all offsets below its own. Guarded by the lock of their owner.
#[derive(Debug, Default)]
pub(crate) struct OffsetWaiters(Vec<(i64, oneshot::Sender<Outcome>)>);

/// Waits that are over. They are reported without the lock.
#[must_use = "the writes wait for the report"]
pub(crate) struct Over(Vec<(i64, oneshot::Sender<Outcome>)>);

impl OffsetWaiters {
    /// Adds a wait for all offsets below `end`.
    pub(crate) fn add(&mut self, end: i64) -> Reported {
        let (sender, receiver) = oneshot::channel();
        self.0.push((end, sender));
        receiver
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the waits for offsets up to `reached`.
    pub(crate) fn take_up_to(&mut self, reached: i64) -> Over {
        let (over, waiting) = std::mem::take(&mut self.0).into_iter().partition(|(end, _)| *end <= reached);
        self.0 = waiting;
        Over(over)
    }

    /// Removes all waits.
    pub(crate) fn take_all(&mut self) -> Over {
        Over(std::mem::take(&mut self.0))
    }
}

impl Over {
    /// Reports the same outcome to all of them.
    pub(crate) fn report(self, outcome: &Outcome) {
        for (_, waiter) in self.0 {
            // The client may have disconnected.
            let _ = waiter.send(outcome.clone());
        }
    }
}
