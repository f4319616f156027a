//! Follows transactions through a pass: which batches were aborted, and which markers have no records left.

use std::collections::{BTreeMap, HashMap, HashSet};

use millstream_record::EndMarker;

use crate::batch_walk::BatchHeader;
use crate::transaction_index::AbortedTransaction;

/// The transactions at a point of the log. Batches must be passed in their order.
#[derive(Default)]
pub(super) struct PassedTransactions {
    /// Producers with batches of a transaction that is not known to be aborted.
    committed: HashSet<i64>,
    /// The aborted transactions that have begun, by producer.
    aborted: HashMap<i64, Begun>,
    /// Those that begin later, by first offset and producer.
    upcoming: BTreeMap<(i64, i64), AbortedTransaction>,
}

struct Begun {
    transaction: AbortedTransaction,
    has_batches: bool,
}

/// What a pass does with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MarkerFate {
    /// No batch of its transaction is left, so that it may go after a while.
    pub(super) may_go: bool,
    /// The transaction, if it was aborted and has batches. The index of the new segment has to name it.
    pub(super) aborted: Option<AbortedTransaction>,
}

impl PassedTransactions {
    /// Adds aborted transactions of the batches that come next. One may be added twice.
    pub(super) fn add(&mut self, aborted: Vec<AbortedTransaction>) {
        self.upcoming.extend(aborted.into_iter().map(|one| ((one.first_offset, one.producer_id), one)));
    }

    /// Passes a batch that is no control batch. Returns whether its transaction was aborted.
    pub(super) fn pass_batch(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some(begun) => {
                begun.has_batches = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Passes a control batch, with the marker that it may hold.
    pub(super) fn pass_marker(&mut self, header: &BatchHeader, marker: Option<EndMarker>) -> MarkerFate {
        self.begin_up_to(header.last_offset());
        let producer = header.producer_id;
        match marker {
            Some(EndMarker { is_commit: true, .. }) => {
                MarkerFate { may_go: !self.committed.remove(&producer), aborted: None }
            }
            Some(EndMarker { is_commit: false, .. }) => {
                let begun = self.aborted.remove(&producer).filter(|begun| begun.has_batches);
                MarkerFate { may_go: begun.is_none(), aborted: begun.map(|begun| begun.transaction) }
            }
            // An earlier pass has emptied it, or it is of another kind, which stays.
            None => MarkerFate { may_go: header.count == 0, aborted: None },
        }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(first) = self.upcoming.first_entry().filter(|first| first.key().0 <= offset) {
            let transaction = first.remove();
            self.aborted.entry(transaction.producer_id).or_insert(Begun { transaction, has_batches: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, Codec, TimestampType};

    use super::*;

    const COMMIT: Option<EndMarker> = Some(EndMarker { is_commit: true, coordinator_epoch: 0 });
    const ABORT: Option<EndMarker> = Some(EndMarker { is_commit: false, coordinator_epoch: 0 });

    fn header(producer: i64, offset: i64, transactional: bool, control: bool) -> BatchHeader {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.base_offset(offset).producer(producer, 0, 0).transactional(transactional).control(control);
        batch.append(1, Some(b"k"), Some(b"v"), []).unwrap();
        BatchHeader::parse(&batch.build().unwrap()).unwrap()
    }

    fn data(producer: i64, offset: i64) -> BatchHeader {
        header(producer, offset, true, false)
    }

    fn marker(producer: i64, offset: i64) -> BatchHeader {
        header(producer, offset, true, true)
    }

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    #[test]
    fn interleaved_transactions_are_told_apart() {
        let mut passed = PassedTransactions::default();
        let (first, second) = (aborted(1, 0, 4), aborted(1, 6, 8));
        passed.add(vec![second, first]);
        passed.add(vec![first]);
        assert!(passed.pass_batch(&data(1, 0)));
        assert!(!passed.pass_batch(&data(2, 1)));
        assert!(!passed.pass_batch(&header(1, 2, false, false)), "a batch outside of the transaction");
        assert_eq!(passed.pass_marker(&marker(2, 3), COMMIT), MarkerFate { may_go: false, aborted: None });
        let kept = MarkerFate { may_go: false, aborted: Some(first) };
        assert_eq!(passed.pass_marker(&marker(1, 4), ABORT), kept);
        // The same producer commits, then aborts a transaction of which nothing is left.
        assert!(!passed.pass_batch(&data(1, 5)));
        assert!(!passed.pass_marker(&marker(1, 5), COMMIT).may_go);
        assert!(passed.pass_marker(&marker(1, 8), ABORT).may_go);
        assert!(passed.pass_marker(&marker(2, 9), COMMIT).may_go);
    }

    #[test]
    fn other_control_batches_stay_and_empty_ones_go() {
        let mut passed = PassedTransactions::default();
        assert!(!passed.pass_marker(&marker(1, 0), None).may_go);
        let emptied = BatchHeader { count: 0, ..marker(1, 1) };
        assert!(passed.pass_marker(&emptied, None).may_go);
    }
}
