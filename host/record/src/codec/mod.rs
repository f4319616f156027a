//! The standard codecs, as Kafka's clients write and read them.
//!
//! Every decompression has a limit and never allocates by a size that the input claims. The output grows with the bytes
//! that were produced, or by no more than the codec can make of the input ([`Codec::expansion_max`]).
//!
//! | Codec | Written | Read |
//! |---|---|---|
//! | gzip | one member (RFC 1952) | any number of members |
//! | snappy | xerial framing, blocks of 32 KiB | xerial framing, several streams; a raw block |
//! | lz4 | a frame, independent blocks of 64 KiB | one frame, also with dependent blocks and checksums |
//! | zstd | one frame with its content size | any number of frames |

mod gzip;
mod lz4;
pub(crate) mod pieces;
mod snappy;
mod zstd;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::layout::CODEC_MASK;

/// The compression of a batch's records: `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// No compression.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of the Java library snappy-java (xerial).
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// All codecs, by id.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the codec in a batch's attributes.
    ///
    /// # Errors
    /// [`CodecError::UnknownId`] for the ids 5 to 7.
    #[inline]
    pub fn from_attributes(attributes: i16) -> Result<Self, CodecError> {
        let id = attributes & CODEC_MASK;
        Self::ALL.get(id as usize).copied().ok_or(CodecError::UnknownId(id))
    }

    /// Returns its id in a batch's attributes.
    #[inline]
    pub fn id(self) -> i16 {
        self as i16
    }

    /// Returns its name in Kafka's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the levels that Kafka's configuration allows (`compression.gzip.level` and so on); `None` if the codec
    /// has no level. The level of lz4 is accepted and has no effect, since there is one fast encoder.
    pub fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some(1..=9),
            Self::Lz4 => Some(1..=17),
            Self::Zstd => Some(-131_072..=22),
        }
    }

    /// Returns the most bytes that one byte can decompress to, rounded up. It limits what is allocated for an input.
    pub const fn expansion_max(self) -> usize {
        match self {
            Self::None => 1,
            // A match of 258 bytes in two bits.
            Self::Gzip => 1032,
            // A copy of 64 bytes in three.
            Self::Snappy => 22,
            // Each further byte of a match length adds 255.
            Self::Lz4 => 255,
            // A block of 128 KiB of one byte is four bytes; three for the header of an empty one.
            Self::Zstd => (128 << 10) / 3 + 1,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = CodecError;

    /// Parses a name of Kafka's configuration. For a topic, `uncompressed` means `none`.
    fn from_str(name: &str) -> Result<Self, CodecError> {
        match name {
            "uncompressed" => Ok(Self::None),
            name => Self::ALL
                .into_iter()
                .find(|codec| codec.name() == name)
                .ok_or_else(|| CodecError::UnknownName(name.to_owned())),
        }
    }
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No codec has this id.
    #[error("compression codec {0} is unknown: 0 to 4 are none, gzip, snappy, lz4 and zstd")]
    UnknownId(i16),
    /// No codec has this name.
    #[error("compression codec {0:?} is unknown: use none, gzip, snappy, lz4 or zstd")]
    UnknownName(String),
    /// The codec has no such level.
    #[error("{codec} has no compression level {level}{}", levels(*.codec))]
    Level {
        /// The codec.
        codec: Codec,
        /// The requested level.
        level: i32,
    },
    /// The output is larger than the limit.
    #[error("decompresses to more than the allowed {max} bytes")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The input is not in the codec's format.
    #[error("corrupt {codec} data: {reason}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What is wrong with it.
        reason: String,
    },
    /// The library could not compress.
    #[error("{codec} compression failed: {reason}")]
    Compress {
        /// The codec.
        codec: Codec,
        /// The message of the library.
        reason: String,
    },
}

impl CodecError {
    fn corrupt(codec: Codec, reason: impl ToString) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }

    fn compress(codec: Codec, reason: impl ToString) -> Self {
        Self::Compress { codec, reason: reason.to_string() }
    }
}

fn levels(codec: Codec) -> String {
    match codec.levels() {
        None => ", nor any other".to_owned(),
        Some(range) => format!(": use {} to {}", range.start(), range.end()),
    }
}

/// Compresses `input`. Without a level, uses the codec's default, which is that of Kafka's clients.
///
/// # Errors
/// [`CodecError::Level`], or [`CodecError::Compress`] if the library fails.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    compress_into(codec, level, input, &mut out)?;
    Ok(out)
}

/// Works like [`compress`], but appends to `out`.
///
/// # Errors
/// Those of [`compress`]; `out` then has garbage after its old content.
pub fn compress_into(codec: Codec, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    if let Some(level) = level
        && !codec.levels().is_some_and(|levels| levels.contains(&level))
    {
        return Err(CodecError::Level { codec, level });
    }
    match codec {
        Codec::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Codec::Gzip => gzip::compress_into(level, input, out),
        Codec::Snappy => snappy::compress_into(input, out),
        Codec::Lz4 => lz4::compress_into(input, out),
        Codec::Zstd => zstd::compress_into(level, input, out),
    }
}

/// Decompresses `input` into at most `max` bytes.
///
/// # Errors
/// [`CodecError::TooLarge`] as soon as there would be more than `max`; [`CodecError::Corrupt`].
pub fn decompress(codec: Codec, input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    match codec {
        Codec::None if input.len() > max => Err(CodecError::TooLarge { max }),
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => gzip::decompress(input, max),
        Codec::Snappy => snappy::decompress(input, max),
        Codec::Lz4 => lz4::decompress(input, max),
        Codec::Zstd => zstd::decompress(input, max),
    }
}

/// Checks the framing of compressed bytes (magic, block lengths, end) without decompressing them. Returns the most
/// bytes that they can hold. This is very cheap. It finds most payloads that are cut or not of the codec. It finds no
/// damage inside a block, not every cut of gzip, and few faults of a raw snappy block.
///
/// # Errors
/// [`CodecError::Corrupt`].
pub fn check_framing(codec: Codec, input: &[u8]) -> Result<u64, CodecError> {
    match codec {
        Codec::None => Ok(input.len() as u64),
        Codec::Gzip => gzip::check_framing(input),
        Codec::Snappy => snappy::check_framing(input),
        Codec::Lz4 => lz4::check_framing(input),
        Codec::Zstd => zstd::check_framing(input),
    }
}
