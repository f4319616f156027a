use std::path::{Path, PathBuf};

use super::super::disk::FileDisk;
use super::*;

fn open(folder: &Path) -> Result<Wal, StorageError> {
    open_with(folder, SEGMENT_BYTES)
}

fn open_with(folder: &Path, segment_bytes: u64) -> Result<Wal, StorageError> {
    Wal::open(Arc::new(FileDisk::open(folder).expect("a folder")), segment_bytes)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn purged(index: u64) -> Purged {
    Purged { index, position: bytes(&format!("position {index}")) }
}

/// What a log holds.
type State = (Option<Bytes>, Option<Purged>, u64, Vec<Bytes>);

fn state(wal: &Wal) -> State {
    let entries = wal.entries(0..u64::MAX).cloned().collect();
    (wal.vote().cloned(), wal.purged().cloned(), wal.end(), entries)
}

fn segment(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(name(sequence))
}

/// Writes every kind of record. Returns the state after each, and the length of the file.
fn write_all(folder: &Path) -> Vec<(usize, State)> {
    let mut wal = open(folder).expect("a new log");
    let mut seen = vec![(wal.length as usize, state(&wal))];
    let mut note = |wal: &Wal| seen.push((wal.length as usize, state(wal)));
    wal.save_vote(bytes("vote one")).expect("writable");
    note(&wal);
    wal.append(0, vec![bytes("zero"), bytes("one"), bytes("two")]).expect("writable");
    note(&wal);
    wal.truncate(2).expect("writable");
    note(&wal);
    wal.append(2, vec![bytes("another two")]).expect("writable");
    note(&wal);
    wal.purge(purged(0)).expect("writable");
    note(&wal);
    wal.save_vote(bytes("vote two")).expect("writable");
    note(&wal);
    seen
}

#[test]
fn a_cut_at_any_byte_keeps_the_records_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = write_all(folder.path());
    let path = segment(folder.path(), 1);
    let whole = std::fs::read(&path).expect("readable");
    assert_eq!(whole.len(), seen[seen.len() - 1].0);
    for cut in seen[0].0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).expect("writable");
        let (length, expected) = seen.iter().rev().find(|(length, _)| *length <= cut).expect("the head is whole");
        let wal = open(folder.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(state(&wal), *expected, "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).expect("a file").len(), *length as u64);
    }
}

#[test]
fn a_log_can_be_written_after_a_torn_tail() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = write_all(folder.path());
    let path = segment(folder.path(), 1);
    let whole = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
    let mut wal = open(folder.path()).expect("a torn tail");
    assert_eq!(state(&wal), seen[seen.len() - 2].1);
    wal.append(3, vec![bytes("three")]).expect("writable");
    assert_eq!(state(&open(folder.path()).expect("a good log")), state(&wal));
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_offset() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = write_all(folder.path());
    let path = segment(folder.path(), 1);
    let whole = std::fs::read(&path).expect("readable");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).expect("writable");
        let frame = seen.iter().rev().map(|(length, _)| *length).find(|length| *length <= bit / 8).unwrap_or(0);
        let error = open(folder.path()).err().unwrap_or_else(|| panic!("bit {bit} is not seen"));
        assert!(
            matches!(&error, StorageError::Damaged { offset, .. } if *offset == frame as u64),
            "bit {bit}: {error}"
        );
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_sector_that_was_never_written_is_a_torn_tail() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = open(folder.path()).expect("a new log");
    wal.save_vote(bytes("vote")).expect("writable");
    let before = (wal.length as usize, state(&wal));
    wal.append(0, vec![Bytes::from(vec![7; 3000])]).expect("writable");
    let path = segment(folder.path(), 1);
    let whole = std::fs::read(&path).expect("readable");
    for sector in 1..whole.len() / 512 {
        let mut torn = whole.clone();
        torn[sector * 512..(sector + 1) * 512].fill(0);
        std::fs::write(&path, &torn).expect("writable");
        assert_eq!(state(&open(folder.path()).expect("a torn tail")), before.1, "sector {sector}");
        assert_eq!(std::fs::metadata(&path).expect("a file").len(), before.0 as u64);
    }
}

#[test]
fn an_empty_or_missing_log_is_a_new_voter() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open(folder.path()).expect("a new log").directory_id();
    assert_eq!(open(folder.path()).expect("a good log").directory_id(), first);
    std::fs::write(segment(folder.path(), 1), b"").expect("writable");
    let second = open(folder.path()).expect("an empty file").directory_id();
    std::fs::remove_file(segment(folder.path(), 1)).expect("removable");
    let third = open(folder.path()).expect("a new log").directory_id();
    assert!(first != second && second != third && first != third);
}

