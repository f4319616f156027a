//! Batches in a format that only a plug-in reads.
//!
//! Batches of a compressor with a private format are stored with codec 7, which no client may send or ever receives.
//! Their payload describes how to read it, so that it can be read for as long as it is kept, whatever the topic's
//! configuration is then:
//!
//! ```text
//!  0  magic              "MSP1"
//!  4  codec              u8    Kafka's codec that the producer sent, in which clients get the records
//!  5  digest             SHA-256 of the plug-in that reads it
//! 37  uncompressed       u32   bytes of the records
//! 41  configuration      u32   its bytes, then the JSON object
//!     packed             the rest
//! ```
//!
//! All integers are big-endian.

use std::str::Utf8Error;

use millstream_record::{BatchHeader, Codec, CodecError};
use millstream_stage::Digest;

/// The codec of a batch's attributes.
pub(crate) const CODEC_ID: i16 = 7;

const MAGIC: &[u8; 4] = b"MSP1";
const FIXED: usize = 4 + 1 + 32 + 4 + 4;

/// The longest configuration, which is that of a whole chain.
const CONFIG_BYTES_MAX: usize = millstream_stage::spec::SPEC_BYTES_MAX;

/// The fields before the packed records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Private<'a> {
    /// The codec that the producer sent.
    pub(crate) codec: Codec,
    /// The plug-in that reads it.
    pub(crate) digest: Digest,
    /// The uncompressed bytes of the records.
    pub(crate) len: usize,
    /// The plug-in's configuration, a JSON object.
    pub(crate) config: &'a str,
    /// The records as the plug-in has packed them.
    pub(crate) packed: &'a [u8],
}

/// Why a payload is not in a private format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrivateFormatError {
    /// It ends before its fields.
    #[error("it is cut short")]
    Cut,
    /// It begins with other bytes.
    #[error("its magic is {0:02x?}")]
    Magic([u8; 4]),
    /// It names a codec that does not exist.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its configuration is longer than that of a chain may be.
    #[error("its configuration has {0} bytes, at most {CONFIG_BYTES_MAX}")]
    ConfigTooLong(usize),
    /// Its configuration is not text.
    #[error("its configuration is not text: {0}")]
    ConfigNotText(#[from] Utf8Error),
}

/// Returns whether a batch is in a private format.
pub(crate) fn is_private(batch: &BatchHeader<'_>) -> bool {
    batch.attributes() & CODEC_ID == CODEC_ID
}

impl<'a> Private<'a> {
    /// Reads a payload. Allocates nothing, whatever lengths the payload names.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, PrivateFormatError> {
        let (fixed, rest) = payload.split_first_chunk::<FIXED>().ok_or(PrivateFormatError::Cut)?;
        let magic = [fixed[0], fixed[1], fixed[2], fixed[3]];
        if magic != *MAGIC {
            return Err(PrivateFormatError::Magic(magic));
        }
        let codec = Codec::from_attributes(i16::from(fixed[4]))?;
        let mut digest = [0; 32];
        digest.copy_from_slice(&fixed[5..37]);
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
        let (len, config_len) = (word(37), word(41));
        if config_len > CONFIG_BYTES_MAX {
            return Err(PrivateFormatError::ConfigTooLong(config_len));
        }
        let (config, packed) = rest.split_at_checked(config_len).ok_or(PrivateFormatError::Cut)?;
        let config = std::str::from_utf8(config)?;
        Ok(Self { codec, digest: Digest::from_bytes(digest), len, config, packed })
    }

    /// Returns the payload; `None` if a length does not fit its field.
    pub(crate) fn to_payload(self) -> Option<Vec<u8>> {
        if self.config.len() > CONFIG_BYTES_MAX {
            return None;
        }
        let mut payload = Vec::with_capacity(FIXED + self.config.len() + self.packed.len());
        payload.extend_from_slice(MAGIC);
        payload.push(self.codec.id() as u8);
        payload.extend_from_slice(self.digest.as_bytes());
        payload.extend_from_slice(&u32::try_from(self.len).ok()?.to_be_bytes());
        payload.extend_from_slice(&(self.config.len() as u32).to_be_bytes());
        payload.extend_from_slice(self.config.as_bytes());
        payload.extend_from_slice(self.packed);
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>() -> Private<'a> {
        Private { codec: Codec::Zstd, digest: Digest::of(b"it"), len: 7, config: "{\"a\":1}", packed: b"packed" }
    }

    #[test]
    fn makes_a_round_trip() {
        let payload = sample().to_payload().expect("it fits");
        assert_eq!(payload.len(), FIXED + 7 + 6);
        assert_eq!(Private::parse(&payload), Ok(sample()));
    }

    #[test]
    fn damaged_batches_are_rejected_without_a_panic() {
        let payload = sample().to_payload().expect("it fits");
        for cut in 0..FIXED + 7 {
            assert!(Private::parse(&payload[..cut]).is_err(), "{cut}");
        }
        for (at, byte, wrong) in [(0, b'X', "magic"), (4, 7, "codec 7"), (41, 0xff, "at most"), (45, 0xff, "utf-8")] {
            let mut damaged = payload.clone();
            damaged[at] = byte;
            let error = Private::parse(&damaged).expect_err("refused").to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
