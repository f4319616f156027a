//! What a leader has to know before it appends the first batch of a transaction (KIP-890): that the coordinator of the
//! transaction knows this partition.
//!
//! The broker begins a verification, asks the coordinator, and appends with the guard that it got. A marker in between
//! ends the guard. Otherwise a late batch could begin a transaction that nothing ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch_walk::BatchHeader;

/// Names one verification of a producer in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// What is known of the transaction of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: the transaction must be open in the log.
    #[default]
    Unknown,
    /// The coordinator has confirmed it, for the verification that returned this guard.
    Confirmed(VerificationGuard),
    /// The broker does not ask coordinators (`transaction.partition.verification.enable=false`).
    Disabled,
}

/// The first batches of a producer that wait for the coordinator.
#[derive(Clone, Copy, Debug)]
struct Pending {
    guard: VerificationGuard,
    epoch: i16,
    /// The lowest sequence of those batches: one of them has to be appended first. `i32::MAX` if they have none.
    lowest_sequence: i32,
    /// Whether the producer gets a new epoch with each transaction, so that it begins with sequence 0.
    is_new_epoch: bool,
    since_ms: i64,
}

/// The verifications of a log that are under way.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    by_producer: HashMap<i64, Pending>,
}

/// Returns a guard that no log of this process has used: a partition may get another log, in another folder.
fn new_guard() -> VerificationGuard {
    static LAST: AtomicU64 = AtomicU64::new(0);
    VerificationGuard(LAST.fetch_add(1, Ordering::Relaxed))
}

impl Verifications {
    /// Begins a verification, or joins the one that is under way.
    pub(crate) fn begin(&mut self, header: &BatchHeader, is_new_epoch: bool, now_ms: i64) -> VerificationGuard {
        let epoch = header.producer_epoch;
        let sequence = if header.base_sequence < 0 { i32::MAX } else { header.base_sequence };
        let pending = self.by_producer.entry(header.producer_id).or_insert_with(|| Pending {
            guard: new_guard(),
            epoch,
            lowest_sequence: sequence,
            is_new_epoch,
            since_ms: now_ms,
        });
        if epoch > pending.epoch {
            (pending.epoch, pending.lowest_sequence, pending.is_new_epoch) = (epoch, sequence, is_new_epoch);
        } else if epoch == pending.epoch {
            pending.lowest_sequence = pending.lowest_sequence.min(sequence);
        }
        pending.guard
    }

    /// Returns whether a guard is still that of the producer.
    pub(crate) fn is_current(&self, producer_id: i64, guard: VerificationGuard) -> bool {
        self.by_producer.get(&producer_id).is_some_and(|pending| pending.guard == guard)
    }

    /// Returns the highest sequence with which the producer may begin. `is_known`: the log has batches of it.
    pub(crate) fn first_sequence_max(&self, producer_id: i64, is_known: bool) -> Option<i32> {
        let pending = self.by_producer.get(&producer_id)?;
        Some(if pending.is_new_epoch && !is_known { 0 } else { pending.lowest_sequence })
    }

    /// Ends the verification of a producer: its transaction is open now, or a marker has ended it.
    pub(crate) fn end(&mut self, producer_id: i64) {
        if !self.by_producer.is_empty() {
            self.by_producer.remove(&producer_id);
        }
    }

    /// Removes verifications that nothing has ended for `expiration_ms`.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_producer.retain(|_, pending| now_ms.saturating_sub(pending.since_ms) < expiration_ms);
    }
}
