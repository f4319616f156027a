//! Reserves the disk space of a segment before records are in it, for topics with `preallocate=true`.
//!
//! Apache Kafka sets the length of the file, and cuts it when the segment is closed. Here the blocks are reserved
//! beyond the end of the file, which keeps its length: a start and other programs find no empty tail in it. What is
//! left over is given back when the segment is closed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::error::LogError;
use crate::segment::Segment;

/// The size of the blocks in which a file's space is counted.
const BLOCK_LEN: u64 = 512;

/// The space that a file may have beyond its end without being cut: file systems reserve a little by themselves.
const SPARE_MAX: u64 = 256 * 1024;

impl Segment {
    /// Reserves the space of an empty segment. If that fails, the segment grows as it is written.
    pub(crate) fn preallocate(&self, file: &File, bytes: u64) {
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => {
                tracing::debug!(segment = %self.path().display(), "the file system cannot reserve space");
            }
            Err(error) => {
                // A full disk may have given a part.
                let given_back = file.set_len(0);
                tracing::warn!(
                    segment = %self.path().display(),
                    "cannot reserve {bytes} bytes, as preallocate asks for: {error}"
                );
                if let Err(error) = given_back {
                    tracing::warn!(segment = %self.path().display(), "cannot give reserved space back: {error}");
                }
            }
        }
    }

    /// Gives the reserved space back that has no records. Nothing is appended meanwhile.
    pub(crate) fn trim(&self) -> Result<(), LogError> {
        let (open, size) = (self.open()?, self.size());
        let trim = |file: &File| -> io::Result<()> {
            let metadata = file.metadata()?;
            let is_exact = metadata.len() == size;
            if is_exact && metadata.blocks() * BLOCK_LEN > size + SPARE_MAX {
                file.set_len(size)?;
            }
            Ok(())
        };
        trim(&open.file).map_err(LogError::io("cannot truncate", &self.path()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};

    use super::*;
    use crate::{Log, LogConfig, OpenOptions};

    const SEGMENT: u32 = 4 << 20;

    fn append(log: &mut Log, bytes: usize) {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.append(1, None, Some(&vec![7; bytes]), []).unwrap();
        log.append(&CheckedBatch::of_own(&batch.build().unwrap()).unwrap(), 0, 1).unwrap();
    }

    /// Returns the length of the first segment with this base offset, and its space on the disk.
    fn lengths(dir: &Path, base_offset: i64) -> (u64, u64) {
        let metadata = std::fs::metadata(dir.join(format!("{base_offset:020}.log"))).unwrap();
        (metadata.len(), metadata.blocks() * BLOCK_LEN)
    }

    fn config(preallocate: bool) -> LogConfig {
        LogConfig { segment_bytes: SEGMENT, preallocate, max_message_bytes: SEGMENT, ..LogConfig::default() }
    }

    #[test]
    fn a_segment_has_its_space_from_the_first_record_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), config(true), OpenOptions::default()).unwrap();
        assert_eq!(lengths(dir.path(), 0), (0, 0), "an empty log needs none");
        append(&mut log, 100);
        let (len, space) = lengths(dir.path(), 0);
        assert!(len < 1000 && space >= u64::from(SEGMENT), "{len} bytes in {space}");
        append(&mut log, 3 << 20);
        append(&mut log, 3 << 20);
        let (len, space) = lengths(dir.path(), 0);
        assert!(space <= len + SPARE_MAX, "the space is given back at the roll: {len} bytes in {space}");
        let (len, space) = lengths(dir.path(), 2);
        assert!(len < 4 << 20 && space >= u64::from(SEGMENT), "{len} bytes in {space}");
        let end = log.close_clean().unwrap();
        let (len, space) = lengths(dir.path(), 2);
        assert!(space <= len + SPARE_MAX, "the space is given back at a stop: {len} bytes in {space}");
        drop(log);
        let options = OpenOptions { recovery_point: end, clean_shutdown: true, ..OpenOptions::default() };
        assert_eq!(Log::open(dir.path(), config(true), options).unwrap().log_end_offset(), 3);
    }

    #[test]
    fn a_small_log_gives_its_space_back_at_a_stop_and_a_kill_leaves_it_whole() {
        for stops in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::open(dir.path(), config(true), OpenOptions::default()).unwrap();
            append(&mut log, 100);
            if stops {
                log.close_clean().unwrap();
                assert!(lengths(dir.path(), 0).1 <= SPARE_MAX);
            }
            drop(log);
            let mut log = Log::open(dir.path(), config(false), OpenOptions::default()).unwrap();
            assert_eq!(log.log_end_offset(), 1);
            append(&mut log, 100);
            append(&mut log, 3 << 20);
            append(&mut log, 3 << 20);
            let (len, space) = lengths(dir.path(), 0);
            assert!(space <= len + SPARE_MAX, "{len} bytes in {space}");
        }
    }
}
