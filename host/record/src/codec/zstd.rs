//! Zstandard, by the reference library.

use ::zstd::bulk::Compressor;
use ::zstd::zstd_safe::{self, DCtx};
use zstd_safe::zstd_sys::ZSTD_ErrorCode;

use super::{Codec, CodecError};

/// The level of Kafka's clients.
const LEVEL_DEFAULT: i32 = 3;
/// The largest block of a frame (RFC 8878, 3.1.1.2.4).
const BLOCK_MAX: usize = 128 << 10;
/// The header of a block, which is the smallest block.
const BLOCK_HEADER_LEN: usize = 3;
/// The first guess for a frame without a size, such as those of Java.
const RATIO_GUESS: usize = 4;

pub(super) fn compress_into(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    // Compresses in one call into room for the worst case, so that the frame has its content size.
    out.resize(start + zstd_safe::compress_bound(input.len()), 0);
    let len = Compressor::new(level.unwrap_or(LEVEL_DEFAULT))
        .and_then(|mut compressor| compressor.compress_to_buffer(input, &mut out[start..]))
        .map_err(|error| CodecError::compress(Codec::Zstd, error))?;
    out.truncate(start + len);
    Ok(())
}

/// Decompresses in one call, not as a stream: a stream decoder allocates the window that the frame claims, up to 128
/// MiB, while this one needs only the output. If the output is too small, the input has really filled it, and only then
/// is it doubled.
pub(super) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    if input.is_empty() {
        return Err(CodecError::corrupt(Codec::Zstd, "there is no frame"));
    }
    // No input can produce more than this, so a buffer of this size that is too small means corrupt bytes.
    let possible = (input.len() / BLOCK_HEADER_LEN + 1).saturating_mul(BLOCK_MAX);
    let limit = max.min(possible);
    let guess = input.len().saturating_mul(RATIO_GUESS);
    let mut capacity = match zstd_safe::get_frame_content_size(input) {
        Ok(Some(claimed)) if claimed > max as u64 => return Err(CodecError::TooLarge { max }),
        // The claimed size counts only up to a common ratio. A further frame finds too little room, and gets a larger
        // buffer.
        Ok(Some(claimed)) => (claimed as usize).min(guess.saturating_mul(RATIO_GUESS)),
        Ok(None) | Err(_) => guess,
    }
    .min(limit);
    let mut context = DCtx::try_create().ok_or_else(|| CodecError::corrupt(Codec::Zstd, "out of memory"))?;
    loop {
        let mut out = Vec::with_capacity(capacity);
        let capacity_real = out.capacity();
        match context.decompress(&mut out, input) {
            // The allocator may have returned more than was requested.
            Ok(len) if len > max => return Err(CodecError::TooLarge { max }),
            Ok(_) => return Ok(out),
            Err(code) if !zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
                return Err(CodecError::corrupt(Codec::Zstd, zstd_safe::get_error_name(code)));
            }
            Err(_) if capacity_real < limit => {
                capacity = capacity_real.max(BLOCK_MAX / 2).saturating_mul(2).min(limit);
            }
            Err(_) if limit == max => return Err(CodecError::TooLarge { max }),
            Err(code) => {
                return Err(CodecError::corrupt(Codec::Zstd, zstd_safe::get_error_name(code)));
            }
        }
    }
}

/// Checks frames without decompressing them. Returns the most bytes that they can hold.
pub(super) fn check_framing(input: &[u8]) -> Result<u64, CodecError> {
    if input.is_empty() {
        return Err(CodecError::corrupt(Codec::Zstd, "there is no frame"));
    }
    let mut rest = input;
    while !rest.is_empty() {
        // Walks the headers of the blocks.
        let len = zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| CodecError::corrupt(Codec::Zstd, zstd_safe::get_error_name(code)))?;
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok((input.len() / BLOCK_HEADER_LEN + 1).saturating_mul(BLOCK_MAX) as u64)
}
