//! Compressors: the bytes of a batch, smaller.

use std::io;

use serde::de::DeserializeOwned;

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
    /// A format of the plug-in's own, by name: only this plug-in reads it.
    Private(&'static str),
}

impl Format {
    /// The name of the codec or of the private format.
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
/// The type is the stage's configuration, as for every stage; fields marked `#[serde(skip)]` are state that is worth
/// keeping from batch to batch, such as tables and buffers. Export it with [`compressor!`](crate::compressor).
///
/// ```
/// use millstream_sdk::{Compressor, Format, Result, read_at_most};
///
/// /// Flips every bit: no smaller, but its own format.
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
    /// What the stage writes.
    const FORMAT: Format;

    /// As [`Filter::prepare`](crate::Filter::prepare).
    ///
    /// # Errors
    /// The configuration is refused.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Smaller bytes that [`decompress`](Self::decompress) makes the same bytes of: the host tries that before it
    /// acknowledges anything.
    ///
    /// # Errors
    /// The bytes cannot be compressed.
    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>>;

    /// The bytes that were compressed, at most `max` of them: stop there, whatever the input claims of itself.
    ///
    /// # Errors
    /// The bytes are not of this format, or there are more than `max`.
    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>>;
}

/// Reads to the end of a decoder, for [`Compressor::decompress`]: memory grows with what comes out, not with what the
/// input claims, and never over `max`.
///
/// # Errors
/// The decoder's, and that there are more than `max` bytes.
pub fn read_at_most(mut decoder: impl io::Read, max: usize) -> Result<Vec<u8>> {
    use io::Read;
    let mut output = Vec::new();
    // One more than the cap, to tell an output of exactly `max` bytes from a longer one.
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

/// One call of a compressor, as the host makes it.
///
/// # Errors
/// The stage's, as text.
pub fn compress<C: Compressor>(stage: &mut C, data: &[u8]) -> Result<Vec<u8>, String> {
    stage.compress(data).map_err(|error| error.to_string())
}

/// One call of a compressor to read back, as the host makes it.
///
/// # Errors
/// The stage's, as text, and an answer over `max`.
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
