//! Sequences of an idempotent producer, for one partition.
//!
//! Every batch has a `number` in the order of creation, and gets a sequence when it is first sent. The broker accepts
//! only the next sequence. It remembers the last five batches and returns the original offset for a repeated one. A
//! batch can therefore be retried with its sequence until its outcome is known. A waiting batch may be renumbered
//! before its retry (KIP-98, KIP-360).
//!
//! A rejected batch does not raise the epoch: the batches after it are renumbered instead. So a topic that rejects many
//! batches does not use up the 32,767 epochs of a producer id.

use std::collections::BTreeMap;

/// The batches of a producer that a broker remembers for each partition. It cannot recognize one that is further
/// behind.
const WINDOW: u64 = 5;

/// The producer id and epoch. After a change of the epoch every partition starts at sequence 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

impl Identity {
    /// The identity of a producer without idempotence.
    pub(crate) const NONE: Identity = Identity { producer_id: -1, epoch: -1 };
}

/// The identity and base sequence in a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) identity: Identity,
    pub(crate) base: i32,
}

impl Sequence {
    pub(crate) const NONE: Sequence = Sequence { identity: Identity::NONE, base: -1 };
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    base: i32,
    count: i32,
}

/// The state of one partition.
#[derive(Debug)]
pub(crate) struct Sequences {
    identity: Identity,
    next: i32,
    /// Batches with a sequence and an unknown outcome: in flight, or waiting for a retry.
    outstanding: BTreeMap<u64, Outstanding>,
    /// The broker has stored a batch of this identity. Before that it accepts any sequence as the first: of two
    /// batches in flight it could reject the first one, while there is no leader, and accept the second.
    established: bool,
    /// A batch was given up and may be stored. No new batch is sent until the epoch is raised.
    unresolved: bool,
    /// The broker rejected the lowest sequence: start again at 0 once nothing is in flight.
    reset_wanted: bool,
}

impl Sequences {
    pub(crate) fn new() -> Self {
        Self {
            identity: Identity::NONE,
            next: 0,
            outstanding: BTreeMap::new(),
            established: false,
            unresolved: false,
            reset_wanted: false,
        }
    }

