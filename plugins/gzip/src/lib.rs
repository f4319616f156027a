//! `gzip{"level":6}`: a compressor that writes gzip, Kafka's codec 1.
#![forbid(unsafe_code)]

use std::io::Write;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use millstream_sdk::{Compressor, ConfigError, Format, Result, read_at_most};
use serde::Deserialize;

/// gzip (RFC 1952).
#[derive(Debug, Deserialize)]
pub struct Gzip {
    /// From 1, the fastest, to 9, the smallest [default: 6].
    level: Option<u32>,
}

impl Compressor for Gzip {
    const FORMAT: Format = Format::Gzip;

    fn prepare(&mut self) -> Result<(), ConfigError> {
        match self.level {
            Some(level) if !(1..=9).contains(&level) => Err(ConfigError::new("/level", "a level is from 1 to 9")),
            _ => Ok(()),
        }
    }

    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let level = self.level.map_or(Compression::default(), Compression::new);
        let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2), level);
        encoder.write_all(data)?;
        Ok(encoder.finish()?)
    }

    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        read_at_most(MultiGzDecoder::new(data), max)
    }
}

millstream_sdk::compressor!(Gzip);
