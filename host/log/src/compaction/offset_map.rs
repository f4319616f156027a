//! The last offset of each key, in bounded memory.
//!
//! A slot has 16 bytes: 96 bits of a hash of the key, and the offset relative to the first one that is indexed. The
//! hash is keyed at random, so no producer can choose two keys that have the same. Keys are not kept: of five million,
//! two agree in 96 bits with a probability below 10^-15.

use std::hash::{BuildHasher, RandomState};

/// One slot: the hash in three words, and the relative offset plus one. All zeros is an empty slot.
type Slot = [u32; 4];

/// The bytes of a slot.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

/// The slots of a new map.
const SLOTS_MIN: usize = 1024;

/// A map grows when this share of its slots is in use, until it has the most slots.
const GROWS_AT: f64 = 0.7;

/// Maps hashes of keys to offsets.
pub(super) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    slots_max: usize,
    keys_max: usize,
    start: i64,
    latest: i64,
    hashers: [RandomState; 2],
}

impl OffsetMap {
    /// Makes an empty map for offsets from `start` on. It has at most `bytes_max` bytes, and takes keys up to the
    /// share `load_factor` of its slots.
    pub(super) fn new(start: i64, bytes_max: usize, load_factor: f64) -> Self {
        let slots_max = (bytes_max / SLOT_BYTES).max(2);
        // One slot stays empty, so that each search ends.
        let keys_max = ((slots_max as f64 * load_factor) as usize).clamp(1, slots_max - 1);
        Self {
            slots: vec![[0; 4]; SLOTS_MIN.min(slots_max)],
            used: 0,
            slots_max,
            keys_max,
            start,
            latest: start - 1,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Returns the bytes of the slots.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// Returns the last offset that is indexed; all records up to it are.
    pub(super) fn latest(&self) -> i64 {
        self.latest
    }

    /// Notes that all records up to an offset are indexed.
    pub(super) fn indexed(&mut self, offset: i64) {
        self.latest = self.latest.max(offset);
    }

    /// Sets the offset of a key. Returns false if the map is full, as Kafka's is: then nothing has changed.
    pub(super) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let Some(relative) = u32::try_from(offset - self.start).ok().and_then(|relative| relative.checked_add(1))
        else {
            return false;
        };
        if self.used >= self.keys_max {
            return false;
        }
        if self.used as f64 >= self.slots.len() as f64 * GROWS_AT && self.slots.len() < self.slots_max {
            self.grow();
        }
        let hash = self.hash(key);
        let at = find(&self.slots, hash);
        if self.slots[at][3] == 0 {
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], hash[2], relative];
        self.latest = self.latest.max(offset);
        true
    }

    /// Returns the offset of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = self.slots[find(&self.slots, self.hash(key))];
        slot[3].checked_sub(1).map(|relative| self.start + i64::from(relative))
    }

    fn hash(&self, key: &[u8]) -> [u32; 3] {
        let [one, other] = [&self.hashers[0], &self.hashers[1]].map(|hasher| hasher.hash_one(key));
        [(one >> 32) as u32, one as u32, other as u32]
    }

    fn grow(&mut self) {
        let wider = self.slots.len().saturating_mul(2).min(self.slots_max);
        let mut slots = vec![[0; 4]; wider];
        for slot in self.slots.iter().filter(|slot| slot[3] != 0) {
            let at = find(&slots, [slot[0], slot[1], slot[2]]);
            slots[at] = *slot;
        }
        self.slots = slots;
    }
}

/// Returns the slot of a hash, or the empty one where it belongs.
fn find(slots: &[Slot], hash: [u32; 3]) -> usize {
    let first = u64::from(hash[0]) << 32 | u64::from(hash[1]);
    let mut at = ((u128::from(first) * slots.len() as u128) >> 64) as usize;
    while slots[at][3] != 0 && slots[at][..3] != hash {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = OffsetMap::new(1_000_000_000_000, 64 << 20, 0.9);
        let key = |number: i64| format!("key {number}").into_bytes();
        for round in 0..3 {
            for number in 0..20_000 {
                assert!(map.put(&key(number), 1_000_000_000_000 + round * 20_000 + number));
            }
        }
        assert_eq!(map.len(), 20_000);
        assert!(map.bytes() <= 20_000 * SLOT_BYTES * 3, "{}", map.bytes());
        for number in 0..20_000 {
            assert_eq!(map.get(&key(number)), Some(1_000_000_040_000 + number));
        }
        assert_eq!(map.get(b"another"), None);
        assert_eq!(map.latest(), 1_000_000_059_999);
    }

    #[test]
    fn a_full_map_takes_no_more_and_loses_nothing() {
        let mut map = OffsetMap::new(0, 100 * SLOT_BYTES, 0.9);
        let taken = (0..200).take_while(|number| map.put(&i64::to_be_bytes(*number), *number)).count();
        assert_eq!((taken, map.len(), map.latest()), (90, 90, 89));
        assert!(map.bytes() <= 100 * SLOT_BYTES);
        for number in 0..200i64 {
            assert_eq!(map.get(&number.to_be_bytes()), (number < 90).then_some(number));
        }
        map.indexed(120);
        assert_eq!(map.latest(), 120);
        // The smallest one takes a key.
        let mut least = OffsetMap::new(5, 0, 1.0);
        assert!(least.put(b"a", 5) && !least.put(b"b", 6));
        assert_eq!((least.get(b"a"), least.get(b"b")), (Some(5), None));
        // Offsets that do not fit are left for the next pass.
        assert!(!OffsetMap::new(0, 100, 0.9).put(b"a", i64::from(u32::MAX)));
    }
}
