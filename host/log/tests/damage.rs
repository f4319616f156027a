//! Damaged bytes in a log that is open: what is found by reading them, and what is served from then on.

mod common;

use std::fs;

use common::*;
use millstream_log::{Log, LogConfig, LogError, LogFault, OpenOptions, ReadError};

/// Batches of one record each, and the position of one of them.
fn log_of_ten() -> (tempfile::TempDir, Log, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("t-0");
    let mut log = Log::open(&dir, LogConfig::default(), OpenOptions::default()).unwrap();
    for _ in 0..10 {
        append(&mut log, &batch(1, b"some value"));
    }
    log.flush().unwrap();
    drop(log);
    let log = Log::open(&dir, LogConfig::default(), OpenOptions::default()).unwrap();
    let file = files(&dir, "log").remove(0);
    (folder, log, file)
}

fn read(log: &Log, offset: i64) -> Result<Option<millstream_log::LogSlice>, ReadError> {
    log.read(offset, 1 << 20, i64::MAX, true)
}

#[test]
fn what_another_process_has_written_is_checked_once() {
    let (_folder, log, _) = log_of_ten();
    let slice = read(&log, 0).unwrap().unwrap();
    assert!(slice.is_unchecked());
    slice.verify().unwrap();
    assert!(!read(&log, 0).unwrap().unwrap().is_unchecked());
    assert_eq!(log.reader().fault(), None);
}

#[test]
fn damage_that_was_found_is_left_out_and_is_a_fault_of_the_log() {
    let (_folder, mut log, file) = log_of_ten();
    let mut bytes = fs::read(&file).unwrap();
    let size = bytes.len() / 10;
    bytes[size * 4 + 70] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let slice = read(&log, 0).unwrap().unwrap();
    let error = slice.verify().unwrap_err();
    assert!(matches!(error, LogError::Corrupt { position, .. } if position == size as u64 * 4), "{error}");
    assert!(matches!(log.reader().fault(), Some(LogFault::Damaged(damage)) if damage == error.to_string()));
    assert_eq!(read(&log, 0).unwrap().unwrap().len, size * 4, "the batches before are served");
    assert!(matches!(read(&log, 4), Err(ReadError::Log(LogError::Corrupt { .. }))));
    assert_eq!(read(&log, 5).unwrap().unwrap().len, size * 5, "and those after it");
    // A leader without another replica goes on.
    append(&mut log, &batch(1, b"a leader without another replica goes on"));
}
