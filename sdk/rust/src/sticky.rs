//! Sticky partitioning, for records without a key.

use crate::batch::Record;
use crate::partitioner::Partitions;

/// Sends records to one partition until a batch is full, then to another. That makes fewer and larger batches than
/// taking turns. The next partition is random, and less likely the more bytes wait for it (KIP-480, KIP-794).
///
/// The load of the queues at the start of a call shows whether a batch is full: `batch_bytes` wait for the partition.
/// If no more bytes wait than before the last call, the batch of that call has been sent. A stage that uses this reads
/// [`Columns::TIMESTAMPS`](crate::Columns::TIMESTAMPS) as a seed, since the sandbox has no clock: many short-lived
/// producers must not all begin with the same partition.
#[derive(Debug, Clone)]
pub struct Sticky {
    batch_bytes: u64,
    current: Option<Current>,
    random: Random,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    partition: u32,
    /// The bytes that waited when the last call began.
    load: u64,
}

impl Sticky {
    /// Makes a sticky partitioner; `batch_bytes` is the `batch.size` of the producer.
    pub fn new(batch_bytes: u64) -> Self {
        Self { batch_bytes, current: None, random: Random(0) }
    }

    /// Returns the partition for a record. Only the first record of a call checks the queues.
    #[inline]
    pub fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> u32 {
        match self.current {
            Some(current) if record.row() > 0 && current.partition < partitions.count() => current.partition,
            _ => self.choose(record, partitions),
        }
    }

    /// Keeps or changes the partition, at the first record of a call.
    #[cold]
    fn choose(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> u32 {
        let stays = |current: &Current| {
            let load = partitions.load(current.partition);
            current.partition < partitions.count() && load > current.load && load < self.batch_bytes
        };
        let partition = match self.current.filter(stays) {
            Some(current) => current.partition,
            None => {
                self.random.mix(record.timestamp().cast_unsigned());
                self.next(partitions)
            }
        };
        self.current = Some(Current { partition, load: partitions.load(partition) });
        partition
    }

    /// Returns a random partition. The one with the most waiting bytes has a weight of 1, the others weigh more by each
    /// byte less. Partitions without a leader have no weight, unless all are without one.
    fn next(&mut self, partitions: &Partitions<'_>) -> u32 {
        let available = |partition: &u32| partitions.is_available(*partition);
        let loads = (0..partitions.count()).filter(available).map(|partition| partitions.load(partition));
        let most = loads.max().unwrap_or(Partitions::UNAVAILABLE);
        let weight = |partition| match most.checked_sub(partitions.load(partition)) {
            Some(less) => u128::from(less) + 1,
            None => 0,
        };
        let total: u128 = (0..partitions.count()).map(weight).sum();
        let mut rest = (u128::from(self.random.next()) * total.min(u64::MAX.into())) >> 64;
        for partition in 0..partitions.count() {
            match rest.checked_sub(weight(partition)) {
                Some(less) => rest = less,
                None => return partition,
            }
        }
        0
    }
}

impl Default for Sticky {
    /// Takes Kafka's default `batch.size`, 16 KiB.
    fn default() -> Self {
        Self::new(16 * 1024)
    }
}

/// The random generator SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn mix(&mut self, seed: u64) {
        self.0 ^= seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuf;

    /// Returns the partitions of a call with three records.
    fn call(sticky: &mut Sticky, timestamp: i64, load: &[u64]) -> u32 {
        let mut batch = BatchBuf::new("t");
        for _ in 0..3 {
            batch.push(timestamp, None, Some(b"v"), &[]);
        }
        let partitions = Partitions::new(u32::try_from(load.len()).unwrap(), load);
        let batch = batch.as_batch();
        let chosen: Vec<u32> = batch.records().map(|record| sticky.partition(&record, &partitions)).collect();
        assert!(chosen.iter().all(|partition| *partition == chosen[0]), "one partition for each call");
        chosen[0]
    }

    #[test]
    fn it_stays_while_a_batch_fills_and_goes_on_when_it_is_full_or_gone() {
        for timestamp in 0..20 {
            let mut sticky = Sticky::new(100);
            let first = call(&mut sticky, timestamp, &[0; 8]);
            let load = |bytes| {
                let mut load = [1_000_000; 8];
                load[first as usize] = bytes;
                load[(first as usize + 1) % 8] = 0;
                load
            };
            assert_eq!(call(&mut sticky, timestamp, &load(50)), first, "it fills");
            assert_eq!(call(&mut sticky, timestamp, &load(99)), first, "it fills");
            let mut full = sticky.clone();
            let moved: std::collections::BTreeSet<u32> =
                (0..50).map(|later| call(&mut full.clone(), later, &load(100))).collect();
            assert!(moved.len() > 1, "full: {moved:?}");
            call(&mut full, timestamp, &load(100));
            let moved: std::collections::BTreeSet<u32> =
                (0..50).map(|later| call(&mut sticky.clone(), later, &load(10))).collect();
            assert!(moved.len() > 1, "gone: {moved:?}");
        }
    }

    #[test]
    fn all_partitions_get_their_share_and_slow_ones_less() {
        let mut counts = [0; 4];
        for timestamp in 0..4_000 {
            counts[call(&mut Sticky::default(), 1_700_000_000_000 + timestamp, &[0; 4]) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");

        let mut counts = [0; 3];
        for timestamp in 0..3_000 {
            counts[call(&mut Sticky::default(), timestamp, &[0, 1_000_000, 1_000_000]) as usize] += 1;
        }
        assert!(counts[0] > 2_900, "{counts:?}");
    }

    #[test]
    fn partitions_without_a_leader_are_left_out() {
        const GONE: u64 = Partitions::UNAVAILABLE;
        for timestamp in 0..100 {
            assert_eq!(call(&mut Sticky::default(), timestamp, &[GONE, 7, GONE]), 1);
            assert!(call(&mut Sticky::default(), timestamp, &[GONE; 3]) < 3);
            let mut sticky = Sticky::new(u64::MAX);
            assert_eq!(call(&mut sticky, timestamp, &[GONE, 0]), 1);
            assert_eq!(call(&mut sticky, timestamp, &[0, GONE]), 0, "its leader is gone");
        }
    }

    #[test]
    fn fewer_partitions_than_before_are_no_problem() {
        let mut sticky = Sticky::default();
        for timestamp in 0..100 {
            assert!(call(&mut sticky, timestamp, &[0; 16]) < 16);
            assert!(call(&mut sticky, timestamp, &[0; 2]) < 2);
        }
    }
}
