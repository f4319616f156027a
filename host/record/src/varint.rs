//! Zigzag varints, as records use them: seven bits a byte, the least significant first.
//!
//! Reading is limited to five bytes for 32 bits and ten for 64. A longer varint, or one whose last byte has bits that
//! do not fit, is an error.

/// Why a varint could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The input ended inside it.
    #[error("the input ends inside a varint")]
    Truncated,
    /// It does not fit its type.
    #[error("a varint is too large for its type")]
    Overflow,
}

/// Reads a 32-bit zigzag varint and moves `input` past it.
#[inline]
pub fn read_i32(input: &mut &[u8]) -> Result<i32, VarintError> {
    if let Some(raw) = read_short(input) {
        return Ok(unzigzag_32(raw));
    }
    let raw = read_raw::<5>(input)?;
    Ok(unzigzag_32(u32::try_from(raw).map_err(|_| VarintError::Overflow)?))
}

/// Reads a 64-bit zigzag varint and moves `input` past it.
#[inline]
pub fn read_i64(input: &mut &[u8]) -> Result<i64, VarintError> {
    if let Some(raw) = read_short(input) {
        return Ok(unzigzag_64(u64::from(raw)));
    }
    Ok(unzigzag_64(read_raw::<10>(input)?))
}

/// Reads a varint of one or two bytes, as nearly all lengths and deltas are.
#[inline]
fn read_short(input: &mut &[u8]) -> Option<u32> {
    let (raw, rest) = match *input {
        [first @ 0..=0x7F, rest @ ..] => (u32::from(*first), rest),
        [first, second @ 0..=0x7F, rest @ ..] => (u32::from(first & 0x7F) | u32::from(*second) << 7, rest),
        _ => return None,
    };
    *input = rest;
    Some(raw)
}

/// Reads at most `MAX` groups of seven bits. `input` does not move on an error.
fn read_raw<const MAX: usize>(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(MAX).enumerate() {
        // The tenth byte has room for one bit only.
        if i == 9 && byte > 1 {
            return Err(VarintError::Overflow);
        }
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() >= MAX { VarintError::Overflow } else { VarintError::Truncated })
}

/// Appends `value` as a 32-bit zigzag varint.
#[inline]
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_raw(out, u64::from(zigzag_32(value)));
}

/// Appends `value` as a 64-bit zigzag varint.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_raw(out, zigzag_64(value));
}

#[inline]
fn write_raw(out: &mut Vec<u8>, mut raw: u64) {
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Returns the number of bytes that [`write_i32`] appends.
#[inline]
pub fn size_i32(value: i32) -> usize {
    size_raw(u64::from(zigzag_32(value)))
}

/// Returns the number of bytes that [`write_i64`] appends.
#[inline]
pub fn size_i64(value: i64) -> usize {
    size_raw(zigzag_64(value))
}

#[inline]
fn size_raw(raw: u64) -> usize {
    let bits = 64 - (raw | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

#[inline]
fn unzigzag_64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interesting() -> impl Iterator<Item = i64> {
        (0..64).flat_map(|shift| {
            let power = 1i64 << shift;
            [power, power.wrapping_sub(1), power.wrapping_neg(), !power]
        })
    }

    #[test]
    fn known_bytes() {
        // Values and bytes of Kafka's ByteUtilsTest.
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7E]),
            (-64, &[0x7F]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (8191, &[0xFE, 0x7F]),
            (i32::MAX, &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F]),
            (i32::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        ] {
            let mut out = Vec::new();
            write_i32(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(read_i32(&mut &*out), Ok(value));
        }
        let mut out = Vec::new();
        write_i64(&mut out, i64::MIN);
        assert_eq!(out, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    }

    #[test]
    fn round_trip_sizes_and_every_cut() {
        for value in interesting() {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            assert_eq!(out.len(), size_i64(value));
            for cut in 0..out.len() {
                let mut input = &out[..cut];
                assert_eq!(read_i64(&mut input), Err(VarintError::Truncated));
                assert_eq!(input.len(), cut, "an error does not move the input");
            }
            out.push(0xAA);
            let mut input = &*out;
            assert_eq!(read_i64(&mut input), Ok(value));
            assert_eq!(input, [0xAA]);

            let small = value as i32;
            let mut out = Vec::new();
            write_i32(&mut out, small);
            assert_eq!(out.len(), size_i32(small));
            assert_eq!(read_i32(&mut &*out), Ok(small));
            assert_eq!(read_i64(&mut &*out), Ok(i64::from(small)));
        }
    }

    #[test]
    fn too_long_is_rejected() {
        assert_eq!(read_i32(&mut &[0x80; 5][..]), Err(VarintError::Overflow));
        assert_eq!(read_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), Err(VarintError::Overflow));
        assert_eq!(read_i32(&mut &[0xFF, 0xFF, 0xFF, 0xFF, 0x10][..]), Err(VarintError::Overflow));
        assert_eq!(read_i32(&mut &[0x80; 4][..]), Err(VarintError::Truncated));
        assert_eq!(read_i64(&mut &[0xFF; 10][..]), Err(VarintError::Overflow));
        let two_bits_too_many = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02];
        assert_eq!(read_i64(&mut &two_bits_too_many[..]), Err(VarintError::Overflow));
        assert_eq!(read_i64(&mut &[][..]), Err(VarintError::Truncated));
    }
}
