//! Fields that hold record batches.

use bytes::Bytes;

use crate::codec::Message;
use crate::error::WireError;
use crate::reader::Reader;
use crate::writer::Writer;

/// The record batches of a message. The codec does not look into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// A null.
    Null,
    /// Batches one after the other: a slice of the frame, when decoded.
    Bytes(Bytes),
    /// Batches in a file. The frame gets a hole of this length
    /// ([`Piece::External`](crate::Piece::External)). Decoding never returns this.
    External {
        /// Their length in bytes.
        len: usize,
    },
}

impl Records {
    /// No batches. Responses without records hold this, since some clients do not expect a null.
    pub const EMPTY: Self = Self::Bytes(Bytes::new());

    /// Returns the length in bytes; 0 for a null.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len } => *len,
        }
    }

    /// Returns whether there are no bytes: null or empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes in memory; None for a null and for batches in a file.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Null | Self::External { .. } => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Message for Records {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Ok(Option::<Bytes>::decode(reader, version)?.map_or(Self::Null, Self::Bytes))
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        match self {
            Self::Null => None::<Bytes>.encode(writer, version),
            Self::Bytes(bytes) => bytes.encode(writer, version),
            Self::External { len } => {
                writer.bytes_length(Some(*len))?;
                writer.hole(*len);
                Ok(())
            }
        }
    }

    fn least_size(version: i16, flexible: bool) -> usize {
        Bytes::least_size(version, flexible)
    }
}
