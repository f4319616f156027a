//! `lz4`: a compressor that writes LZ4 frames, Kafka's codec 3.
#![forbid(unsafe_code)]

use std::io::{BufRead, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;

/// LZ4 frames of independent blocks of 64 KiB: the Java client reads no others.
#[derive(Debug, Deserialize)]
pub struct Lz4 {}

impl Compressor for Lz4 {
    const FORMAT: Format = Format::Lz4;

    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(data.len() / 2));
        encoder.write_all(data)?;
        Ok(encoder.finish()?)
    }

    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        check_end(data).ok_or("the frame is cut")?;
        let mut decoder = FrameDecoder::new(data);
        // Text is a quarter of its size; more than that grows with what comes out.
        let mut output = Vec::with_capacity(max.min(data.len().saturating_mul(4)));
        loop {
            let block = decoder.fill_buf()?;
            if block.is_empty() {
                return Ok(output);
            }
            if block.len() > max - output.len() {
                return Err(format!("the output is over {max} bytes").into());
            }
            output.extend_from_slice(block);
            let read = block.len();
            decoder.consume(read);
        }
    }
}

/// Goes from block to block to the end of the frame: the decoder takes one that is cut before its end mark as whole.
fn check_end(data: &[u8]) -> Option<()> {
    let flags = *data.get(4)?;
    let has = |bit: u8, bytes: usize| if flags & bit == 0 { 0 } else { bytes };
    // Magic, flags, block size; content size; dictionary; checksum of the header.
    let mut rest = data.get(6 + has(0x08, 8) + has(0x01, 4) + 1..)?;
    loop {
        let (size, blocks) = rest.split_first_chunk()?;
        // The high bit says that the block is stored as it was.
        match u32::from_le_bytes(*size) & 0x7fff_ffff {
            0 => return blocks.get(has(0x04, 4)..).map(drop),
            size => rest = blocks.get(usize::try_from(size).ok()?.checked_add(has(0x10, 4))?..)?,
        }
    }
}

millstream_sdk::compressor!(Lz4);
