//! Decompresses a payload piece by piece into one buffer, which is reused from batch to batch.
//!
//! A check of the records needs each byte once, so it needs no room for the whole payload. A piece is at most 128 KiB
//! of gzip or zstd, one block of LZ4 (and the 64 KiB before it), or one block of snappy.

use std::io::Read;
use std::ops::Range;

use ::zstd::zstd_safe::{self, DCtx, InBuffer, OutBuffer, ResetDirective};
use flate2::bufread::MultiGzDecoder;

use super::lz4::{Block, Blocks, WINDOW};
use super::snappy::{self, Chunks};
use super::{Codec, CodecError, gzip};

/// The size of a piece of a stream codec, small enough to stay in a core's cache.
const PIECE_BYTES: usize = 64 << 10;

/// The most bytes that are kept for the next batch. A larger buffer, which a batch of large blocks needs, is freed.
const KEPT_BYTES: usize = 1 << 20;

/// The buffers for decompression, reused from batch to batch.
#[derive(Default)]
pub(crate) struct Scratch {
    buffer: Vec<u8>,
    zstd: Option<DCtx<'static>>,
}

impl Scratch {
    /// Frees buffers that are larger than usual.
    pub(crate) fn trim(&mut self) {
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        // A context keeps the window that a frame asked for, up to 128 MiB.
        if self.zstd.as_ref().is_some_and(|context| context.sizeof() > 8 * KEPT_BYTES) {
            self.zstd = None;
        }
    }
}

/// A payload that is being decompressed.
pub(crate) struct Pieces<'a, 's> {
    source: Source<'a>,
    scratch: &'s mut Scratch,
}

enum Source<'a> {
    Plain(Option<&'a [u8]>),
    Gzip {
        input: &'a [u8],
        decoder: Box<MultiGzDecoder<&'a [u8]>>,
    },
    Snappy(Chunks<'a>),
    Lz4 {
        blocks: Blocks<'a>,
        /// The bytes of output that the next block may refer to. They are at the start of the buffer.
        window: usize,
    },
    Zstd {
        input: InBuffer<'a>,
        /// The decoder's last return value: 0 at the end of a frame.
        hint: usize,
    },
}

impl<'a, 's> Pieces<'a, 's> {
    /// Starts to decompress `input`.
    pub(crate) fn new(codec: Codec, input: &'a [u8], scratch: &'s mut Scratch) -> Result<Self, CodecError> {
        let source = match codec {
            Codec::None => Source::Plain(Some(input)),
            Codec::Gzip => Source::Gzip { input, decoder: Box::new(MultiGzDecoder::new(input)) },
            Codec::Snappy => Source::Snappy(Chunks::new(input)),
            Codec::Lz4 => Source::Lz4 { blocks: Blocks::new(input)?, window: 0 },
            Codec::Zstd if input.is_empty() => return Err(CodecError::corrupt(Codec::Zstd, "there is no frame")),
            Codec::Zstd => {
                let context = match &mut scratch.zstd {
                    Some(context) => context,
                    empty => empty.insert(DCtx::try_create().ok_or_else(|| zstd_error("out of memory"))?),
                };
                context.reset(ResetDirective::SessionOnly).map_err(zstd_code)?;
                Source::Zstd { input: InBuffer { src: input, pos: 0 }, hint: 1 }
            }
        };
        Ok(Self { source, scratch })
    }

    /// Decompresses the next piece into the buffer and returns its range. The range is empty at the end of the payload,
    /// if nothing follows and every checksum is right.
    ///
    /// # Errors
    /// [`CodecError::Corrupt`].
    pub(crate) fn next(&mut self) -> Result<Range<usize>, CodecError> {
        let Scratch { buffer, zstd } = &mut *self.scratch;
        match &mut self.source {
            Source::Plain(input) => {
                buffer.clear();
                buffer.extend_from_slice(input.take().unwrap_or_default());
                Ok(0..buffer.len())
            }
            Source::Gzip { input, decoder } => {
                buffer.resize(PIECE_BYTES, 0);
                let len = decoder.read(buffer).map_err(|error| gzip::corrupt(input, error))?;
                Ok(0..len)
            }
            Source::Snappy(chunks) => {
                // An empty chunk must not count as the end.
                while let Some(chunk) = chunks.next()? {
                    buffer.clear();
                    snappy::decompress_block(chunk, usize::MAX, buffer)?;
                    if !buffer.is_empty() {
                        return Ok(0..buffer.len());
                    }
                }
                Ok(0..0)
            }
            Source::Lz4 { blocks, window } => lz4_piece(blocks, window, buffer),
            Source::Zstd { input, hint } => {
                let context = zstd.as_mut().ok_or_else(|| zstd_error("there is no context"))?;
                zstd_piece(context, input, hint, buffer)
            }
        }
    }

    /// Returns bytes of the buffer.
    #[inline]
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.scratch.buffer[range]
    }
}

