//! Which data folder each partition is in: a file of a broker with several data folders.
//!
//! ```text
//! 0
//! 1
//! orders 0 AAAAAAAAAAAAAAAAAAAAAQ AAAAAAAAAAAAAAAAAAAAAg
//! ```
//!
//! The fields are topic, partition, the id of the topic, and the `directory.id` of the folder. A partition that the
//! file has in a folder that is not there has lost its log. One that the file does not have is new.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use millstream_record::KafkaUuid;
use uuid::Uuid;

use crate::checkpoint::{CheckpointError, Fields, parse_lines};
use crate::fsutil::write_atomic;

/// Where the log of a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionDirectory {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The `directory.id` of the data folder.
    pub directory_id: Uuid,
}

/// The folder of each partition, by topic and partition.
pub type Directories = BTreeMap<(String, i32), PartitionDirectory>;

/// The file.
#[derive(Clone, Debug)]
pub struct PartitionDirectories {
    path: PathBuf,
}

impl PartitionDirectories {
    /// Returns the file in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("partition-directories") }
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged. The error has its path.
    pub fn read(&self) -> Result<Option<Directories>, CheckpointError> {
        let lines = match parse_lines::<4>(&self.path) {
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            lines => lines?,
        };
        let mut directories = Directories::new();
        for fields in lines {
            let partition: i32 = fields.number(1)?;
            let directory = PartitionDirectory { topic_id: id(&fields, 2)?, directory_id: id(&fields, 3)? };
            directories.insert((fields.text(0).to_owned(), partition), directory);
        }
        Ok(Some(directories))
    }

    /// Replaces the file durably.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write(&self, directories: &Directories) -> io::Result<()> {
        let mut text = format!("0\n{}\n", directories.len());
        for ((topic, partition), at) in directories {
            let (topic_id, directory_id) = (KafkaUuid(at.topic_id), KafkaUuid(at.directory_id));
            text.push_str(&format!("{topic} {partition} {topic_id} {directory_id}\n"));
        }
        write_atomic(&self.path, text.as_bytes())
    }
}

fn id<const N: usize>(fields: &Fields<'_, N>, at: usize) -> Result<Uuid, CheckpointError> {
    let text = fields.text(at);
    text.parse::<KafkaUuid>().map(|id| id.0).map_err(|_| fields.bad(&format!("{text:?} is not an id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = PartitionDirectories::new(folder.path());
        assert_eq!(file.read().unwrap(), None);
        let at = |id| PartitionDirectory { topic_id: Uuid::from_u128(id), directory_id: Uuid::from_u128(9) };
        let directories = Directories::from([(("a".to_owned(), 0), at(1)), (("b".to_owned(), 7), at(2))]);
        file.write(&directories).unwrap();
        assert_eq!(file.read().unwrap(), Some(directories));
        std::fs::write(folder.path().join("partition-directories"), "0\n1\na 0 x y\n").unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("partition-directories line 3: \"x\" is not an id"), "{error}");
    }
}
