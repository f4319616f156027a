//! Snappy in xerial framing, which snappy-java's `SnappyOutputStream` and Kafka's clients write.
//!
//! A stream has a header of 16 bytes (magic, version and least compatible version as big-endian `i32`) and then chunks:
//! a big-endian length and one raw snappy block each. Streams may follow one another. Some clients send one raw block
//! without any framing.

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
    let mut chunks = Chunks::new(input);
    while let Some(chunk) = chunks.next()? {
        decompress_block(chunk, max, &mut out)?;
    }
    Ok(out)
}

/// Walks the raw blocks of a payload.
pub(super) struct Chunks<'a> {
    rest: &'a [u8],
    /// The whole payload is one block without framing.
    is_raw: bool,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, is_raw: !input.starts_with(&MAGIC) }
    }

    /// Returns the next block.
    pub(super) fn next(&mut self) -> Result<Option<&'a [u8]>, CodecError> {
        if self.is_raw {
            self.is_raw = false;
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        // A raw block cannot start with the magic, which is a negative chunk length.
        while self.rest.starts_with(&MAGIC) {
            self.rest = self.rest.get(STREAM_HEADER_LEN..).ok_or_else(|| corrupt("the stream header is cut short"))?;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (length, after) = self.rest.split_first_chunk().ok_or_else(|| corrupt("a chunk length is cut short"))?;
        let (block, after) = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| after.split_at_checked(length))
            .ok_or_else(|| corrupt("a chunk length reaches past the end"))?;
        self.rest = after;
        Ok(Some(block))
    }
}

/// Checks a payload without decompressing it. Returns the bytes that it claims to hold.
pub(super) fn check_framing(input: &[u8]) -> Result<u64, CodecError> {
    let mut chunks = Chunks::new(input);
    let mut len = 0;
    while let Some(chunk) = chunks.next()? {
        let claimed = claimed_len(chunk)?;
        check_claim(chunk, claimed)?;
        len += claimed as u64;
    }
    Ok(len)
}

/// Returns the length that a raw block claims.
fn claimed_len(block: &[u8]) -> Result<usize, CodecError> {
    decompress_len(block).map_err(|error| corrupt(&error.to_string()))
}

/// Checks that a block can really have the length that it claims.
fn check_claim(block: &[u8], claimed: usize) -> Result<(), CodecError> {
    if claimed > block.len().saturating_mul(Codec::Snappy.expansion_max()) {
        return Err(corrupt("a block claims more than its bytes can hold"));
    }
    Ok(())
}

/// Appends one raw block to `out`.
pub(super) fn decompress_block(block: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let claimed = claimed_len(block)?;
    if claimed > max - start {
        return Err(CodecError::TooLarge { max });
    }
    check_claim(block, claimed)?;
    out.resize(start + claimed, 0);
    let len = Decoder::new().decompress(block, &mut out[start..]).map_err(|error| corrupt(&error.to_string()))?;
    out.truncate(start + len);
    Ok(())
}

fn corrupt(reason: &str) -> CodecError {
    CodecError::corrupt(Codec::Snappy, reason)
}
