//! Reads fields from a frame. Every length is checked before it is used.

use bytes::Bytes;

use crate::error::{WireError, WireErrorKind};

/// The memory that the arrays of any message may take, whatever its size on the wire.
pub(crate) const BUDGET_FLOOR: usize = 8 << 20;

/// A position in a frame, with the limits from there on.
///
/// Decoded strings and bytes are slices of the frame.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    /// The end of the frame, or of the tagged field that is being read.
    end: usize,
    flexible: bool,
    /// The bytes of memory that arrays may still take.
    budget: usize,
}

impl Reader {
    /// Starts at the front of a frame from an untrusted peer. Its arrays may take twice its length
    /// in memory plus 8 MiB.
    #[must_use]
    pub fn new(frame: Bytes) -> Self {
        let budget = BUDGET_FLOOR.saturating_add(frame.len().saturating_mul(2));
        Self::with_budget(frame, budget)
    }

    /// Starts at the front of a frame whose arrays may take `budget` bytes of memory.
    #[must_use]
    pub fn with_budget(frame: Bytes, budget: usize) -> Self {
        let end = frame.len();
        Self { frame, position: 0, end, flexible: false, budget }
    }

    /// Returns the number of remaining bytes.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Returns whether lengths are compact and structs end in tagged fields.
    #[must_use]
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Sets whether the version is flexible. Each message does so when it starts.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Reads N bytes.
    ///
    /// # Errors
    /// [`WireErrorKind::Truncated`] when fewer are left, as for everything that reads.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.frame[self.position..self.end].first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    /// Reads `length` bytes, shared with the frame.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn slice(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.remaining() {
            return Err(self.truncated(length));
        }
        let start = self.position;
        self.position += length;
        Ok(self.frame.slice(start..self.position))
    }

    fn truncated(&self, needed: usize) -> WireError {
        WireError::new(WireErrorKind::Truncated { needed, left: self.remaining() })
    }

    /// Reads an unsigned variable-length integer: seven bits a byte, the lowest first.
    ///
    /// # Errors
    /// The integer has more than 32 bits or ends early.
    pub fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::new(WireErrorKind::Varint))
    }

    /// Reads the length of a string: 16 bits, or compact. None is a null.
    ///
    /// # Errors
    /// The length is below -1.
    pub fn string_length(&mut self) -> Result<Option<usize>, WireError> {
        if self.flexible {
            return self.compact_length();
        }
        signed_length(i16::from_be_bytes(self.array()?).into())
    }

    /// Reads the length of bytes or the count of an array: 32 bits, or compact. None is a null.
    ///
    /// # Errors
    /// The length is below -1.
    pub fn bytes_length(&mut self) -> Result<Option<usize>, WireError> {
        if self.flexible {
            return self.compact_length();
        }
        signed_length(i32::from_be_bytes(self.array()?))
    }

    /// Reads a compact length: the number is one more, and zero is a null.
    fn compact_length(&mut self) -> Result<Option<usize>, WireError> {
        Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize))
    }

    /// Reads the count of an array whose elements take at least `least` bytes on the wire and `size` bytes in
    /// memory. None is a null.
    ///
    /// # Errors
    /// The elements do not fit in the remaining bytes, or take more memory than the budget allows.
    pub fn array_count(&mut self, least: usize, size: usize) -> Result<Option<usize>, WireError> {
        let Some(count) = self.bytes_length()? else {
            return Ok(None);
        };
        let left = self.remaining();
        if count.saturating_mul(least.max(1)) > left {
            return Err(WireError::new(WireErrorKind::Count { count, least, left }));
        }
        match self.budget.checked_sub(count.saturating_mul(size)) {
            Some(budget) => self.budget = budget,
            None => return Err(WireError::new(WireErrorKind::Budget { count })),
        }
        Ok(Some(count))
    }

    /// Reads the tagged fields at the end of a struct. `known` is called with each tag:
    /// it reads the value, or returns false to skip it.
    ///
    /// # Errors
    /// Tags do not ascend, sizes do not fit, or a known field does not fill its size.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let count = self.unsigned_varint()? as usize;
        let left = self.remaining();
        // A tag and a size of one byte each.
        if count.saturating_mul(2) > left {
            return Err(WireError::new(WireErrorKind::Count { count, least: 2, left }));
        }
        let mut previous = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            if let Some(previous) = previous.filter(|&previous| tag <= previous) {
                return Err(WireError::new(WireErrorKind::TagOrder { previous, tag }));
            }
            previous = Some(tag);
            let size = self.unsigned_varint()? as usize;
            if size > self.remaining() {
                return Err(self.truncated(size));
            }
            self.tagged_field(tag, size, &mut known)?;
        }
        Ok(())
    }

    fn tagged_field(
        &mut self,
        tag: u32,
        size: usize,
        known: &mut impl FnMut(&mut Self, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let outer_end = self.end;
        self.end = self.position + size;
        let read = known(self, tag)?;
        let left = self.remaining();
        if read && left > 0 {
            return Err(WireError::new(WireErrorKind::TagSize { tag, left }));
        }
        self.position = self.end;
        self.end = outer_end;
        Ok(())
    }
}

fn signed_length(length: i32) -> Result<Option<usize>, WireError> {
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(WireError::new(WireErrorKind::NegativeLength(length.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &'static [u8]) -> Result<u32, WireErrorKind> {
        Reader::new(Bytes::from_static(bytes)).unsigned_varint().map_err(|error| error.kind().clone())
    }

    #[test]
    fn varints() {
        assert_eq!(varint(&[0]), Ok(0));
        assert_eq!(varint(&[0x7f]), Ok(127));
        assert_eq!(varint(&[0xac, 0x02]), Ok(300));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(WireErrorKind::Varint));
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), Err(WireErrorKind::Varint));
        assert_eq!(varint(&[0x80]), Err(WireErrorKind::Truncated { needed: 1, left: 0 }));
    }

    #[test]
    fn a_count_is_checked_before_it_is_believed() {
        let count = |bytes: &'static [u8], least| Reader::new(Bytes::from_static(bytes)).array_count(least, 8);
        assert_eq!(count(&[0, 0, 0, 2, 9, 9], 1), Ok(Some(2)));
        assert_eq!(count(&[0xff, 0xff, 0xff, 0xff], 1), Ok(None));
        let error = count(&[0, 0, 0, 2, 9, 9, 9], 2).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::Count { count: 2, least: 2, left: 3 });
        let error = count(&[0xff, 0xff, 0xff, 0xfe], 1).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::NegativeLength(-2));
    }

    #[test]
    fn arrays_are_charged_to_the_budget() {
        let frame = Bytes::from_static(&[0, 0, 0, 2, 0, 0, 0, 2, 9, 9]);
        let mut reader = Reader::with_budget(frame, 60);
        assert_eq!(reader.array_count(1, 16), Ok(Some(2)));
        let error = reader.array_count(1, 16).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::Budget { count: 2 });
    }

    #[test]
    fn a_tagged_field_cannot_read_past_its_size() {
        // One tagged field, tag 0, size 1, then a byte that is not its own.
        let mut reader = Reader::new(Bytes::from_static(&[1, 0, 1, 7, 8]));
        let error = reader.tagged_fields(|reader, _| reader.array::<2>().map(|_| true)).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::Truncated { needed: 2, left: 1 });
    }
}
