//! Damaged bytes in a log that is open: what is found by reading them, and what is served from then on.

mod common;

use std::fs;

use common::*;
use millstream_log::{Log, LogConfig, LogError, LogFault, OpenOptions, ReadError};

/// Returns a config with an index entry for every third batch of these tests.
fn config() -> LogConfig {
    LogConfig { index_interval_bytes: 200, ..LogConfig::default() }
}

/// Returns a log of ten batches of one record each, and its file.
fn log_of_ten() -> (tempfile::TempDir, Log, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("t-0");
    let mut log = Log::open(&dir, config(), OpenOptions::default()).unwrap();
    for _ in 0..10 {
        append(&mut log, &batch(1, b"some value"));
    }
    log.close_clean().unwrap();
    drop(log);
    let log = Log::open(&dir, config(), clean(10)).unwrap();
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

/// The bytes of a batch's header before those that the CRC covers: base offset, length, leader epoch, magic, and CRC.
const OUTSIDE_CRC: usize = 21;

/// Calls `check` with each bit of the header of the fifth of ten batches flipped: a folder, the bytes, and the bit.
fn each_flip(check: impl Fn(&std::path::Path, &[u8], usize)) {
    let (folder, log, file) = log_of_ten();
    drop(log);
    let bytes = fs::read(&file).unwrap();
    let dir = folder.path().join("t-0");
    for bit in 0..OUTSIDE_CRC * 8 {
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 10 * 4 + bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &damaged).unwrap();
        check(&dir, &damaged, bit);
    }
}

#[test]
fn a_recovery_notices_each_flipped_bit_outside_the_crc() {
    each_flip(|dir, _, bit| {
        let opened = Log::open(dir, LogConfig::default(), unclean(0));
        assert!(matches!(opened, Err(LogError::Corrupt { .. })), "bit {bit}: {opened:?}");
    });
}

#[test]
fn a_follower_notices_each_flipped_bit_outside_the_crc() {
    each_flip(|_, bytes, bit| {
        let folder = tempdir();
        let mut log = Log::open(&folder.path().join("t-0"), LogConfig::default(), OpenOptions::default()).unwrap();
        let size = bytes.len() / 10;
        log.append_as_follower(&bytes[..size * 4], EPOCH).unwrap();
        let appended = log.append_as_follower(&bytes[size * 4..], EPOCH);
        assert!(appended.is_err(), "bit {bit}: {appended:?}");
        assert_eq!(log.log_end_offset(), 4, "bit {bit}: nothing is appended");
    });
}

#[test]
fn a_follower_takes_no_batch_of_an_epoch_above_the_leaders_or_below_its_own() {
    let (folder, log, file) = log_of_ten();
    let bytes = fs::read(&file).unwrap();
    drop((log, folder));
    let size = bytes.len() / 10;
    let folder = tempdir();
    let mut log = Log::open(&folder.path().join("t-0"), LogConfig::default(), OpenOptions::default()).unwrap();
    let error = log.append_as_follower(&bytes[..size], EPOCH - 1).unwrap_err().to_string();
    assert!(error.contains("at offset 0: a batch of leader epoch 3, above 2"), "{error}");
    log.append_as_follower(&bytes[..size], EPOCH + 1).unwrap();
    let mut older = bytes[size..size * 2].to_vec();
    millstream_record::patch::set_leader_epoch(&mut older, EPOCH - 1);
    let error = log.append_as_follower(&older, EPOCH + 1).unwrap_err().to_string();
    assert!(error.contains("at offset 1: a batch of leader epoch 2 after epoch 3"), "{error}");
}

#[test]
fn a_cold_read_notices_each_flipped_bit_outside_the_crc() {
    each_flip(|dir, bytes, bit| {
        let size = bytes.len() / 10;
        // One starts before it, two start at it, one ends with it, and one starts at an index entry.
        for (from, max_bytes) in [(0_usize, 1 << 20), (4, 1 << 20), (4, 1), (3, size * 2), (2, size * 3)] {
            // A clean stop: the start reads the end of the log only.
            let log = Log::open(dir, config(), clean(10)).unwrap();
            let noticed = match log.read(from as i64, max_bytes, i64::MAX, true) {
                // It may end before the damage.
                Ok(Some(slice)) if slice.len == size * (4_usize.saturating_sub(from)) => slice.verify().is_ok(),
                Ok(slice) => slice.is_some_and(|slice| slice.is_unchecked() && slice.verify().is_err()),
                Err(error) => matches!(error, ReadError::Log(LogError::Corrupt { .. })),
            };
            assert!(noticed, "bit {bit}: a read from {from} of {max_bytes} bytes");
            let fault = log.reader().fault();
            assert!(matches!(fault, Some(LogFault::Damaged(_))) || from < 4, "bit {bit} from {from}: {fault:?}");
        }
    });
}