/// Writes entries into many short segments.
fn write_segments(folder: &Path) -> Wal {
    let mut wal = open_with(folder, 200).expect("a new log");
    wal.save_vote(bytes("vote")).expect("writable");
    for index in 0..40 {
        wal.append(index, vec![bytes(&format!("entry {index} of the log"))]).expect("writable");
    }
    assert!(wal.segments.len() > 5);
    wal
}

#[test]
fn a_purge_deletes_segments_and_keeps_vote_and_directory_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = write_segments(folder.path());
    let before = (wal.directory_id(), wal.segments.len());
    wal.purge(purged(30)).expect("writable");
    assert!(wal.segments.len() < before.1, "no segment was deleted");
    assert!(!segment(folder.path(), 1).exists());
    let reopened = open_with(folder.path(), 200).expect("a good log");
    assert_eq!((reopened.directory_id(), state(&reopened)), (before.0, state(&wal)));
    assert_eq!(reopened.entries(0..u64::MAX).count(), 9);
    // A purge beyond the end, as after a snapshot of the leader.
    wal.purge(purged(100)).expect("writable");
    wal.append(101, vec![bytes("later")]).expect("writable");
    let reopened = open_with(folder.path(), 200).expect("a good log");
    assert_eq!((reopened.directory_id(), state(&reopened)), (before.0, state(&wal)));
    assert_eq!(state(&reopened).0, Some(bytes("vote")));
}

#[test]
fn a_truncated_log_survives_the_deletion_of_the_segments_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = write_segments(folder.path());
    wal.truncate(20).expect("writable");
    for index in 20..60 {
        wal.append(index, vec![bytes(&format!("entry {index} of another leader"))]).expect("writable");
    }
    for index in [10, 25, 39, 45] {
        wal.purge(purged(index)).expect("writable");
        assert_eq!(state(&open_with(folder.path(), 200).expect("a good log")), state(&wal), "purged to {index}");
    }
}

#[test]
fn a_missing_segment_is_an_error_that_names_it() {
    for missing in [1, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = write_segments(folder.path());
        assert!(wal.segments.len() > 3);
        drop(wal);
        let path = segment(folder.path(), missing);
        std::fs::remove_file(&path).expect("removable");
        let error = open_with(folder.path(), 200).err().expect("a segment is missing");
        assert!(matches!(&error, StorageError::Missing(named) if *named == path), "{error}");
    }
}

#[test]
fn a_torn_tail_before_the_last_segment_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(write_segments(folder.path()));
    let path = segment(folder.path(), 2);
    let whole = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
    let error = open_with(folder.path(), 200).err().expect("a damaged log");
    assert!(matches!(&error, StorageError::Damaged { path: named, .. } if *named == path), "{error}");
}

#[test]
fn a_crash_at_the_begin_of_a_segment_leaves_a_good_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let wal = write_segments(folder.path());
    let before = (wal.directory_id(), state(&wal));
    let next = segment(folder.path(), wal.last_sequence() + 1);
    let head = std::fs::read(segment(folder.path(), wal.last_sequence())).expect("readable");
    for cut in [0, 5, 30] {
        std::fs::write(&next, &head[..cut]).expect("writable");
        let reopened = open_with(folder.path(), 200).expect("a torn head");
        assert_eq!((reopened.directory_id(), state(&reopened)), before, "cut at {cut}");
    }
}

#[test]
fn entries_that_are_too_large_or_do_not_follow_are_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = open(folder.path()).expect("a new log");
    let large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    assert!(matches!(wal.append(0, vec![large]), Err(StorageError::TooLarge(..))));
    assert!(matches!(wal.append(1, vec![bytes("one")]), Err(StorageError::Gap { first: 1, end: 0 })));
    wal.append(0, vec![bytes("zero")]).expect("the log is still writable");
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()).expect("a new log"));
    let file = std::fs::OpenOptions::new().write(true).open(segment(folder.path(), 1)).expect("a file");
    file.set_len(FILE_BYTES_MAX + 1).expect("a sparse file");
    let error = open(folder.path()).err().expect("too long");
    assert!(error.to_string().contains("exceeds the limit"), "{error}");
}