impl Drop for Pieces<'_, '_> {
    fn drop(&mut self) {
        self.scratch.trim();
    }
}

fn lz4_piece(blocks: &mut Blocks<'_>, window: &mut usize, buffer: &mut Vec<u8>) -> Result<Range<usize>, CodecError> {
    while let Some(block) = blocks.next()? {
        // The next block may refer to the last bytes of the output so far.
        let kept = if blocks.are_linked() { (*window).min(WINDOW) } else { 0 };
        buffer.truncate(*window);
        buffer.drain(..*window - kept);
        match block {
            Block::Stored(bytes) => buffer.extend_from_slice(bytes),
            Block::Compressed(bytes) => blocks.decompress(bytes, usize::MAX, buffer)?,
        }
        *window = buffer.len();
        if buffer.len() > kept {
            blocks.note(&buffer[kept..]);
            return Ok(kept..buffer.len());
        }
    }
    Ok(0..0)
}

fn zstd_piece(
    context: &mut DCtx<'_>,
    input: &mut InBuffer<'_>,
    hint: &mut usize,
    buffer: &mut Vec<u8>,
) -> Result<Range<usize>, CodecError> {
    buffer.resize(2 * PIECE_BYTES, 0);
    loop {
        let at_end = input.pos == input.src.len();
        if at_end && *hint == 0 {
            return Ok(0..0);
        }
        let mut output = OutBuffer::around(&mut buffer[..]);
        *hint = context.decompress_stream(&mut output, input).map_err(zstd_code)?;
        let len = output.pos();
        if len > 0 {
            return Ok(0..len);
        }
        if at_end && *hint != 0 {
            return Err(zstd_error("the frame is cut short"));
        }
    }
}

fn zstd_code(code: usize) -> CodecError {
    zstd_error(zstd_safe::get_error_name(code))
}

fn zstd_error(reason: &str) -> CodecError {
    CodecError::corrupt(Codec::Zstd, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{compress, decompress};

    fn unpack(codec: Codec, input: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>, CodecError> {
        let mut pieces = Pieces::new(codec, input, scratch)?;
        let mut out = Vec::new();
        loop {
            let range = pieces.next()?;
            if range.is_empty() {
                return Ok(out);
            }
            out.extend_from_slice(pieces.bytes(range));
        }
    }

    /// Returns text that repeats, and noise that does not.
    fn content(len: usize) -> Vec<u8> {
        let mut state = 7u32;
        let next = |at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if (at / 1000).is_multiple_of(3) {
                (state >> 24) as u8
            } else {
                b"a line of text, again and again. "[at % 33]
            }
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn pieces_add_up_to_the_result_of_decompress() {
        let mut scratch = Scratch::default();
        for len in [0, 1, 1000, 65_536, 65_537, 400_000] {
            let content = content(len);
            for codec in Codec::ALL {
                let packed = compress(codec, None, &content).unwrap();
                assert_eq!(unpack(codec, &packed, &mut scratch).as_deref(), Ok(&content[..]), "{codec} {len}");
            }
        }
        assert!(scratch.buffer.capacity() <= KEPT_BYTES);
    }

    #[test]
    fn input_that_decompress_rejects_is_rejected_in_pieces_too() {
        let mut scratch = Scratch::default();
        let content = content(3000);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(codec, None, &content).unwrap();
            for at in 0..packed.len() {
                let cut = &packed[..at];
                assert_eq!(decompress(codec, cut, 1 << 20).ok(), unpack(codec, cut, &mut scratch).ok(), "{codec} {at}");
                for bit in [0x01, 0x80] {
                    let mut flipped = packed.clone();
                    flipped[at] ^= bit;
                    let (whole, pieces) = (decompress(codec, &flipped, 1 << 24), unpack(codec, &flipped, &mut scratch));
                    assert_eq!(whole.ok(), pieces.ok(), "{codec} {at} {bit}");
                }
            }
            // A correct batch can be read after all of those.
            assert_eq!(unpack(codec, &packed, &mut scratch).as_deref(), Ok(&content[..]));
        }
    }
}
