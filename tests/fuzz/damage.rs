//! Damage to bytes that were valid.

use bolero::{TypeGenerator, produce};

/// One change. Places are taken modulo the length, so that each change has an effect on bytes of any length.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) enum Damage {
    /// Flips a bit.
    Flip {
        at: u32,
        #[generator(0..8u8)]
        bit: u8,
    },
    /// Sets a byte.
    Set { at: u32, value: u8 },
    /// Puts a number where a length or a count may be.
    Number {
        at: u32,
        #[generator(1..=8usize)]
        width: usize,
        #[generator(0..NUMBERS.len())]
        number: usize,
    },
    /// Inserts a byte.
    Insert { at: u32, value: u8 },
    /// Removes bytes.
    Remove {
        at: u32,
        #[generator(1..16usize)]
        len: usize,
    },
    /// Copies bytes to another place.
    Copy {
        from: u32,
        to: u32,
        #[generator(1..64usize)]
        len: usize,
    },
    /// Cuts the end off.
    Cut { at: u32 },
    /// Adds bytes at the end.
    Append {
        #[generator(produce::<Vec<u8>>().with().len(1..64usize))]
        bytes: Vec<u8>,
    },
    /// Fills bytes up to the end with zeros.
    Zeros { at: u32 },
}

/// Numbers around the limits of lengths and counts.
const NUMBERS: [i64; 10] = [0, 1, -1, -2, 127, 128, 0x7fff, 0x7fff_ffff, i64::MAX, i64::MIN];

impl Damage {
    /// Applies the change.
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let place = |at: u32| at as usize % len.max(1);
        match self {
            Self::Append { bytes: added } => bytes.extend_from_slice(added),
            _ if len == 0 => {}
            Self::Flip { at, bit } => bytes[place(*at)] ^= 1 << bit,
            Self::Set { at, value } => bytes[place(*at)] = *value,
            Self::Number { at, width, number } => {
                let number = NUMBERS[*number].to_be_bytes();
                let at = place(*at);
                let end = len.min(at + width);
                bytes[at..end].copy_from_slice(&number[8 - (end - at)..]);
            }
            Self::Insert { at, value } => bytes.insert(place(*at), *value),
            Self::Remove { at, len: count } => {
                let at = place(*at);
                bytes.drain(at..len.min(at + count));
            }
            Self::Copy { from, to, len: count } => {
                let (from, to) = (place(*from), place(*to));
                let count = (*count).min(len - from).min(len - to);
                bytes.copy_within(from..from + count, to);
            }
            Self::Cut { at } => bytes.truncate(place(*at)),
            Self::Zeros { at } => bytes[place(*at)..].fill(0),
        }
    }
}

/// Applies changes one after the other.
pub(crate) fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    damages.iter().for_each(|damage| damage.apply(&mut bytes));
    bytes
}
