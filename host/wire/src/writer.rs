//! Writing fields into a frame: small ones into one buffer, large ones spliced in between.

use std::mem;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{WireError, WireErrorKind};

/// Bytes of more than this are spliced in, of less copied: a piece costs about as much as copying this much.
const SPLICE_MIN: usize = 1024;

/// Room for the length at the start of a frame.
const PREFIX: usize = size_of::<i32>();

/// A frame as it goes to a socket: its pieces in order, the length prefix in the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Never empty; the first piece is `Bytes`.
    pub pieces: Vec<Piece>,
}

/// A part of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A hole of so many bytes, to be filled from elsewhere.
    External(usize),
}

impl Piece {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External(len) => *len,
        }
    }

    /// Whether it has no bytes; no piece of a frame is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame {
    /// Its length in bytes with the prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Never: a frame has at least its prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All of it in one; None when it has a hole. Copies unless it has one piece only.
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

/// Collects a frame.
#[derive(Debug)]
pub struct Writer {
    /// The prefix and everything that is not spliced in.
    buffer: BytesMut,
    /// What is spliced in, each before the byte of the buffer with that index.
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
    /// An empty frame.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(256);
        buffer.put_bytes(0, PREFIX);
        Self { buffer, splices: Vec::new(), spliced: 0, flexible: false, strict: false }
    }

    /// Whether lengths are compact and structs end in tagged fields.
    #[must_use]
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Whether a value that the version cannot express is an error: it is for requests.
    #[must_use]
    pub fn strict(&self) -> bool {
        self.strict
    }

    /// Set by each message as it begins.
    pub fn set_message(&mut self, flexible: bool, strict: bool) {
        self.flexible = flexible;
        self.strict = strict;
    }

    /// Bytes so far, without the prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - PREFIX + self.spliced
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes in.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// Puts bytes in without copying when they are many.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() > SPLICE_MIN {
            self.splice(Piece::Bytes(bytes.clone()));
        } else {
            self.buffer.put_slice(bytes);
        }
    }

    /// Leaves a hole of so many bytes.
    pub fn hole(&mut self, len: usize) {
        if len > 0 {
            self.splice(Piece::External(len));
        }
    }

    fn splice(&mut self, piece: Piece) {
        self.spliced = self.spliced.saturating_add(piece.len());
        self.splices.push((self.buffer.len(), piece));
    }

    /// An unsigned variable-length integer: seven bits a byte, the lowest first.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// The length of a string: 16 bits, or compact. None is a null.
    ///
    /// # Errors
    /// When it is above what Kafka takes, 32,767 bytes in either form.
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

    /// The length of bytes or the count of an array: 32 bits, or compact. None is a null.
    ///
    /// # Errors
    /// When it is above 2^31 - 1.
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

    /// A tagged field: its tag, its size, its value. The value is written first and then moved
    /// to make room for the two, since its size is not known before.
    ///
    /// # Errors
    /// Those of `value`.
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

    /// The frame, with its length in front.
    ///
    /// # Errors
    /// When it is longer than the prefix can say, 2^31 - 1 bytes.
    pub fn finish(mut self) -> Result<Frame, WireError> {
        let length = self.len();
        let prefix = i32::try_from(length).map_err(|_| too_long(length, i32::MAX as usize))?;
        self.buffer[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
        Ok(Frame { pieces: self.into_pieces(0) })
    }

    /// What was written, without the prefix, in one.
    pub(crate) fn into_body(self) -> Result<Bytes, WireError> {
        let frame = Frame { pieces: self.into_pieces(PREFIX) };
        frame.into_bytes().ok_or_else(|| WireError::new(WireErrorKind::External))
    }

    fn into_pieces(mut self, mut from: usize) -> Vec<Piece> {
        let splices = mem::take(&mut self.splices);
        let buffer = self.buffer.freeze();
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
