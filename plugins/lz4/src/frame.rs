//! Reads the LZ4 frame format, over the block codec of lz4_flex. The frame reader of that library is not used: it
//! accepts a frame that is cut between two blocks, and copies every block once more.
//!
//! ```text
//! magic 0x184D2204 LE | FLG | BD | content size u64 LE, if FLG says so | header checksum
//! blocks: size u32 LE (top bit: stored) | bytes | xxh32, if FLG says so
//! 0u32 | xxh32 of the content, if FLG says so
//! ```

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use millstream_sdk::Result;
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const FLG_VERSION_MASK: u8 = 0b1100_0000;
const FLG_VERSION: u8 = 0b0100_0000;
const FLG_INDEPENDENT: u8 = 0b0010_0000;
const FLG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLG_RESERVED: u8 = 0b0000_0010;
const FLG_DICTIONARY: u8 = 0b0000_0001;

/// The header of what is written: independent blocks of at most 64 KiB, no checksum but its own.
pub(crate) const HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, FLG_VERSION | FLG_INDEPENDENT, 0x40, 0x82];

/// The bit in a block's size that marks a block whose bytes are stored uncompressed.
pub(crate) const BLOCK_STORED: u32 = 0x8000_0000;

/// The mark after the last block.
pub(crate) const END: [u8; 4] = [0; 4];

/// The largest distance of a match.
const WINDOW: usize = 64 << 10;

/// The most bytes that one byte of a block can become.
const EXPANSION_MAX: usize = 255;

/// A frame whose header has been read.
pub(crate) struct Frame<'a> {
    flags: u8,
    block_max: usize,
    content_size: Option<u64>,
    /// What follows the header.
    blocks: &'a [u8],
}

struct Block<'a> {
    bytes: &'a [u8],
    is_stored: bool,
    checksum: Option<u32>,
}

