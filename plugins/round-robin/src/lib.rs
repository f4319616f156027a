//! `round-robin`: a partitioner that goes through the partitions in turn, whatever the keys are.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use millstream_sdk::{Batch, Columns, Error, Partitioner, Partitions, Record, Result};
use serde::Deserialize;

/// In turn, for each topic from partition 0.
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

/// The partition for this turn, and the one after it; the topic may have got fewer since the last turn.
fn take_turn(next: &mut u32, count: u32) -> u32 {
    let turn = if *next < count { *next } else { 0 };
    *next = turn + 1;
    turn
}

impl Partitioner for RoundRobin {
    const COLUMNS: Columns = Columns::NONE;

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(take_turn(self.next(record.topic()), partitions.count()))
    }

    fn partition_batch(
        &mut self,
        batch: &Batch<'_>,
        partitions: &Partitions<'_>,
        chosen: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let next = self.next(batch.topic());
        chosen.extend((0..batch.len()).map(|_| take_turn(next, partitions.count())));
        Ok(())
    }
}

millstream_sdk::partitioner!(RoundRobin);
