//! Shared helpers of the log's tests: batches, and the content of a log.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use millstream_log::{AppendError, AppendOrigin, Appended, Log, LogConfig, OpenOptions, Verification};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType, batches};
use tempfile::TempDir;

pub const EPOCH: i32 = 3;
pub const NOW: i64 = 1_700_000_000_000;

/// A client of which nothing is known.
pub const CLIENT: AppendOrigin = AppendOrigin::Client(Verification::Unknown);

/// Makes a temporary folder, in memory where possible, since these tests sync thousands of times.
pub fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A producer's id, epoch, and sequence of the first record.
#[derive(Clone, Copy)]
pub struct Producer(pub i64, pub i16, pub i32);

/// Returns a batch with one record for each timestamp.
pub fn batch_with(codec: Codec, producer: Option<Producer>, timestamps: &[i64], value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    if let Some(Producer(id, epoch, sequence)) = producer {
        builder.producer(id, epoch, sequence);
    }
    for timestamp in timestamps {
        builder.append(*timestamp, Some(b"key"), Some(value), []).unwrap();
    }
    builder.build().unwrap()
}

/// Returns an uncompressed batch of `count` records with the given value.
pub fn batch(count: usize, value: &[u8]) -> Vec<u8> {
    batch_with(Codec::None, None, &vec![NOW; count], value)
}

pub fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 2000, index_interval_bytes: 200, ..LogConfig::default() }
}

pub fn unclean(recovery_point: i64) -> OpenOptions {
    OpenOptions { recovery_point, ..OpenOptions::default() }
}

pub fn clean(recovery_point: i64) -> OpenOptions {
    OpenOptions { recovery_point, clean_shutdown: true, ..OpenOptions::default() }
}

pub fn open(dir: &Path, config: &LogConfig, options: OpenOptions) -> Log {
    Log::open(dir, config.clone(), options).unwrap()
}

/// Appends as the leader of `epoch` at the time `now_ms`.
pub fn append_with(log: &mut Log, bytes: &[u8], epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
    log.append(&CheckedBatch::of_own(bytes).unwrap(), epoch, now_ms)
}

pub fn append(log: &mut Log, bytes: &[u8]) -> i64 {
    append_with(log, bytes, EPOCH, NOW).unwrap().batch().base_offset
}

/// Reads everything from `from` on as a consumer does, slice after slice.
pub fn read_all(log: &Log, from: i64, max_bytes: usize) -> Vec<(i64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut offset = from;
    while let Some(slice) = log.read(offset, max_bytes, i64::MAX, true).unwrap() {
        let bytes = slice.read_to_bytes().unwrap();
        for batch in batches(&bytes) {
            let batch = batch.expect("a slice holds whole batches");
            batch.verify_crc().unwrap();
            let records = batch.records(1 << 20).unwrap();
            for record in records.iter() {
                let record = record.unwrap();
                found.push((record.offset, record.timestamp, record.value.unwrap_or_default().to_vec()));
            }
            offset = batch.next_offset();
        }
    }
    found
}

/// Returns the offsets of all records from `from` on.
pub fn offsets(log: &Log, from: i64) -> Vec<i64> {
    read_all(log, from, 700).into_iter().map(|(offset, _, _)| offset).collect()
}

/// Returns the files of a folder with one of these suffixes, in order.
pub fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .collect();
    files.sort();
    files
}

/// Replaces a folder by a copy of another one.
pub fn copy_dir(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
