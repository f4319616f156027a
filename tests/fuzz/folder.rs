//! The folder of a log: its files, and the batches that they hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use millstream_log::{Log, ReadError};
use millstream_record::batches;
use tempfile::TempDir;

/// Makes a temporary folder, in memory where possible: a target opens thousands of logs.
pub(crate) fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// The content of a folder's files, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Reads all files of a folder.
pub(crate) fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().expect("a plain name"), fs::read(entry.path()).expect("a file"))
    };
    entries.map(read).collect()
}

/// Returns the files with a suffix.
pub(crate) fn with_suffix(files: &Files, suffix: &str) -> Files {
    let is_one = |name: &str| name.rsplit_once('.').is_some_and(|(_, found)| found == suffix);
    files.iter().filter(|(name, _)| is_one(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// A batch in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a log to its end, `bytes_max` at a time, and checks what it reads.
///
/// # Errors
/// A part of it cannot be read, or is damaged.
pub(crate) fn read_all(log: &Log, bytes_max: usize) -> Result<Vec<Stored>, ReadError> {
    let (mut found, mut offset) = (Vec::new(), log.log_start_offset());
    while let Some(slice) = log.read(offset, bytes_max, i64::MAX, true)? {
        slice.verify()?;
        let bytes = slice.read_to_bytes().expect("the file can be read");
        for batch in batches(&bytes) {
            let batch = batch.expect("a slice holds whole batches");
            batch.verify_crc().expect("a checked slice is undamaged");
            assert!(batch.next_offset() > offset, "a read goes on");
            offset = batch.next_offset();
            let (base_offset, bytes) = (batch.base_offset(), batch.bytes().to_vec());
            found.push(Stored { base_offset, next_offset: offset, bytes });
        }
    }
    Ok(found)
}