    /// Returns whether this partition needs a new epoch to continue.
    pub(crate) fn needs_new_epoch(&self, in_flight: usize) -> bool {
        in_flight == 0 && (self.reset_wanted || (self.unresolved && self.outstanding.is_empty()))
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Switches to the producer's identity if it changed and no batch depends on the old one, or if this
    /// partition requested it.
    pub(crate) fn adopt(&mut self, identity: Identity, in_flight: usize) {
        if identity == self.identity || in_flight > 0 {
            return;
        }
        if self.outstanding.is_empty() || self.reset_wanted {
            self.identity = identity;
            self.next = 0;
            self.established = false;
            self.unresolved = false;
            self.reset_wanted = false;
            let mut next = 0;
            for batch in self.outstanding.values_mut() {
                batch.base = next;
                next = wrapping_add(next, batch.count);
            }
            self.next = next;
        }
    }

    /// Returns whether the batch may be sent now. A retried batch is sent alone, as the lowest, so that the broker
    /// sees no gap. A new batch must wait while the outcome of an earlier one was given up, or of one that the broker
    /// would no longer remember. The limit of a connection does not ensure that: after a change of the leader, batches
    /// are on their way on two of them.
    pub(crate) fn may_send(&self, number: u64) -> bool {
        if self.reset_wanted {
            return false;
        }
        let Some((lowest, _)) = self.outstanding.first_key_value() else {
            return !self.unresolved;
        };
        match self.outstanding.contains_key(&number) {
            true => self.is_lowest(number),
            false => !self.unresolved && self.established && number < lowest + WINDOW,
        }
    }

    /// Returns the sequence to send the batch with: a new one, or the one it has.
    pub(crate) fn assign(&mut self, number: u64, count: i32) -> Sequence {
        let next = &mut self.next;
        let batch = self.outstanding.entry(number).or_insert_with(|| {
            let base = *next;
            *next = wrapping_add(base, count);
            Outstanding { base, count }
        });
        Sequence { identity: self.identity, base: batch.base }
    }

    /// Returns whether the outcomes of all earlier batches are known.
    pub(crate) fn is_lowest(&self, number: u64) -> bool {
        self.outstanding.first_key_value().is_none_or(|(first, _)| *first >= number)
    }

    /// Returns whether the batch got another sequence since it was sent with `sent`.
    pub(crate) fn is_renumbered(&self, number: u64, sent: Sequence) -> bool {
        self.outstanding.get(&number).is_some_and(|batch| batch.base != sent.base || self.identity != sent.identity)
    }

    /// Returns whether a batch was given up with an unknown outcome.
    pub(crate) fn unresolved(&self) -> bool {
        self.unresolved
    }

    /// Notes that the broker stored the batch.
    pub(crate) fn stored(&mut self, number: u64) {
        self.outstanding.remove(&number);
        self.established = true;
    }

    /// Notes that the broker will never store the batch, and moves the later ones up.
    pub(crate) fn rejected(&mut self, number: u64) {
        let Some(gone) = self.outstanding.remove(&number) else { return };
        for (_, batch) in self.outstanding.range_mut(number..) {
            batch.base = wrapping_sub(batch.base, gone.count);
        }
        self.next = wrapping_sub(self.next, gone.count);
    }

    /// Notes that the batch was given up and may be stored.
    pub(crate) fn unknown(&mut self, number: u64) {
        if self.outstanding.remove(&number).is_some() {
            self.unresolved = true;
        }
    }

    /// Requests a restart at sequence 0: the broker does not know the last sequence, or not the producer.
    pub(crate) fn want_reset(&mut self) {
        self.reset_wanted = true;
    }
}

/// Adds to a sequence; after 2^31 - 1 comes 0.
fn wrapping_add(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

fn wrapping_sub(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_sub(count) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Identity = Identity { producer_id: 9, epoch: 0 };
    const RAISED: Identity = Identity { producer_id: 9, epoch: 1 };

    fn started() -> Sequences {
        let mut sequences = Sequences::new();
        sequences.adopt(FIRST, 0);
        sequences.established = true;
        sequences
    }

    #[test]
    fn the_first_batch_is_sent_alone() {
        let mut sequences = Sequences::new();
        sequences.adopt(FIRST, 0);
        assert!(sequences.may_send(1));
        sequences.assign(1, 1);
        assert!(sequences.may_send(1) && !sequences.may_send(2));
        sequences.stored(1);
        sequences.assign(2, 1);
        assert!(sequences.may_send(3));
    }

    #[test]
    fn a_batch_waits_for_one_that_the_broker_would_forget() {
        let mut sequences = started();
        for number in 1..=5 {
            sequences.assign(number, 1);
        }
        (2..=5).for_each(|number| sequences.stored(number));
        // The outcome of the first one is still to come, from a leader that hangs.
        assert!(!sequences.may_send(6));
        sequences.stored(1);
        assert!(sequences.may_send(6));
    }

    #[test]
    fn sequences_increase_by_the_count_and_wrap() {
        let mut sequences = started();
        assert_eq!(sequences.assign(1, 10), Sequence { identity: FIRST, base: 0 });
        assert_eq!(sequences.assign(2, 5).base, 10);
        assert_eq!(sequences.assign(1, 10).base, 0);
        sequences.next = i32::MAX;
        assert_eq!(sequences.assign(3, 2).base, i32::MAX);
        assert_eq!(sequences.assign(4, 1).base, 1);
        sequences.rejected(3);
        assert_eq!(sequences.assign(4, 1).base, i32::MAX);
        assert_eq!(sequences.next, 0);
    }

    #[test]
    fn retries_are_sent_one_at_a_time_and_in_order() {
        let mut sequences = started();
        for number in 1..=3 {
            sequences.assign(number, 1);
        }
        assert!(sequences.may_send(1) && !sequences.may_send(2) && !sequences.may_send(3));
        assert!(sequences.may_send(4));
        sequences.stored(1);
        assert!(sequences.may_send(2));
    }

    #[test]
    fn a_rejected_batch_leaves_no_gap() {
        let mut sequences = started();
        for number in 1..=3 {
            sequences.assign(number, 4);
        }
        sequences.rejected(2);
        assert_eq!(sequences.assign(1, 4).base, 0);
        assert_eq!(sequences.assign(3, 4).base, 4);
        assert_eq!(sequences.assign(4, 1).base, 8);
        let sent = Sequence { identity: FIRST, base: 8 };
        assert!(sequences.is_renumbered(3, sent) && !sequences.is_renumbered(4, sent));
    }

    #[test]
    fn an_unknown_outcome_holds_new_batches_until_the_epoch_is_raised() {
        let mut sequences = started();
        for number in 1..=2 {
            sequences.assign(number, 4);
        }
        sequences.unknown(1);
        assert!(sequences.may_send(2) && !sequences.may_send(3));
        assert!(!sequences.needs_new_epoch(0));
        sequences.stored(2);
        assert!(sequences.needs_new_epoch(0) && !sequences.needs_new_epoch(1));
        sequences.adopt(RAISED, 0);
        assert!(sequences.may_send(3));
        assert_eq!(sequences.assign(3, 1), Sequence { identity: RAISED, base: 0 });
    }

    #[test]
    fn a_reset_numbers_waiting_batches_from_zero() {
        let mut sequences = started();
        for number in 1..=3 {
            sequences.assign(number, 4);
        }
        sequences.stored(1);
        sequences.want_reset();
        assert!(!sequences.may_send(2) && !sequences.may_send(4));
        sequences.adopt(RAISED, 1);
        assert_eq!(sequences.identity(), FIRST);
        sequences.adopt(RAISED, 0);
        assert_eq!(sequences.assign(2, 4), Sequence { identity: RAISED, base: 0 });
        assert_eq!(sequences.assign(3, 4), Sequence { identity: RAISED, base: 4 });
        assert_eq!(sequences.assign(4, 4).base, 8);
    }

    #[test]
    fn a_new_epoch_waits_until_no_batch_depends_on_the_old_one() {
        let mut sequences = started();
        sequences.assign(1, 4);
        sequences.adopt(RAISED, 0);
        assert_eq!(sequences.identity(), FIRST);
        sequences.stored(1);
        sequences.adopt(RAISED, 0);
        assert_eq!((sequences.identity(), sequences.next), (RAISED, 0));
    }
}
