//! The LZ4 frame format, over the block codec of lz4_flex.
//!
//! Frames are read here and not by the library. Its reader accepts a frame that is cut between two blocks. It
//! also allocates by the block size that the header claims: 8 MiB and more for a few bytes.
//!
//! ```text
//! magic 0x184D2204 LE | FLG | BD | content size u64 LE, if FLG says so | header checksum
//! blocks: size u32 LE (top bit: stored) | bytes | xxh32, if FLG says so
//! 0u32 | xxh32 of the content, if FLG says so
//! ```

use std::hash::Hasher;
use std::io::Write;

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{Codec, CodecError};

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const FLG_VERSION_MASK: u8 = 0b1100_0000;
const FLG_VERSION: u8 = 0b0100_0000;
const FLG_INDEPENDENT: u8 = 0b0010_0000;
const FLG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLG_RESERVED: u8 = 0b0000_0010;
const FLG_DICTIONARY: u8 = 0b0000_0001;
const BLOCK_STORED: u32 = 0x8000_0000;
/// The largest distance of a match.
pub(super) const WINDOW: usize = 64 << 10;

/// Writes what Java's client writes: independent blocks of 64 KiB, without checksums. Its reader accepts no others.
pub(super) fn compress_into(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    let failed = |error: &dyn ToString| CodecError::compress(Codec::Lz4, error.to_string());
    encoder.write_all(input).map_err(|error| failed(&error))?;
    encoder.finish().map(drop).map_err(|error| failed(&error))
}

pub(super) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let mut blocks = Blocks::new(input)?;
    if blocks.frame.content_size.is_some_and(|size| size > max as u64) {
        return Err(CodecError::TooLarge { max });
    }
    let mut out = Vec::new();
    while let Some(block) = blocks.next()? {
        let start = out.len();
        match block {
            Block::Stored(bytes) if bytes.len() > max - start => return Err(CodecError::TooLarge { max }),
            Block::Stored(bytes) => out.extend_from_slice(bytes),
            Block::Compressed(bytes) => blocks.decompress(bytes, max, &mut out)?,
        }
        blocks.note(&out[start..]);
    }
    Ok(out)
}

/// Checks a frame without decompressing it. Returns the most bytes that it can hold.
pub(super) fn check_framing(input: &[u8]) -> Result<u64, CodecError> {
    let mut blocks = Blocks::without_content(input)?;
    let mut most = 0;
    while let Some(block) = blocks.next()? {
        most += match block {
            Block::Stored(bytes) => bytes.len(),
            Block::Compressed(bytes) => blocks.frame.block_max.min(bytes.len() * Codec::Lz4.expansion_max()),
        } as u64;
    }
    Ok(blocks.frame.content_size.map_or(most, |size| size.min(most)))
}

/// One block of a frame.
pub(super) enum Block<'a> {
    Stored(&'a [u8]),
    Compressed(&'a [u8]),
}

/// Walks the blocks of a frame.
pub(super) struct Blocks<'a> {
    frame: Frame,
    rest: &'a [u8],
    /// The content so far; `None` if the blocks are only counted.
    content: Option<Content>,
    /// Whether the end mark and what follows it have been read.
    is_done: bool,
}

/// The content of a frame, as far as it is decompressed.
struct Content {
    len: u64,
    /// Its checksum, if the frame has one.
    hasher: Option<XxHash32>,
}

impl<'a> Blocks<'a> {
    /// Walks over blocks that will all be decompressed; see [`Self::note`].
    pub(super) fn new(input: &'a [u8]) -> Result<Self, CodecError> {
        let mut blocks = Self::without_content(input)?;
        let hasher = blocks.frame.has(FLG_CONTENT_CHECKSUM).then(|| XxHash32::with_seed(0));
        blocks.content = Some(Content { len: 0, hasher });
        Ok(blocks)
    }

    /// Walks over blocks that are not decompressed.
    pub(super) fn without_content(input: &'a [u8]) -> Result<Self, CodecError> {
        let mut rest = input;
        let frame = Frame::read(&mut rest)?;
        Ok(Self { frame, rest, content: None, is_done: false })
    }

