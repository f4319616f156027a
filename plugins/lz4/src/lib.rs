//! `lz4`: a compressor that writes LZ4 frames, Kafka's codec 3.
#![forbid(unsafe_code)]

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use millstream_sdk::{Compressor, Format, Result, read_at_most};
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
        read_at_most(FrameDecoder::new(data), max)
    }
}

millstream_sdk::compressor!(Lz4);
