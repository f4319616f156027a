//! Snappy in xerial framing: what snappy-java's `SnappyOutputStream` writes, and Kafka's clients with it.
//!
//! A stream is a header of 16 bytes (magic, version and least compatible version as big-endian `i32`) and then
//! chunks: a big-endian length and one raw snappy block each. Streams may follow one another. Some clients
//! send one raw block without any framing.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::{Codec, CodecError};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
const STREAM_HEADER_LEN: usize = 16;
/// The block size of snappy-java.
const BLOCK: usize = 32 << 10;

pub(super) fn compress_into(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = Encoder::new();
    for block in input.chunks(BLOCK) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + max_compress_len(block.len()), 0);
        let len =
            encoder.compress(block, &mut out[start..]).map_err(|error| CodecError::compress(Codec::Snappy, error))?;
        out[length_at..start].copy_from_slice(&(len as i32).to_be_bytes());
        out.truncate(start + len);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    if !input.starts_with(&MAGIC) {
        decompress_block(input, max, &mut out)?;
        return Ok(out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        // A raw block cannot start so: its length would be negative as a chunk's.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(STREAM_HEADER_LEN..).ok_or_else(|| corrupt("the stream header is cut short"))?;
            continue;
        }
        let (length, after) = rest.split_first_chunk().ok_or_else(|| corrupt("a chunk length is cut short"))?;
        let (block, after) = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| after.split_at_checked(length))
            .ok_or_else(|| corrupt("a chunk length reaches past the end"))?;
        decompress_block(block, max, &mut out)?;
        rest = after;
    }
    Ok(out)
}

/// Appends one raw block to `out`.
fn decompress_block(block: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let claimed = decompress_len(block).map_err(|error| corrupt(&error.to_string()))?;
    if claimed > max - start {
        return Err(CodecError::TooLarge { max });
    }
    // The claim is believed only as far as the format can make it true.
    if claimed > block.len().saturating_mul(Codec::Snappy.expansion_max()) {
        return Err(corrupt("a block claims more than its bytes can hold"));
    }
    out.resize(start + claimed, 0);
    let len = Decoder::new().decompress(block, &mut out[start..]).map_err(|error| corrupt(&error.to_string()))?;
    out.truncate(start + len);
    Ok(())
}

fn corrupt(reason: &str) -> CodecError {
    CodecError::corrupt(Codec::Snappy, reason)
}
