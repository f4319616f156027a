//! Writes fields into a frame: small ones into one buffer, large ones spliced in between.

use std::mem;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{WireError, WireErrorKind};

/// The size from which bytes are spliced in instead of copied: a piece costs about as much as a copy of this size.
const SPLICE_MIN: usize = 1024;

/// The size from which the spare room of a buffer is given back. A frame may wait long until it is sent.
const TRIM_MIN: usize = 4096;

/// Room for the length at the start of a frame.
const PREFIX: usize = size_of::<i32>();

/// An encoded frame: its pieces in order, the first of which starts with the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The pieces. There is at least one, and the first is `Bytes`.
    pub pieces: Vec<Piece>,
}

/// A part of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A hole of that many bytes, to be filled from a file.
    External(usize),
}

impl Piece {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External(len) => *len,
        }
    }

    /// Returns whether the piece has no bytes. No piece of a frame is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame {
    /// Returns the length in bytes, with the prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Returns false: a frame has at least its prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Returns the frame as one buffer; None if it has a hole. Copies if there is more than one piece.
    #[must_use]
    pub fn into_bytes(mut self) -> Option<Bytes> {
        if self.pieces.len() == 1
            && let Some(Piece::Bytes(bytes)) = self.pieces.pop()
        {
            return Some(bytes);
        }
        let mut all = BytesMut::with_capacity(self.len());
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => all.put_slice(bytes),
                Piece::External(_) => return None,
            }
        }
        Some(all.freeze())
    }
}

/// Builds a frame.
#[derive(Debug)]
pub struct Writer {
    /// The prefix and everything that is not spliced in.
    buffer: BytesMut,
    /// The pieces that are spliced in, each before the byte of the buffer with that index.
    splices: Vec<(usize, Piece)>,
    spliced: usize,
    flexible: bool,
    strict: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Starts an empty frame.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(256);
        buffer.put_bytes(0, PREFIX);
        Self { buffer, splices: Vec::new(), spliced: 0, flexible: false, strict: false }
    }

    /// Returns whether lengths are compact and structs end in tagged fields.
    #[must_use]
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Returns whether a value that the version cannot express is an error, as in requests.
    #[must_use]
    pub fn strict(&self) -> bool {
        self.strict
    }

    /// Sets both. Each message does so when it starts.
    pub fn set_message(&mut self, flexible: bool, strict: bool) {
        self.flexible = flexible;
        self.strict = strict;
    }

    /// Returns the number of bytes so far, without the prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - PREFIX + self.spliced
    }

    /// Returns whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes into the buffer.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// Adds bytes; without a copy if they are many.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() > SPLICE_MIN {
            self.splice(Piece::Bytes(bytes.clone()));
        } else {
            self.buffer.put_slice(bytes);
        }
    }

    /// Leaves a hole of that many bytes.
    pub fn hole(&mut self, len: usize) {
        if len > 0 {
            self.splice(Piece::External(len));
        }
    }

    fn splice(&mut self, piece: Piece) {
        self.spliced = self.spliced.saturating_add(piece.len());
        self.splices.push((self.buffer.len(), piece));
    }

    /// Writes an unsigned variable-length integer: seven bits a byte, the lowest first.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// Writes the length of a string: 16 bits, or compact. None is a null.
    ///
    /// # Errors
    /// The length is above 32,767 bytes, the most that Kafka accepts in either form.
    pub fn string_length(&mut self, length: Option<usize>) -> Result<(), WireError> {
        let signed = match length {
            Some(length) => i16::try_from(length).map_err(|_| too_long(length, i16::MAX as usize))?,
            None => -1,
        };
        if self.flexible {
            self.unsigned_varint((i32::from(signed) + 1) as u32);
        } else {
            self.buffer.put_i16(signed);
        }
        Ok(())
    }

    /// Writes the length of bytes or the count of an array: 32 bits, or compact. None is a null.
    ///
    /// # Errors
    /// The length is above 2^31 - 1.
    pub fn bytes_length(&mut self, length: Option<usize>) -> Result<(), WireError> {
        let signed = match length {
            Some(length) => i32::try_from(length).map_err(|_| too_long(length, i32::MAX as usize))?,
            None => -1,
        };
        if self.flexible {
            self.unsigned_varint(signed.wrapping_add(1) as u32);
        } else {
            self.buffer.put_i32(signed);
        }
        Ok(())
    }

    /// Writes a tagged field: tag, size and value. The value is written first and then moved
    /// to make room for tag and size, since the size is not known before.
    ///
    /// # Errors
    /// The errors of `value`.
    pub fn tagged_field(
        &mut self,
        tag: u32,
        value: impl FnOnce(&mut Self) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let (start, splices, spliced) = (self.buffer.len(), self.splices.len(), self.spliced);
        value(self)?;
        let end = self.buffer.len();
        let size = end - start + (self.spliced - spliced);
        let size = u32::try_from(size).map_err(|_| too_long(size, i32::MAX as usize))?;
        self.unsigned_varint(tag);
        self.unsigned_varint(size);
        let head = self.buffer.len() - end;
        self.buffer[start..].rotate_right(head);
        for (at, _) in &mut self.splices[splices..] {
            *at += head;
        }
        Ok(())
    }

    /// Returns the frame, with its length in front.
    ///
    /// # Errors
    /// The frame is longer than 2^31 - 1 bytes.
    pub fn finish(mut self) -> Result<Frame, WireError> {
        let length = self.len();
        let prefix = i32::try_from(length).map_err(|_| too_long(length, i32::MAX as usize))?;
        self.buffer[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
        Ok(Frame { pieces: self.into_pieces(0) })
    }

    /// Returns what was written, without the prefix, as one buffer.
    pub(crate) fn into_body(self) -> Result<Bytes, WireError> {
        let frame = Frame { pieces: self.into_pieces(PREFIX) };
        frame.into_bytes().ok_or_else(|| WireError::new(WireErrorKind::External))
    }

    fn into_pieces(mut self, mut from: usize) -> Vec<Piece> {
        let splices = mem::take(&mut self.splices);
        let buffer = if self.buffer.len() < TRIM_MIN { self.buffer.freeze() } else { trimmed(self.buffer) };
        let mut pieces = Vec::with_capacity(2 * splices.len() + 1);
        for (at, piece) in splices {
            if at > from {
                pieces.push(Piece::Bytes(buffer.slice(from..at)));
                from = at;
            }
            pieces.push(piece);
        }
        if from < buffer.len() {
            pieces.push(Piece::Bytes(buffer.slice(from..)));
        }
        pieces
    }
}

