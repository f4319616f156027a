//! `zstd{"level":3}`: a compressor that writes Zstandard, Kafka's codec 4.
#![forbid(unsafe_code)]

use std::fmt;

use millstream_sdk::{Compressor, ConfigError, Format, Result, read_at_most};
use serde::Deserialize;
use structured_zstd::decoding::StreamingDecoder;
use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

/// Zstandard (RFC 8878).
#[derive(Deserialize)]
pub struct Zstd {
    /// From 1, the fastest, to 22, the smallest [default: 3].
    level: Option<i32>,
    /// Kept from batch to batch, for its tables.
    #[serde(skip)]
    encoder: Option<FrameCompressor>,
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Compressor for Zstd {
    const FORMAT: Format = Format::Zstd;

    fn prepare(&mut self) -> Result<(), ConfigError> {
        let level = self.level.unwrap_or(3);
        if !(1..=22).contains(&level) {
            return Err(ConfigError::new("/level", "a level is from 1 to 22"));
        }
        self.encoder = Some(FrameCompressor::new(CompressionLevel::from_level(level)));
        Ok(())
    }

    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let encoder = self.encoder.as_mut().expect("`prepare` made the encoder");
        Ok(encoder.compress_independent_frame(data))
    }

    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        read_at_most(StreamingDecoder::new(data), max)
    }
}

millstream_sdk::compressor!(Zstd);
