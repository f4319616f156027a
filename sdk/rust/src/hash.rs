//! The hash of keys in Kafka's clients.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Computes Austin Appleby's MurmurHash2 with Kafka's seed, as `org.apache.kafka.common.utils.Utils.murmur2` does.
#[inline]
pub fn murmur2(data: &[u8]) -> u32 {
    // Java takes the length as an int; a key is far below 4 GiB.
    let mut hash = SEED ^ data.len() as u32;
    // Four words in each turn, since every turn of a loop has a cost of its own in the sandbox.
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        for word in block.chunks_exact(4) {
            hash = add(hash, word);
        }
    }
    let mut words = blocks.remainder().chunks_exact(4);
    for word in &mut words {
        hash = add(hash, word);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[inline]
fn add(hash: u32, word: &[u8]) -> u32 {
    let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
    k ^= k >> 24;
    hash.wrapping_mul(M) ^ k.wrapping_mul(M)
}
