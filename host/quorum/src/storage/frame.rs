//! The bytes of a write-ahead file.
//!
//! A frame is: payload length, CRC-32C of the payload, CRC-32C of these two fields (each a little-endian `u32`),
//! payload. A payload is a kind (one byte) and what the kind has:
//!
//! | Kind | Content |
//! |---|---|
//! | 0, segment | directory id (16 bytes), purged index (`u64`, 0 is none) with its position, vote |
//! | 1, vote | the vote |
//! | 2, entries | first index (`u64`); then for each entry its length (`u32`) and its bytes |
//! | 3, truncate | the first index (`u64`) that is removed |
//! | 4, purge | the last index (`u64`) that is removed, and its position |
//!
//! Votes, entries and positions are bytes of the consensus. Numbers are little-endian.

use bytes::{Buf, Bytes};
use crc_fast::{CrcAlgorithm, checksum};
use uuid::Uuid;

/// The length of a frame's header.
pub(super) const HEADER: usize = 12;
/// The largest payload of a frame.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 << 20;
/// Disks write sectors of this size whole or not at all.
const SECTOR: usize = 512;

/// The last entry that was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The index of the entry.
    pub index: u64,
    /// The entry's position, in the format of the consensus.
    pub position: Bytes,
}

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first record of a segment: the state that earlier segments leave behind, except their entries.
    Segment { directory_id: Uuid, purged: Option<Purged>, vote: Option<Bytes> },
    /// A vote.
    Vote(Bytes),
    /// Entries with consecutive indexes.
    Entries { first: u64, entries: Vec<Bytes> },
    /// Removes the entries from an index on.
    Truncate(u64),
    /// Removes the entries up to and including an index.
    Purge(Purged),
}

impl Record {
    /// Returns the frame of the record, or the size of a payload that exceeds the limit.
    pub(super) fn frame(&self) -> Result<Vec<u8>, usize> {
        let size = self.size();
        if size > PAYLOAD_BYTES_MAX {
            return Err(size);
        }
        let mut frame = Vec::with_capacity(HEADER + size);
        frame.resize(HEADER, 0);
        self.encode(&mut frame);
        let payload_crc = crc(&frame[HEADER..]);
        let length = (frame.len() - HEADER) as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&payload_crc);
        let header_crc = crc(&frame[..8]);
        frame[8..HEADER].copy_from_slice(&header_crc);
        Ok(frame)
    }

    /// Returns the size of the payload, rounded up.
    fn size(&self) -> usize {
        let content = match self {
            Self::Segment { purged, vote, .. } => {
                purged.as_ref().map_or(0, |purged| purged.position.len()) + vote.as_ref().map_or(0, Bytes::len)
            }
            Self::Vote(vote) => vote.len(),
            Self::Entries { entries, .. } => entries.iter().map(|entry| 4 + entry.len()).sum(),
            Self::Truncate(_) => 0,
            Self::Purge(purged) => purged.position.len(),
        };
        content + 40
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Segment { directory_id, purged, vote } => {
                out.push(0);
                out.extend(directory_id.as_bytes());
                let position = purged.as_ref().map_or(&[][..], |purged| &purged.position);
                out.extend(purged.as_ref().map_or(0, |purged| purged.index).to_le_bytes());
                out.push(u8::from(purged.is_some()));
                out.extend((position.len() as u32).to_le_bytes());
                out.extend(position);
                out.push(u8::from(vote.is_some()));
                out.extend(vote.iter().flatten());
            }
            Self::Vote(vote) => {
                out.push(1);
                out.extend(vote);
            }
            Self::Entries { first, entries } => {
                out.push(2);
                out.extend(first.to_le_bytes());
                for entry in entries {
                    out.extend((entry.len() as u32).to_le_bytes());
                    out.extend(entry);
                }
            }
            Self::Truncate(index) => {
                out.push(3);
                out.extend(index.to_le_bytes());
            }
            Self::Purge(purged) => {
                out.push(4);
                out.extend(purged.index.to_le_bytes());
                out.extend(&purged.position);
            }
        }
    }

    /// Returns the record of a payload, or `None` if no program wrote it like this.
    pub(super) fn decode(mut payload: Bytes) -> Option<Self> {
        let kind = payload.try_get_u8().ok()?;
        Some(match kind {
            0 => {
                let directory_id = Uuid::from_slice(&take(&mut payload, 16)?).ok()?;
                let index = payload.try_get_u64_le().ok()?;
                let is_purged = flag(&mut payload)?;
                let length = payload.try_get_u32_le().ok()? as usize;
                let position = take(&mut payload, length)?;
                let has_vote = flag(&mut payload)?;
                let purged = is_purged.then_some(Purged { index, position });
                Self::Segment { directory_id, purged, vote: has_vote.then_some(payload) }
            }
            1 => Self::Vote(payload),
            2 => {
                let first = payload.try_get_u64_le().ok()?;
                let mut entries = Vec::new();
                while payload.has_remaining() {
                    let length = payload.try_get_u32_le().ok()? as usize;
                    entries.push(take(&mut payload, length)?);
                }
                Self::Entries { first, entries }
            }
            3 => Self::Truncate(payload.try_get_u64_le().ok().filter(|_| !payload.has_remaining())?),
            4 => Self::Purge(Purged { index: payload.try_get_u64_le().ok()?, position: payload }),
            _ => return None,
        })
    }
}

/// Splits bytes off, if there are that many.
fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn flag(bytes: &mut Bytes) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(super) fn crc(bytes: &[u8]) -> [u8; 4] {
    (checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_le_bytes()
}

/// Returns the payload of the frame at an offset, if the frame is whole and sound.
pub(super) fn payload(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let length = length(bytes, at)?;
    let payload = bytes.get(at + HEADER..at + HEADER + length)?;
    (crc(payload) == bytes[at + 4..at + 8]).then(|| bytes.slice_ref(payload))
}

/// Returns the payload length of the frame at an offset, if its header is sound.
fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..at + HEADER)?;
    let length = u32::from_le_bytes(*header.first_chunk()?) as usize;
    (crc(&header[..8]) == header[8..] && length <= PAYLOAD_BYTES_MAX).then_some(length)
}

/// Says whether a write that a crash interrupted can have left these bytes from `at` to the end of the file.
///
/// Each append is one frame and is synced before the next, so only the last frame can be torn. A torn frame ends
/// early, or has sectors that were never written and are zero. Other unsound frames were damaged after their sync.
pub(super) fn is_torn(bytes: &Bytes, at: usize) -> bool {
    if (at + 1..bytes.len()).any(|later| payload(bytes, later).is_some()) {
        return false;
    }
    let ends_early = match length(bytes, at) {
        Some(length) => bytes.len() < at + HEADER + length,
        None => bytes.len() < at + HEADER,
    };
    ends_early || has_empty_sector(bytes, at)
}

fn has_empty_sector(bytes: &[u8], mut at: usize) -> bool {
    while at < bytes.len() {
        let end = bytes.len().min((at / SECTOR + 1) * SECTOR);
        if bytes[at..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}
