//! `round-robin`: a partitioner that takes the partitions in turn and ignores keys.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use millstream_sdk::{Batch, Columns, Error, Partitioner, Partitions, Record, Result};
use serde::Deserialize;

/// Takes the partitions of each topic in turn, from partition 0.
#[derive(Debug, Deserialize)]
pub struct RoundRobin {
    #[serde(skip)]
    next: BTreeMap<String, u32>,
}

impl RoundRobin {
    fn next(&mut self, topic: &str) -> &mut u32 {
        if !self.next.contains_key(topic) {
            self.next.insert(topic.to_owned(), 0);
        }
        self.next.get_mut(topic).expect("it is there now")
    }
}

/// Returns the partition for this turn, and the next one. The topic may have fewer partitions than at the last turn. A
/// partition without a leader is skipped, unless all are without one.
fn take_turn(next: &mut u32, partitions: &Partitions<'_>) -> u32 {
    let count = partitions.count();
    let first = if *next < count { *next } else { 0 };
    let turn = (first..count).chain(0..first).find(|turn| partitions.is_available(*turn)).unwrap_or(first);
    *next = turn + 1;
    turn
}

impl Partitioner for RoundRobin {
    const COLUMNS: Columns = Columns::NONE;

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(take_turn(self.next(record.topic()), partitions))
    }

    fn partition_batch(
        &mut self,
        batch: &Batch<'_>,
        partitions: &Partitions<'_>,
        chosen: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let next = self.next(batch.topic());
        chosen.extend((0..batch.len()).map(|_| take_turn(next, partitions)));
        Ok(())
    }
}

millstream_sdk::partitioner!(RoundRobin);
