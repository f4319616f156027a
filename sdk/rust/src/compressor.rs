//! Compressors: make the bytes of a batch smaller.

use std::io;

use serde_core::de::DeserializeOwned;

use crate::error::{ConfigError, Result};

/// What a compressor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Kafka's codec 1: every Kafka client reads it.
    Gzip,
    /// Kafka's codec 2, with the framing of the Java client.
    Snappy,
    /// Kafka's codec 3: an LZ4 frame.
    Lz4,
    /// Kafka's codec 4.
    Zstd,
    /// A private format, by name: only this plug-in reads it.
    Private(&'static str),
}

impl Format {
    /// Returns the name of the codec or of the private format.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Snappy => "snappy",
            Format::Lz4 => "lz4",
            Format::Zstd => "zstd",
            Format::Private(name) => name,
        }
    }
}

/// Compresses the records of a batch, and reads them back.
///
/// The type is the configuration of the stage, as for every kind. Fields marked `#[serde(skip)]` are state to keep from
/// batch to batch, such as tables and buffers. Export the type with [`compressor!`](crate::compressor).
///
/// ```
/// use millstream_sdk::{Compressor, Format, Result, read_at_most};
///
/// /// Flips every bit: a private format of the same size.
/// #[derive(serde::Deserialize)]
/// struct Flip {}
///
/// impl Compressor for Flip {
///     const FORMAT: Format = Format::Private("flip");
///
///     fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
///         Ok(data.iter().map(|byte| !byte).collect())
///     }
///
///     fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
///         if data.len() > max {
///             return Err(format!("over {max} bytes").into());
///         }
///         self.compress(data)
///     }
/// }
///
/// millstream_sdk::compressor!(Flip);
/// # fn main() {}
/// ```
pub trait Compressor: DeserializeOwned + 'static {
    /// The format that the stage writes.
    const FORMAT: Format;

    /// Checks the configuration, as [`Filter::prepare`](crate::Filter::prepare) does.
    ///
    /// # Errors
    /// The configuration is not valid.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Compresses bytes. [`decompress`](Self::decompress) must return the same bytes again: the host checks that before
    /// it acknowledges a batch.
    ///
    /// # Errors
    /// The bytes cannot be compressed.
    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>>;

    /// Decompresses bytes, to at most `max` of them. Stop at `max`, whatever size the input claims.
    ///
    /// # Errors
    /// The input is not of this format, or the output is over `max` bytes.
    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>>;
}

/// Reads a decoder to its end, for [`Compressor::decompress`]. Memory grows with the real output, not with the size
/// that the input claims, and never over `max`.
///
/// # Errors
/// The decoder fails, or the output is over `max` bytes.
pub fn read_at_most(mut decoder: impl io::Read, max: usize) -> Result<Vec<u8>> {
    use io::Read;
    let mut output = Vec::new();
    // One byte more than the limit, to tell an output of exactly `max` bytes from a longer one.
    let limit = u64::try_from(max)?.saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut output)?;
    if output.len() > max {
        return Err(over(max));
    }
    Ok(output)
}

fn over(max: usize) -> crate::RowError {
    format!("the output is over {max} bytes").into()
}

/// Calls a compressor as the host does.
///
/// # Errors
/// The error of the stage, as text.
pub fn compress<C: Compressor>(stage: &mut C, data: &[u8]) -> Result<Vec<u8>, String> {
    stage.compress(data).map_err(|error| error.to_string())
}

/// Calls a compressor to decompress, as the host does.
///
/// # Errors
/// The error of the stage, as text, or an output over `max` bytes.
pub fn decompress<C: Compressor>(stage: &mut C, data: &[u8], max: u32) -> Result<Vec<u8>, String> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let output = stage.decompress(data, max).map_err(|error| error.to_string())?;
    if output.len() > max {
        return Err(over(max).to_string());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_cap() {
        assert_eq!(read_at_most(&b"12345"[..], 5).unwrap(), b"12345");
        let error = read_at_most(io::repeat(7), 5).unwrap_err().to_string();
        assert_eq!(error, "the output is over 5 bytes");
    }
}
