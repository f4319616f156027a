//! The last offset of each key, in bounded memory.
//!
//! A slot has 16 bytes: 96 bits of a hash of the key, and the offset relative to the first one that is indexed. The
//! hash is keyed at random, so no producer can choose two keys that have the same. Keys are not kept: of five million,
//! two agree in 96 bits with a probability below 10^-15.

use std::hash::Hasher;
use std::hint::black_box;

use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

/// The hash of a key.
pub(super) type KeyHash = [u32; 3];

/// One slot: the hash in three words, and the relative offset plus one. All zeros is an empty slot.
type Slot = [u32; 4];

/// The bytes of a slot.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

/// The slots of a new map.
const SLOTS_MIN: usize = 1024;

/// A map grows when this share of its slots is in use, until it has the most slots.
const GROWS_AT: f64 = 0.7;

/// The keys whose slots are read together. They fit into the cache of a core, with what the pass has there.
const TOGETHER: usize = 128;

/// Maps hashes of keys to offsets.
pub(super) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    slots_max: usize,
    keys_max: usize,
    start: i64,
    latest: i64,
    hasher: SipHasher13,
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
            hasher: SipHasher13::new_with_key(Uuid::new_v4().as_bytes()),
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

    /// Returns the hash under which a key is known here.
    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher;
        hasher.write(key);
        let hash = hasher.finish128();
        [(hash.h1 >> 32) as u32, hash.h1 as u32, hash.h2 as u32]
    }

    /// Sets the offsets of keys. Returns false if the map is full, as Kafka's is: then it has those before.
    pub(super) fn put_all(&mut self, keys: &[(KeyHash, i64)]) -> bool {
        keys.chunks(TOGETHER).all(|keys| {
            self.touch(keys.iter().map(|(hash, _)| *hash));
            keys.iter().all(|(hash, offset)| self.put(*hash, *offset))
        })
    }

    /// Calls `found` with each item and the offset of its key. An item without a hash has none.
    pub(super) fn get_all<T>(
        &self,
        items: &[T],
        hash: impl Fn(&T) -> Option<KeyHash>,
        mut found: impl FnMut(&T, Option<i64>),
    ) {
        for items in items.chunks(TOGETHER) {
            self.touch(items.iter().filter_map(&hash));
            items.iter().for_each(|item| found(item, hash(item).and_then(|hash| self.get(hash))));
        }
    }

    /// Reads the slots of some keys. None of the reads depends on another, so the processor waits for memory once for
    /// many of them.
    fn touch(&self, hashes: impl Iterator<Item = KeyHash>) {
        black_box(hashes.fold(0, |all, hash| all ^ self.slots[first_slot(&self.slots, hash)][3]));
    }

    fn put(&mut self, hash: KeyHash, offset: i64) -> bool {
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
        let at = find(&self.slots, hash);
        if self.slots[at][3] == 0 {
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], hash[2], relative];
        self.latest = self.latest.max(offset);
        true
    }

    fn get(&self, hash: KeyHash) -> Option<i64> {
        let slot = self.slots[find(&self.slots, hash)];
        slot[3].checked_sub(1).map(|relative| self.start + i64::from(relative))
    }

    fn grow(&mut self) {
        // By half: both tables are in memory meanwhile.
        let wider = (self.slots.len() + self.slots.len() / 2 + 1).min(self.slots_max);
        let mut slots = vec![[0; 4]; wider];
        for slot in self.slots.iter().filter(|slot| slot[3] != 0) {
            let at = find(&slots, [slot[0], slot[1], slot[2]]);
            slots[at] = *slot;
        }
        self.slots = slots;
    }
}

/// Returns the slot at which the search for a hash begins.
fn first_slot(slots: &[Slot], hash: KeyHash) -> usize {
    let first = u64::from(hash[0]) << 32 | u64::from(hash[1]);
    ((u128::from(first) * slots.len() as u128) >> 64) as usize
}

/// Returns the slot of a hash, or the empty one where it belongs.
fn find(slots: &[Slot], hash: KeyHash) -> usize {
    let mut at = first_slot(slots, hash);
    while slots[at][3] != 0 && slots[at][..3] != hash {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(map: &mut OffsetMap, key: &[u8], offset: i64) -> bool {
        map.put_all(&[(map.hash(key), offset)])
    }

    fn get(map: &OffsetMap, key: &[u8]) -> Option<i64> {
        map.get(map.hash(key))
    }

    #[test]
    fn many_keys_are_set_and_found_together() {
        let mut map = OffsetMap::new(10, 64 << 20, 0.9);
        let keys: Vec<_> = (0..5000i64).map(|number| (map.hash(&number.to_be_bytes()), number + 10)).collect();
        assert!(map.put_all(&keys));
        assert_eq!((map.len(), map.latest()), (5000, 5009));
        let mut offsets = Vec::new();
        map.get_all(
            &[-1, 0, 4999, 5000],
            |number: &i64| (*number >= 0).then(|| map.hash(&number.to_be_bytes())),
            |_, offset| {
                offsets.push(offset);
            },
        );
        assert_eq!(offsets, [None, Some(10), Some(5009), None]);
        // The map has as many as it takes.
        let mut small = OffsetMap::new(10, 100 * SLOT_BYTES, 0.9);
        assert!(!small.put_all(&keys));
        assert_eq!((small.len(), small.latest()), (90, 99));
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = OffsetMap::new(1_000_000_000_000, 64 << 20, 0.9);
        let key = |number: i64| format!("key {number}").into_bytes();
        for round in 0..3 {
            for number in 0..20_000 {
                assert!(put(&mut map, &key(number), 1_000_000_000_000 + round * 20_000 + number));
            }
        }
        assert_eq!(map.len(), 20_000);
        assert!(map.bytes() <= 20_000 * SLOT_BYTES * 3, "{}", map.bytes());
        for number in 0..20_000 {
            assert_eq!(get(&map, &key(number)), Some(1_000_000_040_000 + number));
        }
        assert_eq!(get(&map, b"another"), None);
        assert_eq!(map.latest(), 1_000_000_059_999);
    }

    #[test]
    fn a_full_map_takes_no_more_and_loses_nothing() {
        let mut map = OffsetMap::new(0, 100 * SLOT_BYTES, 0.9);
        let taken = (0..200).take_while(|number| put(&mut map, &i64::to_be_bytes(*number), *number)).count();
        assert_eq!((taken, map.len(), map.latest()), (90, 90, 89));
        assert!(map.bytes() <= 100 * SLOT_BYTES);
        for number in 0..200i64 {
            assert_eq!(get(&map, &number.to_be_bytes()), (number < 90).then_some(number));
        }
        map.indexed(120);
        assert_eq!(map.latest(), 120);
        // The smallest one takes a key.
        let mut least = OffsetMap::new(5, 0, 1.0);
        assert!(put(&mut least, b"a", 5) && !put(&mut least, b"b", 6));
        assert_eq!((get(&least, b"a"), get(&least, b"b")), (Some(5), None));
        // Offsets that do not fit are left for the next pass.
        assert!(!put(&mut OffsetMap::new(0, 100, 0.9), b"a", i64::from(u32::MAX)));
    }
}
