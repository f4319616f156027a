//! The partitioner of a producer without a partitioner stage. It chooses as Java's default does.

/// Returns Java's 32-bit murmur2 of a key, as `org.apache.kafka.common.utils.Utils.murmur2` computes it.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Chooses the partition of a record with a key by murmur2 of the key. Records without a key stay on one partition
/// for `batch.size` bytes and then move to another one (KIP-794), so that they fill batches.
#[derive(Debug)]
pub(crate) struct DefaultPartitioner {
    batch_size: usize,
    sticky: u32,
    sticky_bytes: usize,
}

impl DefaultPartitioner {
    pub(crate) fn new(batch_size: usize) -> Self {
        Self { batch_size, sticky: fastrand::u32(..), sticky_bytes: 0 }
    }

    /// Returns the partition for a record of `size` bytes. Without a key it is one with a leader, if there is any.
    pub(crate) fn partition(
        &mut self,
        key: Option<&[u8]>,
        size: usize,
        partitions: u32,
        available: impl Fn(u32) -> bool,
    ) -> u32 {
        let Some(key) = key else {
            if self.sticky_bytes >= self.batch_size || !available(self.sticky % partitions) {
                let start = fastrand::u32(..partitions);
                let found = (start..partitions).chain(0..start).find(|partition| available(*partition));
                self.sticky = found.unwrap_or(start);
                self.sticky_bytes = 0;
            }
            self.sticky_bytes += size;
            return self.sticky % partitions;
        };
        (murmur2(key) & 0x7fff_ffff) % partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_javas() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn records_without_a_key_move_on_after_a_batch() {
        let mut partitioner = DefaultPartitioner::new(100);
        let runs: Vec<u32> = (0..400).map(|_| partitioner.partition(None, 50, 1000, |_| true)).collect();
        assert!(runs.chunks(2).all(|run| run[0] == run[1]));
        let changes = runs.chunks(2).zip(runs.chunks(2).skip(1)).filter(|(a, b)| a != b).count();
        assert!(changes > 190, "{changes}");
    }

    #[test]
    fn records_without_a_key_avoid_a_partition_without_a_leader() {
        let mut partitioner = DefaultPartitioner::new(100);
        for _ in 0..100 {
            assert_eq!(partitioner.partition(None, 50, 3, |partition| partition == 1), 1);
            assert_eq!(partitioner.partition(None, 50, 3, |partition| partition == 2), 2);
            assert!(partitioner.partition(None, 50, 3, |_| false) < 3);
            let keyed = |available| DefaultPartitioner::new(100).partition(Some(b"key"), 50, 3, |_| available);
            assert_eq!(keyed(false), keyed(true), "with a key only the key decides");
        }
    }
}
