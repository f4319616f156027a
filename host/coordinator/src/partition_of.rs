//! Which partition of an internal topic has the state of a key.

/// Returns the partition that holds a key: Java's `hashCode` of it, without the sign, modulo the number of partitions.
#[must_use]
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    let hash = key.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the minimum, which has no positive counterpart, becomes 0.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_where_kafka_looks_for_them() {
        // Java's "...".hashCode().
        let hashes =
            [("", 0), ("a", 97), ("test", 3_556_498), ("console-consumer-1", 35_782_224), ("earthquakes", -1417000122)];
        for (key, hash) in hashes {
            assert_eq!(partition_of(key, 50), i32::abs(hash) % 50, "{key}");
        }
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // UTF-16 units count, not characters.
        assert_eq!(partition_of("\u{1F600}", 1_000_000), (0xD83D * 31 + 0xDE00) % 1_000_000);
    }
}
