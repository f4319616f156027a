//! The snapshot of a voter: one file, replaced as a whole.
//!
//! A file is: CRC-32C of the rest, length of the description (each a little-endian `u32`), length of the state (`u64`),
//! description, state.

use bytes::{Buf, Bytes};

use super::disk::Disk;
use super::frame::crc;
use super::wal::StorageError;

/// The name of the file.
pub const NAME: &str = "snapshot";
/// The name while the file is written.
const NEW_NAME: &str = "snapshot.new";
const HEADER: usize = 16;
/// The largest snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// A snapshot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What the consensus says about the snapshot.
    pub description: Bytes,
    /// The state.
    pub state: Bytes,
}

/// Replaces the snapshot, and returns when the new one is durable.
pub fn save(disk: &dyn Disk, snapshot: &StoredSnapshot) -> Result<(), StorageError> {
    let size = HEADER + snapshot.description.len() + snapshot.state.len();
    if size > SNAPSHOT_BYTES_MAX {
        return Err(StorageError::TooLarge(size, SNAPSHOT_BYTES_MAX));
    }
    let mut bytes = Vec::with_capacity(size);
    bytes.extend([0; 4]);
    bytes.extend((snapshot.description.len() as u32).to_le_bytes());
    bytes.extend((snapshot.state.len() as u64).to_le_bytes());
    bytes.extend(&snapshot.description);
    bytes.extend(&snapshot.state);
    let sum = crc(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum);
    let io = |error| StorageError::Io { path: disk.path(NAME), error };
    remove_unfinished(disk)?;
    disk.append(NEW_NAME, &bytes).map_err(io)?;
    disk.sync(NEW_NAME).map_err(io)?;
    disk.rename(NEW_NAME, NAME).map_err(io)?;
    disk.sync_folder().map_err(io)
}

/// Returns the snapshot, if there is one.
pub fn load(disk: &dyn Disk) -> Result<Option<StoredSnapshot>, StorageError> {
    let io = |error| StorageError::Io { path: disk.path(NAME), error };
    if !disk.list().map_err(io)?.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    // A killed process may have left a file that is not durable.
    disk.sync(NAME).and_then(|()| disk.sync_folder()).map_err(io)?;
    let bytes = Bytes::from(disk.read(NAME, SNAPSHOT_BYTES_MAX as u64).map_err(io)?);
    let damaged = StorageError::Damaged { path: disk.path(NAME), offset: 0 };
    parse(bytes).map(Some).ok_or(damaged)
}

/// Deletes the file that an interrupted [`save`] leaves.
pub fn remove_unfinished(disk: &dyn Disk) -> Result<(), StorageError> {
    let io = |error| StorageError::Io { path: disk.path(NEW_NAME), error };
    let is_there = disk.list().map_err(io)?.iter().any(|name| name == NEW_NAME);
    if is_there { disk.remove(NEW_NAME).map_err(io) } else { Ok(()) }
}

fn parse(mut bytes: Bytes) -> Option<StoredSnapshot> {
    let stored_crc = bytes.try_get_u32_le().ok()?;
    if crc(&bytes) != stored_crc.to_le_bytes() {
        return None;
    }
    let description = bytes.try_get_u32_le().ok()? as usize;
    let state = usize::try_from(bytes.try_get_u64_le().ok()?).ok()?;
    (bytes.len().checked_sub(description)? == state).then(|| {
        let description = bytes.split_to(description);
        StoredSnapshot { description, state: bytes }
    })
}

#[cfg(test)]
mod tests {
    use super::super::disk::FileDisk;
    use super::*;

    fn snapshot(state: &[u8]) -> StoredSnapshot {
        StoredSnapshot { description: Bytes::from_static(b"about"), state: Bytes::copy_from_slice(state) }
    }

    #[test]
    fn a_snapshot_replaces_the_one_before_and_an_unfinished_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = FileDisk::open(folder.path()).expect("a folder");
        assert_eq!(load(&disk).expect("an empty folder"), None);
        save(&disk, &snapshot(b"one")).expect("writable");
        save(&disk, &snapshot(b"two")).expect("writable");
        std::fs::write(folder.path().join(NEW_NAME), b"half").expect("writable");
        assert_eq!(load(&disk).expect("a good file"), Some(snapshot(b"two")));
        remove_unfinished(&disk).expect("removable");
        assert!(!folder.path().join(NEW_NAME).exists());
    }

    #[test]
    fn a_changed_or_cut_snapshot_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = FileDisk::open(folder.path()).expect("a folder");
        save(&disk, &snapshot(b"state")).expect("writable");
        let path = folder.path().join(NAME);
        let bytes = std::fs::read(&path).expect("readable");
        let check = |changed: &[u8], what: &str| {
            std::fs::write(&path, changed).expect("writable");
            let error = load(&disk).expect_err(what).to_string();
            assert!(error.contains(&path.display().to_string()), "{what}: {error}");
        };
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, &format!("bit {bit}"));
        }
        for cut in 0..bytes.len() {
            check(&bytes[..cut], &format!("cut at {cut}"));
        }
    }
}
