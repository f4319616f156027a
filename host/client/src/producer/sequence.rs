//! Sequences of an idempotent producer, for one partition.
//!
//! Every batch is numbered in the order in which it was made (`number`), and gets a sequence when it
//! first leaves. The broker accepts the next sequence only, remembers the last five batches and
//! answers a repeated one with its first offset, so a batch may be sent again with its sequence
//! until there is a verdict. What is kept here says which sequence a batch has *now*: it may be
//! renumbered while it waits to be sent again (KIP-98, KIP-360).

use std::collections::BTreeMap;

/// Who the broker takes this producer for. An epoch that was raised begins every partition anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

impl Identity {
    /// What batches of a producer without idempotence carry.
    pub(crate) const NONE: Identity = Identity { producer_id: -1, epoch: -1 };
}

/// The number that a batch carries in its header.
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
    /// Batches that have a sequence and no verdict: in flight, or waiting to be sent again.
    outstanding: BTreeMap<u64, Outstanding>,
    /// The broker has stored a batch of this identity. Before that it takes any sequence for the first: of
    /// two in flight it could refuse the first one, for want of a leader, and take the second.
    established: bool,
    /// Nobody knows whether a batch that was given up is stored: no new batch leaves before the
    /// epoch was raised.
    unresolved: bool,
    /// The broker refused the lowest sequence: begin anew once nothing is in flight.
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

    /// Whether this partition cannot go on under the identity that it has.
    pub(crate) fn needs_new_epoch(&self, in_flight: usize) -> bool {
        in_flight == 0 && (self.reset_wanted || (self.unresolved && self.outstanding.is_empty()))
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Takes on the producer's identity where it has changed and nothing depends on the old one, or
    /// where this partition asked for it.
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

    /// Whether the batch may leave now. One that was sent before goes alone, as the lowest, so that
    /// the broker sees no gap; a new one not while an earlier verdict is unknown.
    pub(crate) fn may_send(&self, number: u64) -> bool {
        if self.reset_wanted {
            return false;
        }
        match self.outstanding.contains_key(&number) {
            true => self.is_lowest(number),
            false => !self.unresolved && (self.established || self.outstanding.is_empty()),
        }
    }

    /// The sequence to send the batch with: a new one, or the one that it has.
    pub(crate) fn assign(&mut self, number: u64, count: i32) -> Sequence {
        let next = &mut self.next;
        let batch = self.outstanding.entry(number).or_insert_with(|| {
            let base = *next;
            *next = wrapping_add(base, count);
            Outstanding { base, count }
        });
        Sequence { identity: self.identity, base: batch.base }
    }

    /// Whether every batch before this one has its verdict.
    pub(crate) fn is_lowest(&self, number: u64) -> bool {
        self.outstanding.first_key_value().is_none_or(|(first, _)| *first >= number)
    }

    /// Whether a batch before this one was given up without a verdict.
    pub(crate) fn unresolved(&self) -> bool {
        self.unresolved
    }

    /// The broker has the batch.
    pub(crate) fn stored(&mut self, number: u64) {
        self.outstanding.remove(&number);
        self.established = true;
    }

    /// The broker does not have the batch and never will: those after it move up.
    pub(crate) fn refused(&mut self, number: u64) {
        let Some(gone) = self.outstanding.remove(&number) else { return };
        for (_, batch) in self.outstanding.range_mut(number..) {
            batch.base = wrapping_sub(batch.base, gone.count);
        }
        self.next = wrapping_sub(self.next, gone.count);
    }

    /// The batch was given up, and the broker may or may not have it.
    pub(crate) fn unknown(&mut self, number: u64) {
        if self.outstanding.remove(&number).is_some() {
            self.unresolved = true;
        }
    }

    /// The broker does not know this partition's last sequence, or not this producer.
    pub(crate) fn want_reset(&mut self) {
        self.reset_wanted = true;
    }
}

/// Sequences run from 0 to 2^31 - 1 and begin again at 0.
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
    fn the_first_batch_goes_alone() {
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
    fn sequences_rise_by_the_count_and_wrap() {
        let mut sequences = started();
        assert_eq!(sequences.assign(1, 10), Sequence { identity: FIRST, base: 0 });
        assert_eq!(sequences.assign(2, 5).base, 10);
        assert_eq!(sequences.assign(1, 10).base, 0);
        sequences.next = i32::MAX;
        assert_eq!(sequences.assign(3, 2).base, i32::MAX);
        assert_eq!(sequences.assign(4, 1).base, 1);
        sequences.refused(3);
        assert_eq!(sequences.assign(4, 1).base, i32::MAX);
        assert_eq!(sequences.next, 0);
    }

    #[test]
    fn retries_go_one_at_a_time_and_in_order() {
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
    fn a_refused_batch_leaves_no_gap() {
        let mut sequences = started();
        for number in 1..=3 {
            sequences.assign(number, 4);
        }
        sequences.refused(2);
        assert_eq!(sequences.assign(1, 4).base, 0);
        assert_eq!(sequences.assign(3, 4).base, 4);
        assert_eq!(sequences.assign(4, 1).base, 8);
    }

    #[test]
    fn an_unknown_fate_holds_new_batches_until_the_epoch_is_raised() {
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
    fn a_reset_numbers_what_waits_from_zero() {
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
    fn another_partitions_epoch_waits_until_nothing_depends_on_the_old_one() {
        let mut sequences = started();
        sequences.assign(1, 4);
        sequences.adopt(RAISED, 0);
        assert_eq!(sequences.identity(), FIRST);
        sequences.stored(1);
        sequences.adopt(RAISED, 0);
        assert_eq!((sequences.identity(), sequences.next), (RAISED, 0));
    }
}
