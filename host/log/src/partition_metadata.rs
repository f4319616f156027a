//! Reads and writes `partition.metadata`, the file that ties a partition's folder to its topic id.

use std::fs;
use std::io;
use std::path::Path;

use millstream_record::KafkaUuid;
use uuid::Uuid;

use crate::fsutil::read_small;

/// The name of the file in a partition's folder.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";

/// Reads the topic id of a partition's folder; returns `None` if the file is missing or malformed.
pub(crate) fn read_topic_id(dir: &Path) -> io::Result<Option<Uuid>> {
    match read_small(&dir.join(PARTITION_METADATA)) {
        Ok(text) => {
            let mut lines = text.lines();
            let version = lines.next() == Some("version: 0");
            let id = lines.next().and_then(|line| line.strip_prefix("topic_id: ")).and_then(|id| id.parse().ok());
            Ok(id.filter(|_| version).map(|KafkaUuid(id)| id))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes `partition.metadata` without syncing it. Creating 10,000 partitions would otherwise wait for the disk 10,000
/// times.
pub(crate) fn write_topic_id(dir: &Path, id: Uuid) -> io::Result<()> {
    fs::write(dir.join(PARTITION_METADATA), format!("version: 0\ntopic_id: {}", KafkaUuid(id)))
}