impl<'a> Frame<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Result<Self> {
        let mut rest = data;
        if take::<4>(&mut rest)? != MAGIC {
            return Err("it does not start with an LZ4 frame's magic".into());
        }
        let descriptor = rest;
        let [flags, block] = take(&mut rest)?;
        if flags & FLG_VERSION_MASK != FLG_VERSION || flags & FLG_RESERVED != 0 {
            return Err("the frame's version is unknown".into());
        }
        if flags & FLG_DICTIONARY != 0 {
            return Err("the frame needs a dictionary".into());
        }
        let block_max = match block {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err("the frame's block size is unknown".into()),
        };
        let content_size = match flags & FLG_CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(take(&mut rest)?)),
        };
        let descriptor = &descriptor[..descriptor.len() - rest.len()];
        let [checksum] = take(&mut rest)?;
        if checksum != XxHash32::oneshot(0, descriptor).to_le_bytes()[1] {
            return Err("the header checksum does not match".into());
        }
        Ok(Self { flags, block_max, content_size, blocks: rest })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Takes the next block; `None` at the end mark.
    fn next(&self, rest: &mut &'a [u8]) -> Result<Option<Block<'a>>> {
        let size = u32::from_le_bytes(take(rest)?);
        if size == 0 {
            return Ok(None);
        }
        let length = usize::try_from(size & !BLOCK_STORED)?;
        if length > self.block_max {
            return Err("a block is larger than the frame's header allows".into());
        }
        let (bytes, behind) = rest.split_at_checked(length).ok_or("the frame is cut")?;
        *rest = behind;
        let checksum = if self.has(FLG_BLOCK_CHECKSUM) { Some(u32::from_le_bytes(take(rest)?)) } else { None };
        Ok(Some(Block { bytes, is_stored: size & BLOCK_STORED != 0, checksum }))
    }

    /// Returns the most bytes that all blocks together can become, at most `max`. Walks the frame to its end mark.
    fn room(&self, max: usize) -> Result<usize> {
        let mut rest = self.blocks;
        let mut room = 0_usize;
        while let Some(Block { bytes, is_stored, .. }) = self.next(&mut rest)? {
            let factor = if is_stored { 1 } else { EXPANSION_MAX };
            room = room.saturating_add(bytes.len().saturating_mul(factor).min(self.block_max));
        }
        Ok(room.min(max))
    }

    /// Returns the content of the frame, at most `max` bytes.
    pub(crate) fn decompress(&self, max: usize) -> Result<Vec<u8>> {
        let mut output = vec![0; self.room(max)?];
        let mut end = 0;
        let mut rest = self.blocks;
        while let Some(block) = self.next(&mut rest)? {
            if block.checksum.is_some_and(|checksum| checksum != XxHash32::oneshot(0, block.bytes)) {
                return Err("a block checksum does not match".into());
            }
            let (before, free) = output.split_at_mut(end);
            let room = free.len().min(self.block_max);
            let is_short = room < self.block_max;
            match self.decompress_block(&block, before, &mut free[..room]) {
                Ok(size) => end += size,
                // There is room for all that the blocks can become, unless that is over the limit.
                Err(DecompressError::OutputTooSmall { .. }) if is_short => {
                    return Err(format!("the output is over {max} bytes").into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        output.truncate(end);
        self.check_end(&output, rest)?;
        Ok(output)
    }

    /// Writes the content of `block` to `free`; `before` is the content of the blocks before it.
    fn decompress_block(&self, block: &Block<'_>, before: &[u8], free: &mut [u8]) -> Result<usize, DecompressError> {
        let bytes = block.bytes;
        if block.is_stored {
            let (expected, actual) = (bytes.len(), free.len());
            let room = free.get_mut(..expected).ok_or(DecompressError::OutputTooSmall { expected, actual })?;
            room.copy_from_slice(bytes);
            Ok(expected)
        } else if self.has(FLG_INDEPENDENT) {
            decompress_independent(bytes, free)
        } else {
            decompress_into_with_dict(bytes, free, &before[before.len().saturating_sub(WINDOW)..])
        }
    }

    /// Checks what follows the end mark.
    fn check_end(&self, content: &[u8], mut rest: &[u8]) -> Result<()> {
        if self.has(FLG_CONTENT_CHECKSUM) && XxHash32::oneshot(0, content) != u32::from_le_bytes(take(&mut rest)?) {
            return Err("the content checksum does not match".into());
        }
        if self.content_size.is_some_and(|size| size != content.len() as u64) {
            return Err("the content is not as long as the frame's header says".into());
        }
        if !rest.is_empty() {
            return Err("bytes follow the frame".into());
        }
        Ok(())
    }
}

/// Decompresses a block on its own. It stays a separate function for the compiler of the sandbox: inlined, that runs
/// out of registers, keeps the ends of input and output in memory, and the code takes twice as long.
#[inline(never)]
fn decompress_independent(block: &[u8], output: &mut [u8]) -> Result<usize, DecompressError> {
    decompress_into(block, output)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk().ok_or("the frame is cut")?;
    *rest = behind;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lz4;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use millstream_sdk::Compressor;
    use std::io::Write;

    /// Returns text that repeats itself at many distances, with some bytes that do not repeat.
    fn content(bytes: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let mut content = Vec::new();
        while content.len() < bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 30 {
                0 => content.extend_from_slice(&state.to_le_bytes()),
                1 => content.extend_from_slice(&[b'a'; 40]),
                _ => content.extend_from_slice(format!("{{\"row\":{},\"name\":\"x\"}}", state >> 20).as_bytes()),
            }
        }
        content.truncate(bytes);
        content
    }

    fn frame(info: FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, String> {
        Frame::read(data).and_then(|frame| frame.decompress(max)).map_err(|error| error.to_string())
    }

    #[test]
    fn frames_of_every_kind_are_read() {
        let content = content(300_000);
        let size = Some(content.len() as u64);
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for blocks in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for has in [false, true] {
                    let info = FrameInfo::new().block_mode(mode).block_size(blocks).block_checksums(has);
                    let info = info.content_checksum(has).content_size(size.filter(|_| has));
                    let frame = frame(info, &content);
                    assert!(decompress(&frame, content.len()).is_ok_and(|back| back == content), "{mode:?} {blocks:?}");
                    let error = decompress(&frame, content.len() - 1).unwrap_err();
                    assert_eq!(error, "the output is over 299999 bytes", "{mode:?} {blocks:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_what_the_library_writes() {
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
        let mut stage: Lz4 = millstream_sdk::config::from_json("{}").unwrap();
        for bytes in [0, 1, 12, 13, 1_000, 65_535, 65_536, 65_537, 200_000] {
            let content = content(bytes);
            let written = stage.compress(&content).unwrap();
            let theirs = frame(info.clone(), &content);
            assert_eq!(written[..HEADER.len()], theirs[..HEADER.len()]);
            assert_eq!(decompress(&written, bytes).unwrap(), content, "{bytes}");
            assert_eq!(decompress(&theirs, bytes).unwrap(), content, "{bytes}");
            let mut back = Vec::new();
            std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(&written[..]), &mut back).unwrap();
            assert_eq!(back, content, "{bytes}");
        }
    }

    #[test]
    fn a_cut_or_damaged_frame_is_an_error() {
        let content = content(3_000);
        let info = FrameInfo::new().block_checksums(true).content_checksum(true);
        let whole = frame(info, &content);
        for end in 0..whole.len() {
            assert!(decompress(&whole[..end], 9_000).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            assert!(decompress(&bad, 9_000).is_err(), "byte {at}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(decompress(&longer, 9_000).unwrap_err(), "bytes follow the frame");
    }

    /// Without checksums the bytes of a block are unprotected, but the header, the end mark and the limit are still
    /// checked.
    #[test]
    fn damage_without_checksums_is_harmless() {
        let max = 3_100;
        let plain = frame(FrameInfo::new(), &content(3_000));
        let blocks = HEADER.len()..plain.len() - END.len();
        let mut unseen = 0;
        for at in 0..plain.len() {
            let mut bad = plain.clone();
            bad[at] ^= 0xff;
            match decompress(&bad, max) {
                Err(error) => assert!(!error.is_empty(), "byte {at}"),
                Ok(back) => {
                    assert!(blocks.contains(&at), "damage at byte {at} must be seen");
                    assert!(back.len() <= max, "byte {at}: {} bytes", back.len());
                    unseen += 1;
                }
            }
        }
        assert!(unseen > 0, "some damage changes only literals");
    }
}