    /// Returns the next block. At the end of the frame, checks the frame's size and checksum of the content.
    pub(super) fn next(&mut self) -> Result<Option<Block<'a>>, CodecError> {
        if self.is_done {
            return Ok(None);
        }
        let size = u32::from_le_bytes(take_array(&mut self.rest, "a block size")?);
        if size == 0 {
            self.is_done = true;
            return self.check_end().map(|()| None);
        }
        let length = (size & !BLOCK_STORED) as usize;
        if length > self.frame.block_max {
            return Err(corrupt("a block is larger than the frame's header allows"));
        }
        let block = take(&mut self.rest, length, "a block")?;
        if self.frame.has(FLG_BLOCK_CHECKSUM) {
            check(block, take_array(&mut self.rest, "a block checksum")?, "a block checksum does not match")?;
        }
        Ok(Some(if size & BLOCK_STORED == 0 { Block::Compressed(block) } else { Block::Stored(block) }))
    }

    /// Returns whether a block may refer to the ones before it.
    pub(super) fn are_linked(&self) -> bool {
        !self.frame.has(FLG_INDEPENDENT)
    }

    /// Appends the content of a compressed block to `out`, which ends with the content before it.
    pub(super) fn decompress(&self, block: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.frame.decompress_block(block, max, out)
    }

    /// Adds the content of a block to the checksum and the length.
    pub(super) fn note(&mut self, content: &[u8]) {
        let Some(noted) = &mut self.content else { return };
        noted.len += content.len() as u64;
        if let Some(hasher) = &mut noted.hasher {
            hasher.write(content);
        }
    }

    fn check_end(&mut self) -> Result<(), CodecError> {
        let stored = match self.frame.has(FLG_CONTENT_CHECKSUM) {
            true => Some(u32::from_le_bytes(take_array(&mut self.rest, "the content checksum")?)),
            false => None,
        };
        if let Some(content) = &self.content {
            if content.hasher.as_ref().map(XxHash32::finish_32) != stored {
                return Err(corrupt("the content checksum does not match"));
            }
            if self.frame.content_size.is_some_and(|size| size != content.len) {
                return Err(corrupt("the content is not as long as the frame's header says"));
            }
        }
        if !self.rest.is_empty() {
            return Err(corrupt("bytes follow the frame"));
        }
        Ok(())
    }
}

/// The fields of a frame's header.
struct Frame {
    flags: u8,
    block_max: usize,
    content_size: Option<u64>,
}

impl Frame {
    fn read(rest: &mut &[u8]) -> Result<Self, CodecError> {
        if take_array(rest, "the magic")? != MAGIC {
            return Err(corrupt("it does not start with an LZ4 frame's magic"));
        }
        let descriptor = *rest;
        let [flags, block] = take_array(rest, "the header")?;
        if flags & FLG_VERSION_MASK != FLG_VERSION || flags & FLG_RESERVED != 0 {
            return Err(corrupt("the frame's version is unknown"));
        }
        if flags & FLG_DICTIONARY != 0 {
            return Err(corrupt("the frame needs a dictionary"));
        }
        let block_max = match block {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(corrupt("the frame's block size is unknown")),
        };
        let content_size = match flags & FLG_CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(take_array(rest, "the content size")?)),
        };
        let descriptor = &descriptor[..descriptor.len() - rest.len()];
        let [checksum] = take_array(rest, "the header checksum")?;
        if checksum != (XxHash32::oneshot(0, descriptor) >> 8) as u8 {
            return Err(corrupt("the header checksum does not match"));
        }
        Ok(Self { flags, block_max, content_size })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends the content of `block` to `out`.
    fn decompress_block(&self, block: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        let possible = self.block_max.min(block.len() * Codec::Lz4.expansion_max());
        let room = possible.min(max - start);
        out.resize(start + room, 0);
        let (before, free) = out.split_at_mut(start);
        let result = if self.has(FLG_INDEPENDENT) {
            decompress_into(block, free)
        } else {
            decompress_into_with_dict(block, free, &before[start.saturating_sub(WINDOW)..])
        };
        match result {
            Ok(len) => {
                out.truncate(start + len);
                Ok(())
            }
            Err(DecompressError::OutputTooSmall { .. }) if room < possible => Err(CodecError::TooLarge { max }),
            Err(error) => Err(CodecError::corrupt(Codec::Lz4, error)),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize, what: &str) -> Result<&'a [u8], CodecError> {
    let (taken, after) = rest.split_at_checked(length).ok_or_else(|| corrupt(&format!("{what} is cut short")))?;
    *rest = after;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8], what: &str) -> Result<[u8; N], CodecError> {
    let (taken, after) = rest.split_first_chunk().ok_or_else(|| corrupt(&format!("{what} is cut short")))?;
    *rest = after;
    Ok(*taken)
}

fn check(bytes: &[u8], checksum: [u8; 4], mismatch: &str) -> Result<(), CodecError> {
    if XxHash32::oneshot(0, bytes) == u32::from_le_bytes(checksum) { Ok(()) } else { Err(corrupt(mismatch)) }
}

fn corrupt(reason: &str) -> CodecError {
    CodecError::corrupt(Codec::Lz4, reason)
}
