//! Walks over the records of a compressed batch while it is decompressed, without holding the whole payload.
//!
//! Most records lie in one piece, and are read from there like the records of an uncompressed batch. A record that
//! continues in the next piece is read field by field; its key, value and headers are skipped.

use std::ops::Range;

use crate::codec::pieces::{Pieces, Scratch};
use crate::error::{BatchError, RecordFault};
use crate::layout::RECORD_HEADER_LEN_MIN;
use crate::records::{RawRecord, read_record};
use crate::varint::{self, VarintError};
use crate::view::BatchView;

/// The parts of a record that a check needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// Bytes of the record after its length.
    pub(crate) len: usize,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) has_key: bool,
}

/// Calls `visit` with each record of a compressed batch, in order. Returns the uncompressed bytes of all records.
///
/// # Errors
/// The payload cannot be decompressed, or exceeds `bytes_max`; it does not hold exactly the number of valid records in
/// the header; or `visit` returns an error.
pub(crate) fn walk(
    batch: &BatchView<'_>,
    bytes_max: usize,
    scratch: &mut Scratch,
    mut visit: impl FnMut(u32, &RecordHead) -> Result<(), BatchError>,
) -> Result<usize, BatchError> {
    let mut reader = Reader {
        pieces: Pieces::new(batch.codec()?, batch.payload(), scratch)?,
        piece: 0..0,
        left: bytes_max,
        bytes_max,
    };
    for index in 0..batch.count().unsigned_abs() {
        let head = reader.record().map_err(|error| error.at(index))?;
        visit(index, &head)?;
    }
    reader.end()?;
    Ok(bytes_max - reader.left)
}

/// Why a record cannot be read.
enum WalkError {
    Fault(RecordFault),
    Batch(BatchError),
}

impl WalkError {
    fn at(self, index: u32) -> BatchError {
        match self {
            Self::Fault(fault) => BatchError::Invalid { index: Some(index), fault },
            Self::Batch(error) => error,
        }
    }
}

impl From<BatchError> for WalkError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

struct Reader<'a, 's> {
    pieces: Pieces<'a, 's>,
    /// The unread part of the current piece.
    piece: Range<usize>,
    /// The bytes that the records may still have.
    left: usize,
    bytes_max: usize,
}

impl Reader<'_, '_> {
    fn rest(&self) -> &[u8] {
        self.pieces.bytes(self.piece.clone())
    }

    /// Moves to the next piece once the current one is read. Returns false at the end of the payload.
    fn refill(&mut self) -> Result<bool, BatchError> {
        if self.piece.is_empty() {
            self.piece = self.pieces.next()?;
            let Some(left) = self.left.checked_sub(self.piece.len()) else {
                return Err(crate::codec::CodecError::TooLarge { max: self.bytes_max }.into());
            };
            self.left = left;
        }
        Ok(!self.piece.is_empty())
    }

    /// Reads the next record.
    #[inline]
    fn record(&mut self) -> Result<RecordHead, WalkError> {
        self.refill()?;
        let piece = self.rest();
        let mut rest = piece;
        if let Ok(len) = varint::read_i32(&mut rest)
            && usize::try_from(len).is_ok_and(|len| len <= rest.len())
        {
            let mut rest = piece;
            let record = read_record(&mut rest).map_err(WalkError::Fault)?;
            let RawRecord { timestamp_delta, offset_delta, key, .. } = record;
            let head = RecordHead { len: len as usize, timestamp_delta, offset_delta, has_key: key.is_some() };
            self.piece.start += piece.len() - rest.len();
            return Ok(head);
        }
        self.split_record()
    }