/// Returns the bytes without spare room behind them.
fn trimmed(buffer: BytesMut) -> Bytes {
    let mut bytes = Vec::from(buffer);
    bytes.shrink_to_fit();
    Bytes::from(bytes)
}

fn too_long(length: usize, max: usize) -> WireError {
    WireError::new(WireErrorKind::TooLong { length, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bytes_are_spliced_and_holes_left() {
        let large = Bytes::from(vec![7; SPLICE_MIN + 1]);
        let mut writer = Writer::new();
        writer.put(b"ab");
        writer.put_shared(&large);
        writer.put_shared(&Bytes::from_static(b"cd"));
        writer.hole(5000);
        let frame = writer.finish().unwrap();
        let length = 2 + large.len() + 2 + 5000;
        assert_eq!(frame.len(), PREFIX + length);
        let [Piece::Bytes(head), Piece::Bytes(spliced), Piece::Bytes(tail), Piece::External(5000)] = &frame.pieces[..]
        else {
            panic!("{frame:?}")
        };
        assert_eq!(head[..PREFIX], (length as i32).to_be_bytes());
        assert_eq!(&head[PREFIX..], b"ab");
        assert_eq!(spliced.as_ptr(), large.as_ptr());
        assert_eq!(tail, "cd");
    }

    #[test]
    fn a_tagged_field_moves_what_was_spliced_into_it() {
        let large = Bytes::from(vec![7; 2000]);
        let mut writer = Writer::new();
        writer
            .tagged_field(3, |writer| {
                writer.put(b"x");
                writer.put_shared(&large);
                writer.put(b"y");
                Ok(())
            })
            .unwrap();
        let body = writer.into_body().unwrap();
        // Tag 3, then 2002 as a varint.
        assert_eq!(&body[..4], &[3, 0xd2, 0x0f, b'x']);
        assert_eq!(&body[4..2004], &large[..]);
        assert_eq!(&body[2004..], b"y");
    }

    #[test]
    fn a_string_is_at_most_32767_bytes() {
        let mut writer = Writer::new();
        assert!(writer.string_length(Some(32_767)).is_ok());
        assert!(writer.string_length(Some(32_768)).is_err());
    }
}
