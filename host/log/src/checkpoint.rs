//! Kafka's text checkpoints: a version line, a count line, then one line per entry.
//!
//! ```text
//! 0
//! 3
//! orders 0 1200
//! orders 1 37
//! #crc32c 0 1405061463
//! ```
//!
//! The last entry is a checksum of the others, since a flipped bit gives another offset that looks as good. Kafka takes
//! it for a topic that it does not have. A file without it, such as one of Kafka, is taken as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crc_fast::crc32_iscsi;
use thiserror::Error;

use crate::fsutil::{read_text, write_atomic};

/// The largest checkpoint that is read, in bytes. A million partitions with the longest names stay below it.
const CHECKPOINT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The name of the entry that has the checksum. No topic can have it.
const CHECKSUM: &str = "#crc32c";

/// Why a checkpoint cannot be read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The operating system reported an error.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is not a checkpoint.
    #[error("{} line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The fields of one line.
pub(crate) struct Fields<'a, const N: usize> {
    path: &'a Path,
    line: usize,
    values: [String; N],
}

impl<const N: usize> Fields<'_, N> {
    pub(crate) fn text(&self, at: usize) -> &str {
        &self.values[at]
    }

    pub(crate) fn number<T: FromStr>(&self, at: usize) -> Result<T, CheckpointError> {
        self.values[at].parse().map_err(|_| self.bad(&format!("{:?} is not a number that fits", self.values[at])))
    }

    pub(crate) fn bad(&self, reason: &str) -> CheckpointError {
        CheckpointError::Malformed { path: self.path.to_path_buf(), line: self.line, reason: reason.to_owned() }
    }
}

/// Reads the lines of a checkpoint with `N` fields a line. A missing file is an error of kind `NotFound`.
pub(crate) fn parse_lines<const N: usize>(path: &Path) -> Result<Vec<Fields<'_, N>>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_path_buf(), source };
    let bad = |line: usize, reason: String| CheckpointError::Malformed { path: path.to_path_buf(), line, reason };
    let text = read_text(path, CHECKPOINT_BYTES_MAX).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => bad(1, source.to_string()),
        _ => io(source),
    })?;
    let mut lines = text.lines();
    match lines.next() {
        Some("0") => {}
        // Kafka creates the file like this, before there is anything to write.
        None => return Ok(Vec::new()),
        Some(other) => return Err(bad(1, format!("version {other:?} is not 0"))),
    }
    let count: usize = match lines.next().map(str::parse) {
        Some(Ok(count)) => count,
        _ => return Err(bad(2, "the number of entries is missing".to_owned())),
    };
    let mut entries = Vec::new();
    for (at, line) in lines.enumerate() {
        let mut values = line.split_ascii_whitespace().map(str::to_owned);
        let fields: [Option<String>; N] = std::array::from_fn(|_| values.next());
        if fields.iter().any(Option::is_none) || values.next().is_some() {
            return Err(bad(at + 3, format!("{line:?} has not {N} fields")));
        }
        entries.push(Fields { path, line: at + 3, values: fields.map(Option::unwrap_or_default) });
    }
    if !text.ends_with('\n') {
        return Err(bad(entries.len() + 2, "the last line is cut off".to_owned()));
    }
    if entries.len() != count {
        return Err(bad(2, format!("{count} entries are announced, {} are there", entries.len())));
    }
    Ok(entries)
}

/// Offsets by topic and partition: one file for all partitions of a data folder.
#[derive(Clone, Debug)]
pub struct OffsetCheckpoint {
    path: PathBuf,
}

/// The content of an [`OffsetCheckpoint`].
pub type Offsets = BTreeMap<(String, i32), i64>;

impl OffsetCheckpoint {
    /// The offset up to which each log was durable.
    pub const RECOVERY_POINT: &'static str = "recovery-point-offset-checkpoint";
    /// The start of each log that DeleteRecords has moved.
    pub const LOG_START: &'static str = "log-start-offset-checkpoint";
    /// The first offset of each log that was not compacted.
    pub const FIRST_DIRTY: &'static str = "cleaner-offset-checkpoint";
    /// The high watermark of each partition.
    pub const HIGH_WATERMARK: &'static str = "replication-offset-checkpoint";