    /// Reads a record that spans several pieces.
    #[cold]
    fn split_record(&mut self) -> Result<RecordHead, WalkError> {
        let length = "length";
        let value = self.varint(length, &mut usize::MAX.clone())?;
        let len = usize::try_from(value).map_err(|_| fault_length(length, value, self.piece.len()))?;
        let mut left = len;
        self.skip(1, &mut left, length)?;
        let timestamp_delta = self.varlong("timestamp delta", &mut left)?;
        let offset_delta = self.varint("offset delta", &mut left)?;
        let has_key = self.skip_nullable("key length", &mut left)?;
        self.skip_nullable("value length", &mut left)?;
        let count = self.varint("header count", &mut left)?;
        if usize::try_from(count).map_or(true, |count| count > left / RECORD_HEADER_LEN_MIN) {
            return Err(fault_length("header count", count, left));
        }
        for _ in 0..count {
            let name = self.varint("header name length", &mut left)?;
            self.skip_length(name, &mut left, "header name length")?;
            self.skip_nullable("header value length", &mut left)?;
        }
        if left > 0 {
            return Err(WalkError::Fault(RecordFault::RecordTrailing(left)));
        }
        Ok(RecordHead { len, timestamp_delta, offset_delta, has_key })
    }

    fn skip_nullable(&mut self, field: &'static str, left: &mut usize) -> Result<bool, WalkError> {
        match self.varint(field, left)? {
            -1 => Ok(false),
            length => self.skip_length(length, left, field).map(|()| true),
        }
    }

    fn skip_length(&mut self, length: i32, left: &mut usize, field: &'static str) -> Result<(), WalkError> {
        match usize::try_from(length) {
            Ok(bytes) => self.skip(bytes, left, field),
            Err(_) => Err(fault_length(field, length, *left)),
        }
    }

    /// Skips bytes of the record, which has `left` bytes left.
    fn skip(&mut self, bytes: usize, left: &mut usize, field: &'static str) -> Result<(), WalkError> {
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        *left = left.checked_sub(bytes).ok_or_else(|| fault_length(field, value, *left))?;
        let mut bytes = bytes;
        while bytes > 0 {
            if !self.refill()? {
                return Err(fault_length(field, value, value.unsigned_abs() as usize - bytes));
            }
            let taken = bytes.min(self.piece.len());
            self.piece.start += taken;
            bytes -= taken;
        }
        Ok(())
    }

    fn varint(&mut self, field: &'static str, left: &mut usize) -> Result<i32, WalkError> {
        let mut bytes = [0; 5];
        let mut bytes = self.varint_bytes(field, left, &mut bytes)?;
        varint::read_i32(&mut bytes).map_err(|error| WalkError::Fault(RecordFault::Varint { field, error }))
    }

    fn varlong(&mut self, field: &'static str, left: &mut usize) -> Result<i64, WalkError> {
        let mut bytes = [0; 10];
        let mut bytes = self.varint_bytes(field, left, &mut bytes)?;
        varint::read_i64(&mut bytes).map_err(|error| WalkError::Fault(RecordFault::Varint { field, error }))
    }

    /// Collects the bytes of a varint, which may lie in two pieces.
    fn varint_bytes<'b>(
        &mut self,
        field: &'static str,
        left: &mut usize,
        bytes: &'b mut [u8],
    ) -> Result<&'b [u8], WalkError> {
        for at in 0..bytes.len() {
            if *left == 0 || !self.refill()? {
                return Err(WalkError::Fault(RecordFault::Varint { field, error: VarintError::Truncated }));
            }
            bytes[at] = self.rest()[0];
            self.piece.start += 1;
            *left -= 1;
            if bytes[at] < 0x80 {
                return Ok(&bytes[..=at]);
            }
        }
        Ok(bytes)
    }

    /// Checks that the payload ends here.
    fn end(&mut self) -> Result<(), BatchError> {
        let mut trailing = 0;
        while self.refill()? {
            trailing += self.piece.len();
            self.piece.start = self.piece.end;
        }
        match trailing {
            0 => Ok(()),
            trailing => Err(BatchError::batch(RecordFault::BatchTrailing(trailing))),
        }
    }
}

fn fault_length(field: &'static str, value: i32, available: usize) -> WalkError {
    WalkError::Fault(RecordFault::Length { field, value, available })
}