    /// Returns the checkpoint `name` in a data folder.
    pub fn new(data_dir: &Path, name: &str) -> Self {
        Self { path: data_dir.join(name) }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. A missing file has no entries.
    ///
    /// A broker can start with a damaged recovery-point checkpoint: without entries every log is scanned from its
    /// start.
    pub fn read(&self) -> Result<Offsets, CheckpointError> {
        let lines = match parse_lines::<3>(&self.path) {
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Offsets::new());
            }
            lines => lines?,
        };
        if lines.is_empty() && fs::metadata(&self.path).is_ok_and(|file| file.len() == 0) {
            let reason = "the file is empty".to_owned();
            return Err(CheckpointError::Malformed { path: self.path.clone(), line: 1, reason });
        }
        let (mut offsets, mut text) = (Offsets::new(), String::new());
        for fields in lines {
            let partition: i32 = fields.number(1)?;
            let offset: i64 = fields.number(2)?;
            if partition < 0 || offset < 0 {
                return Err(fields.bad("partitions and offsets are not negative"));
            }
            if fields.text(0) == CHECKSUM {
                if offset != checksum(&text) {
                    return Err(fields.bad("the checksum is not that of the lines before"));
                }
                continue;
            }
            text.push_str(&entry(fields.text(0), partition, offset));
            offsets.insert((fields.text(0).to_owned(), partition), offset);
        }
        Ok(offsets)
    }

    /// Replaces the file durably.
    pub fn write<'a>(&self, offsets: impl IntoIterator<Item = (&'a str, i32, i64)>) -> io::Result<()> {
        let mut count = 0usize;
        let mut lines = String::new();
        for (topic, partition, offset) in offsets {
            lines.push_str(&entry(topic, partition, offset));
            count += 1;
        }
        write_atomic(&self.path, content(&lines, count).as_bytes())
    }
}

fn entry(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic} {partition} {offset}\n")
}

fn checksum(lines: &str) -> i64 {
    i64::from(crc32_iscsi(lines.as_bytes()))
}

/// Returns the whole text of a file with these lines.
fn content(lines: &str, count: usize) -> String {
    format!("0\n{}\n{lines}{}", count + 1, entry(CHECKSUM, 0, checksum(lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_in_kafkas_form() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = OffsetCheckpoint::new(dir.path(), OffsetCheckpoint::RECOVERY_POINT);
        assert!(checkpoint.read().unwrap().is_empty());
        checkpoint.write([("orders", 0, 12), ("orders", 1, i64::MAX)]).unwrap();
        let text = fs::read_to_string(checkpoint.path()).unwrap();
        let (lines, crc) = text.split_once("#crc32c 0 ").unwrap();
        assert_eq!(lines, format!("0\n3\norders 0 12\norders 1 {}\n", i64::MAX));
        let read = checkpoint.read().unwrap();
        assert_eq!((read.len(), read[&("orders".to_owned(), 0)]), (2, 12));
        // Without the checksum, as Kafka writes it.
        fs::write(checkpoint.path(), lines.replacen('3', "2", 1)).unwrap();
        assert_eq!(checkpoint.read().unwrap(), read);
        assert!(crc.trim_end().parse::<u32>().is_ok(), "{crc}");
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = OffsetCheckpoint::new(dir.path(), OffsetCheckpoint::LOG_START);
        checkpoint.write([("orders", 0, 12), ("orders", 1, 37)]).unwrap();
        let (bytes, sound) = (fs::read(checkpoint.path()).unwrap(), checkpoint.read().unwrap());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(checkpoint.path(), &damaged).unwrap();
            // A checksum with another name is one more topic. Other white space means the same.
            if let Ok(mut read) = checkpoint.read() {
                read.retain(|(topic, _), _| topic == "orders");
                assert_eq!(read, sound, "bit {bit}");
            }
        }
        for len in 0..bytes.len() {
            fs::write(checkpoint.path(), &bytes[..len]).unwrap();
            assert!(checkpoint.read().is_err(), "{len} bytes");
        }
        checkpoint.write([]).unwrap();
        assert!(checkpoint.read().unwrap().is_empty());
    }

    #[test]
    fn damage_is_named_by_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = OffsetCheckpoint::new(dir.path(), OffsetCheckpoint::LOG_START);
        for (content, line) in [
            ("\n", 1),
            ("1\n0\n", 1),
            ("0\n", 2),
            ("0\nx\n", 2),
            ("0\n2\na 0 1\n", 2),
            ("0\n1\na 0\n", 3),
            ("0\n1\na 0 1 2\n", 3),
            ("0\n1\na 0 -1\n", 3),
            ("0\n1\na 0 99999999999999999999\n", 3),
        ] {
            fs::write(checkpoint.path(), content).unwrap();
            let error = checkpoint.read().unwrap_err().to_string();
            assert!(error.contains(&format!("log-start-offset-checkpoint line {line}:")), "{content:?}: {error}");
        }
        fs::write(checkpoint.path(), [0xff, 0xfe]).unwrap();
        assert!(checkpoint.read().unwrap_err().to_string().contains("not text"));
    }
}
